"""OpenGL without a screen: EGL, or OSMesa where that is all there is."""

import importlib
import os
import sys
from typing import Protocol

from pixeltraj.errors import PixeltrajError

_NO_GL = (
    "no OpenGL to draw with ({reason}); install libegl1 and libgl1-mesa-dri (Debian/Ubuntu: apt-get install "
    "libegl1 libgl1-mesa-dri) or libosmesa6, or draw without OpenGL: --renderer ray; `pixeltraj doctor` tells more"
)


class NoOpenGL(PixeltrajError):
    """Nothing rasterises here; rays still can be traced."""

    def __init__(self, reason: str) -> None:
        super().__init__(_NO_GL.format(reason=reason))


class GLContext(Protocol):
    """One of MuJoCo's."""

    def make_current(self) -> None: ...

    def free(self) -> None: ...


def create_context(size: int) -> tuple[str, GLContext]:
    """The platform's name and a context for size x size pixels. MUJOCO_GL decides where it names a platform.

    Raises NoOpenGL where none can be had.
    """
    chosen = os.environ.get("MUJOCO_GL", "").lower()
    if chosen in ("disable", "disabled", "off", "false", "0"):
        raise NoOpenGL(f"MUJOCO_GL={chosen}")
    # MuJoCo itself decides once, when it is first imported, and without MUJOCO_GL for a window: not what is wanted.
    offscreen = ("egl", "osmesa") if sys.platform == "linux" else ("gl_context",)
    reasons = []
    for platform in (chosen,) if chosen in ("egl", "osmesa", "glfw") else offscreen:
        try:
            context = importlib.import_module(f"mujoco.{platform}").GLContext(size, size)
            context.make_current()
        except Exception as error:  # each binding raises its own kind
            reasons.append(f"{platform}: {(str(error) or type(error).__name__).splitlines()[0]}")
        else:
            return platform, context
    raise NoOpenGL("; ".join(reasons))
