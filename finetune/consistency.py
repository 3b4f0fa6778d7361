"""Consistency: a student that sees at once where its teacher arrives after many steps (Luo et al. 2023).

The teacher is a generator as it was fine-tuned, the student the same with a further LoRA: the U-Net with its adapters
off and on. Where the student gets to from a noisy grid is to be where it gets to from the same grid some of the
teacher's steps later; at timestep 0 it stays where it is, and so all of the teacher's way becomes one step.

Shapes: B grids, h, w = latents of a grid, L, D = text.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from pixeltraj.finetune.computing import Computing
from pixeltraj.finetune.loss import Noise, motion_weight
from pixeltraj.generator import Generator, consistency_scheduler

HUBER = 1e-3
"""Errors above it count by their size, not by its square: the teacher's futures are many, and few are far off."""


class Consistency:
    def __init__(self, generator: Generator, cut: int, jump: int, computing: Computing) -> None:
        """generator: one whose U-Net has an adapter. cut: steps of the teacher's whole way. jump: how many of them are
        between two grids that the student has to take for the same."""
        self.generator, self.cut, self.jump, self.computing = generator, cut, jump, computing
        self.schedule = generator.base.noise_scheduler
        self.late = self.schedule.config.num_train_timesteps - 1
        self.stride = -(-(self.late + 1) // cut)
        self._scalings = consistency_scheduler(self.schedule.config).get_scalings_for_boundary_condition_discrete

    def loss(self, tiles: Tensor, embedding: Tensor, drawn: Noise, motion: Tensor | None = None) -> Tensor:
        """For the grids of tiles (B, K, 4, 12, 12); what moves counts more, as `motion_weight` has it.

        motion: mean motion weight of a larger batch of which these grids are a part; the losses of its parts then have
        its loss as their mean.
        """
        clean, first = self.generator.grid.join(tiles), tiles[:, 0] * drawn.shown.to(tiles)
        timestep = (drawn.late.square() * (self.late + 1)).long().to(clean.device)  # as often early as late
        noisy = self.schedule.add_noise(clean, drawn.noise.to(clean), timestep)
        with torch.no_grad():
            target = self.end(*self.ahead(self.jump, noisy, timestep, first, embedding), first, embedding)
        error = ((self.end(noisy, timestep, first, embedding) - target).square() + HUBER**2).sqrt() - HUBER
        weight = motion_weight(self.generator.grid, tiles)
        return (error * weight).mean() / (weight.mean() if motion is None else motion)

    def end(self, noisy: Tensor, timestep: Tensor, first: Tensor, embedding: Tensor) -> Tensor:
        """(B, 4, h, w) where the student gets to at once from noisy (B, 4, h, w) at timestep (B,)."""
        skip, out = (scale[:, None, None, None] for scale in self._scalings(timestep))
        return skip * noisy + out * self._clean(noisy, timestep, first, embedding)

    @torch.no_grad()
    def ahead(
        self, steps: int, noisy: Tensor, timestep: Tensor, first: Tensor, embedding: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Where so many steps of the teacher get to from noisy (B, 4, h, w) at timestep (B,): (B, 4, h, w) with less
        noise, and the timestep (B,) of it. They are DDIM's (Song et al. 2021, equation 12, without noise); what is at
        timestep 0 stays."""
        for _ in range(steps):
            with self._teacher():
                clean = self._clean(noisy, timestep, first, embedding)
            kept, before = self._kept(timestep), timestep - self.stride
            noise = (noisy - kept.sqrt() * clean) / (1 - kept).sqrt()
            left = torch.where((before < 0)[:, None, None, None], 1.0, self._kept(before.clamp(min=0)))
            moved = left.sqrt() * clean + (1 - left).sqrt() * noise
            noisy = torch.where((timestep > 0)[:, None, None, None], moved, noisy)
            timestep = before.clamp(min=0)
        return noisy, timestep

    @torch.no_grad()
    def gap(self, noise: Tensor, first: Tensor, embedding: Tensor) -> Tensor:
        """(B,) mean squared distance between where the student gets to at once from noise (B, 4, h, w) and where the
        teacher does after all its steps."""
        timestep = torch.full((len(noise),), self.late, device=noise.device)
        there, _ = self.ahead(self.cut, noise, timestep, first, embedding)
        return (self.end(noise, timestep, first, embedding) - there).square().mean(dim=(1, 2, 3))

    def _clean(self, noisy: Tensor, timestep: Tensor, first: Tensor, embedding: Tensor) -> Tensor:
        if self.computing.channels_last:
            noisy = noisy.contiguous(memory_format=torch.channels_last)
        with self.computing.around(self.generator):
            output = self.generator.predict(noisy, timestep, first, embedding)
        return self.generator.clean(noisy, timestep, output.float())

    def _kept(self, timestep: Tensor) -> Tensor:
        """(B, 1, 1, 1) share of the variance that is no noise."""
        return self.schedule.alphas_cumprod.to(timestep.device)[timestep][:, None, None, None]

    @contextmanager
    def _teacher(self) -> Iterator[None]:
        self.generator.unet.disable_adapters()
        try:
            yield
        finally:
            self.generator.unet.enable_adapters()
