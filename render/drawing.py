"""Drawing: chunk after chunk of a store, alone or beside other processes that draw the same store."""

import time
from collections.abc import Callable, Iterator

import mujoco
import numpy as np

from pixeltraj.errors import PixeltrajError
from pixeltraj.render.backends import Backend, open_renderer
from pixeltraj.simulator import Simulator
from pixeltraj.store import CHUNK, Store
from pixeltraj.task import Task


def draw_missing(store: Store, backend: Backend, at: Callable[[int], None]) -> Iterator[None]:
    """Draw chunks that nobody has drawn or is drawing, until there is none; yields after each.

    at: told each row before it is drawn. Raises PixeltrajError where a state cannot be drawn.
    """
    simulator = open_simulator(store.task)
    with open_renderer(simulator, backend) as renderer, store.claims() as claims:
        store.begin_rendering(renderer.settings)
        while missing := store.missing_chunks():
            idle = True
            for chunk in missing:
                with claims.claim(chunk) as mine:
                    if mine and store.is_missing(chunk):
                        store.write_frames(chunk, renderer.frames(_snapshots(store, chunk, at)))
                        idle = False
                        yield
            if idle:  # what is missing is being drawn by others: it is theirs, or falls free when they die
                time.sleep(0.1)


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
