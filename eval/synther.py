"""SynthER (Lu et al. 2023): a diffusion model of single transitions, without pictures, goals or time.

The baseline, as the paper describes it: (s, a, r, s', terminal) in one vector, every number but the terminal with
mean 0 and standard deviation 1; an EDM with a residual MLP; nothing conditions it, and nothing holds s and s'
together but what it has learned. What a CPU made differ from the paper's setting stands in `SyntherConfig`.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pixeltraj.checkpoint import Checkpoint
from pixeltraj.diffuser import Diffuser, DiffuserConfig, read_config
from pixeltraj.errors import PixeltrajError
from pixeltraj.replay_buffer import Batch
from pixeltraj.store import Store
from pixeltraj.task import Task
from pixeltraj.trajectory import Trajectory

WEIGHTS, CONFIG = "synther.safetensors", "synther.json"
TITLE = "SynthER"


@dataclass(frozen=True, kw_only=True)
class SyntherConfig(DiffuserConfig):
    """The paper trains 100,000 steps of 256 to 1024 transitions at width 1024 to 2048, and samples in 128 steps."""


class Synther:
    """`fit`, then `sample`. Fitted again, on more data, it goes on from the weights it has; the paper starts anew
    each time, which is a new Synther."""

    def __init__(self, task: Task, config: SyntherConfig) -> None:
        """Random weights. Raises PixeltrajError on a bad config."""
        self.task, self.config = task, config
        self.size = 2 * task.state_size + task.action_size + 2
        """Numbers of a transition."""
        self.diffuser = Diffuser(self.size, config, TITLE)
        self.about: dict[str, Any] = {}
        """How it was trained, JSON-able: the last fit's transitions, and the loss of the averaged weights on them."""

    def fit(self, data: Batch, checkpoint: Checkpoint | None = None) -> None:
        """Train `config.steps` more, on these transitions and with their statistics.

        checkpoint: gone on from where it holds a part of this fit, and left behind for its owner to remove. Raises
        PixeltrajError without transitions, and where training diverges.
        """
        rows = vectors(data)
        if not len(rows):
            raise PixeltrajError("SynthER has no transitions to learn from; collect some")
        self.diffuser.fit(rows, checkpoint)
        self.about = {"transitions": len(rows), "digest": digest(data), **self.diffuser.about}

    def sample(self, n: int, rng: torch.Generator) -> Batch:
        """n transitions. Raises PixeltrajError where n is below 1, before any fit, and on samples that are no numbers.

        Actions are clipped to [-1, 1]. Sparse rewards are 0 or 1, whichever is nearer, and 1 terminates; otherwise
        the terminal number terminates above 0.5, and rewards are as they were sampled.
        """
        rows = self.diffuser.sample(n, rng)
        ends = np.cumsum([self.task.state_size, self.task.action_size, 1, self.task.state_size])
        states, actions, rewards, next_states, terminal = np.split(rows, ends, axis=1)
        rewards, terminations = rewards[:, 0], terminal[:, 0] > 0.5
        if self.task.reward == "sparse":
            terminations = rewards > 0.5
            rewards = terminations.astype(np.float32)
        return Batch(states, actions.clip(-1, 1), rewards, next_states, terminations, np.full(n, True))

    def save(self, folder: Path) -> None:
        """The weights, then the JSON that makes them count."""
        self.diffuser.save(folder, WEIGHTS, CONFIG, self.task, self.about)

    @classmethod
    def load(cls, folder: Path, task: Task | None = None) -> "Synther":
        """What `save` wrote. Raises PixeltrajError where it is of another task, or damaged."""
        content, task = read_config(folder / CONFIG, TITLE, task)
        synther = cls(task, SyntherConfig(**content["config"]))
        synther.diffuser.load_weights(folder / WEIGHTS, content["step"])
        synther.about = content["about"]
        return synther


def vectors(data: Batch) -> np.ndarray:
    """(B, 2 S + A + 2) float32: state, action, reward, next state, termination."""
    ends = data.rewards[:, None], data.next_states, data.terminations[:, None]
    return np.concatenate([data.states, data.actions, *ends], axis=1, dtype=np.float32)


def transitions(store: Store, episodes: list[int]) -> Batch:
    """All of these episodes of a store, in order."""
    first = np.concatenate([np.arange(store.offsets[e], store.offsets[e + 1] - 1) for e in episodes])
    read = {name: store.read(name, 0, store.frame_count) for name in ("states", "actions", "rewards", "terminations")}
    states, actions, rewards, terminations = read.values()
    return Batch(
        states[first],
        actions[first],
        rewards[first],
        states[first + 1],
        terminations[first],
        np.full(len(first), False),
    )


def trajectories(data: Batch, task: Task) -> list[Trajectory]:
    """Each transition as an episode of its own, as a store takes them. Keypoints are zeros: SynthER knows none."""
    keypoints = np.zeros((2, len(task.keypoints), 3), dtype=np.float32)
    return [
        Trajectory(
            states=np.stack([data.states[i], data.next_states[i]]),
            actions=data.actions[i : i + 1],
            rewards=data.rewards[i : i + 1],
            terminations=data.terminations[i : i + 1],
            truncations=np.zeros(1, dtype=bool),
            keypoints=keypoints,
            origin={"synthetic": "synther"},
        )
        for i in range(len(data.states))
    ]


def digest(data: Batch) -> str:
    """16 hex digits that tell these transitions from others."""
    return hashlib.sha256(vectors(data).tobytes()).hexdigest()[:16]
