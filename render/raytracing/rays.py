"""Rays: the samples of a frame, what they hit first, and the colours that are mixed from them."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from pixeltraj.camera import FRAME_SIZE, Camera

PIXELS = FRAME_SIZE * FRAME_SIZE
# Where in a pixel its samples lie, from its top left corner. Four of them: where OpenGL's multisampling has them.
_OFFSETS = {1: ((0.5, 0.5),), 2: ((0.375, 0.875), (0.875, 0.625), (0.125, 0.375), (0.625, 0.125))}


@dataclass(frozen=True)
class Hits:
    """What F samples hit, in the frame of the camera."""

    sample: np.ndarray
    """(F,) which sample: pixel * samples a pixel + place."""
    depth: np.ndarray
    """(F,) float32, metres along the camera's axis."""
    surface: np.ndarray
    """(F,) which of `Surfaces`."""
    normal: np.ndarray
    """(3, F) float32, towards the camera."""
    own: np.ndarray
    """(6, F) what a mesh brings along: texture coordinates, their change over a metre, and, where it was lit at
    the corners of its faces, a colour; its first component is negative where it was not."""


@dataclass(frozen=True)
class Fragments:
    """Coloured samples."""

    sample: np.ndarray
    """(F,) as in `Hits`."""
    depth: np.ndarray
    """(F,) float32, metres."""
    colour: np.ndarray
    """(F,) uint32: red, green and blue from the lowest byte on."""


class Rays:
    """The rays of one camera, in its own frame (right, up, forward): these never change."""

    def __init__(self, camera: Camera, samples: int, far: float) -> None:
        self.focal, self.offsets = camera.focal, np.array(_OFFSETS[samples], np.float32)
        self.count = len(self.offsets)
        corner = np.stack(np.meshgrid(np.arange(FRAME_SIZE), np.arange(FRAME_SIZE)), axis=-1)
        place = (corner[:, :, None] + self.offsets - FRAME_SIZE / 2) / camera.focal
        self.directions = np.stack([place[..., 0], -place[..., 1], np.ones(place.shape[:-1])], axis=-1)
        """(84, 84, samples a pixel, 3) float64; the last component is 1, so that distances are depths."""
        self.flat = self.directions.reshape(-1, 3).T.astype(np.float32, order="C")
        """(3, 84 * 84 * samples a pixel)"""
        self.middles = self.directions.mean(axis=2).reshape(-1, 3).T.astype(np.float32, order="C")
        """(3, 84 * 84) through the middles of the pixels."""
        self.far = np.float32(far)
        """Metres; nothing is seen beyond."""
        self._first, self._last = self.offsets.min(axis=0)[:, None], self.offsets.max(axis=0)[:, None]

    def windows(self, corners: np.ndarray) -> np.ndarray:
        """(4, N) what boxes may cover, as in `cover`, given their corners (3, 8, N) in the camera's frame."""
        depth = corners[2]
        half, scale = FRAME_SIZE / 2, self.focal / np.maximum(depth, 1e-3)
        flat = np.stack([half + corners[0] * scale, half - corners[1] * scale])
        edges = np.concatenate([flat.min(axis=1), flat.max(axis=1)])
        nearest = depth.min(axis=0)
        if nearest.min() < 1e-3:
            edges[:2, nearest < 1e-3], edges[2:, nearest < 1e-3] = 0, FRAME_SIZE
            edges[2:, depth.max(axis=0) <= 0] = -1
        return self.cover(*edges)

    def cover(self, left: np.ndarray, top: np.ndarray, right: np.ndarray, bottom: np.ndarray) -> np.ndarray:
        """(4, N) int32: first column and row, number of columns and rows with a sample between edges (N,)."""
        low = np.ceil(np.stack([left, top]) - self._last)
        high = np.floor(np.stack([right, bottom]) - self._first)
        low = np.minimum(np.maximum(low, 0), FRAME_SIZE)
        size = np.maximum(np.minimum(high, FRAME_SIZE - 1) - low + 1, 0)
        return np.concatenate([low, size]).astype(np.int32)

    def spread(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every pixel of N windows (4, N): of which window it is, its column and its row."""
        left, top, wide, high = windows
        count = wide * high
        which = np.repeat(np.arange(len(count), dtype=np.int32), count)
        place = np.arange(len(which), dtype=np.int32) - np.repeat(np.cumsum(count, dtype=np.int32) - count, count)
        wide = wide[which]
        row = place // wide
        return which, left[which] + place - row * wide, top[which] + row

    def slopes(self, column: np.ndarray, row: np.ndarray, which: int) -> tuple[np.ndarray, np.ndarray]:
        """How far right and up the rays of sample `which` of pixels go, a metre ahead."""
        x, y = self.offsets[which] - np.float32(FRAME_SIZE / 2)
        focal = np.float32(self.focal)
        return (column.astype(np.float32) + x) / focal, (row.astype(np.float32) + y) / -focal


Rows = TypeVar("Rows", Hits, Fragments)


def join(many: list[Rows]) -> Rows:
    """All of them, one after another."""
    parts = zip(*(vars(one).values() for one in many))
    return type(many[0])(*(np.concatenate(part, axis=-1) for part in parts))


def nearest(hits: Hits, layer_of: np.ndarray) -> tuple[Hits, np.ndarray]:
    """The nearest hit of each sample on each layer, by layer and then by sample; and those layers.

    layer_of (S,): the layer of each surface.
    """
    layer = layer_of[hits.surface]
    place = layer << 20 | hits.sample
    # Depths are positive: their bits, read as an integer, are in the same order.
    order = np.argsort(place << 32 | hits.depth.view(np.int32), kind="stable")
    place = place[order]
    order = order[np.append(True, place[1:] != place[:-1])]
    return Hits(*(part.take(order, axis=-1) for part in vars(hits).values())), layer[order]


class Canvas:
    """The nearest colour of every sample so far."""

    def __init__(self, depth: np.ndarray, colour: np.ndarray) -> None:
        self.depth, self.colour = depth, colour

    def copy(self) -> "Canvas":
        return Canvas(self.depth.copy(), self.colour.copy())

    def put(self, many: list[Fragments]) -> None:
        """Those that are nearer than what is there."""
        if not many:
            return
        one = many[0] if len(many) == 1 else join(many)
        nearer = np.flatnonzero(one.depth < self.depth.take(one.sample))
        if len(many) > 1:  # of several for one sample, the last is what stays
            nearer = nearer[np.argsort(one.depth.take(nearer), kind="stable")[::-1]]
        sample = one.sample.take(nearer)
        self.depth[sample] = one.depth.take(nearer)
        self.colour[sample] = one.colour.take(nearer)

    def blend(self, fragments: Fragments, alpha: float | np.ndarray) -> None:
        """Those that are nearer than what is there, as through glass."""
        nearer = fragments.depth < self.depth[fragments.sample]
        alpha = np.broadcast_to(np.float32(alpha), nearer.shape)[nearer]
        sample = fragments.sample[nearer]
        under, over = unpack(self.colour[sample]), unpack(fragments.colour[nearer])
        self.colour[sample] = pack(under + alpha * (over - under))

    def frame(self, samples: int) -> np.ndarray:
        """(84, 84, 3) uint8: the mean of each pixel's samples."""
        if samples == 1:
            red, green, blue, _ = self.colour.astype("<u4").view(np.uint8).reshape(-1, 4).T
            return np.stack([red, green, blue], axis=-1).reshape(FRAME_SIZE, FRAME_SIZE, 3)
        # Two channels at a time, 16 bits each.
        even, odd = self.colour & 0x00FF00FF, (self.colour >> 8) & 0x00FF00FF
        even, odd = (_sums(one, samples) for one in (even, odd))
        half = np.uint32(samples // 2)
        channels = (even & 0xFFFF, odd & 0xFFFF, even >> 16)
        frame = np.stack([(one + half) // np.uint32(samples) for one in channels], axis=-1)
        return frame.astype(np.uint8).reshape(FRAME_SIZE, FRAME_SIZE, 3)


def _sums(numbers: np.ndarray, length: int) -> np.ndarray:
    """(N * length,) -> (N,): each run of that length, added up."""
    total = numbers[::length].copy()
    for i in range(1, length):
        total += numbers[i::length]
    return total


def pack(colour: np.ndarray) -> np.ndarray:
    """(3, F) in [0, 1] -> (F,) uint32."""
    red, green, blue = (colour * np.float32(255) + np.float32(0.5)).astype(np.int32)
    return (red | green << 8 | blue << 16).view(np.uint32)


def unpack(colour: np.ndarray) -> np.ndarray:
    """(F,) uint32 -> (3, F) float32 in [0, 1]."""
    return np.stack([colour & 255, colour >> 8 & 255, colour >> 16]).astype(np.float32) / 255
