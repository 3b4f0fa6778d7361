"""Violations: what is beyond a joint's limit or inside something else is measured as deep as it is."""

import mujoco
import numpy as np
import pytest

from pixeltraj.decode.violations import joint_excess, penetration
from pixeltraj.simulator import Simulator
from pixeltraj.tasks import get_task


@pytest.fixture
def cheetah() -> Simulator:
    simulator = get_task("HalfCheetah-v5").make()
    simulator.reset(seed=0)
    simulator.data.qpos[:] = 0.0
    simulator.data.qpos[1] = 1.0  # in the air
    return simulator


@pytest.mark.parametrize("side", [0, 1])
def test_joint_excess_is_in_parts_of_the_range(cheetah: Simulator, side: int) -> None:
    assert joint_excess(cheetah) == 0
    joint = cheetah.model.joint("ffoot").id
    limits = cheetah.model.jnt_range[joint]
    cheetah.data.qpos[joint] = limits[side] + (2 * side - 1) * 0.25 * np.ptp(limits)
    assert joint_excess(cheetah) == pytest.approx(0.25)
    cheetah.data.qpos[2] = 99.0  # the root's turn knows no limits
    assert joint_excess(cheetah) == pytest.approx(0.25)


def test_penetration_is_as_deep_as_the_body_was_lowered(cheetah: Simulator) -> None:
    depths = []
    for height in (1.0, -0.1, -0.15):
        cheetah.data.qpos[1] = height
        mujoco.mj_forward(cheetah.model, cheetah.data)
        depths.append(penetration(cheetah))
    assert depths[0] == 0 and depths[2] - depths[1] == pytest.approx(0.05, abs=1e-6)
