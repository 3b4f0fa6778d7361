"""AntMaze: goals are seen, kept and reached; observations go back exactly."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pixeltraj.camera import FRAME_SIZE
from pixeltraj.errors import PixeltrajError
from pixeltraj.render.backends import open_renderer
from pixeltraj.tasks import antmaze, get_task
from pixeltraj.tasks.maze import waypoint

MAZES = ("AntMaze_UMaze-v5", "AntMaze_Medium-v5", "AntMaze_Large-v5")


@pytest.fixture(scope="module")
def simulator() -> Any:
    return get_task("AntMaze_Medium-v5").make()


def test_an_observation_goes_back_exactly(simulator: Any) -> None:
    simulator.reset(seed=3)
    for _ in range(30):
        simulator.step(np.full(8, 0.4))
    observation, state = simulator.observation(), simulator.state()
    for given in (observation, np.concatenate([observation[:29], np.ones(78), observation[29:]])):
        simulator.reset(seed=4)
        simulator.set_observation(given)
        np.testing.assert_array_equal(simulator.observation(), observation)
        np.testing.assert_array_equal(simulator.state(), state)
        np.testing.assert_array_equal(simulator.keypoints()[-1, :2], state[-2:])


def test_an_observation_without_its_place_is_refused(simulator: Any) -> None:
    with pytest.raises(PixeltrajError, match=r"wanted 31 or 109 numbers: achieved_goal \(2\), observation"):
        simulator.set_observation(np.zeros(29))


def test_reaching_the_goal_ends_the_episode_and_pays_once(simulator: Any) -> None:
    simulator.reset(seed=0)
    place = simulator.observation()
    place[:2] = place[-2:] + [0.2, 0.2]
    place[2] = 0.6
    simulator.set_observation(place)
    assert simulator.step(np.zeros(8))[1:4] == (1.0, True, False)
    place[:2] = place[-2:] + [0.8, 0.8]
    simulator.set_observation(place)
    assert simulator.step(np.zeros(8))[1:4] == (0.0, False, False)


@pytest.mark.parametrize("name", MAZES)
def test_d4rl_evaluates_from_corner_to_corner_in_the_same_stores(name: str) -> None:
    task = get_task(name)
    evaluated = replace(task, corner_to_corner=True)  # type: ignore[call-arg]
    assert evaluated.fingerprint() == task.fingerprint()
    drawn, fixed = task.make(), evaluated.make()
    starts = {one: np.array([one.reset(seed=seed)[0][[0, 1, -2, -1]] for seed in range(8)]) for one in (drawn, fixed)}
    assert np.ptp(starts[drawn], axis=0).min() > 4 and np.ptp(starts[fixed], axis=0).max() < 2
    middle = starts[fixed].mean(axis=0)
    assert np.linalg.norm(middle[:2] - middle[2:]) > 7


@pytest.mark.parametrize("name", MAZES)
def test_the_red_goal_is_drawn_where_it_is_projected_and_the_ant_is_seen(name: str) -> None:
    simulator: Any = get_task(name).make()
    camera = simulator.task.camera
    with open_renderer(simulator) as renderer:
        for seed in range(6):
            simulator.reset(seed=seed)
            frame = renderer.frame().astype(int)
            red, green, blue = np.moveaxis(frame, -1, 0)
            rows, columns = np.nonzero((red > green + 70) & (red > blue + 70))
            goal = camera.project(simulator.keypoints()[-1].astype(np.float64))[:2]
            assert np.hypot(columns.mean() + 0.5 - goal[0], rows.mean() + 0.5 - goal[1]) < 1.0
            simulator.data.qpos[2] = -20.0
            changed = np.abs(frame - renderer.frame().astype(int)).max(axis=-1) > 12
            assert changed.sum() >= 4, "no ant to be seen"


@pytest.mark.parametrize("name", MAZES)
def test_the_whole_maze_is_in_view(name: str) -> None:
    simulator: Any = get_task(name).make()
    maze = simulator.env.maze
    for row, kinds in enumerate(maze.maze_map):
        for column, kind in enumerate(kinds):
            if kind != 1:
                corners = maze.cell_rowcol_to_xy((row, column)) + 2 * np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])
                pixels = simulator.task.camera.project(np.pad(corners, ((0, 0), (0, 1))))[:, :2]
                assert pixels.min() > 1 and pixels.max() < FRAME_SIZE - 1


@pytest.mark.parametrize("name", MAZES)
def test_waypoints_lead_from_every_cell_to_the_goal_and_never_through_a_wall(name: str) -> None:
    simulator: Any = get_task(name).make()
    maze = simulator.env.maze
    rng = np.random.default_rng(0)
    free = [(i, j) for i, row in enumerate(maze.maze_map) for j, kind in enumerate(row) if kind != 1]
    for _ in range(8):
        start, end = (maze.cell_rowcol_to_xy(free[i]) for i in rng.choice(len(free), 2, replace=False))
        place, goal = start + rng.uniform(-1.5, 1.5, 2), end + rng.uniform(-1, 1, 2)
        for _ in range(350):
            towards = waypoint(maze, place, goal) - place
            place = place + towards * min(1.0, 0.4 / max(float(np.linalg.norm(towards)), 1e-9))
            row, column = maze.cell_xy_to_rowcol(place)
            assert maze.maze_map[row][column] != 1, "in a wall"
        np.testing.assert_allclose(place, goal, atol=1e-6)


def test_the_demonstrator_gets_to_the_goal() -> None:
    simulator = get_task("AntMaze_UMaze-v5").make()
    solved = 0
    for seed in range(4):
        simulator.reset(seed=seed)
        for _ in range(simulator.task.horizon):
            action = simulator.scripted_action()
            assert action is not None
            _, reward, terminated, _, _ = simulator.step(action)
            if terminated:
                break
        solved += int(reward)
    assert solved >= 3


def test_no_file_is_left_behind() -> None:
    before = set(Path(tempfile.gettempdir()).glob("ant_maze*"))
    get_task(antmaze.TASKS[0].name).make()
    assert set(Path(tempfile.gettempdir()).glob("ant_maze*")) <= before
