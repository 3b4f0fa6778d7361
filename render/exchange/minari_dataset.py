"""Minari: datasets that are on this machine become stores, and stores become Minari datasets.

States only: Minari keeps images as lossy JPEG unless told otherwise, so frames stay in the store. An exported
dataset has the task's states as observations, one step a decision, and:

    algorithm_name   how the actions came about; begins with "synthetic" where the transitions were imagined
    env_spec         the registered environment, where its observations and steps are just these
    pixeltraj        task, action repeat, whether imagined, and how the store was made
    infos/snapshot   (T + 1, Q) full simulator states, of collected stores: importing them again is exact

Importing takes `observation`, `achieved_goal` and `desired_goal` of dict observations, and qpos and qvel where
`infos` has them for every state. Rewards are the dataset's: of Minari's D4RL datasets those of the environments
they were recorded in, which are the tasks'. Nothing is downloaded: `minari download ID` does that.
"""

import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from pixeltraj.errors import PixeltrajError
from pixeltraj.files import read_json, write_json
from pixeltraj.render.exchange.recording import Recording
from pixeltraj.simulator import Simulator
from pixeltraj.store import Store
from pixeltraj.task import Task

NO_MINARI = "Minari's datasets need minari and h5py: pip install 'pixeltraj[datasets]'"


class MinariSource:
    """A dataset by its id or its folder. Raises PixeltrajError where it is not here or not of the task."""

    def __init__(self, name: str, simulator: Simulator) -> None:
        minari = load_minari()
        self._simulator = simulator
        try:
            data = Path(name) / "data"
            self._dataset = minari.MinariDataset(data) if data.is_dir() else minari.load_dataset(name)
        except Exception as error:  # what is no dataset fails in a dozen ways
            raise PixeltrajError(
                f"{name} is not a Minari dataset on this machine ({error}); get it with `minari download {name}`"
            ) from error
        metadata = self._dataset.storage.metadata
        ours = metadata.get("pixeltraj", {})
        task, space = simulator.task, self._dataset.action_space
        if ours and ours["task"] != task.name:
            raise PixeltrajError(f"{name} holds {ours['task']}, not {task.name}")
        if space.shape != (task.action_size,):
            raise PixeltrajError(
                f"{name} is no dataset of {task.name}: its actions are {space.shape}, wanted ({task.action_size},)"
            )
        self.repeat = int(ours.get("action_repeat", 1))
        self.identity: dict[str, Any] = {
            "format": "minari",
            "id": self._dataset.id,
            "episodes": int(self._dataset.total_episodes),
            "steps": int(self._dataset.total_steps),
        }

    def __len__(self) -> int:
        return int(self._dataset.total_episodes)

    def recording(self, episode: int) -> Recording:
        recorded = self._dataset[episode]
        observations, infos = recorded.observations, recorded.infos or {}
        parts = observations if isinstance(observations, dict) else {"observation": observations}
        model = self._simulator.model
        moments = len(recorded.actions) + 1
        exact = _column(infos, "qpos", (moments, model.nq)), _column(infos, "qvel", (moments, model.nv))
        if exact[0] is None or exact[1] is None:
            exact = None, None
        return Recording(
            parts={name: _flat(part, moments) for name, part in parts.items()},
            actions=np.asarray(recorded.actions),
            rewards=np.asarray(recorded.rewards),
            terminations=np.asarray(recorded.terminations, dtype=bool),
            positions=exact[0],
            velocities=exact[1],
            snapshots=_column(infos, "snapshot", (moments, sum(self._simulator.snapshot_layout.values()))),
            origin={"episode": episode},
        )


def export_minari(
    store: Store,
    dataset_id: str,
    about: dict[str, Any],
    algorithm: str,
    author: str | None = None,
    code: str | None = None,
) -> Path:
    """Write the store's states, actions and rewards as the dataset of that id -> its folder.

    about: kept in the metadata, JSON-able. Whole or not at all. Raises PixeltrajError on an id that is malformed or
    taken.
    """
    minari = load_minari()
    from minari.dataset.minari_dataset import gen_dataset_id, parse_dataset_id
    from minari.storage.datasets_root_dir import get_dataset_path

    try:
        namespace, name, version = parse_dataset_id(dataset_id)
    except (ValueError, TypeError) as error:
        raise PixeltrajError(f"{dataset_id!r} is no Minari id; give --out NAMESPACE/NAME-v0") from error
    root = get_dataset_path()
    path = root / dataset_id
    if path.exists():
        raise PixeltrajError(f"the Minari dataset {dataset_id} exists already at {path}; give another version")
    # A killed run leaves something that cannot be taken for the dataset.
    beside = gen_dataset_id(namespace, f"partial-{os.getpid()}-{name}", version)
    environment = matching_environment(store.task)
    low, high = np.full(store.task.action_size, -1.0, np.float32), np.full(store.task.action_size, 1.0, np.float32)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # on each optional field that is not given
            minari.create_dataset_from_buffers(
                dataset_id=beside,
                buffer=[_buffer(store, episode) for episode in range(len(store))],
                env=environment,
                algorithm_name=algorithm,
                author=author,
                code_permalink=code,
                description=f"{store.task.prompt} ({store.task.name})",
                observation_space=gym.spaces.Box(-np.inf, np.inf, (store.task.state_size,), np.float32),
                action_space=gym.spaces.Box(low, high),
                requirements=[f"{name}=={version}" for name, version in about["versions"].items()],
                jpeg_encoding=False,
            )
        metadata = root / beside / "data" / "metadata.json"  # Minari itself does not let a dataset be renamed
        write_json(metadata, read_json(metadata, "dataset") | {"dataset_id": dataset_id, "pixeltraj": about})
        (root / beside).rename(path)
    except BaseException:
        shutil.rmtree(root / beside, ignore_errors=True)
        raise
    return path


def matching_environment(task: Task) -> str | None:
    """The registered environment whose observations are the task's states and whose steps are its decisions."""
    name = getattr(task, "environment", task.name)
    if task.action_repeat != 1 or name not in gym.registry:
        return None
    environment = gym.make(name)
    shapes = environment.observation_space.shape, environment.action_space.shape
    environment.close()
    return name if shapes == ((task.state_size,), (task.action_size,)) else None


def _buffer(store: Store, episode: int) -> Any:
    from minari.data_collector import EpisodeBuffer

    t = store.trajectory(episode)
    return EpisodeBuffer(
        id=episode,
        observations=t.states,
        actions=t.actions,
        rewards=t.rewards,
        terminations=t.terminations,
        truncations=t.truncations,
        infos=None if t.snapshots is None else {"snapshot": t.snapshots},
        options={"origin": json.dumps(t.origin)},
    )


def _column(infos: dict[str, Any], name: str, shape: tuple[int, int]) -> np.ndarray | None:
    """The info of that name where there is one of every moment."""
    value = np.asarray(infos.get(name, []))
    return value if value.shape == shape else None


def _flat(part: Any, moments: int) -> np.ndarray:
    """(R, ...) of each moment; of a dict of arrays, one after another in the order of their names."""
    if isinstance(part, dict):
        return np.concatenate([_flat(part[name], moments) for name in sorted(part)], axis=1)
    return np.asarray(part).reshape(moments, -1)


def load_minari() -> Any:
    """The package. Raises PixeltrajError where it or what it reads HDF5 with is not installed."""
    try:
        import h5py  # noqa: F401
        import minari
    except ImportError as error:
        raise PixeltrajError(NO_MINARI) from error
    return minari
