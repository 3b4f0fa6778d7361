"""Decoder: latents of a grid -> trajectory (ATraDiff, section 4.1).

Shapes: B batch, K frames, N keypoints, S state, A action, L = 12 latents a tile, R = K / 5 rows of tiles.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pixeltraj.decode.demonstrator import Demonstrator
from pixeltraj.decode.features import grid_features, tile_features
from pixeltraj.decode.fit import Fit
from pixeltraj.decode.heads import Heads, HeadsConfig
from pixeltraj.decode.motion import Motion
from pixeltraj.errors import PixeltrajError
from pixeltraj.files import file_hash, read_json, write_json, write_whole
from pixeltraj.generator import Generator
from pixeltraj.grid import COLUMNS, LATENT
from pixeltraj.task import Task
from pixeltraj.tasks import get_task
from pixeltraj.trajectory import Trajectory

SCHEMA = 6
WEIGHTS, CONFIG = "decoder.safetensors", "config.json"
BATCH = 32
Actions = Literal["read", "sampled"]
"""Where actions come from: off the pictures, or from the decoder's `Demonstrator`, given the decoded states."""
CARRY = 0.8
"""Share of a frame's correction that the next one needs too: what was misread once is misread again. All of it where
things can be anywhere (`Task.movable`): what is misread far from the data is misread in all of a window."""
FARTHEST = 0.1
"""Metres. A frame 0 that disagrees with the known state by more was not understood: the frames after it learn
nothing from its correction."""


@dataclass
class Reading:
    """What was read from whole grids, before trajectories are cut at their end."""

    states: np.ndarray
    """(B, K, S) float32; row 0 is the known state"""
    keypoints: np.ndarray
    """(B, K, N, 3) float32, metres from the camera's anchor"""
    actions: np.ndarray
    """(B, K-1, A) float32"""
    rewards: np.ndarray
    """(B, K-1) float32"""
    terminations: np.ndarray
    """(B, K-1) bool"""
    ends: np.ndarray
    """(B, K-1) float32, logits of a termination before they are held against the threshold"""
    uncertainty: np.ndarray
    """(B, K) float32, metres by which keypoints are expected to be misread along an axis, root mean square; 0 for
    frame 0"""


class Decoder:
    """Reads the grids of one generator for one task."""

    def __init__(
        self,
        task: Task,
        generator: Generator,
        heads: Heads,
        lengths: tuple[int, ...],
        about: dict[str, Any] | None = None,
        demonstrator: Demonstrator | None = None,
    ) -> None:
        """lengths: all k whose grids it was trained to read. demonstrator: actions are its, not read."""
        self.task, self.generator = task, generator
        self.heads = heads.eval().requires_grad_(False)
        self.fit = fit_of(task, self.heads)
        self.demonstrator = demonstrator
        self.lengths, self.about = lengths, about or {}
        """`metrics` and `provenance`."""

    @property
    def renderer(self) -> dict[str, Any] | None:
        """How the frames were drawn that it was trained on; None where that is not known."""
        return self.about.get("provenance", {}).get("renderer")

    def readable(self, k: int) -> int:
        """k. Raises PixeltrajError where grids of so many frames were not trained on."""
        if k not in self.lengths:
            trained = ", ".join(map(str, self.lengths))
            raise PixeltrajError(f"the decoder was trained to read k={trained}, not k={k}; train it again with --k {k}")
        return k

    @torch.no_grad()
    def decode(
        self,
        latents: Tensor,
        first: Tensor,
        prompts: list[str],
        starts: np.ndarray,
        maps: list[Tensor] | None = None,
        rng: torch.Generator | None = None,
    ) -> list[Trajectory]:
        """latents (B, 4, 12 R, 60), first (B, 4, 12, 12), B prompts, starts (B, S) -> B trajectories.

        maps: what the sampler's last pass saw (`Generator.sample`); without them a pass is made here. rng: of actions
        that are sampled, else unused; one of seed 0 if None. Each trajectory begins exactly at its start and ends with
        the first transition read as a termination. Grids may have any k that the decoder was trained for. Raises
        PixeltrajError where the latents or starts hold NaN.
        """
        if not (torch.isfinite(latents).all() and torch.isfinite(first).all() and np.isfinite(starts).all()):
            raise PixeltrajError(
                "the grids to decode hold NaN: the generator diverged; fine-tune again with a lower --lr"
            )
        self.readable(COLUMNS * latents.shape[-2] // LATENT)
        trajectories: list[Trajectory] = []
        for i in range(0, len(latents), BATCH):
            part = slice(i, i + BATCH)
            seen = [one[part] for one in maps] if maps else None
            features = self.look(latents[part], first[part], prompts[part], seen)
            reading = self.read(features, starts[part], rng)
            trajectories += [self._cut(reading, row) for row in range(len(features))]
        return trajectories

    def look(self, latents: Tensor, first: Tensor, prompts: list[str], maps: list[Tensor] | None = None) -> Tensor:
        """Features (B, K, C, L, L) of grids, as `decode` takes them."""
        if maps:
            return tile_features(latents, maps)
        return grid_features(self.generator.at(COLUMNS * latents.shape[-2] // LATENT), latents, first, prompts)

    @torch.no_grad()
    def read(self, features: Tensor, starts: np.ndarray, rng: torch.Generator | None = None) -> Reading:
        """features (B, K, C, L, L), starts (B, S) -> everything that can be read, uncut. rng: see `decode`."""
        pixels, pooled = self.heads.locate(features)
        keypoints = self.task.camera.unproject(pixels.cpu().numpy())
        shift = pin(self.task, keypoints[:, :1], starts)  # (B, 1, N, 3)
        refined, spread = self.heads.refined(torch.from_numpy(carried(self.task, keypoints, shift)).to(pooled), pooled)
        keypoints = refined.cpu().numpy().astype(np.float64)
        known = self.fit(known_states(self.task, keypoints, starts), keypoints, spread.cpu().numpy())
        states = torch.from_numpy(known).to(pooled)
        states = self.heads.fill(states, pooled)
        actions, outcome = self.heads.act(states, pooled)
        over = outcome[..., -1] > self.heads.threshold
        if self.heads.config.sparse:
            rewards = over.float()
        else:
            rewards = self.heads.reward_mean + self.heads.reward_std * outcome[..., 0]
        states_out, actions_out = states.cpu().numpy(), actions.cpu().numpy()
        states_out[:, 0] = starts
        if self.demonstrator:
            actions_out = self.demonstrator(states_out, rng or torch.Generator().manual_seed(0))
        return Reading(
            states=states_out,
            keypoints=keypoints.astype(np.float32),
            actions=actions_out,
            rewards=rewards.cpu().numpy(),
            terminations=over.cpu().numpy(),
            ends=outcome[..., -1].cpu().numpy(),
            uncertainty=(self.heads.doubt * spread).square().mean(dim=-1).sqrt().cpu().numpy(),
        )

    def _cut(self, reading: Reading, row: int) -> Trajectory:
        over = reading.terminations[row]
        steps = int(over.argmax()) + 1 if over.any() else len(over)
        trajectory = Trajectory(
            states=reading.states[row, : steps + 1],
            actions=reading.actions[row, :steps],
            rewards=reading.rewards[row, :steps],
            terminations=over[:steps],
            truncations=np.zeros(steps, dtype=bool),
            keypoints=reading.keypoints[row, : steps + 1],
            uncertainty=reading.uncertainty[row, : steps + 1],
        )
        if self.demonstrator:
            trajectory.origin["actions"] = "sampled"
        trajectory.check(self.task)
        return trajectory

    def save(self, folder: Path) -> None:
        """decoder.safetensors, then config.json, which makes it count."""
        tensors = {name: value.contiguous() for name, value in self.heads.state_dict().items()}
        write_whole(folder / WEIGHTS, lambda beside: save_file(tensors, beside))
        config = {
            "schema": SCHEMA,
            "fingerprint": self.task.fingerprint(),
            "base": self.generator.base.identity,
            "generator": self.generator.identity,
            "k": list(self.lengths),
            "heads": asdict(self.heads.config),
            "weights": file_hash(folder / WEIGHTS),
            **self.about,
        }
        write_json(folder / CONFIG, config)

    @classmethod
    def load(cls, folder: Path, generator: Generator, task: Task | None = None, actions: Actions = "read") -> "Decoder":
        """What `save` wrote. Raises PixeltrajError where it was trained with another base, LoRA or k, for
        another task or camera than now, is damaged, or has no demonstrator to sample actions. actions: read here, so
        that reading can be measured; commands sample them by default.
        """
        config = read_json(folder / CONFIG, "decoder")
        again = "train it again with `pixeltraj decode train STORE`"
        if config.get("schema") != SCHEMA:
            raise PixeltrajError(f"{folder} has schema {config.get('schema')}, this pixeltraj reads {SCHEMA}; {again}")
        if task is not None and task.name != config["fingerprint"]["task"]:
            raise PixeltrajError(f"the decoder in {folder} reads {config['fingerprint']['task']}, not {task.name}")
        task = task or get_task(config["fingerprint"]["task"])
        now = json.loads(json.dumps(task.fingerprint()))  # tuples as lists, as JSON gives them back
        if different := [key for key in now if config["fingerprint"].get(key) != now[key]]:
            raise PixeltrajError(
                f"the decoder in {folder} was trained with another {' and '.join(different)} of {task.name}; {again}"
            )
        if config["generator"] != generator.identity:
            part = "LoRA" if config["base"] == generator.base.identity else "base"
            raise PixeltrajError(
                f"the decoder in {folder} was trained on another {part} ({config['generator']}, this is "
                f"{generator.identity}); give that one or {again}"
            )
        heads = Heads(HeadsConfig(**{**config["heads"], "hidden": tuple(config["heads"]["hidden"])}), task.pairs)
        try:
            if file_hash(folder / WEIGHTS) != config["weights"]:
                raise PixeltrajError(f"{folder / WEIGHTS} is not the file that {CONFIG} describes; {again}")
            heads.load_state_dict(load_file(folder / WEIGHTS))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise PixeltrajError(f"{folder / WEIGHTS} cannot be read ({error}); {again}") from error
        about = {key: config[key] for key in ("metrics", "provenance") if key in config}
        demonstrator = Demonstrator.load(folder, task) if actions == "sampled" else None
        decoder = cls(task, generator, heads, tuple(config["k"]), about, demonstrator)
        decoder.readable(generator.k)
        return decoder


def fit_of(task: Task, heads: Heads) -> Fit:
    return Fit(task, Motion(heads.motion.cpu().numpy(), heads.motion_error.cpu().numpy()))


def known_states(task: Task, keypoints: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """keypoints (B, K, N, 3), starts (B, S) -> (B, K, S) float32: geometry, the start itself and what never
    changes; hidden dimensions of frames 1.. are zero."""
    states = np.nan_to_num(task.state_from_keypoints(keypoints, starts)).astype(np.float32)
    static = task.indices(task.static)
    states[:, :, static] = starts[:, None, static]
    states[:, 0] = starts
    return states


def carried(task: Task, keypoints: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """keypoints (B, K, N, 3) and the correction of frame 0 (B, 1, N, 3) -> corrected keypoints (B, K, N, 3)."""
    near = np.abs(shift).max(axis=(1, 2, 3), keepdims=True) < FARTHEST
    share = (1.0 if task.movable else CARRY) ** np.arange(keypoints.shape[1])[:, None, None]
    corrected = keypoints + np.where(near, share * shift, 0.0)
    corrected[:, :1] = keypoints[:, :1] + shift
    return corrected


def pin(task: Task, keypoints: np.ndarray, starts: np.ndarray, iterations: int = 3) -> np.ndarray:
    """The least shift of frame 0's keypoints that makes them say the known state.

    keypoints (B, 1, N, 3) metres, starts (B, S) -> (B, 1, N, 3): damped Gauss-Newton, the smallest step of
    all that agree; zero where none is finite.
    """
    step, damping = 1e-4, 1e-6
    moved = keypoints.astype(np.float64).copy()
    size = moved.shape[-2] * 3
    for _ in range(iterations):
        said = task.state_from_keypoints(moved, starts)[:, 0]  # (B, S)
        told = np.isfinite(said).all(axis=0)
        columns = []
        for i in range(size):
            nudged = moved.reshape(len(moved), 1, size).copy()
            nudged[..., i] += step
            columns.append((task.state_from_keypoints(nudged.reshape(moved.shape), starts)[:, 0] - said) / step)
        jacobian = np.stack(columns, axis=-1)[:, told]  # (B, s, 3 N)
        square = jacobian @ jacobian.swapaxes(1, 2) + damping * np.eye(jacobian.shape[1])
        missing = (starts - said)[:, told, None]
        moved = moved + (jacobian.swapaxes(1, 2) @ np.linalg.solve(square, missing)).reshape(moved.shape)
    shift = moved - keypoints
    return np.where(np.isfinite(shift).all(axis=(1, 2, 3), keepdims=True), shift, 0.0)
