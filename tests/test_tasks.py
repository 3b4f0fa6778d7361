"""Tasks: episodes can be repeated, stored, restored and read back from keypoints."""

import numpy as np
import pytest

from pixeltraj.errors import PixeltrajError
from pixeltraj.simulator import Simulator
from pixeltraj.tasks import TASKS, get_task
from pixeltraj.tasks.adroit import AdroitTask
from pixeltraj.tasks.metaworld import MetaWorldTask
from pixeltraj.tasks.sequence import SequenceTask

KNOWN = ("push-v3", "sweep-into-v3", "coffee-push-v3", "push-wall-v3", "door-open-v3", "drawer-close-v3")
LAYOUTS = {tuple(dimension.name for dimension in task.state): name for name, task in reversed(TASKS.items())}
REPRESENTATIVE = [*KNOWN, *(n for n in LAYOUTS.values() if n not in KNOWN and not isinstance(TASKS[n], SequenceTask))]
"""What the embedded base has seen, and one task of every state; the files in tests/tasks see to the others."""
METAWORLD = [name for name in REPRESENTATIVE if isinstance(TASKS[name], MetaWorldTask)]
LOCOMOTION = [name for name in REPRESENTATIVE if not isinstance(TASKS[name], (MetaWorldTask, AdroitTask))]


@pytest.fixture(scope="module", params=REPRESENTATIVE)
def simulator(request: pytest.FixtureRequest) -> Simulator:
    return get_task(request.param).make()


def policy(simulator: Simulator, rng: np.random.Generator) -> np.ndarray:
    """A noisy demonstrator where there is one: it reaches the moments that matter."""
    scripted = simulator.scripted_action()
    size = simulator.task.action_size
    return rng.uniform(-1, 1, size) if scripted is None else scripted + 0.1 * rng.standard_normal(size)


def play(simulator: Simulator, seed: int, decisions: int) -> tuple[np.ndarray, ...]:
    """(T+1, S) states, (T+1, N, 3) keypoints, (T+1, Q) snapshots, (T,) rewards; ends where the episode ends."""
    rng = np.random.default_rng(seed)
    states, rewards = [simulator.reset(seed=seed)[0]], []
    keypoints, snapshots = [simulator.keypoints()], [simulator.snapshot()]
    for _ in range(decisions):
        state, reward, terminated, truncated, _ = simulator.step(policy(simulator, rng))
        states.append(state)
        keypoints.append(simulator.keypoints())
        snapshots.append(simulator.snapshot())
        rewards.append(reward)
        if terminated or truncated:
            break
    return np.array(states), np.array(keypoints), np.array(snapshots), np.array(rewards)


def test_the_same_seed_gives_the_same_episode_and_another_seed_another(simulator: Simulator) -> None:
    first, second = play(simulator, 3, 30), play(simulator.task.make(), 3, 30)
    for one, two in zip(first, second):
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(play(simulator, 4, 1)[0][0], first[0][0])


def test_an_episode_does_not_depend_on_the_one_before(simulator: Simulator) -> None:
    expected = play(simulator.task.make(), 5, 10)[0]
    play(simulator, 6, 20)
    np.testing.assert_array_equal(play(simulator, 5, 10)[0], expected)


def test_restoring_a_snapshot_is_exact_and_so_is_the_step_after_it(simulator: Simulator) -> None:
    play(simulator, 1, 15)
    state, keypoints, snapshot = simulator.state(), simulator.keypoints(), simulator.snapshot()
    actions = np.random.default_rng(0).uniform(-1, 1, (5, simulator.task.action_size))
    expected = [(*simulator.step(action)[:3], simulator.snapshot()) for action in actions]
    other = simulator.task.make()  # another process would have nothing but the snapshot
    other.reset(seed=99)
    for one in (simulator, other):
        one.restore(snapshot)
        np.testing.assert_array_equal(one.snapshot(), snapshot)
        np.testing.assert_array_equal(one.state(), state)
        np.testing.assert_array_equal(one.keypoints(), keypoints)
        for action, (next_state, reward, terminated, next_snapshot) in zip(actions, expected):
            outcome = one.step(action)
            np.testing.assert_array_equal(outcome[0], next_state)
            assert outcome[1:3] == (reward, terminated)
            np.testing.assert_array_equal(one.snapshot(), next_snapshot)


def test_the_state_is_read_from_true_keypoints_exactly(simulator: Simulator) -> None:
    task = simulator.task
    states, keypoints, _, _ = play(simulator, 2, 60)
    for start in (0, len(states) // 2):
        read = task.state_from_keypoints(keypoints[None, start:], states[None, start])[0]
        hidden = task.indices(task.hidden)
        told = [i for i in range(task.state_size) if i not in hidden]
        assert np.isnan(read[:, hidden]).all()
        np.testing.assert_allclose(read[:, told], states[start:, told], atol=1e-4)


def test_declared_dimensions_are_what_the_simulator_gives(simulator: Simulator) -> None:
    task = simulator.task
    states, keypoints, snapshots, _ = play(simulator, 7, 5)
    names = [dimension.name for dimension in task.state]
    assert len(set(names)) == task.state_size == states.shape[1]
    assert set(task.static) | set(task.hidden) <= set(names)
    assert keypoints.shape[1:] == (len(task.keypoints), 3)
    assert sum(simulator.snapshot_layout.values()) == snapshots.shape[1]
    np.testing.assert_array_equal(np.ptp(states[:, task.indices(task.static)], axis=0), 0)


@pytest.mark.parametrize("name", METAWORLD)
def test_set_state_brings_the_arm_near_and_the_rest_exactly(name: str) -> None:
    simulator = get_task(name).make()
    states, _, snapshots, _ = play(simulator, 8, 60)
    hand = []
    for step in range(0, len(states), 4):
        simulator.set_state(states[step], near=snapshots[max(0, step - 4)])
        reached = simulator.state()
        hand.append(np.linalg.norm(reached[:3] - states[step, :3]))
        assert abs(reached[3] - states[step, 3]) < 0.01, "gripper"
        assert np.linalg.norm(reached[4:7] - states[step, 4:7]) < 0.0002, "object, metres"
        np.testing.assert_allclose(reached[7:], states[step, 7:], atol=1e-6)
    assert np.median(hand) < 0.0005 and max(hand) < 0.004


@pytest.mark.parametrize("name", LOCOMOTION)
def test_set_state_is_exact_on_runners_and_so_is_the_next_state(name: str) -> None:
    simulator = get_task(name).make()
    states, _, snapshots, _ = play(simulator, 8, 6)
    action = np.full(simulator.task.action_size, 0.3)
    step = max(i for i, state in enumerate(states[:6]) if (np.abs(state) != 10).all())  # Walker2d clips velocities
    simulator.restore(snapshots[step])
    expected = simulator.step(action)[0]
    simulator.set_state(states[step], near=snapshots[0])
    np.testing.assert_allclose(simulator.state(), states[step], atol=1e-6)
    np.testing.assert_allclose(simulator.step(action)[0], expected, atol=1e-3)


@pytest.mark.parametrize("name", METAWORLD)
def test_demonstrators_solve_their_task_and_are_paid_once(name: str) -> None:
    simulator = get_task(name).make()
    solved = 0
    for seed in range(4):
        rewards = play(simulator, seed, simulator.task.horizon)[3]
        assert set(rewards[:-1]) <= {0.0}
        solved += int(rewards[-1])
    assert solved >= 3


def test_the_horizon_truncates_and_is_counted_in_decisions() -> None:
    simulator = get_task("push-v3").make()
    simulator.reset(seed=0)
    ends = [simulator.step(np.zeros(4))[2:4] for _ in range(simulator.task.horizon)]
    assert ends == [(False, False)] * (simulator.task.horizon - 1) + [(False, True)]


def test_actions_are_clipped() -> None:
    simulator = get_task("HalfCheetah-v5").make()
    simulator.reset(seed=0)
    one = simulator.step(np.full(6, 5.0))[0]
    simulator.reset(seed=0)
    np.testing.assert_array_equal(simulator.step(np.ones(6))[0], one)


def test_unknown_tasks_are_refused_with_the_nearest_name() -> None:
    with pytest.raises(PixeltrajError, match="did you mean push-v3"):
        get_task("push-v2")
    with pytest.raises(PixeltrajError, match="there are: push-v3"):
        get_task("&")
