"""Drawing: chunk after chunk of a store, alone or beside other processes that draw the same store."""

from collections.abc import Callable, Iterator
from pathlib import Path

import mujoco
import numpy as np

from pixeltraj.errors import PixeltrajError
from pixeltraj.render.backends import Backend, open_renderer
from pixeltraj.simulator import Simulator
from pixeltraj.store import CHUNK, Store
from pixeltraj.task import Task

SHARD = 16
"""Chunks that a worker of a cluster draws at once."""


def draw_missing(store: Store, backend: Backend, at: Callable[[int], None]) -> Iterator[None]:
    """Draw chunks that nobody has drawn or is drawing, until there is none; yields after each.

    at: told each row before it is drawn. Raises PixeltrajError where a state cannot be drawn.
    """
    simulator = open_simulator(store.task)
    with open_renderer(simulator, backend) as renderer, store.claims() as claims:
        store.begin_rendering(renderer.settings)
        for chunk in claims.share(store.missing_chunks, store.is_missing):
            store.write_frames(chunk, renderer.frames(_snapshots(store, chunk, at)))
            yield


class ShardDrawer:
    """A cluster's worker: draws what is missing of one shard of a store after the other.

    Raises PixeltrajError as `draw_missing` does.
    """

    def __init__(self, path: Path, backend: Backend) -> None:
        self.store = Store.open(path)
        self.renderer = open_renderer(open_simulator(self.store.task), backend)
        self.store.begin_rendering(self.renderer.settings)
        self.claims = self.store.claims()

    def __call__(self, shard: int) -> bytes:
        """What is drawn stands in the store; there is nothing to say."""
        mine = range(shard * SHARD, (shard + 1) * SHARD)

        def lacking() -> list[int]:
            return [chunk for chunk in self.store.missing_chunks() if chunk in mine]

        for chunk in self.claims.share(lacking, self.store.is_missing):
            rows = _snapshots(self.store, chunk, at=lambda row: None)
            self.store.write_frames(chunk, self.renderer.frames(rows))
        return b""


def open_simulator(task: Task) -> Simulator:
    """Raises PixeltrajError where the model's files are missing or damaged."""
    try:
        return task.make()
    except (ValueError, OSError, mujoco.FatalError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise PixeltrajError(
            f"the model of {task.name} cannot be loaded ({reason}); reinstall the package it comes from"
        ) from error


def _snapshots(store: Store, chunk: int, at: Callable[[int], None]) -> Iterator[np.ndarray]:
    start = chunk * CHUNK
    rows = store.read("snapshots", start, start + CHUNK)
    wrong = ~(np.abs(rows) < mujoco.mjMAXVAL)
    if wrong.any():
        row, number = np.argwhere(wrong)[0]
        layout = store.attributes["snapshot_layout"]
        part = list(layout)[int(np.searchsorted(np.cumsum(list(layout.values())), number, side="right"))]
        episode, step = store.place(start + int(row))
        raise PixeltrajError(
            f"{store.path} cannot be drawn: the simulator state of episode {episode}, step {step} holds "
            f"{rows[row, number]} ({part}), which MuJoCo does not take; collect it again"
        )
    for row, snapshot in enumerate(rows, start):
        at(row)
        yield snapshot
