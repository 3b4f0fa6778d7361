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
        self._floors = floors(simulator.model) if simulator.task.camera.track else []

    def frame(self) -> np.ndarray:
        """(84, 84, 3) uint8: the simulator as it stands."""
        # A step leaves the positions of before its integration; this changes nothing that a step reads.
        for update in (mujoco.mj_kinematics, mujoco.mj_comPos, mujoco.mj_camlight):
            update(self.simulator.model, self.simulator.data)
        anchor = self.simulator.anchor()
        for geom, period in self._floors:
            self.simulator.data.geom_xpos[geom, :2] = period * np.round(anchor[:2] / period)
        return self._draw(np.asarray(self.simulator.task.camera.lookat) + anchor)

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


def floors(model: mujoco.MjModel) -> list[tuple[int, np.ndarray]]:
    """Planes that end somewhere, and after how many metres (2,) their texture repeats.

    Whoever runs leaves them after 40 metres and would be drawn above nothing; but physics knows no such end, so
    under a camera that follows, they follow too, by whole repeats of their texture.
    """
    found = []
    for geom in range(model.ngeom):
        ends = model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_PLANE and (model.geom_size[geom, :2] > 0).all()
        if ends and model.geom_bodyid[geom] == 0 and not model.geom_pos[geom, :2].any():
            material = int(model.geom_matid[geom])
            repeat = model.mat_texrepeat[material] if material >= 0 else np.ones(2)
            whole = material >= 0 and model.mat_texuniform[material]
            found.append((geom, 2 * (np.ones(2) if whole else model.geom_size[geom, :2]) / repeat))
    return found
