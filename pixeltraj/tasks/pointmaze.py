"""gymnasium-robotics' PointMaze (D4RL's Maze2d): a ball is pushed through a maze seen from above."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np

from pixeltraj.simulator import Simulator
from pixeltraj.task import Dimension, Keypoint, Outcome, Task
from pixeltraj.tasks.cameras import named_camera
from pixeltraj.tasks.maze import reached, waypoint
from pixeltraj.tasks.observation import checked_observation

_GOAL = ("goal_x", "goal_y")
_SPEED = ("x_velocity", "y_velocity")
_STATE = (
    *(Dimension(name, "m") for name in ("x", "y")),
    *(Dimension(name, "m/s") for name in _SPEED),
    *(Dimension(name, "m") for name in _GOAL),
)
_PULL, _DAMPING = 3.0, 0.8  # of the demonstrator's PD law, action per metre and per metre/second


@dataclass(frozen=True, kw_only=True)
class PointMazeTask(Task):
    """State (6,): position and velocity of the ball (the environment's `observation`), then the goal.

    The ball has reached the goal within 0.45 m of it, which ends the episode. The environment starts it in any
    cell but the goal's, and ends episodes after as many simulator steps as the horizon here comes to.
    """

    keypoints: tuple[Keypoint, ...] = (Keypoint("ball", "body", "particle"), Keypoint("goal", "site", "target"))
    state: tuple[Dimension, ...] = _STATE
    static: tuple[str, ...] = _GOAL
    hidden: tuple[str, ...] = _SPEED
    action_size: int = 2
    reward: Any = "sparse"

    def make(self) -> "PointMazeSimulator":
        return PointMazeSimulator(self)

    @property
    def outcome(self) -> Outcome:
        return reached

    def state_from_keypoints(self, keypoints: np.ndarray, start: np.ndarray) -> np.ndarray:
        ball, goal = np.moveaxis(keypoints[..., :2], -2, 0)  # each (B, K, 2)
        return np.concatenate([ball, np.full_like(ball, np.nan), goal], axis=-1)


class PointMazeSimulator(Simulator):
    """A PointMaze that ends at the goal. Observations, (6,), are `observation` followed by `desired_goal`."""

    task: PointMazeTask

    def __init__(self, task: PointMazeTask) -> None:
        import gymnasium_robotics

        super().__init__(task)
        gym.register_envs(gymnasium_robotics)
        self.env = gym.make(task.name, continuing_task=False, reset_target=False).unwrapped
        Path(self.env.tmp_xml_file_path).unlink(missing_ok=True)  # the environment leaves one behind each time
        self.model, self.data = self.env.model, self.env.data
        self.snapshot_layout = {
            "integration": mujoco.mj_stateSize(self.model, mujoco.mjtState.mjSTATE_INTEGRATION),
            "goal": 2,
        }

    def _reset(self, seed: int) -> None:
        self.env.reset(seed=seed)

    def state(self) -> np.ndarray:
        return self.observation().astype(np.float32)

    def observation(self) -> np.ndarray:
        return np.concatenate([self.data.qpos, self.data.qvel, self.env.goal])

    def set_observation(self, observation: np.ndarray) -> None:
        """Exact."""
        observation = checked_observation(observation, (6,), self.task, "position, velocity and desired goal")
        self._place_goal(observation[4:])
        self.env.point_env.set_state(observation[:2], observation[2:4])

    def snapshot(self) -> np.ndarray:
        return np.concatenate([self._integration_state(), self.env.goal])

    def restore(self, snapshot: np.ndarray) -> None:
        part = self.split_snapshot(snapshot)
        self._place_goal(part["goal"])
        self._restore_integration(part["integration"])

    def set_state(self, state: np.ndarray, near: np.ndarray) -> None:
        """Exact."""
        self.restore(near)
        self.set_observation(state)

    def _place_goal(self, goal: np.ndarray) -> None:
        self.env.goal = goal.copy()
        self.env.update_target_site_pos()

    def scripted_action(self) -> np.ndarray:
        """A PD law pulls the ball to the middle of the next cell on the shortest way, in the last one to the goal.

        D4RL's demonstrations were made in this manner.
        """
        target = waypoint(self.env.maze, self.data.qpos, self.env.goal)
        return np.clip(_PULL * (target - self.data.qpos) - _DAMPING * self.data.qvel, -1.0, 1.0)


def _task(maze: str, prompt: str, action_repeat: int, horizon: int) -> PointMazeTask:
    name = f"PointMaze_{maze}-v3"
    return PointMazeTask(
        name=name, prompt=prompt, camera=named_camera(name), action_repeat=action_repeat, horizon=horizon
    )


TASKS = (
    _task("UMaze", "roll the green ball around the wall to the red goal", 5, 60),
    _task("Medium", "roll the green ball through the maze to the red goal", 8, 75),
    _task("Large", "roll the green ball through the large maze to the red goal", 10, 80),
)
