"""Scatter: windows of a store drawn anew with things elsewhere, so that a decoder reads where no demonstrator was.

Where things are and which way they go is changed, or a decoder would learn what a demonstrator does instead of what
is seen. Nothing is done in the environment: states are set and drawn. Only tasks that say what can be moved
(`Task.movable`) can be scattered.
"""

from contextlib import closing
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from pixeltraj.errors import PixeltrajError
from pixeltraj.sight import MakeSight
from pixeltraj.store import Store
from pixeltraj.task import Movable


@dataclass(frozen=True)
class Scene:
    """W windows of K frames."""

    frames: np.ndarray
    """(W, K, 84, 84, 3) uint8"""
    states: np.ndarray
    """(W, K, S) float32"""
    keypoints: np.ndarray
    """(W, K, N, 3) float32, metres from the camera's anchor"""


def scatter(store: Store, rows: np.ndarray, sight: MakeSight, rng: np.random.Generator) -> Scene:
    """rows (W, K) of a rendered store with simulator states. Raises PixeltrajError where frames cannot be drawn here as
    the store's were."""
    task = store.task
    assert store.renderer is not None
    try:
        draw = sight(task, store.renderer)
    except PixeltrajError as error:
        raise PixeltrajError(f"{error}; or give --scatter 0: what is far from the data is read worse then") from error
    simulator = task.make()
    states = store.windows("states", rows).astype(np.float64)
    for part in task.movable:
        states = elsewhere(states, part, task.indices(part.names), rng)
    near = store.windows("snapshots", rows[:, :1])[:, 0]
    snapshots, said, keypoints = [], [], []
    with closing(draw):
        for window, snapshot in zip(tqdm(states, desc="scattering", unit="window"), near):
            for state in window:
                simulator.set_state(state, snapshot)
                snapshots.append(simulator.snapshot())
                said.append(simulator.state())
                keypoints.append(simulator.keypoints())
        frames = draw.frames(np.stack(snapshots))
    shape = rows.shape
    return Scene(*(np.stack(list(part)).reshape(*shape, *np.shape(part[0])) for part in (frames, said, keypoints)))


def elsewhere(states: np.ndarray, part: Movable, index: list[int], rng: np.random.Generator) -> np.ndarray:
    """states (W, K, S) with one thing moved and drifting, where its dimensions are at `index`; what would leave its
    bounds stands still there."""
    by, drift = (size * rng.standard_normal((len(states), 1)) for size in (part.deviation, part.drift))
    moved = states.copy()
    for ago, place in enumerate(index):
        gone = by + drift * (np.arange(states.shape[1]) - ago)
        moved[..., place] = (states[..., place] + gone).clip(part.low, part.high)
    return moved
