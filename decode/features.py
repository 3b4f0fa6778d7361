"""Features: what the generator's U-Net sees in a finished grid (VPD; ATraDiff, section 4.1).

Shapes: B batch, K frames, C channels, L = 12 latents a tile, W windows, R = K / 5 rows of tiles.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from pixeltraj.generator import Generator
from pixeltraj.latents import store_latents
from pixeltraj.store import Store
from pixeltraj.windows import store_windows

TIMESTEP = 1
"""Of the one forward pass: next to no noise, and none is added."""
BLOCKS = 2
"""Up blocks that are read, counted from the output."""
BATCH = 16


@torch.no_grad()
def grid_features(generator: Generator, latents: Tensor, first: Tensor, prompts: list[str]) -> Tensor:
    """One forward pass -> (B, K, C, L, L) float32: the last up blocks of every tile, then its latents.

    latents (B, 4, R L, 5 L) a clean grid, first (B, 4, L, L) its condition, prompts B texts.
    """
    unique = sorted(set(prompts))
    embedding = generator.base.embed(unique)[[unique.index(prompt) for prompt in prompts]]
    timestep = torch.full((len(latents),), TIMESTEP, dtype=torch.long)
    with record(list(generator.unet.up_blocks[-BLOCKS:])) as seen:
        generator.predict(latents, timestep, first, embedding)
    # The lower levels divide a tile evenly, so that repeating their values never mixes two tiles.
    maps = [functional.interpolate(m.float(), size=latents.shape[-2:], mode="nearest") for m in seen]
    return generator.grid.split(torch.cat([*maps, latents], dim=1))


@contextmanager
def record(blocks: list[nn.Module]) -> Iterator[list[Tensor]]:
    """The outputs of the blocks during the forward passes inside, in the order they come."""
    seen: list[Tensor] = []
    hooks = [block.register_forward_hook(lambda _, __, output: seen.append(output)) for block in blocks]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@dataclass
class Windows:
    """All padded windows of some episodes: what decoders are trained and measured on."""

    features: Tensor
    """(W, K, C, L, L) float16"""
    states: np.ndarray
    """(W, K, S) float32"""
    keypoints: np.ndarray
    """(W, K, N, 3) float32, metres from the camera's anchor"""
    actions: np.ndarray
    """(W, K-1, A) float32"""
    rewards: np.ndarray
    """(W, K-1) float32"""
    terminations: np.ndarray
    """(W, K-1) bool"""
    real: np.ndarray
    """(W, K-1) bool: False where the transition is padding"""

    def __len__(self) -> int:
        return len(self.states)

    @classmethod
    def read(
        cls, store: Store, episodes: list[int], generator: Generator, noise: float = 0.0, seed: int = 0
    ) -> "Windows":
        """All windows of the episodes. Latents get Gaussian noise of up to that deviation, drawn for each
        tile from the seed: imagined latents are never as clean as encoded ones.
        """
        store.require_frames()
        rows = store_windows(store, generator.k, episodes)  # (W, K)
        states, keypoints, actions, rewards, terminations = (
            store.read(name, 0, store.frame_count)
            for name in ("states", "keypoints", "actions", "rewards", "terminations")
        )
        real = np.diff(rows, axis=1) > 0
        steps = rows[:, :-1]
        return cls(
            features=cls._features(store, rows, generator, noise, seed),
            states=states[rows],
            keypoints=keypoints[rows],
            actions=actions[steps],
            rewards=np.where(real, rewards[steps], 0).astype(np.float32),
            terminations=real & terminations[steps],
            real=real,
        )

    @staticmethod
    def _features(store: Store, rows: np.ndarray, generator: Generator, noise: float, seed: int) -> Tensor:
        latents = store_latents(store, generator.base).float()
        random = torch.Generator().manual_seed(seed)
        features: list[Tensor] = []
        for part in tqdm(torch.from_numpy(rows).split(BATCH), desc=f"features {store.path.name}", unit="batch"):
            tiles = latents[part]  # (B, K, 4, L, L)
            scale = noise * torch.rand((*part.shape, 1, 1, 1), generator=random)
            noisy = tiles + scale * torch.randn(tiles.shape, generator=random)
            prompts = [store.task.prompt] * len(part)
            read = grid_features(generator, generator.grid.join(noisy), tiles[:, 0], prompts)
            features.append(read.half())
        return torch.cat(features)
