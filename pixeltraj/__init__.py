"""pixeltraj: imaginary experience for RL agents.

States become frames, frames become one image, Stable Diffusion imagines such images, a decoder turns them back
into transitions, and an RL agent learns from them (ATraDiff, ICML 2024).
"""

import os
import sys

# MuJoCo picks its GL backend when it is first imported; without a display only EGL and OSMesa can work.
if sys.platform == "linux" and not os.environ.get("DISPLAY"):
    os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("LP_NUM_THREADS", "1")  # software GL: its own threads only get in the way here
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it warns of image processors that nobody here uses
