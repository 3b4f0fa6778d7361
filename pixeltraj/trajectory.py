"""Trajectory: what one episode, real or imagined, consists of."""

from dataclasses import dataclass, field, fields

import numpy as np

from pixeltraj.errors import PixeltrajError
from pixeltraj.task import Task


@dataclass
class Trajectory:
    """T transitions between T+1 states. There is never a single "done": see `terminations`, `truncations`."""

    states: np.ndarray
    """(T+1, S) float32"""
    actions: np.ndarray
    """(T, A) float32 in [-1, 1]"""
    rewards: np.ndarray
    """(T,) float32"""
    terminations: np.ndarray
    """(T,) bool: the task ended here; nothing follows, the value of the next state is zero."""
    truncations: np.ndarray
    """(T,) bool: the time was up; the next state has a value."""
    keypoints: np.ndarray
    """(T+1, N, 3) float32, metres from the camera's anchor"""
    snapshots: np.ndarray | None = None
    """(T+1, Q) float64 full simulator states; None for imagined trajectories"""
    frames: np.ndarray | None = None
    """(T+1, 84, 84, 3) uint8, where drawn or imagined"""
    uncertainty: np.ndarray | None = None
    """(T+1,) metres by which the decoder expects to have misread the keypoints, along an axis; None for real ones"""
    weights: np.ndarray | None = None
    """(T,) float32 above 0: how often a replay buffer draws each transition, beside others; None: all alike"""
    origin: dict[str, object] = field(default_factory=dict)
    """How it came about: seed, policy; or source store, episode and step. JSON-able."""

    def __len__(self) -> int:
        return len(self.actions)

    def check(self, task: Task) -> None:
        """Raise PixeltrajError where shapes, types or values cannot be a trajectory of the task."""
        steps, points = len(self), len(task.keypoints)
        shapes = {
            "states": (steps + 1, task.state_size),
            "actions": (steps, task.action_size),
            "rewards": (steps,),
            "terminations": (steps,),
            "truncations": (steps,),
            "keypoints": (steps + 1, points, 3),
        }
        if self.weights is not None:
            shapes["weights"] = (steps,)
        if steps == 0:
            raise PixeltrajError(f"a trajectory of {task.name} has no transitions")
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value.shape != shape:
                raise PixeltrajError(f"a trajectory of {task.name} has {name} {value.shape}, wanted {shape}")
        for part in fields(self):
            value = getattr(self, part.name)
            if isinstance(value, np.ndarray) and value.dtype.kind == "f" and not np.isfinite(value).all():
                step = int(np.argwhere(~np.isfinite(value))[0][0])
                raise PixeltrajError(
                    f"a trajectory of {task.name} has NaN or infinite {part.name} at step {step} "
                    f"({self.origin}); drop it or collect it again"
                )
