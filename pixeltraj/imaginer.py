"""Imaginer: states in, trajectories out (length -> generator -> decoder -> pruner)."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pixeltraj.errors import PixeltrajError
from pixeltraj.generator import Generator
from pixeltraj.grid import to_frames
from pixeltraj.guidance import UNGUIDED, Guidance
from pixeltraj.pruner import prune
from pixeltraj.task import Task
from pixeltraj.trajectory import Trajectory


@dataclass(frozen=True)
class Start:
    """Where imagination sets out from."""

    state: np.ndarray
    """(S,) float32"""
    frame: np.ndarray
    """(84, 84, 3) uint8, the picture of that state"""
    prompt: str | None = None
    """What is to be done from there; what the task says of the state if None."""


class Decoder(Protocol):
    """What reads the imagined grids; `pixeltraj.decode` trains one."""

    task: Task

    def decode(
        self,
        latents: Tensor,
        first: Tensor,
        prompts: list[str],
        starts: np.ndarray,
        maps: list[Tensor] | None = None,
        rng: torch.Generator | None = None,
    ) -> list[Trajectory]:
        """latents (B, 4, h, w), first (B, 4, 12, 12), starts (B, S), maps as `Generator.sample` gives them, rng of
        what is sampled while reading -> B trajectories from those states."""


class Length(Protocol):
    """What tells how many frames are needed; see `pixeltraj.length.LengthEstimator`."""

    lengths: tuple[int, ...]

    def __call__(self, states: np.ndarray) -> np.ndarray:
        """states (B, S) -> (B,) k, each one of `lengths`."""


class Imaginer:
    """Batches of start states -> imagined trajectories that begin in exactly those states.

    num_inference_steps: denoising steps of the sampler; batch: grids of five frames that are denoised together, of
    longer ones as many fewer; length: what chooses each grid's k; without it all have the generator's; guidance: how
    strongly each condition steers.
    """

    def __init__(
        self,
        generator: Generator,
        decoder: Decoder,
        num_inference_steps: int | None = None,
        batch: int = 16,
        length: Length | None = None,
        guidance: Guidance = UNGUIDED,
    ) -> None:
        self.generator, self.decoder, self.length = generator, decoder, length
        self.lengths = length.lengths if length else (generator.k,)
        self.num_inference_steps, self.batch, self.guidance = num_inference_steps, batch, guidance
        self.task = decoder.task

    @property
    def steps(self) -> dict[str, int]:
        """Denoising steps of each length."""
        return {str(k): self.num_inference_steps or self.generator.at(k).num_inference_steps for k in self.lengths}

    @torch.no_grad()
    def imagine(
        self, starts: list[Start], rng: torch.Generator, frames: bool = False, prompts: list[str] | None = None
    ) -> list[Trajectory]:
        """One trajectory for each start, of at most k - 1 transitions; `frames` keeps the pictures too.

        prompts: what is to be done from each start; its own if None. The same rng state gives the same
        trajectories. Raises PixeltrajError on states or frames of a wrong shape, and on too long a prompt.
        """
        if prompts is None:
            prompts = [start.prompt or self.task.prompt_of(start.state) for start in starts]
        if len(prompts) != len(starts):
            raise PixeltrajError(f"{len(starts)} starts and {len(prompts)} prompts; give one for each")
        for start in starts:
            if start.state.shape != (self.task.state_size,):
                raise PixeltrajError(f"{self.task.name} has states of {self.task.state_size}, not {start.state.shape}")
        states = np.array([start.state for start in starts], np.float32).reshape(len(starts), self.task.state_size)
        needed = np.full(len(starts), self.generator.k) if self.length is None else self.length(states)
        trajectories: dict[int, Trajectory] = {}
        for k in np.unique(needed):
            generator = self.generator.at(int(k))
            rows, size = np.flatnonzero(needed == k), max(1, self.batch // generator.grid.rows)
            for part in (rows[i : i + size] for i in range(0, len(rows), size)):
                words = [prompts[row] for row in part]
                imagined = self._imagine(generator, [starts[row] for row in part], words, states[part], rng, frames)
                trajectories.update(zip(part.tolist(), imagined))
        return [trajectories[row] for row in range(len(starts))]

    def _imagine(
        self,
        generator: Generator,
        starts: list[Start],
        prompts: list[str],
        states: np.ndarray,
        rng: torch.Generator,
        frames: bool,
    ) -> list[Trajectory]:
        base, grid = generator.base, generator.grid
        first = base.encode(np.stack([start.frame for start in starts]))
        seen = torch.from_numpy(states)
        maps: list[Tensor] = []
        latents = generator.sample(first, prompts, rng, self.num_inference_steps, seen, self.guidance, maps)
        trajectories = [prune(t, self.task) for t in self.decoder.decode(latents, first, prompts, states, maps, rng)]
        if frames:
            tiles = grid.split(latents)
            for trajectory, start, row in zip(trajectories, starts, tiles):
                pictures = to_frames(base.decode(row[1 : len(trajectory) + 1]))
                trajectory.frames = np.concatenate([start.frame[None], pictures])
        return trajectories
