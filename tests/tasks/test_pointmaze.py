"""PointMaze: the demonstrator finds its way, the goal ends the episode, and the picture shows the whole maze."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from pixeltraj.camera import FRAME_SIZE
from pixeltraj.errors import PixeltrajError
from pixeltraj.tasks.pointmaze import TASKS, PointMazeSimulator, PointMazeTask

EVERY = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)


def cell(simulator: PointMazeSimulator, position: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in simulator.env.maze.cell_xy_to_rowcol(position))


@EVERY
def test_the_demonstrator_reaches_the_goal_in_time_and_is_paid_once(task: PointMazeTask) -> None:
    simulator = task.make()
    for seed in range(8):
        simulator.reset(seed=seed)
        rng, rewards, over = np.random.default_rng(seed), [], False
        while not over:
            action = simulator.scripted_action() + 0.1 * rng.standard_normal(2)
            state, reward, terminated, truncated, _ = simulator.step(action)
            rewards.append(reward)
            over = terminated or truncated
        assert terminated and rewards == [0.0] * (len(rewards) - 1) + [1.0]
        assert np.linalg.norm(state[:2] - state[4:]) <= 0.45


def test_the_demonstrator_takes_the_way_around_the_wall() -> None:
    simulator = TASKS[0].make()
    simulator.reset(seed=0)
    start, goal = (simulator.env.maze.cell_rowcol_to_xy(np.array(corner)) for corner in ((1, 1), (3, 1)))
    simulator.set_observation(np.concatenate([start, np.zeros(2), goal]))
    visited, terminated = [(1, 1)], False
    while not terminated:
        *_, terminated, truncated, _ = simulator.step(simulator.scripted_action())
        assert not truncated
        here = cell(simulator, simulator.data.qpos)
        visited += [here] if here != visited[-1] else []
    assert visited[:6] == [(1, 1), (1, 2), (1, 3), (2, 3), (3, 3), (3, 2)]


@EVERY
def test_the_horizon_is_the_environment_s(task: PointMazeTask) -> None:
    assert task.horizon * task.action_repeat == gym.spec(task.name).max_episode_steps


def test_the_goal_is_reached_within_its_radius_and_not_before() -> None:
    simulator = TASKS[0].make()
    simulator.reset(seed=0)
    for distance, reached in ((0.47, False), (0.44, True)):
        simulator.set_observation(np.array([1.0, 1.0 - distance, 0.0, 0.0, 1.0, 1.0]))
        _, reward, terminated, _, _ = simulator.step(np.zeros(2))
        assert (reward, terminated) == (float(reached), reached)


@EVERY
def test_an_observation_brings_the_simulator_back_exactly(task: PointMazeTask) -> None:
    one, other = task.make(), task.make()
    one.reset(seed=1)
    other.reset(seed=2)
    for _ in range(3):
        one.step(np.array([0.3, -0.2]))
    inner = one.env.point_env._get_obs()[0]
    np.testing.assert_array_equal(one.observation(), np.concatenate([inner, one.env.goal]))
    other.set_observation(one.observation())
    np.testing.assert_array_equal(other.observation(), one.observation())
    np.testing.assert_array_equal(other.keypoints(), one.keypoints())
    np.testing.assert_allclose(other.keypoints()[1, :2], one.env.goal, atol=1e-6)
    action = np.array([-0.5, 0.9])
    np.testing.assert_allclose(other.step(action)[0], one.step(action)[0], atol=1e-6)


@EVERY
def test_the_whole_maze_is_in_view_upright(task: PointMazeTask) -> None:
    simulator = task.make()
    half = np.array([[-0.5, -0.5, 0.0], [0.5, 0.5, 0.0]])
    maze = simulator.env.maze.maze_map
    for place in [(i, j) for i, row in enumerate(maze) for j, kind in enumerate(row) if kind != 1]:
        corners = np.array([*simulator.env.maze.cell_rowcol_to_xy(np.array(place)), 0.0]) + half
        lower_left, upper_right = task.camera.project(corners)[:, :2]
        assert lower_left[0] < upper_right[0] and lower_left[1] > upper_right[1]
        assert min(*lower_left, *upper_right) > 1 and max(*lower_left, *upper_right) < FRAME_SIZE - 1


@pytest.mark.parametrize("observation", [np.zeros(4), np.array([0, 0, 0, 0, 1, np.nan])])
def test_observations_that_cannot_be_are_refused(observation: np.ndarray) -> None:
    simulator = TASKS[0].make()
    simulator.reset(seed=0)
    with pytest.raises(PixeltrajError, match="PointMaze_UMaze-v3"):
        simulator.set_observation(observation)


def test_nothing_is_left_in_the_folder_for_temporary_files() -> None:
    assert not Path(TASKS[0].make().env.tmp_xml_file_path).exists()
