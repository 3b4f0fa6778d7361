"""Runners: observations go back as exactly as they tell."""

import numpy as np
import pytest

from pixeltraj.errors import PixeltrajError
from pixeltraj.tasks import get_task, locomotion

RUNNERS = [task.name for task in locomotion.TASKS]


@pytest.mark.parametrize("name", RUNNERS)
def test_an_observation_goes_back_exactly_but_for_the_place(name: str) -> None:
    simulator = get_task(name).make()
    simulator.reset(seed=0)
    simulator.step(np.full(simulator.task.action_size, 0.2))
    observation, keypoints = simulator.observation(), simulator.keypoints()
    assert np.abs(observation).max() < 10
    action = np.full(simulator.task.action_size, -0.1)
    expected = simulator.step(action)[0]
    simulator.reset(seed=1)
    simulator.set_observation(observation)
    np.testing.assert_array_equal(simulator.observation(), observation)
    np.testing.assert_allclose(simulator.keypoints(), keypoints, atol=1e-6)  # the camera follows x
    assert simulator.data.qpos[0] == 0
    np.testing.assert_allclose(simulator.step(action)[0], expected, atol=1e-4)


@pytest.mark.parametrize("name", ["Hopper-v5", "Walker2d-v5"])
def test_clipped_velocities_come_back_clipped_and_postures_exactly(name: str) -> None:
    simulator = get_task(name).make()
    simulator.reset(seed=0)
    while np.abs(simulator.data.qvel).max() < 11:
        simulator.step(np.ones(simulator.task.action_size))
    observation, velocities = simulator.observation(), simulator.data.qvel.copy()
    simulator.set_observation(observation)
    np.testing.assert_array_equal(simulator.observation(), observation)
    np.testing.assert_array_equal(simulator.data.qvel, np.clip(velocities, -10, 10))


def test_what_is_no_observation_is_refused() -> None:
    simulator = get_task("Walker2d-v5").make()
    with pytest.raises(PixeltrajError, match="wanted 17 numbers: 8 positions without the root's x, 9 velocities"):
        simulator.set_observation(np.zeros(18))
    with pytest.raises(PixeltrajError, match=r"number 3 .* is inf; drop the episode"):
        simulator.set_observation(np.array([0.0] * 3 + [np.inf] + [0.0] * 13))
