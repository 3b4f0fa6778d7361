"""Renderer: simulator states -> 84x84 frames. What every backend shares; each has a file of its own."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

import mujoco
import numpy as np

from pixeltraj.simulator import Simulator


class Renderer(ABC):
    """Draws one simulator through its task's camera. Use as a context manager: it may hold a GL context."""

    settings: dict[str, Any]
    """What has to be equal for frames to be mixed, JSON-able; `backend` names the class."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator

    def frame(self) -> np.ndarray:
        """(84, 84, 3) uint8: the simulator as it stands."""
        # A step leaves the positions of before its integration; this changes nothing that a step reads.
        for update in (mujoco.mj_kinematics, mujoco.mj_comPos, mujoco.mj_camlight):
            update(self.simulator.model, self.simulator.data)
        return self._draw(np.asarray(self.simulator.task.camera.lookat) + self.simulator.anchor())

    def frames(self, snapshots: Iterable[np.ndarray]) -> np.ndarray:
        """(T, 84, 84, 3) uint8, one per snapshot (Q,)."""
        drawn = []
        for snapshot in snapshots:
            self.simulator.restore(snapshot)
            drawn.append(self.frame())
        return np.stack(drawn)

    @abstractmethod
    def _draw(self, lookat: np.ndarray) -> np.ndarray:
        """The frame of `simulator.data`, whose positions are up to date; the camera looks at (3,) in the world."""

    @abstractmethod
    def close(self) -> None:
        """Give back what the backend holds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
