"""Claims: which process is making which piece of what several of them make together."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self


class Claims:
    """Pieces that this process is making, as locks on single bytes of a file: they vanish with the process.

    Use as a context manager.
    """

    def __init__(self, path: Path) -> None:
        # Closing any descriptor of a file gives up a process's locks on it: nothing else opens this one.
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)

    @contextmanager
    def claim(self, piece: int) -> Iterator[bool]:
        """Whether the piece is this process's to make; False where another one is making it."""
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, piece)
        except (BlockingIOError, PermissionError):
            yield False
            return
        try:
            yield True
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, piece)

    def share(self, lacking: Callable[[], list[int]], lacks: Callable[[int], bool]) -> Iterator[int]:
        """Pieces that nobody has made or is making, each claimed until the next one is asked for.

        Ends when none is `lacking`; `lacks` tells it of one piece.
        """
        while pieces := lacking():
            idle = True
            for piece in pieces:
                with self.claim(piece) as mine:
                    if mine and lacks(piece):
                        idle = False
                        yield piece
            if idle:  # others are making them: they are theirs, or fall free when they die
                time.sleep(0.1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._descriptor)
