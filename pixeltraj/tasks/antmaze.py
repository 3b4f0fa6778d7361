"""gymnasium-robotics' AntMaze: Gymnasium's Ant has to walk through a maze to a goal, seen from above.

Tasks are named after the registered environments, whose starts and goals they draw. They stand for D4RL's datasets
as Minari recorded them again (AntMaze v4: the same ant, mazes and actions):

| task | starts and goals | D4RL, Minari |
|---|---|---|
| AntMaze_UMaze_Fixed-v5 (not registered) | one corner, the other one | umaze |
| AntMaze_UMaze-v5 | any free cell | umaze-diverse |
| AntMaze_Medium-v5, AntMaze_Large-v5 | any free cell | medium-play, large-play |
| AntMaze_Medium_Diverse_GR-v5, AntMaze_Large_Diverse_GR-v5 | a few cells each | medium-diverse, large-diverse |

D4RL evaluates all of a maze's datasets from its first corner to the far one: `replace(task, corner_to_corner=True)`
does so, and goes with the stores and models of the task. D4RL's HDF5 files themselves are of another simulator:
mirrored mazes, an ant of a fifth of the strength, 0.1 s a step instead of 0.05.

The suite ships no policy that walks. The demonstrator here trots from cell to cell; of 16 episodes with its noise of
0.1 it solves 16 in the U-shaped and the medium maze, 14 from corner to corner of the U, 10 in the large one.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np

from pixeltraj.task import Dimension, Keypoint, Outcome
from pixeltraj.tasks.ant import KEYPOINTS, MOTION, PLACE, POSTURE, AntSimulator, AntTask
from pixeltraj.tasks.cameras import named_camera
from pixeltraj.tasks.maze import reached, waypoint
from pixeltraj.tasks.observation import checked_observation
from pixeltraj.tasks.trot import Trot

_GOAL = (Dimension("goal_x", "m"), Dimension("goal_y", "m"))


@dataclass(frozen=True, kw_only=True)
class AntMazeTask(AntTask):
    """State (31,): the torso's x and y, the ant as in `AntTask`, and the goal's x and y, metres in the world."""

    far_corner: tuple[int, int]
    """Row and column of the cell that is D4RL's goal; (1, 1), its start, is the first one within the walls."""
    corner_to_corner: bool = False
    """Start at (1, 1) with the goal in the far corner, as D4RL evaluates, not where the environment draws them."""
    keypoints: tuple[Keypoint, ...] = (*KEYPOINTS, Keypoint("goal", "site", "target"))
    state: tuple[Dimension, ...] = PLACE + POSTURE + MOTION + _GOAL
    static: tuple[str, ...] = tuple(d.name for d in _GOAL)
    pose: tuple[str, ...] = tuple(d.name for d in PLACE + POSTURE)
    reward: Any = "sparse"

    def make(self) -> "AntMazeSimulator":
        return AntMazeSimulator(self)

    @property
    def outcome(self) -> Outcome:
        return reached

    def _read(self, keypoints: np.ndarray, start: np.ndarray) -> dict[str, np.ndarray]:
        goal = keypoints[..., 13, :]
        return super()._read(keypoints, start) | {"goal_x": goal[..., 0], "goal_y": goal[..., 1]}


class AntMazeSimulator(AntSimulator):
    """An AntMaze environment whose episode ends at the goal (within 0.45 m), for a reward of 1."""

    task: AntMazeTask

    def __init__(self, task: AntMazeTask) -> None:
        super().__init__(task)
        self.snapshot_layout = {
            "integration": mujoco.mj_stateSize(self.model, mujoco.mjtState.mjSTATE_INTEGRATION),
            "goal": 2,
        }

    def _open(self) -> Any:
        import gymnasium_robotics

        gym.register_envs(gymnasium_robotics)
        environment: Any = gym.make(
            self.task.environment, continuing_task=False, include_cfrc_ext_in_observation=False
        ).unwrapped
        Path(environment.tmp_xml_file_path).unlink()  # the environment leaves one behind each time
        model = environment.model
        # The squares of the floor are as large as the ant, which would be lost among them.
        floor = model.geom("floor").id
        model.geom_matid[floor], model.geom_rgba[floor] = -1, (0.1, 0.11, 0.13, 1.0)
        model.vis.headlight.diffuse[:] = 0.0  # a second light from above, which leaves the walls without a colour
        return environment

    def _reset(self, seed: int) -> None:
        corners = {"reset_cell": (1, 1), "goal_cell": self.task.far_corner}
        self.env.reset(seed=seed, options=corners if self.task.corner_to_corner else None)

    def state(self) -> np.ndarray:
        return np.concatenate([self._pose(), self.env.goal]).astype(np.float32)

    def snapshot(self) -> np.ndarray:
        return np.concatenate([self._integration_state(), self.env.goal])

    def restore(self, snapshot: np.ndarray) -> None:
        part = self.split_snapshot(snapshot)
        self._move_goal(part["goal"])
        self._restore_integration(part["integration"])

    def set_state(self, state: np.ndarray, near: np.ndarray) -> None:
        """Exact."""
        self.restore(near)
        self._move_goal(state[29:])
        self._place(state[:29])

    def scripted_action(self) -> np.ndarray:
        """A trot from cell to cell on the shortest way."""
        here = self.data.qpos[:2]
        return Trot().action(self.data, waypoint(self.env.maze, here, self.env.goal) - here)

    def observation(self) -> np.ndarray:
        """(31,) achieved goal (the torso's x and y), observation without contact forces, desired goal."""
        return np.concatenate([self.data.qpos, self.data.qvel, self.env.goal])

    def set_observation(self, observation: np.ndarray) -> None:
        """Exact. Takes `achieved_goal`, `observation` (27, or 105 with the contact forces of v5), `desired_goal`."""
        layout = "achieved_goal (2), observation (27, or 105 with contact forces), desired_goal (2), in this order"
        values = checked_observation(observation, (31, 109), self.task, layout)
        mujoco.mj_resetData(self.model, self.data)
        self._move_goal(values[-2:])
        self._place(values[:29])

    def _move_goal(self, goal: np.ndarray) -> None:
        self.env.goal = np.array(goal, dtype=np.float64)
        self.env.update_target_site_pos()


def _task(name: str, maze: tuple[str, tuple[int, int]], **fields: Any) -> AntMazeTask:
    size, far_corner = maze
    return AntMazeTask(
        name=name,
        environment=name.replace("_Fixed", ""),
        prompt=f"an ant walks through the {size} maze to the red ball",
        camera=named_camera(f"antmaze-{size}"),
        far_corner=far_corner,
        **fields,
    )


_SMALL, _MEDIUM, _LARGE = ("u-shaped", (3, 1)), ("medium", (6, 6)), ("large", (7, 9))

TASKS = (
    _task("AntMaze_UMaze_Fixed-v5", _SMALL, horizon=700, corner_to_corner=True),
    _task("AntMaze_UMaze-v5", _SMALL, horizon=700),
    _task("AntMaze_Medium-v5", _MEDIUM),
    _task("AntMaze_Medium_Diverse_GR-v5", _MEDIUM),
    _task("AntMaze_Large-v5", _LARGE),
    _task("AntMaze_Large_Diverse_GR-v5", _LARGE),
)
