"""State level: whole trajectories {s, a, r, s, a, r, ...} from a diffusion model of numbers, without pictures.

ATraDiff's own ablation (section 5.4, appendix A.2) and the step from SynthER to it: what SynthER does with one
transition is done with the k - 1 of a window of k frames, by the same EDM and residual MLP, only deeper; and, if
wanted, on condition of the current state. The three rungs of the paper's Table 5 in numbers instead of pictures are
`synther.py`, StateLevel, and StateLevel with `condition`.

A row: k states, k - 1 actions, on dense tasks k - 1 rewards, and for each transition 1 if the task is over by then,
else 0. On sparse tasks the reward is where the task ends, so that is said once. The condition goes into the denoiser
beside the noise (edm.py), so what is sampled begins in the given state to the bit.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pixeltraj.checkpoint import Checkpoint
from pixeltraj.diffuser import Diffuser, DiffuserConfig, read_config
from pixeltraj.errors import PixeltrajError
from pixeltraj.replay_buffer import Imagine
from pixeltraj.store import Store
from pixeltraj.task import Task
from pixeltraj.trajectory import Trajectory
from pixeltraj.windows import store_windows

WEIGHTS, CONFIG = "state_level.safetensors", "config.json"
TITLE = "state level"


@dataclass(frozen=True, kw_only=True)
class StateLevelConfig(DiffuserConfig):
    """Widths and steps are a CPU's. A step at depth 128 takes far longer than one of SynthER's six
    blocks: where that is too much, --depth 24 is what the paper began from."""

    k: int = 5
    """Frames of a trajectory; one transition fewer."""
    condition: bool = False
    """Trajectories begin in a given state; without it they begin anywhere, as SynthER's transitions do."""
    depth: int = 128
    """Blocks of the residual MLP, the paper's."""

    def check(self) -> None:
        """Raise PixeltrajError where nothing could be trained like this."""
        super().check()
        if self.k < 2:
            raise PixeltrajError(f"--k is {self.k}; a transition takes 2 frames")


class StateLevel:
    """`fit` on rows of a store's windows, then `sample`, or `sample_from` states."""

    def __init__(self, task: Task, config: StateLevelConfig) -> None:
        """Random weights. Raises PixeltrajError on a bad config."""
        config.check()  # before sizes are made of its k
        self.task, self.config = task, config
        self.parts = row_parts(task, config.k)
        known = task.state_size if config.condition else 0
        self.diffuser = Diffuser(sum(self.parts), config, TITLE, known, flags=config.k - 1)
        self.about: dict[str, Any] = {}
        """How it was trained, JSON-able: the last fit's windows, and the loss of the averaged weights on them."""

    def fit(self, rows: np.ndarray, checkpoint: Checkpoint | None = None) -> None:
        """Train `config.steps` more on rows (W, D) of `window_rows`, and with their statistics.

        checkpoint: gone on from where it holds a part of this fit, and left behind for its owner to remove. Raises
        PixeltrajError without windows, and where training diverges.
        """
        if not len(rows):
            raise PixeltrajError(f"there is no window of {self.config.k} frames to learn from; collect longer episodes")
        self.diffuser.fit(rows, checkpoint)
        self.about = {"windows": len(rows), "digest": digest(rows), **self.diffuser.about}

    def sample(self, n: int, rng: torch.Generator) -> list[Trajectory]:
        """n trajectories from anywhere. Raises PixeltrajError where it was trained on the condition of a start."""
        if self.config.condition:
            raise PixeltrajError("this state level sets out from given states; give some, or train without --condition")
        return self._trajectories(self.diffuser.sample(n, rng))

    def sample_from(self, starts: np.ndarray, rng: torch.Generator) -> list[Trajectory]:
        """A trajectory from each of starts (B, S), which is its first state to the bit.

        Raises PixeltrajError where it was trained without the condition, and on states of another size.
        """
        if not self.config.condition:
            raise PixeltrajError("this state level sets out from anywhere; train it with --condition to give it starts")
        if starts.ndim != 2 or starts.shape[1] != self.task.state_size:
            raise PixeltrajError(f"{self.task.name} has states of {self.task.state_size}, not {starts.shape[1:]}")
        return self._trajectories(self.diffuser.sample(len(starts), rng, starts.astype(np.float32, copy=False)))

    def _trajectories(self, rows: np.ndarray) -> list[Trajectory]:
        """Up to the first transition by which the task is over, which terminates; actions clipped to [-1, 1].

        Sparse rewards are 1 where it terminates, else 0; dense ones are as they were sampled. Keypoints are zeros:
        states alone do not tell them.
        """
        count, task = self.config.k - 1, self.task
        states, actions, rewards, over = np.split(rows, np.cumsum(self.parts)[:-1], axis=1)
        states = states.reshape(len(rows), count + 1, task.state_size)
        actions = actions.reshape(len(rows), count, task.action_size).clip(-1.0, 1.0)
        ended = over > 0.5
        kept = np.where(ended.any(axis=1), 1 + ended.argmax(axis=1), count)
        trajectories = []
        for i, n in enumerate(kept):
            terminations = ended[i, :n].copy()
            trajectories.append(
                Trajectory(
                    states=states[i, : n + 1],
                    actions=actions[i, :n],
                    rewards=terminations.astype(np.float32) if task.reward == "sparse" else rewards[i, :n],
                    terminations=terminations,
                    truncations=np.zeros(n, dtype=bool),
                    keypoints=np.zeros((n + 1, len(task.keypoints), 3), dtype=np.float32),
                    origin={"synthetic": "state-level"},
                )
            )
        return trajectories

    def save(self, folder: Path) -> None:
        """The weights, then the JSON that makes them count."""
        self.diffuser.save(folder, WEIGHTS, CONFIG, self.task, self.about)

    @classmethod
    def load(cls, folder: Path, task: Task | None = None) -> "StateLevel":
        """What `save` wrote. Raises PixeltrajError where it is of another task, or damaged."""
        content, task = read_config(folder / CONFIG, TITLE, task)
        level = cls(task, StateLevelConfig(**content["config"]))
        level.diffuser.load_weights(folder / WEIGHTS, content["step"])
        level.about = content["about"]
        return level


@dataclass(frozen=True)
class StateLevelImagine:
    """Imagination while an agent learns (`pixeltraj.eval.arm.Arm.imagine`): from s' on, without any picture."""

    model: Path
    """Folder of a state level that was trained with --condition."""

    def __call__(self, task: Task) -> Imagine:
        """Raises PixeltrajError where the model cannot set out from a state."""
        level = StateLevel.load(self.model, task)
        if not level.config.condition:
            raise PixeltrajError(f"{self.model} was trained without --condition, so it cannot imagine on from a state")

        def imagine(states: np.ndarray, snapshots: np.ndarray, seed: int) -> list[Trajectory]:
            return level.sample_from(states, torch.Generator().manual_seed(seed))

        return imagine


def row_parts(task: Task, k: int) -> list[int]:
    """How many numbers of a row are states, actions, rewards, and flags."""
    return [k * task.state_size, (k - 1) * task.action_size, k - 1 if task.reward == "dense" else 0, k - 1]


def window_rows(store: Store, k: int, episodes: Sequence[int]) -> np.ndarray:
    """(W, D) float32, a row for each window of k frames of the episodes, with redundant padding (windows.py).

    Padded transitions stand still: no action, no reward, and the task is over. The window that begins at an episode's
    end is left out, since nothing is imagined from there.
    """
    rows = store_windows(store, k, list(episodes))
    rows = rows[rows[:, 0] != rows[:, 1]]
    actions, rewards, terminations = (store.windows(n, rows[:, :-1]) for n in ("actions", "rewards", "terminations"))
    parts = store.windows("states", rows), actions, rewards, np.maximum.accumulate(terminations, axis=1)
    sizes = row_parts(store.task, k)
    flat = [part.reshape(len(rows), size) if size else rewards[:, :0] for part, size in zip(parts, sizes, strict=True)]
    return np.concatenate(flat, axis=1, dtype=np.float32)


def digest(rows: np.ndarray) -> str:
    """16 hex digits that tell these rows from others."""
    return sha256(np.ascontiguousarray(rows).tobytes()).hexdigest()[:16]


def training_of(config: StateLevelConfig, rows: np.ndarray) -> dict[str, Any]:
    """What a training follows from: for checkpoints and provenance."""
    return {**asdict(config), "windows": digest(rows)}
