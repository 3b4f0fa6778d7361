"""The denoising loss and the learning rate that all trainings of the U-Net share."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pixeltraj.finetune.computing import Computing
from pixeltraj.generator import Generator
from pixeltraj.grid import COLUMNS, LATENT, LENGTHS, Grid

MOTION_WEIGHT, MOTION_SCALE = 2.0, 0.5


@dataclass(frozen=True)
class Noise:
    """What is drawn for B grids beside the grids: noise (B, 4, h, w), how late each timestep is (B,) from 0 to 1, and
    whether the first frame is shown (B, 1, 1, 1)."""

    noise: Tensor
    late: Tensor
    shown: Tensor

    @classmethod
    def draw(cls, grid: Grid, size: int, rng: torch.Generator, no_frame: float = 0.0) -> "Noise":
        """A timestep is drawn as often as it is late, because where things are going is settled in the noise.

        no_frame: share of grids whose first frame is withheld.
        """
        noise = torch.randn(size, 4, LATENT * grid.rows, LATENT * COLUMNS, generator=rng)
        late = torch.rand(size, generator=rng).sqrt()
        return cls(noise, late, torch.rand(size, 1, 1, 1, generator=rng) >= no_frame)

    def __getitem__(self, rows: slice) -> "Noise":
        return Noise(self.noise[rows], self.late[rows], self.shown[rows])


def diffusion_loss(
    generator: Generator,
    tiles: Tensor,
    embedding: Tensor,
    drawn: Noise,
    computing: Computing = Computing(),  # noqa: B008 - frozen
    min_snr: float | None = None,
    motion: Tensor | None = None,
) -> Tensor:
    """Denoising loss for the grids of tiles (B, K, 4, 12, 12); what moves counts more, as `motion_weight` has it.

    min_snr: gamma of `snr_weight`. motion: mean motion weight of a larger batch of which these grids are a part; the
    losses of its parts then have its loss as their mean.
    """
    clean, first = generator.grid.join(tiles), tiles[:, 0]
    noise = drawn.noise.to(clean.device)
    schedule = generator.base.noise_scheduler
    timestep = (drawn.late * schedule.config.num_train_timesteps).long().to(clean.device)
    noisy = schedule.add_noise(clean, noise, timestep)
    target = noise
    if schedule.config.prediction_type == "v_prediction":
        target = schedule.get_velocity(clean, noise, timestep)
    if computing.channels_last:
        noisy = noisy.contiguous(memory_format=torch.channels_last)
    with computing.around(generator):
        output = generator.predict(noisy, timestep, first * drawn.shown.to(clean), embedding)
    error = (output.float() - target).square()
    if min_snr is not None:
        error = error * snr_weight(generator, timestep, min_snr)[:, None, None, None]
    weight = motion_weight(generator.grid, tiles)
    return (error * weight).mean() / (weight.mean() if motion is None else motion)


def motion_weight(grid: Grid, tiles: Tensor) -> Tensor:
    """(B, 1, h, w) for tiles (B, K, 4, 12, 12): latents that differ from the first frame's, which is what moves, count
    up to 1 + MOTION_WEIGHT times as much as those that do not."""
    change = (grid.join(tiles) - grid.repeat(tiles[:, 0])).abs().mean(dim=1, keepdim=True)
    return 1 + MOTION_WEIGHT * change.clamp(max=MOTION_SCALE) / MOTION_SCALE


def snr_weight(generator: Generator, timestep: Tensor, gamma: float) -> Tensor:
    """(B,) weights of the squared error in what the U-Net predicts that make it one in the clean latents, weighted by
    min(SNR, gamma) (Hang et al. 2023, equation 5 and section 3.4): min(1, gamma / SNR) for the noise, min(SNR, gamma) /
    (SNR + 1) for v. Steps with next to no noise then stop to outweigh the rest."""
    schedule = generator.base.noise_scheduler
    kept = schedule.alphas_cumprod.to(timestep.device)[timestep]
    snr = kept / (1 - kept)
    if schedule.config.prediction_type == "v_prediction":
        return snr.clamp(max=gamma) / (snr + 1)
    return (gamma / snr).clamp(max=1.0)


def grids(batch: int, k: int) -> int:
    """Grids of k frames in a step that costs about as much as `batch` grids of the shortest."""
    return -(-batch * LENGTHS[0] // k)


def draw_length(rng: np.random.Generator, lengths: tuple[int, ...]) -> int:
    """The k of a step; the rng is left alone where there is no choice."""
    return lengths[0] if len(lengths) == 1 else int(rng.choice(lengths))


def learning_rate(peak: float, step: int, steps: int, warmup: int = 100) -> float:
    """Linear warm-up, then a cosine to zero."""
    warmup = min(warmup, max(1, steps // 10))
    return peak * min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / steps))
