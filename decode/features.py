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

from pixeltraj.camera import FRAME_SIZE
from pixeltraj.generator import Generator
from pixeltraj.latents import store_latents
from pixeltraj.store import Store
from pixeltraj.windows import store_windows

TIMESTEP = 1
"""Of the one forward pass: next to no noise, and none is added."""
BLOCKS = 2
"""Up blocks that are read, counted from the output."""
BATCH = 16
NOISED = (20, 120)
"""Timesteps from which grids are reconstructed: from later ones small things, feet above all, come back elsewhere."""


@torch.no_grad()
def grid_features(generator: Generator, latents: Tensor, first: Tensor, prompts: list[str]) -> Tensor:
    """One forward pass -> (B, K, C, L, L) float32: the last up blocks of every tile, then its latents.

    latents (B, 4, R L, 5 L) a clean grid, first (B, 4, L, L) its condition, prompts B texts.
    """
    unique = sorted(set(prompts))
    embedding = generator.embed(unique)[[unique.index(prompt) for prompt in prompts]]
    timestep = torch.full((len(latents),), TIMESTEP, dtype=torch.long)
    device = latents.device.type
    with record(list(generator.unet.up_blocks[-BLOCKS:])) as seen, torch.autocast(device, torch.bfloat16):
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
    """Padded windows of some episodes: what decoders are trained and measured on."""

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
    moved: np.ndarray
    """(W, 2) columns and rows by which the frames were moved before they were encoded"""

    def __len__(self) -> int:
        return len(self.states)

    @classmethod
    def read(
        cls,
        store: Store,
        episodes: list[int],
        generator: Generator,
        noise: float = 0.0,
        reconstruct: bool = False,
        move: int = 0,
        stride: int = 1,
        seed: int = 0,
    ) -> "Windows":
        """Every `stride`th window of the episodes.

        reconstruct: half noised, the grids are given to the generator to finish: they show the same, in its own hand.
        noise: each tile's latents get Gaussian noise of up to that deviation; imagined latents are never as
        clean as encoded ones. move: the frames of each episode are moved by up to so many pixels, edges
        repeated; where a small thing lies within a latent is what few episodes do not teach.
        """
        store.require_frames()
        rng = np.random.default_rng([seed, 2])
        parts = [store_windows(store, generator.k, [e])[int(rng.integers(stride)) :: stride] for e in episodes]
        moves = [rng.integers(-move, move + 1, size=2) for _ in episodes]
        rows = np.concatenate(parts)  # (W, K) of the store
        latents = torch.cat([_latents(store, generator, part, by) for part, by in zip(parts, moves)])
        states, keypoints, actions, rewards, terminations = (
            store.read(name, 0, store.frame_count)
            for name in ("states", "keypoints", "actions", "rewards", "terminations")
        )
        real = np.diff(rows, axis=1) > 0
        steps = rows[:, :-1]
        return cls(
            features=_features(latents, store, generator, noise, reconstruct, seed),
            states=states[rows],
            keypoints=keypoints[rows],
            actions=actions[steps],
            rewards=np.where(real, rewards[steps], 0).astype(np.float32),
            terminations=real & terminations[steps],
            real=real,
            moved=np.concatenate([np.tile(by, (len(part), 1)) for part, by in zip(parts, moves)]),
        )


def _latents(store: Store, generator: Generator, rows: np.ndarray, by: np.ndarray) -> Tensor:
    """(W, K, 4, L, L) of rows (W, K) of one episode, whose frames are moved `by` (columns, rows)."""
    if not by.any():
        return store_latents(store, generator.base)[torch.from_numpy(rows)].float()
    used, place = np.unique(rows, return_inverse=True)
    frames = store.read("frames", int(used[0]), int(used[-1]) + 1)[used - used[0]]
    column, row = (np.clip(np.arange(FRAME_SIZE) - shift, 0, FRAME_SIZE - 1) for shift in by)
    latents = generator.base.encode(np.ascontiguousarray(frames[:, row][:, :, column]))
    return latents[torch.from_numpy(place.reshape(rows.shape))]


def _features(
    latents: Tensor, store: Store, generator: Generator, noise: float, reconstruct: bool, seed: int
) -> Tensor:
    """(W, K, 4, L, L) -> (W, K, C, L, L) float16."""
    random = torch.Generator().manual_seed(seed)
    features: list[Tensor] = []
    for tiles in tqdm(latents.split(BATCH), desc=f"features {store.path.name}", unit="batch"):
        scale = noise * torch.rand((*tiles.shape[:2], 1, 1, 1), generator=random)
        noisy = tiles + scale * torch.randn(tiles.shape, generator=random)
        prompts, grids = [store.task.prompt] * len(tiles), generator.grid.join(noisy)
        if reconstruct:
            grids = reconstructed(generator, grids, tiles[:, 0], prompts, random)
        features.append(grid_features(generator, grids, tiles[:, 0], prompts).half())
    return torch.cat(features)


@torch.no_grad()
def reconstructed(
    generator: Generator, grids: Tensor, first: Tensor, prompts: list[str], random: torch.Generator
) -> Tensor:
    """grids (B, 4, h, w) -> the same, noised to a random timestep of NOISED and denoised by the generator at one go:
    what is where stays, how it is painted becomes the generator's."""
    schedule, (early, late) = generator.base.noise_scheduler, NOISED
    timestep = torch.randint(early, late, (len(grids),), generator=random)
    noisy = schedule.add_noise(grids, torch.randn(grids.shape, generator=random), timestep)
    with torch.autocast(grids.device.type, torch.bfloat16):
        output = generator.predict(noisy, timestep, first, generator.embed(prompts)).float()
    kept = schedule.alphas_cumprod[timestep][:, None, None, None]
    if schedule.config.prediction_type == "v_prediction":
        return kept.sqrt() * noisy - (1 - kept).sqrt() * output
    return (noisy - (1 - kept).sqrt() * output) / kept.sqrt()
