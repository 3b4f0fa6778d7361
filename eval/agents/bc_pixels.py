"""Behaviour cloning from pixels: a small convolutional policy on the last frames does what the data's agent did.

As V-D4RL's baseline (Lu et al. 2022) it takes a short stack of frames, shifted at random in training (DrQ-v2), through
convolutions and a normalised bottleneck; strides and widths are such that a CPU trains it. Real and imagined episodes
count alike. Each frame is in memory once, as it is stored: 21 kB.

Shapes: B batch, K frames of a stack, F features, A action.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pixeltraj.camera import FRAME_SIZE
from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.agents.agent import Playing, no_data
from pixeltraj.eval.agents.learner import Learner, step
from pixeltraj.eval.agents.networks import mlp
from pixeltraj.replay_buffer import Batch
from pixeltraj.sight import Sight
from pixeltraj.simulator import Simulator
from pixeltraj.trajectory import Trajectory

STRIDES = (2, 2, 1, 1)
"""Of 3x3 convolutions: 84 pixels become 16. DrQ-v2 halves once only, at four times the cost."""


@dataclass(frozen=True)
class BCPixelsConfig:
    batch: int = 64
    """Stacks in an update."""
    stack: int = 3
    """Frames that it sees at once; an episode's first one is repeated until there are as many."""
    channels: int = 16
    """Of each convolution."""
    features: int = 50
    """F, numbers that are read from a stack."""
    hidden: int = 256
    """Width of the two hidden layers behind them."""
    shift: int = 4
    """Pixels by which a stack is shifted at most, in training; 0 leaves it as it is."""
    learning_rate: float = 1e-3
    """Of Adam."""
    bf16: bool = False
    """Compute the network in bfloat16."""

    def check(self) -> None:
        """Raise PixeltrajError where there is nothing to see, or nothing left of it."""
        if self.stack < 1 or self.channels < 1 or not 0 <= self.shift < FRAME_SIZE:
            raise PixeltrajError(
                f"bc_pixels wants stack and channels of at least 1 and a shift of 0 to {FRAME_SIZE - 1} pixels, not "
                f"{self.stack}, {self.channels} and {self.shift}"
            )


class BCPixels(Learner):
    """The agent (`agent.Seeing`). It has no critic, and looks at no state."""

    sight: Sight

    def __init__(
        self,
        config: BCPixelsConfig,
        offline: Batch,
        generator: torch.Generator,
        value_range: tuple[float, float] | None = None,
    ) -> None:
        """offline: gives the size of an action. It has no values that a range could bound. Raises PixeltrajError on a
        bad config."""
        config.check()
        super().__init__(no_data(offline.states.shape[-1], offline.actions.shape[-1]), generator)
        self.config = config
        self.actor = FramePolicy(config, self.action_size, generator)
        self.optimizer = self.optimize(config.learning_rate, self.actor.parameters())
        self.album: list[np.ndarray] = []
        """The frames (T+1, 84, 84, 3) of each episode."""

    # Frames

    @property
    def observation_size(self) -> int:
        return 2

    def see(self, sight: Sight, episodes: Sequence[Trajectory]) -> None:
        self.sight = sight
        self.album = [episode.frames for episode in episodes if episode.frames is not None]

    def acting(self, simulator: Simulator) -> Playing:
        return SeenSimulator(simulator, self.sight, self.config.stack)

    def transitions(self, trajectories: Sequence[Trajectory], imagined: bool = False) -> Batch:
        """Of episodes that it was told of: states (n, 2) are the place in the album, and the step."""
        batch = Batch.of(trajectories, imagined)
        places = {id(frames): place for place, frames in enumerate(self.album)}
        counted = [(places[id(t.frames)], step) for t in trajectories for step in range(len(t))]
        moments = np.array(counted, dtype=np.float32)  # exact up to 2**24
        return batch._replace(states=moments, next_states=moments + np.array([0, 1], np.float32))

    def stacks(self, moments: np.ndarray) -> np.ndarray:
        """moments (B, 2), as in `transitions` -> (B, K, 84, 84, 3) uint8, the oldest frame first."""
        places, steps = moments.astype(np.int64).T
        rows = np.maximum(steps[:, None] + np.arange(1 - self.config.stack, 1), 0)
        return np.stack([self.album[place][row] for place, row in zip(places, rows)])

    # Learning and acting

    @torch.no_grad()
    def act(self, states: np.ndarray, explore: bool) -> np.ndarray:
        """states (..., K, 84, 84, 3) uint8 -> actions (..., A), the same whether it explores or not."""
        stacks = torch.from_numpy(states)
        actions: Tensor = self.actor(stacks.reshape(-1, *states.shape[-4:]))
        return actions.reshape(*states.shape[:-4], self.action_size).numpy()

    def update(self, batch: Batch, cloned: np.ndarray | None = None) -> dict[str, Tensor]:
        """One step of least squares on all rows, whether cloned or not. -> losses, scalars."""
        stacks = torch.from_numpy(self.stacks(batch.states))
        if self.config.shift:
            stacks = shifted(stacks, self.config.shift, self.generator)
        loss = (self.actor(stacks) - torch.from_numpy(batch.actions)).square().mean()
        step(self.optimizer, loss)
        return {"actor_loss": loss.detach()}


class FramePolicy(nn.Module):
    """An action in (-1, 1) for each stack of frames."""

    def __init__(self, config: BCPixelsConfig, outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        inputs, size = 3 * config.stack, FRAME_SIZE
        layers: list[nn.Module] = []
        for stride in STRIDES:
            layer = nn.Conv2d(inputs, config.channels, 3, stride)
            nn.init.orthogonal_(layer.weight, gain=2**0.5, generator=generator)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
            layers += [layer, nn.ReLU()]
            inputs, size = config.channels, (size - 3) // stride + 1
        self.convolutions = nn.Sequential(*layers)
        self.bottleneck = nn.Sequential(
            mlp((inputs * size**2, config.features), generator), nn.LayerNorm(config.features), nn.Tanh()
        )
        self.head = mlp((config.features, config.hidden, config.hidden, outputs), generator)
        self.bf16 = config.bf16

    def forward(self, stacks: Tensor) -> Tensor:
        """stacks (B, K, 84, 84, 3) uint8 -> actions (B, A)"""
        pixels = stacks.permute(0, 2, 3, 1, 4).flatten(3).float().div_(255.0).sub_(0.5)  # channels last
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            maps = self.convolutions(pixels.permute(0, 3, 1, 2))
            return self.head(self.bottleneck(maps.flatten(1))).float().tanh()


class SeenSimulator:
    """A simulator of which an agent sees the last K frames: (K, 84, 84, 3) uint8, the oldest first."""

    def __init__(self, simulator: Simulator, sight: Sight, stack: int) -> None:
        self.simulator, self.sight, self.stack = simulator, sight, stack

    def reset(self, *, seed: int | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        _, info = self.simulator.reset(seed=seed)
        self.seen = self._frame().repeat(self.stack, axis=0)
        return self.seen, info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        _, reward, terminated, truncated, info = self.simulator.step(action)
        self.seen = np.concatenate([self.seen[1:], self._frame()])
        return self.seen, reward, terminated, truncated, info

    def snapshot(self) -> np.ndarray:
        return self.simulator.snapshot()

    def _frame(self) -> np.ndarray:
        """(1, 84, 84, 3), drawn as a store's are: from the snapshot, which leaves this simulator alone."""
        return self.sight.frames(self.snapshot()[None])


def shifted(stacks: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Each stack (K, H, W, 3) of (B, K, H, W, 3) moved by up to `most` pixels in x and y; its edge fills the gap."""
    moved = torch.empty_like(stacks)
    height, width = (torch.arange(size) for size in stacks.shape[2:4])
    for i, (down, right) in enumerate(torch.randint(-most, most + 1, (len(stacks), 2), generator=generator).tolist()):
        rows, columns = (height + down).clamp(0, height[-1]), (width + right).clamp(0, width[-1])
        moved[i] = stacks[i].index_select(1, rows).index_select(2, columns)
    return moved
