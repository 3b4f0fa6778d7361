"""MuJoCo's own rasteriser, through OpenGL."""

import atexit
import copy
import weakref

import mujoco
import numpy as np

from pixeltraj.camera import FRAME_SIZE
from pixeltraj.render.gl import GLContext, NoOpenGL, create_context
from pixeltraj.render.mesh import simplified
from pixeltraj.render.renderer import Renderer
from pixeltraj.simulator import Simulator

SAMPLES = 4
"""Multisampling: without it a thin limb flickers."""
FACETS = {"numslices": 10, "numstacks": 4, "numquads": 2}
"""Faces of round shapes and planes, MuJoCo's `visual/quality`: as few as 84 pixels can show."""
CELL = 0.025
"""Metres: vertices this near to each other are drawn as one, or nearer than `CELL_PIXELS` where that is more."""
CELL_PIXELS = 1.4
_UNSEEN_GROUP = 5  # of geoms, which MuJoCo's viewer does not show
_NOBODY = mujoco.MjvPerturb()
# What environments edit and scenes read.
_COPIED = ("geom_rgba", "geom_size", "geom_matid", "site_rgba", "site_size", "site_matid", "mat_rgba")


class MujocoRenderer(Renderer):
    """Draws a simplified copy of the simulator's model.

    Shadows and reflections cost most of the time and hide small objects, so they are off. `benchmarks/render.py`
    measures what all of this gains, and how far the frames are from those of the full model.
    """

    def __init__(self, simulator: Simulator, simplify: bool = True) -> None:
        """simplify=False draws the model as it is: the reference. Raises NoOpenGL where there is none."""
        super().__init__(simulator)
        camera = simulator.task.camera
        pixel = camera.distance / camera.focal  # metres a pixel shows at the point that is looked at
        cell = round(float(max(CELL, CELL_PIXELS * pixel)), 4)
        self._model = model = simplified(simulator.model, cell) if simplify else copy.deepcopy(simulator.model)
        model.vis.quality.shadowsize, model.vis.quality.offsamples = 0, SAMPLES
        if simplify:
            for name, count in FACETS.items():
                setattr(model.vis.quality, name, count)
        model.vis.global_.offwidth = model.vis.global_.offheight = FRAME_SIZE
        model.vis.global_.fovy = camera.fovy
        platform, self._gl = create_context(FRAME_SIZE)
        try:
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        except mujoco.FatalError as error:
            raise NoOpenGL(str(error).splitlines()[0]) from error
        # A context that outlives the GL binding cannot be freed any more: at the latest, close before the exit. The
        # binding registered its own end by now; finalizers as a group may have been registered long before.
        self._close = weakref.finalize(self, _free, self._gl, self._context)
        self._close.atexit = False
        atexit.register(self._close)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=model.ngeom + model.nsite + 100)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._scene.flags[flag] = 0
        self._option, self._area = mujoco.MjvOption(), mujoco.MjrRect(0, 0, FRAME_SIZE, FRAME_SIZE)
        # MuJoCo draws in the order of the model, the floor first. Drawn last, it is not shaded where it is hidden.
        planes = (model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE) & (self._option.geomgroup[model.geom_group] == 1)
        model.geom_group[planes] = _UNSEEN_GROUP
        self._planes_only = mujoco.MjvOption()
        self._planes_only.geomgroup[:], self._planes_only.sitegroup[:] = 0, 0
        self._planes_only.geomgroup[_UNSEEN_GROUP] = 1
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FREE
        self._camera.distance = camera.distance
        self._camera.azimuth, self._camera.elevation = camera.azimuth, camera.elevation
        self.settings = {
            "backend": "mujoco",
            "mujoco": mujoco.__version__,
            "gl": platform,
            "samples": SAMPLES,
            "cell": cell if simplify else 0.0,
            **(FACETS if simplify else {}),
        }

    def _draw(self, lookat: np.ndarray) -> np.ndarray:
        for name in _COPIED:
            getattr(self._model, name)[:] = getattr(self.simulator.model, name)
        self._camera.lookat[:] = lookat
        data, everything = self.simulator.data, mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(self._model, data, self._option, None, self._camera, everything, self._scene)
        mujoco.mjv_addGeoms(self._model, data, self._planes_only, _NOBODY, everything, self._scene)
        self._gl.make_current()
        mujoco.mjr_render(self._area, self._scene, self._context)
        frame = np.empty((FRAME_SIZE, FRAME_SIZE, 3), np.uint8)
        mujoco.mjr_readPixels(frame, None, self._area, self._context)
        return np.ascontiguousarray(frame[::-1])  # OpenGL's first row is the lowest

    def close(self) -> None:
        self._close()


def _free(gl: GLContext, context: mujoco.MjrContext) -> None:
    gl.make_current()
    context.free()
    gl.free()
