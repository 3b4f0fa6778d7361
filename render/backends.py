"""Backends: which renderer draws, by name or by what the machine has."""

from typing import Literal

from pixeltraj.render.mujoco_renderer import MujocoRenderer
from pixeltraj.render.renderer import Renderer
from pixeltraj.simulator import Simulator

Backend = Literal["auto", "mujoco"]


def open_renderer(simulator: Simulator, backend: Backend = "auto", samples: int = 4) -> Renderer:
    """The renderer of that name. Raises PixeltrajError where it cannot draw here."""
    return MujocoRenderer(simulator, samples)
