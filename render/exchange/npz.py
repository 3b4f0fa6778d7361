"""NPZ: transitions in one file of flat arrays, read without pickle.

    FILE.npz   states        (N, S) float32   N transitions, episode after episode
               actions       (N, A) float32   in [-1, 1]
               rewards       (N,)   float32
               next_states   (N, S) float32   next_states[i] is states[i + 1] within an episode
               terminations  (N,)   bool      the task ended here: the next state has no value
               truncations   (N,)   bool      the time was up
               episodes      (N,)   int64     number of the episode
               snapshots         (N, Q) float64   simulator states, of collected stores only
               next_snapshots    (N, Q) float64
               task          ()     str       name of the task
               action_repeat ()     int64     simulator steps an action was held for
               about         ()     str       JSON: imagined or simulated, and how the store was made

The first seven are all that a learner needs. Importing takes any file that has them, without the last three too,
where the task's states are the environment's own observations (runners, mazes); else it takes the snapshots.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from pixeltraj.errors import PixeltrajError
from pixeltraj.files import file_hash, write_whole
from pixeltraj.render.exchange.recording import Recording, check_columns
from pixeltraj.simulator import Simulator
from pixeltraj.store import Store

TRANSITIONS = ("states", "actions", "rewards", "next_states", "terminations", "truncations", "episodes")


class NPZFile:
    """Raises PixeltrajError where the file is none, or of another task."""

    def __init__(self, path: Path, simulator: Simulator) -> None:
        task = simulator.task
        try:
            with np.load(path, allow_pickle=False) as file:
                self._columns: dict[str, np.ndarray] = dict(file)
        except Exception as error:  # a file that is something else fails in a dozen ways
            raise PixeltrajError(f"{path} cannot be read as NPZ without pickle ({error})") from error
        columns = self._columns
        if missing := [name for name in TRANSITIONS if name not in columns]:
            raise PixeltrajError(f"{path} has no {' and no '.join(missing)}; there are: {', '.join(columns)}")
        if (made := str(columns.get("task", task.name))) != task.name:
            raise PixeltrajError(f"{path} holds {made}, not {task.name}")
        count, layout = len(columns["actions"]), simulator.snapshot_layout
        wanted: dict[str, tuple[int | None, ...]] = {
            "states": (count, task.state_size),
            "actions": (count, task.action_size),
            "next_states": (count, task.state_size),
            **dict.fromkeys(("rewards", "terminations", "truncations", "episodes"), (count,)),
            **{name: (count, sum(layout.values())) for name in ("snapshots", "next_snapshots")},
        }
        check_columns(task, str(path), {n: (columns[n].shape, shape) for n, shape in wanted.items() if n in columns})
        self.repeat = int(columns.get("action_repeat", task.action_repeat))
        self._bounds = np.concatenate([[0], np.flatnonzero(np.diff(columns["episodes"])) + 1, [count]])
        self.identity: dict[str, Any] = {"format": "npz", "file": path.name, "hash": file_hash(path)}

    def __len__(self) -> int:
        return len(self._bounds) - 1 if len(self._columns["actions"]) else 0

    def recording(self, episode: int) -> Recording:
        a, b = map(int, self._bounds[episode : episode + 2])

        def moments(name: str) -> np.ndarray:
            return np.concatenate([self._columns[name][a:b], self._columns[f"next_{name}"][b - 1 : b]])

        return Recording(
            parts={"observation": moments("states")},
            actions=self._columns["actions"][a:b],
            rewards=self._columns["rewards"][a:b],
            terminations=self._columns["terminations"][a:b].astype(bool),
            snapshots=moments("snapshots") if {"snapshots", "next_snapshots"} <= set(self._columns) else None,
            origin={"episode": episode},
        )


def export_npz(store: Store, path: Path, about: dict[str, Any]) -> int:
    """Write the store's transitions -> how many. about: see above, JSON-able. Frames stay behind."""
    columns: dict[str, list[np.ndarray]] = {}
    for episode, t in enumerate(store):
        parts: dict[str, np.ndarray] = {
            "states": t.states[:-1],
            "actions": t.actions,
            "rewards": t.rewards,
            "next_states": t.states[1:],
            "terminations": t.terminations,
            "truncations": t.truncations,
            "episodes": np.full(len(t), episode),
        }
        if t.snapshots is not None:
            parts |= {"snapshots": t.snapshots[:-1], "next_snapshots": t.snapshots[1:]}
        for name, part in parts.items():
            columns.setdefault(name, []).append(part)
    arrays: dict[str, Any] = {name: np.concatenate(parts) for name, parts in columns.items()}
    arrays |= {
        "task": np.array(store.task.name),
        "action_repeat": np.array(store.task.action_repeat),
        "about": np.array(json.dumps(about)),
    }
    write_whole(path, lambda beside: np.savez_compressed(beside, **arrays))
    return len(arrays["actions"])
