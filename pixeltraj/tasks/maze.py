"""Mazes of gymnasium-robotics: when their goal is reached, and which point to head for next."""

from collections import deque
from typing import Any

import numpy as np

REACHED = 0.45
"""Metres within which the environments call the goal reached."""
Cell = tuple[int, int]
"""Row and column of the maze's map."""


def reached(states: np.ndarray, actions: np.ndarray, following: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The outcome of states that begin with a place and end with the goal, x and y each: exactly the environments'."""
    over = np.linalg.norm(following[:, :2] - following[:, -2:], axis=-1) <= REACHED
    return over.astype(np.float32), over


def waypoint(maze: Any, place: np.ndarray, goal: np.ndarray, width: float = 0.2) -> np.ndarray:
    """(2,) where to head for in a straight line from `place` (2,), metres, to get to `goal` (2,) on the shortest way.

    The goal itself in its cell; before, the middle of the next cell, or of the own one while `place` is more than
    `width` cells beside the line between them. maze: the environment's own. In a wall's cell the goal, too.
    """
    here, end = _cell(maze, place), _cell(maze, goal)
    steps = _steps_to(end, {(i, j) for i, row in enumerate(maze.maze_map) for j, kind in enumerate(row) if kind != 1})
    if here == end or here not in steps:
        return goal
    onward = min(_neighbours(here), key=lambda cell: steps.get(cell, np.inf))
    middle, following = (maze.cell_rowcol_to_xy(np.array(cell)) for cell in (here, onward))
    beside = np.abs(place - middle)[following == middle]
    return middle if beside.max() > width * maze.maze_size_scaling else following


def _cell(maze: Any, place: np.ndarray) -> Cell:
    row, column = maze.cell_xy_to_rowcol(place)
    return int(row), int(column)


def _neighbours(cell: Cell) -> list[Cell]:
    row, column = cell
    return [(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)]


def _steps_to(goal: Cell, free: set[Cell]) -> dict[Cell, int]:
    """How many cells each free cell is away from the goal's, breadth first."""
    steps, frontier = {goal: 0}, deque([goal])
    while frontier:
        cell = frontier.popleft()
        for near in _neighbours(cell):
            if near in free and near not in steps:
                steps[near] = steps[cell] + 1
                frontier.append(near)
    return steps
