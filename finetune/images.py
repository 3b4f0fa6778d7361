"""Images: what a fine-tuning draws from, the store that is learned and beside it what is not to be forgotten."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pixeltraj.base import Base
from pixeltraj.errors import PixeltrajError
from pixeltraj.finetune.loss import Noise
from pixeltraj.grid import Grid
from pixeltraj.latents import store_latents
from pixeltraj.store import Store
from pixeltraj.windows import require_windows, store_windows

Windows = dict[int, np.ndarray]
"""For each k (W, k) rows."""


def split_windows(store: Store, lengths: tuple[int, ...]) -> tuple[Windows, Windows]:
    """Rows to train on, and held out ones to measure with. Raises PixeltrajError where there are none."""
    require_windows(store, lengths)
    train, heldout = ({k: store_windows(store, k, part) for k in lengths} for part in store.split())
    return train, heldout


@dataclass(frozen=True)
class Prior:
    """Data that the base was trained on, mixed in so that it is not forgotten."""

    stores: tuple[Path, ...] = ()
    """Rendered stores; their images are told their own prompts and states."""
    share: float = 0.25
    """Share of images that are drawn from them, where there are any."""

    def check(self) -> None:
        if not 0 <= self.share < 1:
            raise PixeltrajError("--prior.share must be from 0 to below 1")

    def open(self, lengths: tuple[int, ...]) -> list[Store]:
        """Raises PixeltrajError where one is not rendered, or has no window of one of the lengths to train on."""
        stores = [Store.open(path) for path in self.stores]
        for store in stores:
            store.require_frames()
            require_windows(store, lengths)
        return stores


class Images:
    """Latents and windows of several stores, whose rows are numbered through: the first is the one that is learned.

    Shapes: W windows, K frames, B images.
    """

    def __init__(self, stores: list[Store], base: Base, learned: Windows, share: float) -> None:
        """learned: windows of the first store. share: of images drawn from the others, where there are any."""
        self.learned, self.share = learned, share if len(stores) > 1 else 0.0
        self.latents = [store_latents(store, base) for store in stores]
        self.starts = np.cumsum([0, *(len(latents) for latents in self.latents)])
        others = list(zip(stores[1:], self.starts[1:]))
        self.prior = {
            k: np.concatenate([start + store_windows(store, k, store.split()[0]) for store, start in others])
            for k in (learned if others else ())
        }

    def draw(self, rng: np.random.Generator, k: int, size: int) -> np.ndarray:
        """(B, K) rows."""
        learned = self.learned[k]
        rows = learned[rng.integers(len(learned), size=size)]
        if self.share:
            prior = self.prior[k]
            rows = np.where(rng.random((size, 1)) < self.share, prior[rng.integers(len(prior), size=size)], rows)
        return rows

    def tiles(self, rows: np.ndarray) -> Tensor:
        """(B, K, 4, 12, 12) float32 for rows (B, K)."""
        if len(self.latents) == 1:
            return self.latents[0][rows].float()
        which = np.searchsorted(self.starts, rows[:, 0], side="right") - 1
        return torch.stack([self.latents[i][row - self.starts[i]] for i, row in zip(which, rows)]).float()


@dataclass(frozen=True)
class Batch:
    """All images of a step. Every process draws all of them and computes its own share, so that the number of processes
    changes who computes what and nothing else."""

    rows: np.ndarray
    """(B, K)"""
    told: np.ndarray
    """(B,) bool: which images get their prompt."""
    stated: bool
    """Whether the state is told."""
    noise: Noise

    @classmethod
    def draw(
        cls,
        images: Images,
        rng: np.random.Generator,
        grid: Grid,
        size: int,
        no_prompt: float,
        no_state: float,
        no_frame: float,
    ) -> "Batch":
        """no_prompt, no_state, no_frame: shares that are not told it."""
        rows = images.draw(rng, grid.k, size)
        told, stated = rng.random(size) >= no_prompt, rng.random() >= no_state
        noise_rng = torch.Generator().manual_seed(int(rng.integers(2**62)))
        return cls(rows, told, bool(stated), Noise.draw(grid, size, noise_rng, no_frame))

    def part(self, number: int, of: int) -> "Batch":
        """One of equal parts."""
        size = len(self.rows) // of
        mine = slice(number * size, (number + 1) * size)
        return Batch(self.rows[mine], self.told[mine], self.stated, self.noise[mine])
