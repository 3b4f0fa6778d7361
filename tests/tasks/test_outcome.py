"""Task.outcome: what states and actions tell of rewards and ends, against what the simulators really paid."""

import numpy as np
import pytest

from pixeltraj.simulator import Simulator
from pixeltraj.task import Task
from pixeltraj.tasks import TASKS, get_task

Played = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""States, actions, next states, rewards, terminations."""


def play(simulator: Simulator, seed: int, steps: int, noise: float | None) -> Played:
    """The demonstrator with noise, or random actions that reach beyond their limits."""
    rng, size = np.random.default_rng(seed), simulator.task.action_size
    state, rows = simulator.reset(seed=seed)[0], []
    for _ in range(steps):
        own = simulator.scripted_action() if noise else None
        action = rng.uniform(-1.2, 1.2, size) if own is None else own + noise * rng.standard_normal(size)
        following, reward, terminated, _, _ = simulator.step(action)
        rows.append((state, action, following, reward, terminated))
        state = following
        if terminated:
            break
    return tuple(np.array(column) for column in zip(*rows))  # type: ignore[return-value]


def told(task: Task, states: np.ndarray, actions: np.ndarray, following: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    assert task.outcome
    rewards, over = task.outcome(states, actions, following)
    assert rewards.dtype == np.float32 and over.dtype == bool and rewards.shape == over.shape == (len(states),)
    return rewards, over


@pytest.mark.parametrize("name", ["PointMaze_UMaze-v3", "PointMaze_Medium-v3", "PointMaze_Large-v3"])
def test_a_goal_is_reached_exactly_when_the_maze_says_so(name: str) -> None:
    task = get_task(name)
    states, actions, following, rewards, ends = play(task.make(), 1, task.horizon, noise=0.3)
    assert ends[-1]
    np.testing.assert_array_equal(told(task, states, actions, following), (rewards, ends))


def test_the_ant_is_there_within_half_a_metre() -> None:
    task = get_task("AntMaze_UMaze-v5")
    simulator = task.make()
    state = simulator.reset(seed=0)[0]
    snapshot = simulator.snapshot()
    for away in (0.4, 0.5):
        state[29:] = state[:2] + (0.0, away)
        simulator.set_state(state, snapshot)
        following, reward, terminated, _, _ = simulator.step(np.zeros(8))
        rewards, over = told(task, state[None], np.zeros((1, 8)), following[None])
        assert terminated == (away < 0.45)
        assert (rewards[0], over[0]) == (reward, terminated)


@pytest.mark.parametrize(
    ("name", "r2"), [("HalfCheetah-v5", 0.95), ("Hopper-v5", 0.97), ("Walker2d-v5", 0.97)], ids=lambda value: str(value)
)
def test_a_runner_is_paid_nearly_what_its_speeds_say_and_ends_exactly(name: str, r2: float) -> None:
    task = get_task(name)
    simulator = task.make()
    steps = 100 if name == "HalfCheetah-v5" else task.horizon
    parts = [play(simulator, seed, steps, noise=None) for seed in range(8)]
    states, actions, following, rewards, ends = (np.concatenate(column) for column in zip(*parts))
    read, over = told(task, states, actions, following)
    np.testing.assert_array_equal(over, ends)
    assert ends.any() == (name != "HalfCheetah-v5")
    assert 1 - np.square(read - rewards).mean() / rewards.var() > r2
    if ends.any():  # the simulator ends in any of the repeated steps: the mean of them is told
        assert (
            np.abs(read - rewards)[ends].max() < 0.5 + np.abs(following[ends, task.indices(("rootx_velocity",))]).max()
        )


def test_what_no_state_tells_is_not_made_up() -> None:
    without = {name for name, task in TASKS.items() if task.outcome is None}
    assert without == {
        *("hammer-v3", "stick-push-v3", "stick-pull-v3", "multitask-v0", "sequence-v0", "Ant-v5"),
        *("FrankaKitchen-v1", "FrankaKitchen-mixed-v1"),
        *(name for name in TASKS if name.startswith("Adroit")),
    }
