"""Subject: the trajectories that are audited, and near which simulator states theirs are set."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixeltraj.decode.audit import real_windows
from pixeltraj.decode.coverage import distances
from pixeltraj.errors import PixeltrajError
from pixeltraj.store import Store
from pixeltraj.trajectory import Trajectory

_SAME = 0.01
"""Part of a dimension's range within which an imagined start is the real state that it claims to be."""


@dataclass
class Subject:
    """What goes through the pipeline together."""

    episodes: list[int]
    """Where in its store each trajectory is."""
    trajectories: list[Trajectory]
    near: list[np.ndarray]
    """For each the snapshot (Q,) that `Simulator.set_state` starts from."""
    exact: bool
    """Whether that snapshot is the very start of the trajectory, so that the simulator can be let go from it."""


def open_real(path: Path, store: Store) -> Store:
    """The collected store that `store` is audited against. Raises PixeltrajError where it cannot serve."""
    real = Store.open(path, store.task)
    if not real.attributes["snapshot_layout"]:
        raise PixeltrajError(f"{path} holds no simulator states to set out from: give --real a collected store")
    real.split()
    return real


def open_synthetic(path: Path) -> Store:
    """A store whose trajectories no simulator made. Raises PixeltrajError where one did."""
    store = Store.open(path)
    if store.attributes["snapshot_layout"]:
        raise PixeltrajError(
            f"{path} was collected in the simulator, so there is nothing to audit: give a store that "
            f"`pixeltraj imagine` wrote, and this one as --real"
        )
    if not len(store):
        raise PixeltrajError(f"{path} is empty; fill it with `pixeltraj imagine {store.task.name} --out {path}`")
    return store


def synthetic_subject(store: Store, real: Store, n: int, span: np.ndarray, rng: np.random.Generator) -> Subject:
    """Up to n trajectories of a store, drawn without replacement, in order.

    Those that `pixeltraj imagine` made stand near the real state they set out from, others near the real training
    state most like their first. Raises PixeltrajError where an origin does not fit `real`.
    """
    episodes = sorted(int(i) for i in rng.permutation(len(store))[:n])
    exact = all("episode" in e and "step" in e for e in store.episodes)
    rows = [origin_row(store, episode, real) for episode in range(len(store))] if exact else []
    trajectories = [store.trajectory(episode) for episode in episodes]
    if exact:
        picked = [rows[episode] for episode in episodes]
        _require_same_start(store, episodes, trajectories, real, picked, span)
    else:
        picked = nearest_rows(real, np.stack([t.states[0] for t in trajectories]), span)
    return Subject(episodes, trajectories, snapshots(real, picked), exact)


def real_subject(
    real: Store, frames: int, count: int, exact: bool, span: np.ndarray, rng: np.random.Generator
) -> Subject:
    """Pieces of held-out episodes, of as many frames, set near snapshots that were found in the same way."""
    pieces = real_windows(real, real.split()[1], frames, count, rng)
    if exact:
        near = [t.snapshots[0] for t in pieces if t.snapshots is not None]
    else:
        near = snapshots(real, nearest_rows(real, np.stack([t.states[0] for t in pieces]), span))
    return Subject([int(str(t.origin["episode"])) for t in pieces], pieces, near, exact)


def origin_row(store: Store, episode: int, real: Store) -> int:
    """The row of `real` that an imagined episode set out from. Raises PixeltrajError where there is none."""
    origin = store.episodes[episode]
    source, step = origin["episode"], origin["step"]
    if not (isinstance(source, int) and 0 <= source < len(real)):
        raise PixeltrajError(
            f"trajectory {episode} of {store.path} set out from episode {source}, {real.path} has {len(real)}: "
            f"give --real the store it was imagined from"
        )
    if not (isinstance(step, int) and 0 <= step < real.episodes[source]["frames"]):
        raise PixeltrajError(
            f"trajectory {episode} of {store.path} set out from step {step} of episode {source}, which has "
            f"{real.episodes[source]['frames']} in {real.path}: give --real the store it was imagined from"
        )
    return int(real.offsets[source]) + step


def nearest_rows(real: Store, states: np.ndarray, span: np.ndarray) -> list[int]:
    """For each of states (n, S) the row of the training state nearest to it, in parts of the ranges span (S,)."""
    rows = np.concatenate([np.arange(real.offsets[e], real.offsets[e + 1]) for e in real.split()[0]])
    known = real.read("states", 0, real.frame_count)[rows]
    moving = span > 0
    scaled = [np.nan_to_num(part[:, moving].astype(np.float64)) / span[moving] for part in (states, known)]
    return [int(rows[i]) for i in distances(*scaled).argmin(axis=1)]


def snapshots(real: Store, rows: list[int]) -> list[np.ndarray]:
    return list(real.windows("snapshots", np.array(rows, dtype=np.int64)[:, None])[:, 0])


def _require_same_start(
    store: Store,
    episodes: list[int],
    trajectories: list[Trajectory],
    real: Store,
    rows: list[int],
    span: np.ndarray,
) -> None:
    """Imagined trajectories begin in exactly the state they set out from; another store's states betray it."""
    source = real.windows("states", np.array(rows, dtype=np.int64)[:, None])[:, 0]
    for episode, trajectory, state in zip(episodes, trajectories, source):
        apart = np.abs(trajectory.states[0] - state)
        if (apart > np.maximum(_SAME * span, 1e-3)).any():
            raise PixeltrajError(
                f"trajectory {episode} of {store.path} does not begin in the state of {real.path} that it names: "
                f"give --real the store it was imagined from"
            )
