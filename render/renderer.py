"""Renderer: simulator states -> 84x84 frames, with MuJoCo's own rasteriser."""

from collections.abc import Iterable
from types import TracebackType
from typing import Any

import mujoco
import numpy as np

from pixeltraj.camera import FRAME_SIZE
from pixeltraj.errors import PixeltrajError
from pixeltraj.simulator import Simulator

NO_GL = (
    "MuJoCo found no OpenGL ({reason}); install libegl1 and libgl1-mesa-dri (Debian/Ubuntu: apt-get install "
    "libegl1 libgl1-mesa-dri) or libosmesa6 with MUJOCO_GL=osmesa, then look at `pixeltraj doctor`"
)


class Renderer:
    """Draws one simulator through its task's camera. Use as a context manager: it holds a GL context.

    Shadows and reflections cost most of the time and hide small objects, so they are off; round shapes are
    drawn with as few faces as 84 pixels can show. `settings` is what has to be equal for frames to be mixed.
    """

    def __init__(self, simulator: Simulator, samples: int = 4) -> None:
        camera, model = simulator.task.camera, simulator.model
        quality = model.vis.quality
        quality.shadowsize, quality.offsamples = 0, samples
        quality.numslices, quality.numstacks, quality.numquads = 12, 6, 2
        model.vis.global_.offwidth = model.vis.global_.offheight = FRAME_SIZE
        model.vis.global_.fovy = camera.fovy
        self.simulator = simulator
        try:
            self._renderer = mujoco.Renderer(model, FRAME_SIZE, FRAME_SIZE)
        except Exception as error:  # each GL binding raises its own kind
            raise PixeltrajError(NO_GL.format(reason=str(error).splitlines()[0])) from error
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._renderer.scene.flags[flag] = 0
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FREE
        self._camera.distance = camera.distance
        self._camera.azimuth, self._camera.elevation = camera.azimuth, camera.elevation
        self.settings: dict[str, Any] = {
            "backend": "mujoco",
            "mujoco": mujoco.__version__,
            "samples": samples,
            "slices": 12,
        }

    def frame(self) -> np.ndarray:
        """(84, 84, 3) uint8: the simulator as it stands."""
        # A step leaves the positions of before its integration; this changes nothing that a step reads.
        for update in (mujoco.mj_kinematics, mujoco.mj_comPos, mujoco.mj_camlight):
            update(self.simulator.model, self.simulator.data)
        self._camera.lookat[:] = np.asarray(self.simulator.task.camera.lookat) + self.simulator.anchor()
        self._renderer.update_scene(self.simulator.data, self._camera)
        return self._renderer.render()

    def frames(self, snapshots: Iterable[np.ndarray]) -> np.ndarray:
        """(T, 84, 84, 3) uint8, one per snapshot (Q,)."""
        drawn = []
        for snapshot in snapshots:
            self.simulator.restore(snapshot)
            drawn.append(self.frame())
        return np.stack(drawn)

    def close(self) -> None:
        self._renderer.close()

    def __enter__(self) -> "Renderer":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
