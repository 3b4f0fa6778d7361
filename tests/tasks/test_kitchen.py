"""FrankaKitchen: everything that a picture shows is read back, and each subtask is paid once."""

import numpy as np
import pytest

from pixeltraj.camera import FRAME_SIZE
from pixeltraj.errors import PixeltrajError
from pixeltraj.tasks.kitchen import TASKS, KitchenSimulator

TASK, MIXED = TASKS
KNOBS_AND_SWITCH = [9, 11, 13, 15, 17]
"""In qpos; what the model couples to each comes next."""
RATIOS = np.array([174, 174, 174, 174, 14])


@pytest.fixture(scope="module")
def simulator() -> KitchenSimulator:
    return TASK.make()


def solve(simulator: KitchenSimulator, *subtasks: str) -> None:
    """Put the things of these subtasks where they are to be."""
    first = {"bottom burner": 20, "light switch": 26, "slide cabinet": 28, "microwave": 31, "kettle": 32}
    observation = simulator.observation()
    for name in subtasks:
        wanted = simulator.env.goal[name]
        observation[first[name] : first[name] + len(wanted)] = wanted
    simulator.set_observation(observation)


def anywhere(simulator: KitchenSimulator, rng: np.random.Generator) -> np.ndarray:
    """An observation with every joint within its range, the kettle anywhere and anyhow, all at rest."""
    simulator.reset(seed=0)
    low, high = simulator.model.jnt_range[:23].T
    qpos = np.empty(30)
    qpos[:23] = rng.uniform(low, high)
    qpos[:7] = simulator.data.qpos[:7] + rng.uniform(-0.5, 0.5, 7)
    qpos[np.array(KNOBS_AND_SWITCH) + 1] = qpos[KNOBS_AND_SWITCH] / RATIOS
    qpos[23:26] = rng.uniform([-1, 0, 1.5], [0.5, 1, 2.5])
    qpos[26:] = rng.standard_normal(4)
    qpos[26:] /= np.linalg.norm(qpos[26:])
    return np.concatenate([qpos[:9], np.zeros(9), qpos[9:], np.zeros(20)])


def test_any_posture_of_arm_and_things_is_read_from_keypoints(simulator: KitchenSimulator) -> None:
    rng = np.random.default_rng(0)
    told = [i for i in range(59) if i not in TASK.indices(TASK.hidden)]
    for _ in range(20):
        simulator.set_observation(anywhere(simulator, rng))
        state = simulator.state()
        before = state.copy()
        before[:9] += rng.uniform(-0.2, 0.2, 9)  # the moment before is only near
        read = TASK.state_from_keypoints(simulator.keypoints()[None, None], before[None])[0, 0]
        kettle = TASK.indices(("kettle_qw", "kettle_qx", "kettle_qy", "kettle_qz"))
        np.testing.assert_allclose(np.abs(read[kettle] @ state[kettle]), 1.0, atol=1e-5)
        np.testing.assert_allclose(read[told], state[told], atol=1e-4)


def test_inexact_keypoints_cost_a_little_and_wild_ones_do_no_harm(simulator: KitchenSimulator) -> None:
    simulator.reset(seed=0)
    start, true = simulator.state(), simulator.keypoints()
    rng = np.random.default_rng(0)
    read = TASK.state_from_keypoints(true + 0.002 * rng.standard_normal((1, 50, *true.shape)), start[None])[0]
    angles = TASK.indices(tuple(f"joint{i}" for i in range(1, 8)) + ("microwave", "slide_cabinet", "kettle_x"))
    assert np.median(np.abs(read[:, angles] - start[angles]), axis=0).max() < 0.03
    wild = TASK.state_from_keypoints(rng.standard_normal((3, 4, *true.shape)), np.tile(start, (3, 1)))
    assert np.isfinite(np.delete(wild, TASK.indices(TASK.hidden), axis=-1)).all()


def test_burners_and_lamp_follow_what_they_are_coupled_to(simulator: KitchenSimulator) -> None:
    simulator.reset(seed=0)
    data, rng = simulator.data, np.random.default_rng(0)
    for _ in range(15):
        data.qfrc_applied[KNOBS_AND_SWITCH] = rng.uniform(-1, 0, 5) * [1, 1, 1, 1, 3]
        simulator.step(np.zeros(9))
        coupled = data.qpos[np.array(KNOBS_AND_SWITCH) + 1]
        np.testing.assert_allclose(coupled, data.qpos[KNOBS_AND_SWITCH] / RATIOS, atol=1e-4)
    data.qfrc_applied[:] = 0
    assert data.qpos[KNOBS_AND_SWITCH].max() < -0.1


def test_an_observation_is_the_environment_s_and_brings_the_simulator_back_exactly(
    simulator: KitchenSimulator,
) -> None:
    other = TASK.make()
    other.reset(seed=5)
    simulator.reset(seed=1)
    for _ in range(4):
        simulator.step(np.linspace(-0.5, 0.5, 9))
    own = simulator.env._get_obs(simulator.env.robot_env._get_obs())["observation"]
    np.testing.assert_array_equal(simulator.observation(), own)
    other.set_observation(own)
    np.testing.assert_allclose(other.observation(), own, rtol=0, atol=1e-15)
    action = np.linspace(0.6, -0.6, 9)
    np.testing.assert_allclose(other.step(action)[0], simulator.step(action)[0], atol=1e-3)


def test_episodes_start_a_little_apart(simulator: KitchenSimulator) -> None:
    starts = np.array([simulator.reset(seed=seed)[0] for seed in range(4)])
    assert 0 < np.ptp(starts[:, :9], axis=0).max() <= 0.002
    np.testing.assert_array_equal(np.ptp(starts[:, 9:], axis=0), 0)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_every_subtask_is_paid_once_and_the_last_one_ends_the_episode(task) -> None:  # type: ignore[no-untyped-def]
    simulator = task.make()
    simulator.reset(seed=0)
    still = np.zeros(9)
    assert simulator.step(still)[1:3] == (0.0, False)
    solve(simulator, task.subtasks[0])
    assert simulator.step(still)[1:3] == (1.0, False)
    assert simulator.step(still)[1:3] == (0.0, False)
    fresh = task.make()
    fresh.reset(seed=9)
    fresh.restore(simulator.snapshot())
    for one in (simulator, fresh):  # what was paid is in the snapshot
        solve(one, *task.subtasks)
        *_, reward, terminated, truncated, info = one.step(still)
        assert (reward, terminated, truncated) == (3.0, True, False)
        assert set(info["completed"]) == set(task.subtasks) and info["success"]
    one.reset(seed=0)
    solve(one, task.subtasks[0])
    assert one.step(still)[1] == 1.0, "another episode starts from nothing"


def test_all_keypoints_are_in_view_before_and_after(simulator: KitchenSimulator) -> None:
    for after in (False, True):
        simulator.reset(seed=0)
        if after:
            solve(simulator, *TASK.subtasks)
        pixels = TASK.camera.project(simulator.keypoints())[:, :2]
        assert pixels.min() > 2 and pixels.max() < FRAME_SIZE - 2


@pytest.mark.parametrize(
    ("observation", "message"),
    [(np.zeros(60), "have no velocities"), (np.zeros(30), "59 numbers"), (np.full(59, np.inf), "inf")],
)
def test_observations_that_cannot_be_are_refused(
    simulator: KitchenSimulator, observation: np.ndarray, message: str
) -> None:
    with pytest.raises(PixeltrajError, match=message):
        simulator.set_observation(observation)
