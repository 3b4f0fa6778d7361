"""States by regression, without keypoints and geometry.

The numbers that a frame shows (hand, gripper and object, or height and joint angles) take the place of keypoints, three
to a point, so that everything behind them is as it is shipped: what is known of frame 0, the window's correction, the
other heads. Shapes: B batch, K frames, N points, C channels, L = 12 latents a tile, S state.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pixeltraj.camera import Camera
from pixeltraj.decode.features import Windows
from pixeltraj.decode.heads import Heads, KeypointHead
from pixeltraj.simulator import Simulator
from pixeltraj.task import Keypoint, Task
from pixeltraj.tasks import get_task

SCALE = 0.1
"""What one deviation of a number becomes: keypoints move by about as many metres."""
POOLED = 6
"""Places to a side that are left of a tile before its features are mixed."""
UNITS = 256
BEFORE = "previous_"
"""Begins the name of a dimension that repeats another's value of the frame before."""


@dataclass(frozen=True)
class Unseen(Camera):
    """Pixels are points."""

    def project(self, points: np.ndarray) -> np.ndarray:
        return np.array(points, dtype=np.float64)

    def unproject(self, pixels: np.ndarray) -> np.ndarray:
        return np.array(pixels, dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class DirectTask(Task):
    """A task whose keypoints are nothing but numbers of its state, normalised."""

    told: tuple[int, ...]
    """Indices of the state that are regressed."""
    mean: tuple[float, ...]
    """Of each of them."""
    std: tuple[float, ...]
    """Of each of them."""

    @classmethod
    def of(cls, task: Task, windows: Windows) -> "DirectTask":
        """windows: those that it is trained on."""
        unseen = {*task.indices((*task.hidden, *task.static))}
        told = [i for i, d in enumerate(task.state) if i not in unseen and not d.name.startswith(BEFORE)]
        values = windows.states[..., told].reshape(-1, len(told))
        points = tuple(Keypoint(f"numbers_{i}", "body", "") for i in range(-(-len(told) // 3)))
        kept = {field.name: getattr(task, field.name) for field in fields(Task)}
        camera = Unseen(**vars(task.camera))
        mean, std = values.mean(axis=0), values.std(axis=0).clip(min=1e-3)
        return cls(
            **(kept | {"keypoints": points, "camera": camera, "pose": ()}),
            told=tuple(told),
            mean=tuple(map(float, mean)),
            std=tuple(map(float, std)),
        )

    def make(self) -> Simulator:
        return get_task(self.name).make()

    def numbers(self, states: np.ndarray) -> np.ndarray:
        """(..., S) -> (..., N, 3): the inverse of `state_from_keypoints`, padded with zeros."""
        scaled = SCALE * (states[..., self.told] - self.mean) / self.std
        padded = np.zeros((*states.shape[:-1], 3 * len(self.keypoints)), dtype=np.float32)
        padded[..., : len(self.told)] = scaled
        return padded.reshape(*states.shape[:-1], -1, 3)

    def state_from_keypoints(self, keypoints: np.ndarray, start: np.ndarray) -> np.ndarray:
        flat = keypoints.reshape(*keypoints.shape[:-2], -1)[..., : len(self.told)]
        states = np.full((*flat.shape[:-1], self.state_size), np.nan)
        states[..., self.told] = np.asarray(self.mean) + np.asarray(self.std) * flat / SCALE
        place = {dimension.name: i for i, dimension in enumerate(self.state)}
        for name, i in place.items():
            if name.startswith(BEFORE):
                states[:, 1:, i] = states[:, :-1, place[name.removeprefix(BEFORE)]]
                states[:, 0, i] = start[:, i]
        return states

    def shown(self, windows: Windows) -> Windows:
        """The same windows with numbers for keypoints."""
        return replace(windows, keypoints=self.numbers(windows.states))


class DirectHead(nn.Module):
    """The trunk of a keypoint head, pooled to 6x6 places, and an MLP. In the place of `Heads.keypoint`."""

    def __init__(self, trunk: KeypointHead, width: int) -> None:
        """width: channels of the trunk's stem."""
        super().__init__()
        self.trunk, self.points = trunk, trunk.points
        self.mlp = nn.Sequential(
            nn.AdaptiveAvgPool2d(POOLED),
            nn.Flatten(),
            nn.Linear(width * POOLED**2, UNITS),
            nn.SiLU(),
            nn.Linear(UNITS, UNITS),
            nn.SiLU(),
            nn.Linear(UNITS, 3 * self.points),
        )

    def normalise(self, features: Tensor) -> Tensor:
        return self.trunk.normalise(features)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, L, L) -> numbers (B, N, 3); no heat (B, 0)."""
        tiles = self.normalise(features)
        tiles = torch.cat([tiles, self.trunk.place.expand(len(tiles), -1, -1, -1)], dim=1)
        numbers = SCALE * self.mlp(self.trunk.stem(tiles)).unflatten(-1, (self.points, 3))
        return numbers, numbers.new_empty(len(numbers), 0)


class DirectPhase:
    """Single tiles and the numbers that they show. None is moved: it would show another state."""

    def __init__(self, task: DirectTask, still: list[Windows], heads: Heads) -> None:
        self.head = heads.keypoint
        self.copies = [
            (w.features.flatten(0, 1), torch.from_numpy(task.numbers(w.states)).flatten(0, 1)) for w in still
        ]

    def loss(self, rng: np.random.Generator, batch: int) -> Tensor:
        """Huber error in deviations."""
        chosen = [self.copies[i % len(self.copies)] for i in range(batch)]
        rows = [int(rng.integers(len(tiles))) for tiles, _ in chosen]
        tiles = torch.stack([tiles[row] for (tiles, _), row in zip(chosen, rows)]).float()
        target = torch.stack([numbers[row] for (_, numbers), row in zip(chosen, rows)])
        with torch.autocast(tiles.device.type, torch.bfloat16):
            numbers, _ = self.head(tiles)
        return functional.huber_loss(numbers.float() / SCALE, target / SCALE, delta=1.0)
