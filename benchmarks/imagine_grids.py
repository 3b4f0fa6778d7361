"""Grids: windows of held-out episodes, what is imagined from their first frames, and what of it is read.

Shapes: M windows, S samples of each, K frames, N keypoints, h, w = latents of a grid, L = 12 latents a tile.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.imagine_blobs import BlobReader
from pixeltraj.decode.decoder import Decoder, Reading
from pixeltraj.generator import Generator
from pixeltraj.grid import Grid, to_frames
from pixeltraj.guidance import UNGUIDED, Guidance
from pixeltraj.latents import store_latents
from pixeltraj.store import Store
from pixeltraj.windows import store_windows

BATCH = 16
"""Grids of five frames that are sampled together; of longer ones as many fewer."""
FITTED = 300
"""About so many training frames tell the colours of things."""
THINGS = ("hand", "object", "goal")
"""Keypoints of Meta-World that are measured."""


def place(store: Store, name: str) -> int:
    """Where the keypoint stands among the task's."""
    return [keypoint.name for keypoint in store.task.keypoints].index(name)


def moving_windows(store: Store, k: int, count: int, least: float, seed: int) -> np.ndarray:
    """(M, K) rows of the store: up to `count` windows of held-out episodes, drawn without replacement, within which
    the object gets more than `least` pixels away from where it began.

    Windows may reach past the end of an episode that was solved: there its last frame is repeated.
    """
    rows = store_windows(store, k, store.split()[1])
    pixels = true_pixels(store, rows)[:, :, place(store, "object")]
    away = np.linalg.norm(pixels - pixels[:, :1], axis=-1).max(axis=1)
    moving = rows[away > least]
    chosen = np.random.default_rng(seed).permutation(len(moving))[:count]
    return moving[np.sort(chosen)]


def true_pixels(store: Store, rows: np.ndarray) -> np.ndarray:
    """(M, K) rows -> (M, K, N, 2) column and row of every keypoint."""
    return store.task.camera.project(store.windows("keypoints", rows))[..., :2]


def real_grids(store: Store, generator: Generator, rows: np.ndarray) -> Tensor:
    """(M, K) rows -> (M, 4, h, w) latents of the real frames."""
    tiles = store_latents(store, generator.base)[torch.from_numpy(rows)].float()
    return Grid(rows.shape[1]).join(tiles)


def imagined_grids(
    store: Store,
    generator: Generator,
    rows: np.ndarray,
    samples: int,
    steps: int,
    seed: int,
    guidance: Guidance = UNGUIDED,
) -> Tensor:
    """(M, K) rows -> (M S, 4, h, w): futures of each first frame, those of one start side by side.

    The same seed gives every generator the same noise.
    """
    current, rng = generator.at(rows.shape[1]), torch.Generator().manual_seed(seed)
    firsts = np.repeat(rows[:, 0], samples)
    latents, states = store_latents(store, generator.base), store.windows("states", firsts[:, None])[:, 0]
    parts = np.array_split(np.arange(len(firsts)), -(-len(firsts) // max(1, BATCH // current.grid.rows)))
    grids = []
    for part in tqdm(parts, desc=f"imagine k={current.k}", unit="batch"):
        first = latents[torch.from_numpy(firsts[part])].float()
        seen = torch.from_numpy(states[part])
        grids.append(current.sample(first, [store.task.prompt] * len(part), rng, steps, seen, guidance))
    return torch.cat(grids)


@dataclass(frozen=True)
class Seen:
    """What a decoder reads from grids."""

    corrected: np.ndarray
    """(B, K, N, 2) pixels of its keypoints, brought into line with the known start, as imagination gives them"""
    raw: np.ndarray
    """(B, K, N, 2) the same before that: each tile read by itself"""
    readings: list[Reading]
    """All that was read, in the order of the grids"""

    @property
    def states(self) -> np.ndarray:
        """(B, K, S)"""
        return np.concatenate([reading.states for reading in self.readings])


@torch.no_grad()
def see(store: Store, decoder: Decoder, grids: Tensor, firsts: np.ndarray) -> Seen:
    """grids (B, 4, h, w) that set out from rows firsts (B,) of the store."""
    latents, camera = store_latents(store, decoder.generator.base), store.task.camera
    starts = store.windows("states", firsts[:, None])[:, 0]
    corrected, raw, readings = [], [], []
    for part in np.array_split(np.arange(len(grids)), -(-len(grids) // BATCH)):
        first = latents[torch.from_numpy(firsts[part])].float()
        features = decoder.look(grids[part], first, [store.task.prompt] * len(part))
        raw.append(decoder.heads.locate(features)[0][..., :2].numpy())
        reading = decoder.read(features, starts[part])
        corrected.append(camera.project(reading.keypoints)[..., :2])
        readings.append(reading)
    return Seen(np.concatenate(corrected), np.concatenate(raw), readings)


@torch.no_grad()
def pictures(generator: Generator, tiles: Tensor) -> np.ndarray:
    """(B, 4, L, L) -> (B, 84, 84, 3) uint8."""
    return np.concatenate([to_frames(generator.base.decode(part)) for part in tiles.split(64)])


def fit_blobs(store: Store, generator: Generator, names: tuple[str, ...]) -> dict[str, BlobReader]:
    """Of these keypoints, on training frames as the VAE gives them back."""
    rows = np.concatenate([np.arange(store.offsets[e], store.offsets[e + 1]) for e in store.split()[0]])
    rows = rows[:: max(1, len(rows) // FITTED)]
    frames = pictures(generator, store_latents(store, generator.base)[torch.from_numpy(rows)].float())
    truth = true_pixels(store, rows[:, None])[:, 0]
    return {name: BlobReader.fit(frames, truth[:, place(store, name)]) for name in names}
