"""Adroit: the hand's joints from keypoints, the environments' own observations, and what ends an episode."""

from typing import Any

import mujoco
import numpy as np
import pytest

from pixeltraj.errors import PixeltrajError
from pixeltraj.tasks.adroit import TASKS, AdroitSimulator, AdroitTask
from pixeltraj.tasks.adroit_hand import GRASP

DOOR, HAMMER, PEN, BALL = TASKS


@pytest.fixture(scope="module", params=TASKS, ids=[task.name for task in TASKS])
def simulator(request: pytest.FixtureRequest) -> AdroitSimulator:
    return request.param.make()


def play(simulator: AdroitSimulator, decisions: int, seed: int = 0) -> dict[str, np.ndarray]:
    """A random action every ten decisions: far postures, and hard contacts."""
    rng = np.random.default_rng(seed)
    simulator.reset(seed=seed)
    kept: dict[str, list[np.ndarray]] = {"states": [], "keypoints": [], "snapshots": [], "returned": []}
    for step in range(decisions):
        if step % 10 == 0:
            action = rng.uniform(-1, 1, simulator.task.action_size)
        simulator.step(action)
        kept["returned"].append(simulator.observation())
        kept["states"].append(simulator.state())
        kept["keypoints"].append(simulator.keypoints())
        kept["snapshots"].append(simulator.snapshot())
    return {name: np.array(rows) for name, rows in kept.items()}


def told(task: AdroitTask) -> list[int]:
    hidden = task.indices(task.hidden)
    return [i for i in range(task.state_size) if i not in hidden]


def test_the_bones_are_those_of_the_model(simulator: AdroitSimulator) -> None:
    hand, model = simulator.task.hand, simulator.model
    count = len(hand.bones)
    assert [bone.joint for bone in hand.bones] == [model.joint(i).name for i in range(count)]
    np.testing.assert_allclose([bone.range for bone in hand.bones], model.jnt_range[:count])
    own = simulator.task.keypoints[: -len(simulator.task.thing.keypoints)]
    low, high = model.jnt_range[:count].T
    for joints in np.random.default_rng(0).uniform(low, high, (5, count)):
        simulator.data.qpos[:count] = joints
        seen = simulator.keypoints()[: len(own)]
        np.testing.assert_allclose(hand.points(joints[None], own)[0], seen, atol=1e-7)
        palm = simulator.data.site("S_grasp").xpos
        np.testing.assert_allclose(hand.points(joints[None], [GRASP])[0, 0], palm, atol=1e-12)


def test_all_joints_are_told_by_keypoints_in_any_posture(simulator: AdroitSimulator) -> None:
    hand = simulator.task.hand
    own = simulator.task.keypoints[: -len(simulator.task.thing.keypoints)]
    rng = np.random.default_rng(1)
    low, high = np.array([bone.range for bone in hand.bones]).T
    joints = rng.uniform(low, high, (150, len(low)))
    joints[:50] = np.where(rng.random((50, len(low))) < 0.5, low, high)  # every joint at a stop
    joints[50:100] += rng.normal(0, 0.2, (50, len(low)))  # and beyond
    joints[100] = 0.0
    read = hand.fit(hand.points(joints, own).astype(np.float32), own)
    np.testing.assert_allclose(read, joints, atol=1e-4)
    again = hand.fit(hand.points(joints[7:8], own).astype(np.float32), own)
    np.testing.assert_allclose(again, read[7:8], atol=1e-5)  # a frame does not depend on those beside it


def test_noisy_keypoints_move_the_joints_by_little(simulator: AdroitSimulator) -> None:
    hand = simulator.task.hand
    own = simulator.task.keypoints[: -len(simulator.task.thing.keypoints)]
    rng = np.random.default_rng(2)
    low, high = np.array([bone.range for bone in hand.bones]).T
    joints = rng.uniform(low, high, (60, len(low)))
    points = hand.points(joints, own)
    off = np.abs(hand.fit(points + rng.normal(0, 0.002, points.shape), own) - joints)
    assert np.median(off) < 0.06, "radians, for 2 mm"
    assert np.quantile(off, 0.9) < 0.25


def test_states_are_read_exactly_after_hard_contacts(simulator: AdroitSimulator) -> None:
    task = simulator.task
    played = play(simulator, 80, seed=3)
    read = task.state_from_keypoints(played["keypoints"][None], played["states"][None, 0])[0]
    assert np.isnan(read[:, task.indices(task.hidden)]).all()
    np.testing.assert_allclose(read[:, told(task)], played["states"][:, told(task)], atol=1e-4)


def test_an_observation_gives_the_state_and_what_is_seen(simulator: AdroitSimulator) -> None:
    played = play(simulator, 60, seed=1)
    for step in range(0, 60, 6):
        simulator.reset(seed=9)
        simulator.set_observation(played["returned"][step])
        np.testing.assert_allclose(simulator.state(), played["states"][step], atol=1e-6)
        np.testing.assert_allclose(simulator.keypoints(), played["keypoints"][step], atol=1e-6)
        told_again = simulator.observation()
        end = -1 if simulator.task.thing is HAMMER.thing else None  # the nail's touch sensor feels velocities
        np.testing.assert_allclose(told_again[:end], played["returned"][step][:end], atol=1e-6)
    other = simulator.task.make()
    other.reset(seed=4)
    other.set_observation(played["returned"][54])
    np.testing.assert_array_equal(other.snapshot(), simulator.snapshot())  # nothing of the episode before is left


def test_what_the_environment_returns_is_two_milliseconds_old_in_places(simulator: AdroitSimulator) -> None:
    simulator.reset(seed=2)
    inner: list[Any] = []
    step = simulator.env.step
    simulator.env.step = lambda action: inner.append(step(action)) or inner[-1]  # type: ignore[func-returns-value]
    worst = 0.0
    rng = np.random.default_rng(2)
    for _ in range(40):
        simulator.step(rng.uniform(-1, 1, simulator.task.action_size))
        state, snapshot = simulator.state(), simulator.snapshot()
        simulator.set_observation(inner[-1][0])
        worst = max(worst, float(np.abs(simulator.state() - state)[told(simulator.task)].max()))
        simulator.restore(snapshot)
    del simulator.env.step
    assert worst < 0.02


def test_set_state_is_exact_in_positions_and_goal(simulator: AdroitSimulator) -> None:
    played = play(simulator, 60, seed=5)
    for step in range(10, 60, 10):
        simulator.set_state(played["states"][step], near=played["snapshots"][step - 6])
        np.testing.assert_allclose(simulator.state(), played["states"][step], atol=1e-6)


@pytest.mark.parametrize("task", TASKS, ids=[task.name for task in TASKS])
def test_solving_the_task_pays_once_and_ends_the_episode(task: AdroitTask) -> None:
    simulator = task.make()
    simulator.reset(seed=0)
    if task is DOOR:
        simulator.data.joint("door_hinge").qpos = 1.5
    elif task is HAMMER:
        simulator.data.joint("nail_dir").qpos = 0.089
    elif task is BALL:
        simulator.data.qpos[-6:-3] = simulator.model.site("target").pos - simulator.model.body("Object").pos
    else:
        state = simulator.state()
        state[task.indices(("pen_direction_x", "pen_direction_y", "pen_direction_z"))] = state[-3:]
        simulator.set_state(state, near=simulator.snapshot())
    mujoco.mj_forward(simulator.model, simulator.data)
    solved = simulator.snapshot()
    _, reward, terminated, truncated, info = simulator.step(np.zeros(task.action_size))
    assert (reward, terminated, truncated, info["success"]) == (1.0, True, False, True)
    simulator.reset(seed=0)
    assert simulator.step(np.zeros(task.action_size))[1:3] == (0.0, False)
    simulator.restore(solved)
    assert simulator.step(np.zeros(task.action_size))[1:3] == (1.0, True)


def test_thrown_hammers_and_tilted_pens_are_put_back_without_a_jump() -> None:
    rng = np.random.default_rng(0)
    for task in (HAMMER, PEN):
        simulator = task.make()
        simulator.reset(seed=0)
        for turn in rng.uniform(-3.0, 3.0, (40, 3)):
            simulator.data.qpos[-3:] = turn
            near, state, points = simulator.snapshot(), simulator.state(), simulator.keypoints()
            simulator.set_state(state, near=near)
            np.testing.assert_allclose(
                simulator.data.qpos[-3:], turn, atol=2e-3
            )  # near a gimbal's lock float32 tells less
            np.testing.assert_allclose(simulator.keypoints(), points, atol=1e-6)


def test_wrong_observations_are_refused_with_their_layout() -> None:
    simulator = PEN.make()
    with pytest.raises(PixeltrajError, match="wanted 45 numbers: 24 joints"):
        simulator.set_observation(np.zeros(46))
    with pytest.raises(PixeltrajError, match=r"number 3 .* is nan"):
        simulator.set_observation(np.where(np.arange(45) == 3, np.nan, 0.0))


def test_no_frames_are_no_states() -> None:
    keypoints = np.empty((0, 5, len(BALL.keypoints), 3))
    assert BALL.state_from_keypoints(keypoints, np.empty((0, BALL.state_size))).shape == (0, 5, BALL.state_size)
