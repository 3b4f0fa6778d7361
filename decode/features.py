"""Features: what the generator's U-Net sees in a grid (VPD; ATraDiff, section 4.1).

Of a grid that was imagined just now it has seen all in the sampler's last pass, at no further cost; any other grid,
such as one of real frames, takes a pass of its own.

Shapes: B batch, K frames, C channels, L = 12 latents a tile, W windows, R = K / 5 rows of tiles.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from pixeltraj.camera import FRAME_SIZE
from pixeltraj.decode.scatter import scatter
from pixeltraj.generator import LAST, Generator
from pixeltraj.grid import COLUMNS, LATENT, Grid
from pixeltraj.latents import Latents, store_latents
from pixeltraj.sight import MakeSight
from pixeltraj.store import Store
from pixeltraj.windows import store_windows

TIMESTEP = 1
"""Of the forward pass over a grid that is there: next to no noise, and none is added."""
BATCH = 16
See = Callable[[Generator, Tensor, Tensor, list[str]], Tensor]
"""Generator, latents (B, 4, h, w), first (B, 4, L, L), prompts -> features (B, K, C, L, L), as `grid_features`."""


@torch.no_grad()
def grid_features(generator: Generator, latents: Tensor, first: Tensor, prompts: list[str]) -> Tensor:
    """Features (B, K, C, L, L) of grids that were not sampled just now, in a forward pass of their own.

    latents (B, 4, R L, 5 L) clean grids, first (B, 4, L, L) their condition, prompts B texts.
    """
    unique = sorted(set(prompts))
    embedding = generator.embed(unique)[[unique.index(prompt) for prompt in prompts]]
    _, maps = generator.finish(latents, torch.full((len(latents),), TIMESTEP), first, embedding)
    return tile_features(latents, maps)


def tile_features(latents: Tensor, maps: list[Tensor]) -> Tensor:
    """What the last up blocks saw of each tile, then its latents: (B, K, C, L, L) float32."""
    # The lower levels divide a tile evenly, so that repeating their values never mixes two tiles.
    large = [functional.interpolate(m.float(), size=latents.shape[-2:], mode="nearest") for m in maps]
    return Grid(COLUMNS * latents.shape[-2] // LATENT).split(torch.cat([*large, latents], dim=1))


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
        see: See | None = None,
        ends: int = 0,
    ) -> "Windows":
        """Every `stride`th window of the episodes, at least one of each.

        ends: up to so many more windows of each episode that show its termination, which are rare otherwise.
        reconstruct: the generator paints the grids as it ends its own: they show the same, in its own hand.
        noise: each tile's latents get Gaussian noise of up to that deviation; imagined latents are never as
        clean as encoded ones. move: the frames of each episode are moved by up to so many pixels, edges
        repeated; where a small thing lies within a latent is what few episodes do not teach. see: what to look at; if
        None `grid_features`, and of half the grids that were painted here what the painting saw.
        """
        store.require_frames()
        rng = np.random.default_rng([seed, 2])
        every = [store_windows(store, generator.k, [e]) for e in episodes]
        over = store.read("terminations", 0, store.frame_count)
        parts = [some[int(rng.integers(min(stride, len(some)))) :: stride] for some in every]
        if ends:
            shown = [some[over[some[:, :-1]].any(axis=1)] for some in every]
            parts = [np.concatenate([part, rng.permutation(some)[:ends]]) for part, some in zip(parts, shown)]
        moves = [rng.integers(-move, move + 1, size=2) for _ in episodes]
        rows = np.concatenate(parts)  # (W, K) of the store
        still = store_latents(store, generator.base) if not all(by.any() for by in moves) else None
        latents = torch.cat([_latents(store, generator, still, part, by) for part, by in zip(parts, moves)])
        states, keypoints, actions, rewards = (
            store.read(name, 0, store.frame_count) for name in ("states", "keypoints", "actions", "rewards")
        )
        real = np.diff(rows, axis=1) > 0
        steps = rows[:, :-1]
        return cls(
            features=_features(
                latents, store, rows[:, 0], states[rows[:, 0]], generator, noise, reconstruct, seed, see
            ),
            states=states[rows],
            keypoints=keypoints[rows],
            actions=actions[steps],
            rewards=np.where(real, rewards[steps], 0).astype(np.float32),
            terminations=real & over[steps],
            real=real,
            moved=np.concatenate([np.tile(by, (len(part), 1)) for part, by in zip(parts, moves)]),
        )

    @classmethod
    def scattered(
        cls,
        store: Store,
        episodes: list[int],
        generator: Generator,
        sight: MakeSight,
        count: int,
        noise: float,
        seed: int,
    ) -> "Windows":
        """`count` windows of the episodes, some more than once, drawn anew with things elsewhere (`decode.scatter`). Of
        actions, rewards and ends they tell nothing: no transition in them is `real`."""
        rng = np.random.default_rng([seed, 4])
        rows = np.concatenate([store_windows(store, generator.k, [e]) for e in episodes])
        rows = rows[np.sort(rng.integers(len(rows), size=count))]
        scene = scatter(store, rows, sight, rng)
        latents = generator.base.encode(scene.frames.reshape(-1, *scene.frames.shape[2:])).unflatten(0, rows.shape)
        steps, nothing = (len(rows), generator.k - 1), np.zeros((len(rows), 2), dtype=int)
        return cls(
            features=_features(latents, store, rows[:, 0], scene.states[:, 0], generator, noise, False, seed, None),
            states=scene.states,
            keypoints=scene.keypoints,
            actions=np.zeros((*steps, store.task.action_size), np.float32),
            rewards=np.zeros(steps, np.float32),
            terminations=np.zeros(steps, bool),
            real=np.zeros(steps, bool),
            moved=nothing,
        )


def _latents(store: Store, generator: Generator, still: Latents | None, rows: np.ndarray, by: np.ndarray) -> Tensor:
    """(W, K, 4, L, L) of rows (W, K) of one episode, whose frames are moved `by` (columns, rows).

    still: those of frames that are not moved.
    """
    if still is not None and not by.any():
        return still[rows].float()
    used, place = np.unique(rows, return_inverse=True)
    frames = store.read("frames", int(used[0]), int(used[-1]) + 1)[used - used[0]]
    column, row = (np.clip(np.arange(FRAME_SIZE) - shift, 0, FRAME_SIZE - 1) for shift in by)
    latents = generator.base.encode(np.ascontiguousarray(frames[:, row][:, :, column]))
    return latents[torch.from_numpy(place.reshape(rows.shape))]


def _features(
    latents: Tensor,
    store: Store,
    first_rows: np.ndarray,
    starts: np.ndarray,
    generator: Generator,
    noise: float,
    reconstruct: bool,
    seed: int,
    see: See | None,
) -> Tensor:
    """(W, K, 4, L, L), rows (W,) of their first frames and the states (W, S) of these -> (W, K, C, L, L) float16."""
    random = torch.Generator().manual_seed(seed)
    features: list[Tensor] = []
    told = store.prompts(first_rows)
    parts = zip(latents.split(BATCH), torch.from_numpy(starts).split(BATCH))
    for i, (tiles, states) in enumerate(tqdm(list(parts), desc=f"features {store.path.name}", unit="batch")):
        scale = noise * torch.rand((*tiles.shape[:2], 1, 1, 1), generator=random)
        noisy = tiles + scale * torch.randn(tiles.shape, generator=random)
        prompts, grids = told[i * BATCH : (i + 1) * BATCH], generator.grid.join(noisy)
        maps: list[Tensor] = []
        if reconstruct:
            grids, maps = finished(generator, grids, tiles[:, 0], prompts, states, random)
        if maps and see is None and i % 2 == 0:
            features.append(tile_features(grids, maps).half())
        else:  # imagined grids are looked at anew, too, where another LoRA made them
            features.append((see or grid_features)(generator, grids, tiles[:, 0], prompts).half())
    return torch.cat(features)


@torch.no_grad()
def finished(
    generator: Generator, grids: Tensor, first: Tensor, prompts: list[str], states: Tensor, random: torch.Generator
) -> tuple[Tensor, list[Tensor]]:
    """grids (B, 4, h, w) -> the same as the sampler's last pass would have made them, and what it saw: what is where
    stays, how it is painted becomes the generator's. states (B, S) of the first frames."""
    timestep = torch.full((len(grids),), LAST)
    noisy = generator.base.noise_scheduler.add_noise(grids, torch.randn(grids.shape, generator=random), timestep)
    return generator.finish(noisy, timestep, first, generator.embed(prompts, states))
