"""Rays: the samples of a frame, what they hit first, and the colours that are mixed from them."""

from dataclasses import dataclass, fields

import numpy as np

from pixeltraj.camera import FRAME_SIZE, Camera

PIXELS = FRAME_SIZE * FRAME_SIZE
# Where in a pixel its samples lie, from its top left corner. Four of them: where OpenGL's multisampling has them.
_OFFSETS = {1: ((0.5, 0.5),), 2: ((0.375, 0.875), (0.875, 0.625), (0.125, 0.375), (0.625, 0.125))}


Window = tuple[slice, slice]
"""Rows and columns."""


@dataclass(frozen=True)
class Hits:
    """What F samples hit, in the frame of the camera; samples in ascending order."""

    sample: np.ndarray
    """(F,) which sample: pixel * samples a pixel + place."""
    depth: np.ndarray
    """(F,) float32, metres along the camera's axis."""
    surface: np.ndarray
    """(F,) which of `Surfaces`."""
    normal: np.ndarray
    """(F, 3) float32, unit length, towards the camera."""
    own: np.ndarray
    """(F, 6) what a mesh brings along: texture coordinates, their change over a metre, and, where it was lit at
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
        self.flat = self.directions.reshape(-1, 3).astype(np.float32)
        self.middles = self.directions.mean(axis=2).reshape(-1, 3).astype(np.float32)
        """(84 * 84, 3) through the middles of the pixels."""
        self.far = np.float32(far)
        """Metres; nothing is seen beyond."""
        self.numbers = np.arange(PIXELS * self.count).reshape(FRAME_SIZE, FRAME_SIZE, self.count)

    def windows(self, corners: np.ndarray) -> list[Window | None]:
        """What boxes may cover, given their corners (N, 8, 3) in the camera's frame; None where it is nothing."""
        depth = corners[..., 2]
        half, scale = FRAME_SIZE / 2, self.focal / np.maximum(depth, 1e-3)
        columns, rows = half + corners[..., 0] * scale, half - corners[..., 1] * scale
        edges = np.stack([rows.min(axis=1), rows.max(axis=1) + 1, columns.min(axis=1), columns.max(axis=1) + 1], axis=1)
        edges[depth.min(axis=1) < 1e-3] = 0, FRAME_SIZE, 0, FRAME_SIZE
        edges[depth.max(axis=1) <= 0] = 0
        return [
            (slice(top, bottom), slice(left, right)) if top < bottom and left < right else None
            for top, bottom, left, right in np.clip(edges, 0, FRAME_SIZE).astype(int).tolist()
        ]


def union(windows: list[Window]) -> Window:
    """The smallest window around all of them."""
    rows, columns = zip(*windows)
    top, left = min(s.start for s in rows), min(s.start for s in columns)
    return slice(top, max(s.stop for s in rows)), slice(left, max(s.stop for s in columns))


def join(hits: list[Hits]) -> Hits:
    """All of them, one after another."""
    return Hits(*(np.concatenate([getattr(one, field.name) for one in hits]) for field in fields(Hits)))


class Canvas:
    """The nearest colour of every sample so far."""

    def __init__(self, depth: np.ndarray, colour: np.ndarray) -> None:
        self.depth, self.colour = depth, colour

    def copy(self) -> "Canvas":
        return Canvas(self.depth.copy(), self.colour.copy())

    def put(self, fragments: Fragments) -> None:
        """Those that are nearer than what is there."""
        nearer = fragments.depth < self.depth[fragments.sample]
        sample = fragments.sample[nearer]
        self.depth[sample] = fragments.depth[nearer]
        self.colour[sample] = fragments.colour[nearer]

    def blend(self, fragments: Fragments, alpha: float | np.ndarray) -> None:
        """Those that are nearer than what is there, as through glass."""
        nearer = fragments.depth < self.depth[fragments.sample]
        alpha = np.broadcast_to(np.float32(alpha), (len(nearer), 1))[nearer]
        sample = fragments.sample[nearer]
        under, over = unpack(self.colour[sample]), unpack(fragments.colour[nearer])
        self.colour[sample] = pack(under + alpha * (over - under))

    def frame(self, samples: int) -> np.ndarray:
        """(84, 84, 3) uint8: the mean of each pixel's samples."""
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
    """(F, 3) in [0, 1] -> (F,) uint32."""
    whole = (colour * 255 + 0.5).astype(np.uint32)
    return whole[:, 0] | whole[:, 1] << 8 | whole[:, 2] << 16


def unpack(colour: np.ndarray) -> np.ndarray:
    """(F,) uint32 -> (F, 3) float32 in [0, 1]."""
    return np.stack([colour & 255, colour >> 8 & 255, colour >> 16], axis=-1).astype(np.float32) / 255
