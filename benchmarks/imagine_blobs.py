"""Blobs: where a thing of a known colour is in a frame, read without any network.

Which colours a keypoint has is counted on training frames: a colour's weight is the share of its pixels that lie near
the keypoint. What is read is the middle of the heaviest blob, moved as it has to be in the training frames (a thing's
middle in space is not the middle of what is seen of it).
"""

import numpy as np

from pixeltraj.camera import FRAME_SIZE

LEVELS = 16
"""Shades of red, green and blue that are told apart."""
NEAR = 3.0
"""Pixels around a keypoint that are taken to show it."""
RARE = 30.0
"""Pixels of a colour that have to be seen before it counts half of what it could."""
WINDOW = 7
"""Pixels across, of the window in which a blob weighs most."""
REACH = 6.0
"""Pixels around that within which a blob's middle is taken."""
AROUND = 12.0
"""Pixels around a first guess within which a blob is looked for."""
UNDERSTOOD = 8.0
"""Pixels. Training frames that are misread by more (the thing is hidden) do not count in the correction."""


class BlobReader:
    """One keypoint's colours. Make it with `fit`."""

    def __init__(self, weight: np.ndarray, correction: np.ndarray) -> None:
        """weight (16^3,) of each colour; correction (3, 2): (column, row, 1) of a blob -> the keypoint's."""
        self.weight, self.correction = weight, correction

    @classmethod
    def fit(cls, frames: np.ndarray, pixels: np.ndarray) -> "BlobReader":
        """frames (F, 84, 84, 3) uint8, pixels (F, 2): column and row of the keypoint in each."""
        colours = quantised(frames)
        here = np.bincount(colours[within(pixels, NEAR)], minlength=LEVELS**3)
        seen = np.bincount(colours.ravel(), minlength=LEVELS**3)
        reader = cls(here / (seen + RARE), np.eye(3)[:, :2])
        blobs = reader.read(frames)
        good = np.linalg.norm(blobs - pixels, axis=-1) < UNDERSTOOD
        if good.sum() >= 10:
            known = np.column_stack([blobs[good], np.ones(good.sum())])
            reader.correction = np.linalg.lstsq(known, pixels[good], rcond=None)[0]
        return reader

    def read(self, frames: np.ndarray, near: np.ndarray | None = None) -> np.ndarray:
        """(F, 84, 84, 3) uint8 -> (F, 2) column and row. near (F, 2): only blobs about there are looked at. Where
        nothing has the colours, it is the middle of the frame, or `near`."""
        parts = np.array_split(np.arange(len(frames)), max(1, len(frames) // 128))
        return np.concatenate([self._read(frames[part], None if near is None else near[part]) for part in parts])

    def _read(self, frames: np.ndarray, near: np.ndarray | None) -> np.ndarray:
        weights = self.weight[quantised(frames)]
        summed = np.cumsum(np.cumsum(np.pad(weights, ((0, 0), (4, 3), (4, 3))), axis=1), axis=2)
        boxes = (
            summed[:, WINDOW:, WINDOW:]
            - summed[:, :-WINDOW, WINDOW:]
            - summed[:, WINDOW:, :-WINDOW]
            + summed[:, :-WINDOW, :-WINDOW]
        )
        if near is not None:
            boxes = np.where(within(near, AROUND), boxes, -1.0)
        peaks = boxes.reshape(len(frames), -1).argmax(axis=1)
        middle = np.stack([peaks % FRAME_SIZE, peaks // FRAME_SIZE], axis=-1) + 0.5
        centre = np.arange(FRAME_SIZE) + 0.5
        for _ in range(2):
            blob = np.where(within(middle, REACH), weights, 0.0)
            total = np.maximum(blob.sum(axis=(1, 2)), 1e-9)
            column, row = ((blob.sum(axis=axis) * centre).sum(axis=1) / total for axis in (1, 2))
            middle = np.stack([column, row], axis=-1)
        read = np.column_stack([middle, np.ones(len(middle))]) @ self.correction
        nothing = np.full_like(read, FRAME_SIZE / 2) if near is None else near
        found = blob.sum(axis=(1, 2)) > 0
        return np.where(found[:, None], read, nothing)


def within(points: np.ndarray, radius: float) -> np.ndarray:
    """(F, 2) columns and rows -> (F, 84, 84) bool: the pixels that are no farther from them."""
    centre = np.arange(FRAME_SIZE) + 0.5
    square = (centre - points[:, :1])[:, None, :] ** 2 + (centre - points[:, 1:])[:, :, None] ** 2
    return square < radius**2


def quantised(frames: np.ndarray) -> np.ndarray:
    """(..., 3) uint8 -> (...) the number of each pixel's colour."""
    red, green, blue = np.moveaxis(frames.astype(np.int32) * LEVELS // 256, -1, 0)
    return (red * LEVELS + green) * LEVELS + blue
