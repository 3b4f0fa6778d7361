"""Column: one array of a store, a zarr v3 array whose chunks of rows are read and written by hand.

zarr's own machinery costs a millisecond a call, fills missing chunks with zeros and leaves chunks of zeros out.
Here a chunk is one file, written whole, and every one that is missing or damaged is noticed. `zarr.open` reads it.
"""

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs import Zstd

from pixeltraj.errors import PixeltrajError
from pixeltraj.files import read_json, write_json

CHUNK = 60
"""Frames in a chunk: small enough that a window costs little, large enough to compress well."""
_CHUNK_BYTES = 2**17
_LONGEST = 64 * CHUNK
_ZSTD = Zstd(level=3, checksum=True)


class Cache:
    """The chunks read last, decoded; what memory it takes does not depend on the size of the store."""

    def __init__(self, limit: int = 2**26) -> None:
        self._limit, self._bytes = limit, 0
        self._blocks: OrderedDict[Path, tuple[tuple[int, int], np.ndarray]] = OrderedDict()

    def get(self, path: Path, version: tuple[int, int]) -> np.ndarray | None:
        found = self._blocks.get(path)
        if found is None or found[0] != version:
            return None
        self._blocks.move_to_end(path)
        return found[1]

    def put(self, path: Path, version: tuple[int, int], block: np.ndarray) -> None:
        if path in self._blocks:
            self._bytes -= self._blocks.pop(path)[1].nbytes
        self._blocks[path] = version, block
        self._bytes += block.nbytes
        while self._bytes > self._limit:
            self._bytes -= self._blocks.popitem(last=False)[1][1].nbytes


class Column:
    """Rows of one shape and type. Chunks hold 60 rows, or a multiple of that where rows are small."""

    def __init__(self, folder: Path, shape: tuple[int, ...], dtype: str, cache: Cache, repair: str) -> None:
        """repair: what the user is told to do about a damaged file."""
        self.folder, self.shape, self.dtype = folder, shape, np.dtype(dtype).newbyteorder("<")
        row_bytes = self.dtype.itemsize * int(np.prod(shape))
        self.chunk = min(_LONGEST, CHUNK * max(1, _CHUNK_BYTES // (CHUNK * row_bytes)))
        self._cache, self._repair = cache, repair

    def create(self) -> None:
        self.folder.mkdir()
        self.resize(0)

    def resize(self, rows: int) -> None:
        """How many rows a reader of the zarr array sees."""
        write_json(self.folder / "zarr.json", self._metadata(rows))

    def check(self, rows: int) -> None:
        """Raise PixeltrajError unless the array is described as it should be and has so many rows or more."""
        found = read_json(self.folder / "zarr.json", "store's column")
        known = isinstance(found, dict) and isinstance(found.get("shape"), list) and found["shape"]
        if not known or found != self._metadata(found["shape"][0]) or not found["shape"][0] >= rows:
            raise PixeltrajError(f"{self.folder}/zarr.json is damaged; {self._repair}")

    def _metadata(self, rows: int) -> dict[str, Any]:
        little = {"configuration": {"endian": "little"}} if self.dtype.itemsize > 1 else {}
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [rows, *self.shape],
            "data_type": self.dtype.name,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [self.chunk, *self.shape]}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
            "fill_value": np.zeros((), self.dtype).item(),
            "codecs": [
                {"name": "bytes", **little},
                {"name": "zstd", "configuration": {"level": _ZSTD.level, "checksum": _ZSTD.checksum}},
            ],
            "attributes": {},
        }

    def path(self, chunk: int) -> Path:
        return self.folder / ".".join(["c", str(chunk), *("0" for _ in self.shape)])

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows start:stop. Raises PixeltrajError where a file is missing or damaged."""
        out = np.empty((stop - start, *self.shape), self.dtype)
        for chunk in range(start // self.chunk, -(-stop // self.chunk) if stop > start else 0):
            first = chunk * self.chunk
            a, b = max(start, first), min(stop, first + self.chunk)
            if b - a == self.chunk:  # straight to where it belongs, past the cache
                self._decode(chunk, self._bytes(chunk), out[a - start : b - start])
            else:
                out[a - start : b - start] = self._block(chunk)[a - first : b - first]
        return out

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """rows (...) -> (..., *shape). Each chunk that is touched is decoded once."""
        flat = np.ravel(rows)
        out = np.empty((flat.size, *self.shape), self.dtype)
        chunks = flat // self.chunk
        order = np.argsort(chunks, kind="stable")
        touched, starts = np.unique(chunks[order], return_index=True)
        for chunk, places in zip(touched.tolist(), np.split(order, starts[1:])):
            block, first = self._block(chunk), chunk * self.chunk
            for place in places.tolist():  # faster than an indexed copy, which copies twice
                out[place] = block[flat[place] - first]
        return out.reshape(*np.shape(rows), *self.shape)

    def write(self, start: int, rows: np.ndarray) -> None:
        """Rows from `start` on; what stood there and after it is gone, what stood before it stays."""
        for chunk in range(start // self.chunk, -(-(start + len(rows)) // self.chunk)):
            first = chunk * self.chunk
            kept = self.read(first, start) if start > first else rows[:0]
            new = rows[max(0, first - start) : first + self.chunk - start]
            self.write_chunk(chunk, np.concatenate([kept, new]))
        sync_folder(self.folder)

    def write_chunk(self, chunk: int, rows: np.ndarray) -> None:
        """The first rows of a chunk; zeros after them. One process at a time may write one chunk."""
        block = np.zeros((self.chunk, *self.shape), self.dtype)
        block[: len(rows)] = rows
        path = self.path(chunk)
        beside = path.with_name(f".{path.name}.partial")  # always the same name: what a kill leaves is overwritten
        try:
            with beside.open("wb") as file:
                file.write(_ZSTD.encode(block))
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise OSError(error.errno, error.strerror, str(path)) from error

    def _block(self, chunk: int) -> np.ndarray:
        path = self.path(chunk)
        try:
            status = path.stat()
        except FileNotFoundError:
            raise self._missing(chunk) from None
        version = (status.st_ino, status.st_mtime_ns)  # another process may have drawn it again
        block = self._cache.get(path, version)
        if block is None:
            block = np.empty((self.chunk, *self.shape), self.dtype)
            self._decode(chunk, self._bytes(chunk), block)
            self._cache.put(path, version, block)
        return block

    def _bytes(self, chunk: int) -> bytes:
        try:
            return self.path(chunk).read_bytes()
        except FileNotFoundError:
            raise self._missing(chunk) from None

    def _missing(self, chunk: int) -> PixeltrajError:
        return PixeltrajError(f"{self.path(chunk)} is missing: {self._repair}")

    def _decode(self, chunk: int, encoded: bytes, out: np.ndarray) -> None:
        try:
            # A frame states its size; a wrong one must not leave part of `out` as it was.
            if (size := _stated_size(encoded)) != out.nbytes:
                raise ValueError(f"{size} bytes instead of {out.nbytes}")
            _ZSTD.decode(encoded, out)
        except (RuntimeError, ValueError) as error:
            raise PixeltrajError(
                f"{self.folder} is damaged near row {chunk * self.chunk} "
                f"({self.path(chunk).name}: {error}); {self._repair}"
            ) from error


def _stated_size(frame: bytes) -> int:
    """The size of its content that the header of a zstd frame states (RFC 8878, 3.1.1.1)."""
    if len(frame) < 14:
        raise ValueError("cut short")
    descriptor = frame[4]
    single, code = descriptor >> 5 & 1, descriptor >> 6
    width = (single, 2, 4, 8)[code]
    start = 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3]
    return int.from_bytes(frame[start : start + width], "little") + (256 if width == 2 else 0)


def sync_folder(folder: Path) -> None:
    """Let renames in it survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
