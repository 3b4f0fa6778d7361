"""Textures: MuJoCo's images on surfaces, filtered as OpenGL filters them (trilinear, repeated)."""

import mujoco
import numpy as np

from pixeltraj.render.raytracing.vectors import dot

# A texel is one integer of three channels, which numpy mixes much faster than rows of floats: a channel is at most
# 1020, the weights of a mixture add up to 2048 (rounded, to 4 more), and their product still fits into 21 bits.
_BITS, _FULL, _WEIGHT = 21, 1020, 2048


class Texture:
    """One image, or the six of a cube, with its mipmaps."""

    def __init__(self, model: mujoco.MjModel, index: int) -> None:
        height, width, channels = model.tex_height[index], model.tex_width[index], model.tex_nchannel[index]
        start = model.tex_adr[index]
        data = model.tex_data[start : start + height * width * channels].reshape(height, width, channels)
        self.cube = model.tex_type[index] != mujoco.mjtTexture.mjTEXTURE_2D
        faces = data.reshape(-1, width, width, channels) if self.cube else data[None]
        self.finest = faces[0][..., :3]
        """(H, W, 3) uint8: the image, or the first of the cube's."""
        level = faces[..., :3].astype(np.float32) / 255
        self.mean = level.mean(axis=(0, 1, 2))
        """(3,) in [0, 1]"""
        levels = [level]
        while max(level.shape[1:3]) > 1:
            level = _halve(level)
            levels.append(level)
        # A rim of one texel, so that neighbours are always there: a face ends at its edge, an image starts again.
        rim, mode = ((0, 0), (1, 1), (1, 1), (0, 0)), "edge" if self.cube else "wrap"
        padded = [np.pad(one, rim, mode=mode) for one in levels]  # type: ignore[call-overload]
        red, green, blue = np.rint(np.concatenate([one.reshape(-1, 3) for one in padded]) * _FULL).astype(np.int64).T
        self.texels = red | green << _BITS | blue << 2 * _BITS
        self._start = np.cumsum([0] + [one[..., 0].size for one in padded[:-1]])
        self._height = np.array([one.shape[1] for one in levels])
        self._width = np.array([one.shape[2] for one in levels])
        self._faces = len(faces)

    def around(self, direction: np.ndarray, along: np.ndarray, down: np.ndarray) -> np.ndarray:
        """(3, F) colours in [0, 1] of the cube seen in a direction (3, F).

        along, down (3, F) or (3, 1): how it changes to the next pixel on the right, and to the next below.
        """
        axis = np.abs(direction).argmax(axis=0)
        x, y, z = direction
        major = np.choose(axis, direction)
        sign = np.where(major < 0, np.float32(-1), np.float32(1))
        s = np.choose(axis, [-z * sign, x, x * sign])
        t = np.choose(axis, [-y, z * sign, -y])
        scale = np.float32(0.5) / np.maximum(np.abs(major), np.float32(1e-9))
        uv = np.stack([s * scale, t * scale]) + np.float32(0.5)
        face = (2 * axis + (sign < 0)) % self._faces
        steps = np.maximum(dot(along, along), dot(down, down))
        return self.filter(steps * np.square(scale * self._width[0]), face).fetch(uv)

    def image_filter(self, along: np.ndarray, down: np.ndarray) -> "Filter":
        """How to read a flat image where its coordinates change by (2, F) from pixel to pixel, as in `around`."""
        size = np.array([[self._width[0]], [self._height[0]]], np.float32)
        return self.filter(np.maximum(np.square(along * size).sum(axis=0), np.square(down * size).sum(axis=0)))

    def filter(self, spread: np.ndarray, face: np.ndarray | int = 0) -> "Filter":
        """spread (F,): the square of how many texels a pixel covers."""
        last = len(self._start) - 1
        level = np.clip(np.float32(0.5) * np.log2(np.maximum(spread, np.float32(1e-12))), 0, last)
        lower = level.astype(np.int32)
        levels = np.stack([lower, np.minimum(lower + 1, last)])
        width, height = self._width[levels], self._height[levels]
        stride = width + 2
        start = self._start[levels] + face * stride * (height + 2) + stride + 1
        size = np.stack([width, height], axis=1).astype(np.float32)
        return Filter(self, (level - lower).astype(np.float32), size, stride.astype(np.int32), start.astype(np.int32))


class Filter:
    """Which two mipmaps to read for F pixels, and where in them: what stays as it is when a picture slides."""

    def __init__(
        self, texture: Texture, share: np.ndarray, size: np.ndarray, stride: np.ndarray, start: np.ndarray
    ) -> None:
        """share (F,) of the second mipmap; of both: size (2, 2, F) width and height, stride and start (2, F)."""
        self._texels, self._cube = texture.texels, texture.cube
        self._weight = np.stack([1 - share, share]) * np.float32(_WEIGHT)
        self._size, self._stride, self._start = size, stride, start
        self._levels = (0, 1) if share.any() else (0,)

    def fetch(self, uv: np.ndarray) -> np.ndarray:
        """(3, F) colours in [0, 1] at coordinates (2, F)."""
        place = uv if self._cube else uv - np.floor(uv)
        total = sum(self._bilinear(place, level) for level in self._levels)
        colour = np.stack([total, total >> _BITS, total >> 2 * _BITS]) & 2**_BITS - 1
        return colour.astype(np.float32) * np.float32(1 / (_FULL * _WEIGHT))

    def _bilinear(self, place: np.ndarray, level: int) -> np.ndarray:
        """place (2, F) in [0, 1] -> (F,) int64, the sums of four texels times their weights."""
        texel = place * self._size[level] - np.float32(0.5)
        corner = np.floor(texel)
        (across, down), weight = texel - corner, self._weight[level]
        column, row = corner.astype(np.int32)
        stride = self._stride[level]
        first = self._start[level] + row * stride + column
        across *= weight
        both = across * down
        down *= weight
        weights = (weight - across - down + both, across - both, down - both, both)
        places = (first, first + 1, first + stride, first + stride + 1)
        total = np.zeros(len(first), np.int64)
        for where, share in zip(places, weights):
            share += np.float32(0.5)
            texels = self._texels.take(where)
            texels *= share.astype(np.int32)
            total += texels
        return total


def _halve(level: np.ndarray) -> np.ndarray:
    """(N, H, W, 3) at half its height and width."""
    for axis in (1, 2):
        size = level.shape[axis]
        if size > 1:  # linear, as OpenGL drivers do it: odd sizes keep their mean
            centre = (np.arange(size // 2) + 0.5) * (size / (size // 2)) - 0.5
            left = centre.astype(np.int64)
            share = (centre - left).astype(np.float32).reshape([-1 if i == axis else 1 for i in range(4)])
            level = np.take(level, left, axis) * (1 - share) + np.take(level, left + 1, axis) * share
    return level
