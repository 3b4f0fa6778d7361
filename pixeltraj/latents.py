"""Latents: the frames of a store as the VAE sees them, computed once.

    STORE/latents/VAE/  NNNNN.safetensors   latents (n, 4, 12, 12) float16 of frame 960 N and those after it
                        claims              which process is making which

VAE is its identity. A shard is written whole, and n is 960 but in the last one: an interruption costs one shard, and a
store that has grown gets new ones and its last one again. Any number of processes may make them side by side. It is a
cache: a shard that is missing, damaged or too short is made again.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from pixeltraj.base import Base
from pixeltraj.claims import Claims
from pixeltraj.errors import PixeltrajError
from pixeltraj.files import write_whole
from pixeltraj.grid import LATENT
from pixeltraj.store import CHUNK, Store

SHARD = 16 * CHUNK
"""Frames: about a megabyte."""


class Latents:
    """(F, 4, 12, 12) float16, scaled to the U-Net; indexed by rows, as a tensor is.

    Its files are mapped: of large ones, all processes share the part that they have read.
    """

    def __init__(self, shards: list[Tensor]) -> None:
        """All but the last of them hold SHARD frames."""
        self._shards = [shard.numpy() for shard in shards]
        self._length = sum(map(len, shards))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, rows: np.ndarray | Tensor | slice) -> Tensor:
        """rows (...) -> (..., 4, 12, 12), a copy. Raises IndexError on rows that are not there."""
        rows = np.arange(self._length)[rows] if isinstance(rows, slice) else np.asarray(rows)
        flat = rows.ravel()
        if flat.size and not 0 <= flat.min() <= flat.max() < self._length:
            raise IndexError(f"rows {flat.min()} to {flat.max()} of {self._length}")
        out = np.empty((flat.size, 4, LATENT, LATENT), np.float16)
        for place, (shard, row) in enumerate(zip((flat // SHARD).tolist(), (flat % SHARD).tolist())):
            out[place] = self._shards[shard][row]  # faster than an indexed copy of the few that a shard has
        return torch.from_numpy(out.reshape(*rows.shape, *out.shape[1:]))


class Shards:
    """The files that the latents of one store and VAE stand in."""

    def __init__(self, store: Store, vae_identity: str) -> None:
        """Raises PixeltrajError where frames are not drawn."""
        store.require_frames()
        self.store, self.folder = store, store.path / "latents" / vae_identity

    def __len__(self) -> int:
        return -(-self.store.frame_count // SHARD)

    def path(self, shard: int) -> Path:
        return self.folder / f"{shard:05}.safetensors"

    def frames(self, shard: int) -> int:
        """How many belong into it."""
        return min(SHARD, self.store.frame_count - shard * SHARD)

    def lacks(self, shard: int) -> bool:
        """Whether it has to be made."""
        try:
            with safe_open(self.path(shard), "pt") as file:
                return file.get_slice("latents").get_shape() != [self.frames(shard), 4, LATENT, LATENT]
        except (OSError, SafetensorError):
            return True

    def lacking(self, among: Sequence[int] | None = None) -> list[int]:
        return [shard for shard in (range(len(self)) if among is None else among) if self.lacks(shard)]

    def make(self, base: Base, among: Sequence[int] | None = None) -> None:
        """Make those that lack and that no other process makes; returns when none lacks.

        among: only these.
        """
        if not (first := self.lacking(among)):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        total, name = sum(map(self.frames, first)), f"latents {self.store.path.name}"
        with Claims(self.folder / "claims") as claims, tqdm(total=total, desc=name, unit="frame", delay=2) as bar:
            for shard in claims.share(lambda: self.lacking(among), self.lacks):
                self._write(shard, base, bar)

    def _write(self, shard: int, base: Base, bar: tqdm) -> None:
        latents = torch.empty(self.frames(shard), 4, LATENT, LATENT, dtype=torch.float16)
        for start in range(0, len(latents), CHUNK):
            part, row = latents[start : start + CHUNK], shard * SHARD + start
            part.copy_(base.encode(self.store.read("frames", row, row + CHUNK)))
            bar.update(len(part))
        for left in self.folder.glob(f".{self.path(shard).name}.*"):  # by a process that was killed
            left.unlink()
        write_whole(self.path(shard), lambda beside: save_file({"latents": latents}, beside))

    def open(self) -> Latents:
        """All of them; none may lack."""
        return Latents([load_file(self.path(shard))["latents"] for shard in range(len(self))])


class ShardEncoder:
    """A cluster's worker: makes one shard of a store's latents after the other."""

    def __init__(self, path: Path, base: str | None, vae_identity: str) -> None:
        """Raises PixeltrajError where this base has another VAE."""
        self.base = Base.load(base)
        if self.base.vae_identity != vae_identity:
            raise PixeltrajError(f"{self.base.path} is not the same on all machines: give one that is, by its revision")
        self.shards = Shards(Store.open(path), vae_identity)

    def __call__(self, shard: int) -> bytes:
        """What is made stands beside the frames; there is nothing to say."""
        self.shards.make(self.base, [shard])
        return b""


def store_latents(store: Store, base: Base) -> Latents:
    """Latents of all frames; those that are not yet kept beside the frames are made. Raises PixeltrajError where frames
    are not drawn."""
    shards = Shards(store, base.vae_identity)
    shards.make(base)
    return shards.open()
