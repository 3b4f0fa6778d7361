"""Grid: k frames laid out in one image, and cut out again."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pixeltraj.camera import FRAME_SIZE
from pixeltraj.errors import PixeltrajError

COLUMNS = 5
MARGIN = 6
TILE = FRAME_SIZE + 2 * MARGIN
"""A frame with its margin, pixels: 96 is 12 latents at f=8, so no latent straddles two tiles."""
LATENT = TILE // 8
LENGTHS = (5, 10, 15, 20, 25)
"""Frames in a grid: the paper's five lengths."""


@dataclass(frozen=True)
class Grid:
    """k frames in reading order, five to a row; each frame's edge pixels repeated 6 wide around it.

    Shapes: B batch, K frames, C channels, R = K / 5 rows, L = 12 latents a tile.
    """

    k: int

    def __post_init__(self) -> None:
        if self.k < COLUMNS or self.k % COLUMNS:
            raise PixeltrajError(f"k must be 5, 10, 15, 20 or 25, not {self.k}: a grid has {COLUMNS} columns")

    @property
    def rows(self) -> int:
        return self.k // COLUMNS

    def to_image(self, frames: np.ndarray) -> Tensor:
        """(B, K, 84, 84, 3) uint8 -> (B, 3, 96 R, 480) float32 in [-1, 1]."""
        batch, k = frames.shape[:2]
        if k != self.k:
            raise PixeltrajError(f"this grid holds {self.k} frames, not {k}")
        tiles = to_tiles(frames.reshape(-1, *frames.shape[2:]))
        return self.join(tiles.reshape(batch, k, *tiles.shape[1:]))

    def to_frames(self, image: Tensor) -> np.ndarray:
        """Inverse of `to_image`."""
        tiles = self.split(image)
        frames = to_frames(tiles.flatten(0, 1))
        return frames.reshape(*tiles.shape[:2], *frames.shape[1:])

    def join(self, tiles: Tensor) -> Tensor:
        """(B, K, C, H, W) -> (B, C, R H, 5 W), for pixels, latents and features alike."""
        batch, _, channels, height, width = tiles.shape
        grid = tiles.reshape(batch, self.rows, COLUMNS, channels, height, width)
        return grid.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels, self.rows * height, COLUMNS * width)

    def split(self, grid: Tensor) -> Tensor:
        """Inverse of `join`."""
        batch, channels, height, width = grid.shape
        tiles = grid.reshape(batch, channels, self.rows, height // self.rows, COLUMNS, width // COLUMNS)
        return tiles.permute(0, 2, 4, 1, 3, 5).reshape(batch, self.k, channels, height // self.rows, width // COLUMNS)

    def repeat(self, first: Tensor) -> Tensor:
        """(B, C, L, L) -> (B, C, R L, 5 L): the first frame's latents in every tile."""
        return first.repeat(1, 1, self.rows, COLUMNS)

    def condition(self, first: Tensor) -> Tensor:
        """(B, 4, L, L) -> (B, 4, R L, 5 L): the same, and in each tile's top and bottom row of latents, where a frame
        has only its margin, the tile's place in the grid: nothing else in a U-Net tells one tile from another."""
        tiles = first[:, None].repeat(1, self.k, 1, 1, 1)
        tiles[..., (0, -1), :] = self.marks().to(first)[None, :, :, None, None]
        return self.join(tiles)

    def unknown(self, first: Tensor) -> Tensor:
        """(B, 4, L, L) -> (B, 1, R L, 5 L): 0 in the first tile, 1 in those that are to be painted."""
        tiles = torch.ones_like(first[:, None, :1]).repeat(1, self.k, 1, 1, 1)
        tiles[:, 0] = 0
        return self.join(tiles)

    def marks(self) -> Tensor:
        """(K, 4): cosine and sine of half a turn over the longest grid, and of a whole turn over a row."""
        place = torch.arange(self.k)
        along, across = math.pi * place / (LENGTHS[-1] - 1), 2 * math.pi * (place % COLUMNS) / COLUMNS
        return torch.stack([along.cos(), along.sin(), across.cos(), across.sin()], dim=1)


def to_tiles(frames: np.ndarray) -> Tensor:
    """(B, 84, 84, 3) uint8 -> (B, 3, 96, 96) float32 in [-1, 1], edges repeated."""
    if frames.shape[1:] != (FRAME_SIZE, FRAME_SIZE, 3) or frames.dtype != np.uint8:
        raise PixeltrajError(f"frames must be (84, 84, 3) uint8, not {frames.shape[1:]} {frames.dtype}")
    pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return functional.pad(pixels, (MARGIN,) * 4, mode="replicate")


def to_frames(tiles: Tensor) -> np.ndarray:
    """Inverse of `to_tiles`; values outside [-1, 1] are clipped."""
    inner = tiles[..., MARGIN:-MARGIN, MARGIN:-MARGIN].float().clamp(-1, 1)
    return ((inner + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
