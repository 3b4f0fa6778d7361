"""The denoising loss and the learning rate that all trainings of the U-Net share."""

import math
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from pixeltraj.generator import Generator
from pixeltraj.grid import LENGTHS

MOTION_WEIGHT, MOTION_SCALE = 2.0, 0.5
SHORT = 10
"""Frames up to which PyTorch's plain attention is the faster one to train with on a CPU."""


def diffusion_loss(
    generator: Generator, tiles: Tensor, embedding: Tensor, rng: torch.Generator, no_frame: float = 0.0
) -> Tensor:
    """Denoising loss at random timesteps for the grids of tiles (B, K, 4, 12, 12): a timestep is drawn as often as it
    is late, because where things are going is settled in the noise. Latents that differ from the first frame's,
    which is what moves, count up to 1 + MOTION_WEIGHT times as much as those that do not.

    no_frame: share of grids whose first frame is withheld.
    """
    clean, first = generator.grid.join(tiles), tiles[:, 0]
    noise = torch.randn(clean.shape, generator=rng).to(clean.device)
    schedule = generator.base.noise_scheduler
    late = torch.rand(len(clean), generator=rng).sqrt()
    timestep = (late * schedule.config.num_train_timesteps).long().to(clean.device)
    shown = (torch.rand(len(clean), 1, 1, 1, generator=rng) >= no_frame).to(clean)
    noisy = schedule.add_noise(clean, noise, timestep)
    target = noise
    if schedule.config.prediction_type == "v_prediction":
        target = schedule.get_velocity(clean, noise, timestep)
    with torch.autocast(clean.device.type, torch.bfloat16), attention(generator):
        output = generator.predict(noisy, timestep, first * shown, embedding)
    change = (clean - generator.grid.repeat(first)).abs().mean(dim=1, keepdim=True)
    weight = 1 + MOTION_WEIGHT * change.clamp(max=MOTION_SCALE) / MOTION_SCALE
    return ((output.float() - target).square() * weight).mean() / weight.mean()


def attention(generator: Generator) -> AbstractContextManager[None]:
    """What attention to train with: PyTorch's choice, but for few tokens on a CPU, where its backward pass is slow."""
    plain = generator.unet.device.type == "cpu" and generator.k <= SHORT
    return sdpa_kernel(SDPBackend.MATH) if plain else nullcontext()


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
