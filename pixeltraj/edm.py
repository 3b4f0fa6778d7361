"""EDM (Karras et al. 2022): a diffusion model of vectors. What their numbers mean is for others to know.

A network F that sees scaled input is made a denoiser of every noise level sigma (their Table 1),

    D(x, sigma) = c_skip x + c_out F(c_in x, c_noise)

and sampled with their stochastic Heun solver (Algorithm 2). Where a part of each vector is known beforehand, it goes
into the network beside the noise, as it is, and only the rest is denoised: samples are then of the conditional
distribution, which putting the known part in place of the sampler's own (hard replacement) only comes near.
Shapes: B batch, D numbers of a vector, Q of them known.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from pixeltraj.errors import PixeltrajError

FREQUENCIES = 8
"""Of the noise level's sines and cosines."""
EMBEDDING = 128
"""Numbers in which the network is told the noise level and the vector, or as many as the vector has if that is more."""
SHALLOW = 6
"""Blocks up to which a residual MLP begins with torch's own weights."""


@dataclass(frozen=True)
class EDMConfig:
    """Karras et al.'s values, with the churn that SynthER takes."""

    sigma_data: float = 1.0
    """Standard deviation of the data: 1 where they are whitened."""
    sigma_min: float = 0.002
    """Least noise level of the sampler."""
    sigma_max: float = 80.0
    """Noise level that it starts from."""
    rho: float = 7.0
    """The higher, the more of the sampler's steps are near sigma_min."""
    p_mean: float = -1.2
    """Mean of ln(sigma) while training."""
    p_std: float = 1.2
    """Its standard deviation."""
    churn: float = 80.0
    """Noise that the sampler adds and takes away again; 0 solves the ordinary differential equation."""
    churn_min: float = 0.05
    """Least noise level at which it does."""
    churn_max: float = 50.0
    """The greatest one."""
    churn_noise: float = 1.003
    """Standard deviation of that noise."""

    def check(self) -> None:
        """Raise PixeltrajError where there are no such noise levels."""
        if not 0 < self.sigma_min < self.sigma_max or self.sigma_data <= 0 or self.rho <= 0 or self.p_std <= 0:
            raise PixeltrajError("wanted: 0 < sigma_min < sigma_max, and sigma_data, rho and p_std above 0")
        if self.churn < 0:
            raise PixeltrajError(f"churn is {self.churn}; 0 is the least")


DEFAULT = EDMConfig()


class EDM(nn.Module):
    """A denoiser of vectors, its loss, and samples."""

    def __init__(self, network: nn.Module, config: EDMConfig) -> None:
        """network: (B, D) scaled vectors, with (B, Q) known numbers behind them if there are any, and (B, 1) c_noise
        -> (B, D). Raises PixeltrajError on a bad config."""
        super().__init__()
        config.check()
        self.network, self.config = network, config

    def forward(self, noisy: Tensor, sigma: Tensor, known: Tensor | None = None) -> Tensor:
        """(B, D) vectors with noise of (B, 1) standard deviation, known (B, Q) -> (B, D) what they are expected to be
        without the noise."""
        data = self.config.sigma_data
        total = (sigma**2 + data**2).sqrt()
        seen = noisy / total
        predicted = self.network(seen if known is None else torch.cat([seen, known], dim=1), sigma.log() / 4)
        return (data / total) ** 2 * noisy + sigma * data / total * predicted

    def loss(self, clean: Tensor, rng: torch.Generator, known: Tensor | None = None) -> Tensor:
        """clean (B, D), known (B, Q) -> the mean squared error of denoising, weighted so that every noise level counts
        alike."""
        config = self.config
        sigma = (config.p_mean + config.p_std * torch.randn(len(clean), 1, generator=rng)).exp()
        noisy = clean + sigma * torch.randn(clean.shape, generator=rng)
        weight = (sigma**2 + config.sigma_data**2) / (sigma * config.sigma_data) ** 2
        return (weight * (self(noisy, sigma, known) - clean) ** 2).mean()

    @torch.no_grad()
    def sample(self, count: int, size: int, steps: int, rng: torch.Generator, known: Tensor | None = None) -> Tensor:
        """(count, size) vectors that go with known (count, Q); 2 steps - 1 evaluations of the network."""
        noise = torch.randn(count, size, generator=rng)
        return heun(partial(self, known=known), noise, noise_levels(self.config, steps), self.config, rng)


def noise_levels(config: EDMConfig, steps: int) -> list[float]:
    """sigma_max, ..., sigma_min, 0: (steps + 1) levels, evenly spaced in sigma^(1/rho) but for the last. Raises
    PixeltrajError where steps are fewer than 2."""
    if steps < 2:
        raise PixeltrajError(f"{steps} denoising steps are too few; 2 are the least")
    first, last = config.sigma_max ** (1 / config.rho), config.sigma_min ** (1 / config.rho)
    return [(first + i / (steps - 1) * (last - first)) ** config.rho for i in range(steps)] + [0.0]


def heun(
    denoise: Callable[[Tensor, Tensor], Tensor],
    noise: Tensor,
    levels: list[float],
    config: EDMConfig,
    rng: torch.Generator,
) -> Tensor:
    """From standard normal noise (B, D) down the noise levels, second order -> (B, D)."""
    most = min(config.churn / (len(levels) - 1), math.sqrt(2) - 1)
    x = noise * levels[0]
    for level, following in itertools.pairwise(levels):
        if most > 0 and config.churn_min <= level <= config.churn_max:
            raised = level * (1 + most)
            added = config.churn_noise * math.sqrt(raised**2 - level**2)
            x, level = x + added * torch.randn(x.shape, generator=rng), raised
        slope = (x - denoise(x, x.new_full((len(x), 1), level))) / level
        euler = x + (following - level) * slope
        if following == 0:
            return euler
        slope_there = (euler - denoise(euler, x.new_full((len(x), 1), following))) / following
        x = x + (following - level) * (slope + slope_there) / 2
    return x


class ResidualMLP(nn.Module):
    """`depth` blocks x + Linear(ReLU(x)) between a linear layer in and one out; the noise level goes in beside x.

    Of more than SHALLOW blocks each begins the smaller, so that they add up to no more: with torch's weights 128 of
    them would multiply what goes in by 20,000.
    """

    frequencies: Tensor

    def __init__(self, size: int, width: int, depth: int, known: int = 0) -> None:
        """size: D; known: Q. Raises PixeltrajError where there is no layer."""
        super().__init__()
        if width < 1 or depth < 1:
            raise PixeltrajError("width and depth must be at least 1")
        self.register_buffer("frequencies", torch.randn(FREQUENCIES))
        wide = max(EMBEDDING, size + known)
        self.level = nn.Sequential(nn.Linear(2 * FREQUENCIES + 1, wide), nn.SiLU(), nn.Linear(wide, wide))
        self.vector = nn.Linear(size + known, wide)
        self.first = nn.Linear(wide, width)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.last = nn.Linear(width, size)
        with torch.no_grad():
            for parameter in self.blocks.parameters() if depth > SHALLOW else ():
                parameter.mul_(math.sqrt(SHALLOW / depth))

    def forward(self, vectors: Tensor, noise: Tensor) -> Tensor:
        """vectors (B, D + Q), noise (B, 1) -> (B, D)."""
        turns = 2 * math.pi * noise * self.frequencies
        hidden = self.vector(vectors) + self.level(torch.cat([noise, turns.sin(), turns.cos()], dim=1))
        hidden = self.first(hidden)
        for block in self.blocks:
            hidden = hidden + block(hidden.relu())
        return self.last(hidden.relu())
