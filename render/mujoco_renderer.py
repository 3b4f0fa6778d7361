"""MuJoCo's own rasteriser, through OpenGL (EGL or OSMesa)."""

import mujoco
import numpy as np

from pixeltraj.camera import FRAME_SIZE
from pixeltraj.errors import PixeltrajError
from pixeltraj.render.renderer import Renderer
from pixeltraj.simulator import Simulator

NO_GL = (
    "MuJoCo found no OpenGL ({reason}); install libegl1 and libgl1-mesa-dri (Debian/Ubuntu: apt-get install "
    "libegl1 libgl1-mesa-dri) or libosmesa6 with MUJOCO_GL=osmesa, then look at `pixeltraj doctor`"
)


class MujocoRenderer(Renderer):
    """Shadows and reflections cost most of the time and hide small objects, so they are off; round shapes are
    drawn with as few faces as 84 pixels can show."""

    def __init__(self, simulator: Simulator, samples: int = 4) -> None:
        super().__init__(simulator)
        camera, model = simulator.task.camera, simulator.model
        quality = model.vis.quality
        quality.shadowsize, quality.offsamples = 0, samples
        quality.numslices, quality.numstacks, quality.numquads = 12, 6, 2
        model.vis.global_.offwidth = model.vis.global_.offheight = FRAME_SIZE
        model.vis.global_.fovy = camera.fovy
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
        self.settings = {"backend": "mujoco", "mujoco": mujoco.__version__, "samples": samples, "slices": 12}

    def _draw(self, lookat: np.ndarray) -> np.ndarray:
        self._camera.lookat[:] = lookat
        self._renderer.update_scene(self.simulator.data, self._camera)
        return self._renderer.render()

    def close(self) -> None:
        self._renderer.close()
