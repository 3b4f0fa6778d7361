"""D4RL's HDF5 files, as they are published. D4RL itself is not needed.

    FILE.hdf5  observations        (N, O)   row i was seen, then
               actions             (N, A)   row i was done, which gave
               rewards, terminals, timeouts (N,): the episode ended there, solved or fallen, or by its time limit
               next_observations   (N, O)   some files; else an episode's last state is missing
               infos/qpos          (N, nq)  some files: exact simulator states, the root's x too
               infos/qvel          (N, nv)
               infos/goal          (N, 2)   mazes

Rewards are those of D4RL's environments (MuJoCo 2, Gym): HalfCheetah's equal v5's, Hopper's and Walker2d's differ
where v5 mended the healthy reward. `--reward task` takes v5's.

Maze2d's mazes are PointMaze's turned by 90 degrees, and are turned back. AntMaze's are mirrored, its ant is weaker
and its steps are longer, so its files are refused; Minari has the datasets as the v4 environments recorded them.
"""

from pathlib import Path
from typing import Any

import numpy as np

from pixeltraj.errors import PixeltrajError
from pixeltraj.files import file_hash
from pixeltraj.render.exchange.recording import Recording, check_columns
from pixeltraj.simulator import Simulator

NO_H5PY = "HDF5 files need h5py: pip install 'pixeltraj[datasets]'"
OTHER_MAZE = (
    "{path} is a file of D4RL's AntMaze, whose maze is mirrored and whose ant is another; "
    "import the same dataset from Minari, recorded in {task}'s own simulator: --format minari --from D4RL/antmaze/..."
)


class D4RLFile:
    """Raises PixeltrajError where the file is no HDF5, lacks a column, or is of another environment."""

    repeat = 1

    def __init__(self, path: Path, simulator: Simulator) -> None:
        try:
            import h5py
        except ImportError as error:
            raise PixeltrajError(NO_H5PY) from error
        try:
            self._file: Any = h5py.File(path, "r")
        except OSError as error:
            raise PixeltrajError(f"{path} is not an HDF5 file ({error})") from error
        task, model, file = simulator.task, simulator.model, self._file
        needed = ("observations", "actions", "rewards", "terminals", "timeouts")
        if missing := [name for name in needed if name not in file]:
            raise PixeltrajError(f"{path} is not a file of D4RL: it has no {' and no '.join(missing)}")
        count = file["rewards"].shape[0]
        wanted: dict[str, tuple[int | None, ...]] = {
            "observations": (count, None),
            "actions": (count, task.action_size),
            "rewards": (count,),
            "terminals": (count,),
            "timeouts": (count,),
            "next_observations": (count, file["observations"].shape[-1]),
            "infos/qpos": (count, model.nq),
            "infos/qvel": (count, model.nv),
            "infos/goal": (count, 2),
        }
        check_columns(
            task, str(path), {name: (file[name].shape, shape) for name, shape in wanted.items() if name in file}
        )
        if "infos/goal" in file and file["observations"].shape[1] == 29:
            raise PixeltrajError(OTHER_MAZE.format(path=path, task=task.name))
        self._turn = MazeTurn(simulator) if "infos/goal" in file else None
        ends = np.flatnonzero(file["terminals"][:].astype(bool) | file["timeouts"][:].astype(bool)) + 1
        ends = np.union1d(ends, [count]) if count else ends  # the last episode may have been cut off
        self._bounds = np.concatenate([[0], ends]).astype(int)
        self.identity = {"format": "d4rl", "file": path.name, "hash": file_hash(path)}

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def recording(self, episode: int) -> Recording:
        file, a, b = self._file, *map(int, self._bounds[episode : episode + 2])
        parts = {"observation": file["observations"][a:b]}
        if "next_observations" in file:
            parts["observation"] = np.concatenate([parts["observation"], file["next_observations"][b - 1 : b]])
        if "infos/goal" in file:
            parts["desired_goal"] = file["infos/goal"][a:b]
        exact = "infos/qpos" in file and "infos/qvel" in file
        recording = Recording(
            parts=parts,
            actions=file["actions"][a:b],
            rewards=file["rewards"][a:b],
            terminations=file["terminals"][a:b].astype(bool),
            positions=file["infos/qpos"][a:b] if exact else None,
            velocities=file["infos/qvel"][a:b] if exact else None,
            origin={"episode": episode},
        )
        return self._turn(recording) if self._turn else recording


class MazeTurn:
    """Maze2d -> PointMaze: there, x counts the rows of the map and y its columns, from 0.2 beside a cell's middle."""

    BESIDE = 0.2

    def __init__(self, simulator: Simulator) -> None:
        maze = getattr(getattr(simulator, "env", None), "maze", None)
        if maze is None:
            raise PixeltrajError(f"the dataset has goals in a maze (infos/goal), {simulator.task.name} is none")
        self._middle = np.array([maze.x_map_center, maze.y_map_center]) / maze.maze_size_scaling
        self._scale = maze.maze_size_scaling

    def __call__(self, recording: Recording) -> Recording:
        parts = recording.parts
        places, speeds = np.split(parts["observation"].astype(np.float64), 2, axis=1)
        parts["observation"] = np.concatenate([self.place(places), self.turn(speeds)], axis=1)
        parts["desired_goal"] = self.place(parts["desired_goal"])
        recording.actions = self.turn(recording.actions)
        recording.positions = recording.velocities = None  # observations are just these
        return recording

    def place(self, places: np.ndarray) -> np.ndarray:
        """(..., 2) there -> here."""
        row, column = np.moveaxis(np.asarray(places, dtype=np.float64) + self.BESIDE + 0.5, -1, 0)
        return self._scale * np.stack([column - self._middle[0], self._middle[1] - row], axis=-1)

    def turn(self, vectors: np.ndarray) -> np.ndarray:
        """(..., 2) there -> here."""
        return np.stack([vectors[..., 1], -vectors[..., 0]], axis=-1)
