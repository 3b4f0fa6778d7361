"""Backends: which renderer draws, by name or by what the machine has."""

import warnings
from typing import Literal

from pixeltraj.render.gl import NoOpenGL
from pixeltraj.render.renderer import Renderer
from pixeltraj.render.several_renderer import SeveralRenderer
from pixeltraj.simulator import Simulator
from pixeltraj.tasks.multitask import MultitaskSimulator

Backend = Literal["auto", "mujoco", "ray", "ray-2x2", "pyrender"]
"""auto: mujoco where there is OpenGL, else ray. ray casts one ray a pixel, ray-2x2 four. The pictures of two backends
differ."""


def open_renderer(simulator: Simulator, backend: Backend = "auto") -> Renderer:
    """A renderer for the simulator's task. Raises PixeltrajError where the one that is named cannot draw here."""
    if backend == "auto":
        try:
            return open_renderer(simulator, "mujoco")
        except NoOpenGL as no_gl:
            warnings.warn(f"frames are ray traced: {no_gl}", stacklevel=2)
            backend = "ray"
    if isinstance(simulator, MultitaskSimulator):
        return SeveralRenderer(simulator, lambda part: open_renderer(part, backend))
    # A backend is imported when it is asked for: it may need what is not there.
    if backend == "mujoco":
        from pixeltraj.render.mujoco_renderer import MujocoRenderer

        return MujocoRenderer(simulator)
    if backend in ("ray", "ray-2x2"):
        from pixeltraj.render.raytracing.ray_renderer import RayRenderer

        return RayRenderer(simulator, samples=2 if backend == "ray-2x2" else 1)
    from pixeltraj.render.pyrender_renderer import PyrenderRenderer

    return PyrenderRenderer(simulator)
