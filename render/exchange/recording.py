"""Recording: one episode as a dataset keeps it, and where such episodes come from."""

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from pixeltraj.errors import PixeltrajError
from pixeltraj.task import Task


@dataclass
class Recording:
    """T steps and what is known of the R moments between them: R = T + 1, or T where the last one is missing."""

    parts: dict[str, np.ndarray]
    """`observation`, and of goal environments `achieved_goal` and `desired_goal`: (R, ...) each"""
    actions: np.ndarray
    """(T, A)"""
    rewards: np.ndarray
    """(T,)"""
    terminations: np.ndarray
    """(T,) bool"""
    positions: np.ndarray | None = None
    """(R, nq) MuJoCo's qpos, where the dataset has it"""
    velocities: np.ndarray | None = None
    """(R, nv) MuJoCo's qvel, beside `positions`"""
    snapshots: np.ndarray | None = None
    """(T + 1, Q) full simulator states, in datasets that pixeltraj exported"""
    origin: dict[str, object] = field(default_factory=dict)
    """Where it comes from, JSON-able."""

    def __len__(self) -> int:
        return len(self.actions)

    def observation(self, layout: tuple[str, ...], row: int, goal_row: int) -> np.ndarray | None:
        """(O,) the parts named, one after another, the goal from another row; None past the last moment known."""
        rows = {name: goal_row if name == "desired_goal" else row for name in layout}
        if any(at >= len(self.parts[name]) for name, at in rows.items()):
            return None
        return np.concatenate([np.ravel(self.parts[name][at]) for name, at in rows.items()]).astype(np.float64)


class Source(Protocol):
    """A dataset that is open: episodes by number, read when they are asked for."""

    identity: dict[str, Any]
    """What makes it this dataset and no other, JSON-able: an interrupted import goes on only with the same."""
    repeat: int
    """Simulator steps an action was held for."""

    def __len__(self) -> int: ...

    def recording(self, episode: int) -> Recording: ...


def check_columns(task: Task, where: str, columns: dict[str, tuple[tuple[int, ...], tuple[int | None, ...]]]) -> None:
    """columns: name -> (shape there, shape wanted; None = any). Raises PixeltrajError on the first that differs."""
    for name, (there, wanted) in columns.items():
        if len(there) != len(wanted) or any(w not in (None, t) for t, w in zip(there, wanted)):
            shape = ", ".join("any" if w is None else str(w) for w in wanted)
            raise PixeltrajError(f"{where} is no dataset of {task.name}: its {name} are {there}, wanted ({shape})")
