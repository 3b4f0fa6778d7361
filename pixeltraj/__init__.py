"""pixeltraj: imaginary experience for RL agents.

States become frames, frames become one image, Stable Diffusion imagines such images, a decoder turns them back
into transitions, and an RL agent learns from them (ATraDiff, ICML 2024).
"""

import ctypes.util
import os
import sys


def _offscreen_gl() -> str:
    """What MUJOCO_GL has to be here without a display: the first that is installed."""
    libraries = {"egl": "EGL", "osmesa": "OSMesa"}
    there = (name for name, library in libraries.items() if ctypes.util.find_library(library))
    return next(there, "disabled")  # frames are ray traced then


# MuJoCo picks its GL when it is first imported, and cannot be imported with one that is not there.
if sys.platform == "linux" and not os.environ.get("DISPLAY") and not os.environ.get("MUJOCO_GL"):
    os.environ["MUJOCO_GL"] = _offscreen_gl()
os.environ.setdefault(
    "LP_NUM_THREADS", "0"
)  # of software OpenGL: a frame is too small to share, processes share frames
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it warns of image processors that nobody here uses
