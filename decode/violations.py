"""Violations: bodies inside each other, and joints beyond what their ranges allow."""

import mujoco
import numpy as np

from pixeltraj.simulator import Simulator

_SCALAR = (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE)


def joint_excess(simulator: Simulator) -> float:
    """How far the worst joint is beyond its limit, as a part of its range; 0 where none is.

    MuJoCo's limits are soft: what is pressed against one goes a little past it in real data too. Limited hinges and
    slides are looked at, ball joints are not.
    """
    model = simulator.model
    joints = np.flatnonzero(model.jnt_limited.astype(bool) & np.isin(model.jnt_type, _SCALAR))
    low, high = model.jnt_range[joints].T
    at = simulator.data.qpos[model.jnt_qposadr[joints]]
    beyond = np.maximum(low - at, at - high) / np.maximum(high - low, 1e-9)
    return float(max(0.0, beyond.max(initial=0.0)))


def penetration(simulator: Simulator) -> float:
    """Depth of the deepest contact of the last `mj_forward`, metres; 0 where nothing touches."""
    depths = -np.asarray(simulator.data.contact.dist[: simulator.data.ncon])
    return float(max(0.0, depths.max(initial=0.0)))
