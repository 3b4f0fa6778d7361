"""Import: a dataset of another format fills a store."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from tqdm import tqdm

from pixeltraj.errors import PixeltrajError
from pixeltraj.files import provenance
from pixeltraj.render.exchange.d4rl import D4RLFile
from pixeltraj.render.exchange.follower import Follower, RewardSource
from pixeltraj.render.exchange.minari_dataset import MinariSource
from pixeltraj.render.exchange.npz import NPZFile
from pixeltraj.render.exchange.recording import Source
from pixeltraj.simulator import Simulator
from pixeltraj.store import Store
from pixeltraj.tasks import get_task
from pixeltraj.trajectory import Trajectory

COMMIT_EVERY = 5000
"""States between two commits to the store: what a kill can cost at most, but for the end of an episode."""
PROBE = 50
"""Transitions that are compared with the simulator before anything is written."""


@dataclass(frozen=True)
class ImportConfig:
    task: tyro.conf.Positional[str]
    """Name of the task."""
    source: Annotated[str, tyro.conf.arg(name="from")]
    """The file; of Minari, the folder or the id of a dataset that is on this machine."""
    format: Literal["d4rl", "minari", "npz"]
    """d4rl: an HDF5 file of D4RL. minari: a dataset of Minari. npz: a file of `pixeltraj export --format npz`."""
    out: Path
    """The store: a new one, or one that an interrupted run of the same command left."""
    episodes: int | None = None
    """Episodes in the finished store; all of the dataset's if not given. Every fifth is held out from training."""
    reward: RewardSource = "dataset"
    """dataset: the rewards and ends it records. task: what the simulator gives for the same states and actions."""


def import_dataset(config: ImportConfig) -> Store:
    """Fill the store, going on where an interrupted run stopped. Nothing is written before it is known to fit."""
    if config.episodes is not None and config.episodes < 1:
        raise PixeltrajError("--episodes must be at least 1")
    task = get_task(config.task)
    store = Store.open(config.out, task) if config.out.exists() else None
    simulator = task.make()
    source = open_source(config, simulator)
    if not len(source):
        raise PixeltrajError(f"{config.source} holds no episodes")
    how = {"from": source.identity, "reward": config.reward}
    if store is not None:
        before = {key: store.attributes["provenance"].get(key) for key in how}
        if before != how:
            raise PixeltrajError(f"{config.out} was filled from {before}, not {how}; give another --out")
    follower = Follower(simulator, source.recording(0), source.repeat, config.reward)
    if store is None:
        probe(config, source, follower)
        store = Store.create(config.out, task, provenance(**how), simulator.snapshot_layout)
    fill(store, source, follower, config.episodes)
    return store


def open_source(config: ImportConfig, simulator: Simulator) -> Source:
    """The dataset. Raises PixeltrajError where it is none of the task, or not of the format."""
    if config.format == "minari":
        return MinariSource(config.source, simulator)
    path = Path(config.source)
    if not path.is_file():
        raise PixeltrajError(f"there is no file {path}")
    return D4RLFile(path, simulator) if config.format == "d4rl" else NPZFile(path, simulator)


def probe(config: ImportConfig, source: Source, follower: Follower) -> None:
    """Raise PixeltrajError where the dataset's states do not follow each other as the simulator has it."""
    errors: list[float] = []
    seen = 0
    for episode in range(len(source)):
        for trajectory in follower.trajectories(source.recording(episode)):
            trajectory.check(follower.simulator.task)
            errors += [float(str(trajectory.origin["replay_error"]))]
            seen += len(trajectory)
        if seen >= PROBE:
            break
    if not errors:
        raise PixeltrajError(f"no episode of {config.source} has a whole decision of {config.task}")
    if np.median(errors) >= 1:
        raise PixeltrajError(
            f"the states of {config.source} do not follow each other as in {config.task}: its simulator misses the "
            f"next state by {np.median(errors):.1f} times what the state changes; is this of another environment?"
        )


def fill(store: Store, source: Source, follower: Follower, episodes: int | None) -> None:
    """Append what is missing, in order."""
    done = (-1, -1)
    if len(store):
        done = (int(store.episodes[-1]["episode"]), int(store.episodes[-1]["row"]))
    pending: list[Trajectory] = []
    missing = (episodes or np.inf) - len(store)
    bar = tqdm(range(max(done[0], 0), len(source)), desc=f"import {store.task.name}", unit="episode")
    for episode in bar:
        if len(pending) >= missing:
            break
        for trajectory in follower.trajectories(source.recording(episode)):
            if (episode, int(str(trajectory.origin["row"]))) > done and len(pending) < missing:
                pending.append(trajectory)
        if sum(len(t.states) for t in pending) >= COMMIT_EVERY:
            store.append(pending)
            missing -= len(pending)
            pending = []
    store.append(pending)
