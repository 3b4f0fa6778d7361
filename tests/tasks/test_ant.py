"""Ant: its pose is read from keypoints however it tumbles, its observation is inverted, and it can walk."""

from typing import Any

import mujoco
import numpy as np
import pytest

from pixeltraj.errors import PixeltrajError
from pixeltraj.simulator import Simulator
from pixeltraj.tasks import get_task


@pytest.fixture(scope="module")
def simulator() -> Any:
    return get_task("Ant-v5").make()


def pose(simulator: Any, rng: np.random.Generator) -> None:
    """Any place, orientation and joint angles."""
    simulator.data.qpos[:] = rng.uniform(-3, 3, 15)
    simulator.data.qpos[3:7] = rng.normal(size=4)
    simulator.data.qpos[3:7] /= np.linalg.norm(simulator.data.qpos[3:7])
    mujoco.mj_forward(simulator.model, simulator.data)


def test_any_pose_is_read_exactly_upside_down_too(simulator: Any) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        pose(simulator, rng)
        state = simulator.state()
        read = simulator.task.state_from_keypoints(simulator.keypoints()[None, None], state[None])[0, 0]
        np.testing.assert_allclose(read[:13], state[:13], atol=2e-6)
        assert np.isnan(read[13:]).all()


def test_the_quaternion_keeps_the_sign_of_the_start_through_a_whole_turn(simulator: Any) -> None:
    """A full turn about a tilted axis brings the ant back, and its quaternion to minus where it was."""
    simulator.reset(seed=0)
    axis, states, keypoints = np.array([0.6, 0.0, 0.8]), [], []
    for angle in np.linspace(0, 2 * np.pi, 25):
        simulator.data.qpos[3:7] = [np.cos(angle / 2), *(np.sin(angle / 2) * axis)]
        states.append(simulator.state())
        keypoints.append(simulator.keypoints())
    np.testing.assert_allclose(keypoints[0], keypoints[-1], atol=1e-6)
    for sign in (1, -1):
        start = states[0].copy()
        start[1:5] *= sign
        read = simulator.task.state_from_keypoints(np.array(keypoints)[None], start[None])[0]
        np.testing.assert_allclose(read[:, 1:5], sign * np.array(states)[:, 1:5], atol=2e-6)


def test_keypoints_in_error_give_a_state_in_error_by_as_much(simulator: Any) -> None:
    rng = np.random.default_rng(1)
    simulator.reset(seed=0)
    state, keypoints = simulator.state(), simulator.keypoints()
    noisy = keypoints + 0.01 * rng.standard_normal((1, 300, 13, 3))
    read = simulator.task.state_from_keypoints(noisy, state[None])[0, :, :13]
    np.testing.assert_allclose(np.linalg.norm(read[:, 1:5], axis=-1), 1, atol=1e-9)
    error = np.sqrt(np.mean((read - state[:13]) ** 2, axis=0))
    assert error[0] < 0.006, "metres, of noise of 0.01"
    assert error[1:5].max() < 0.016 and error[5:].max() < 0.075, "quaternion, radians: a thigh is 0.28 m long"
    assert error[2:].min() > 0.003


def test_frames_tell_the_legs_apart(simulator: Any) -> None:
    legs = [simulator.model.geom(f"aux_{leg}_geom").rgba for leg in (1, 2, 3, 4)]
    assert min(np.abs(a - b).max() for i, a in enumerate(legs) for b in legs[:i]) > 0.3


def test_an_observation_goes_back_exactly_but_for_the_place(simulator: Any) -> None:
    simulator.reset(seed=3)
    for _ in range(30):
        simulator.step(np.full(8, 0.4))
    observation, snapshot = simulator.observation(), simulator.snapshot()
    assert observation.shape == (105,) and np.abs(observation[27:]).max() > 0, "no contact, nothing to test"
    simulator.reset(seed=4)
    simulator.set_observation(observation)
    np.testing.assert_array_equal(simulator.observation(), observation)
    np.testing.assert_array_equal(simulator.data.qpos[:2], 0)
    simulator.restore(snapshot)
    np.testing.assert_array_equal(simulator.observation(), observation)
    for size in (27, 111):  # without contact forces, and with those of older versions
        older = np.concatenate([observation[:27], np.zeros(size - 27)])
        simulator.set_observation(older)
        np.testing.assert_array_equal(simulator.observation()[:27], observation[:27])


@pytest.mark.parametrize(
    ("observation", "message"),
    [(np.zeros(29), "has shape .29,., wanted 27 or 105 or 111"), (np.full(27, np.nan), "number 0 .* is nan")],
)
def test_what_is_no_observation_is_refused(simulator: Simulator, observation: np.ndarray, message: str) -> None:
    with pytest.raises(PixeltrajError, match=message):
        simulator.set_observation(observation)


@pytest.mark.parametrize("direction", [(1.0, 0.0), (-0.6, 0.8)])
def test_the_trot_carries_the_ant_where_it_should(simulator: Any, direction: tuple[float, float]) -> None:
    from pixeltraj.tasks.trot import Trot

    simulator.reset(seed=5)
    for _ in range(100):
        simulator.step(Trot().action(simulator.data, np.array(direction)))
    along, across = np.array([direction, (-direction[1], direction[0])]) @ simulator.data.qpos[:2]
    assert along > 2.5 and abs(across) < 0.5 * along, f"{along:.1f} m along, {across:.1f} m across in 5 s"
