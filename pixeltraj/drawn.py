"""Drawn: which chunks of a store's frames are drawn."""

import os
from pathlib import Path

import numpy as np

from pixeltraj.column import CHUNK

_CODES = np.array([rows | (rows.bit_count() & 1) << 7 for rows in range(CHUNK + 1)], dtype=np.uint8)
_ROWS = np.zeros(256, dtype=np.uint8)  # what a damaged byte says is not believed: that chunk is drawn again
_ROWS[_CODES] = np.arange(CHUNK + 1)


class Drawn:
    """One byte a chunk: how many of its rows are drawn, with a parity bit.

    A byte is written after its chunk, and bytes of different chunks never disturb each other, so that any
    number of processes may draw at once.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self, frames: int) -> np.ndarray:
        """(chunks,) rows drawn in each chunk of so many frames."""
        there = np.frombuffer(self.path.read_bytes() if self.path.exists() else b"", np.uint8)
        rows = np.zeros(-(-frames // CHUNK), dtype=np.int64)
        known = min(len(rows), len(there))
        rows[:known] = _ROWS[there[:known]]
        return np.minimum(rows, frames - CHUNK * np.arange(len(rows)))

    def mark(self, chunk: int, rows: int) -> None:
        """The chunk's first rows are drawn and on disk."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            os.pwrite(descriptor, _CODES[rows : rows + 1].tobytes(), chunk)
        finally:
            os.close(descriptor)

    def mark_all(self, start: int, stop: int) -> None:
        """Rows start:stop are drawn; those before them were already."""
        for chunk in range(start // CHUNK, -(-stop // CHUNK)):
            self.mark(chunk, min(CHUNK, stop - chunk * CHUNK))
        with self.path.open("rb") as file:
            os.fsync(file.fileno())

    def forget(self, frames: int) -> None:
        """What is marked past so many frames was left by a killed run."""
        rows = self.rows(frames)
        if self.path.exists():
            os.truncate(self.path, min(len(rows), self.path.stat().st_size))
            if len(rows) and rows[-1]:
                self.mark(len(rows) - 1, int(rows[-1]))
