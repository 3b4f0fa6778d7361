"""`pixeltraj synther STORE --out STORE2`: the SynthER baseline, trained and sampled."""

import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from tqdm import tqdm

from pixeltraj.checkpoint import Checkpoint
from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.synther import Synther, SyntherConfig, digest, trajectories, transitions
from pixeltraj.files import provenance
from pixeltraj.store import Store
from pixeltraj.task import Task

COMMIT_EVERY = 1000
"""Transitions between two commits to the store."""


@dataclass(frozen=True, kw_only=True)
class Config(SyntherConfig):
    store: Annotated[Path, tyro.conf.Positional]
    """Store of real transitions, rendered or not; every fifth episode is held out."""
    out: Path
    """The store of sampled transitions, each an episode of its own."""
    n: int = 2000
    """Transitions to sample."""

    def of_synther(self) -> SyntherConfig:
        """Its part of these."""
        return SyntherConfig(**{field.name: getattr(self, field.name) for field in fields(SyntherConfig)})


def run(config: Config) -> None:
    """Train or go on training, sample, print what came out."""
    began = time.perf_counter()
    store = synthesize(config)
    rewards = store.read("rewards", 0, store.frame_count)
    print(
        f"{len(store)} transitions of {store.task.name} in {config.out}, {time.perf_counter() - began:.0f} s; "
        f"mean reward {rewards.sum() / len(store):.3f}"
    )


def synthesize(config: Config) -> Store:
    """The store with n transitions. Deterministic in the configuration, also where it was interrupted.

    Raises PixeltrajError where the source is not of real transitions or too small, and where `out` holds something
    else.
    """
    if config.n < 1:
        raise PixeltrajError("--n must be at least 1")
    synther_config = config.of_synther()
    source = open_real(config.store)
    data = transitions(source, source.split()[0])
    synther = Synther(source.task, synther_config)
    how: dict[str, Any] = {
        "synthetic": "synther",
        "from": source.attributes["provenance"],
        "transitions": digest(data),
        "config": asdict(synther_config),
        "n": config.n,
        "keypoints": "zeros: SynthER knows none",
    }
    store = open_sampled(config.out, source.task, how) if config.out.exists() else None
    if store and len(store) == config.n:
        return store
    checkpoint = Checkpoint(
        config.out.with_name(f"{config.out.name}.checkpoint"), asdict(synther_config) | {"transitions": digest(data)}
    )
    synther.fit(data, checkpoint)
    store = store or Store.create(config.out, source.task, provenance(**how), {})
    for i in tqdm(range(len(store), config.n, COMMIT_EVERY), desc="sample", unit="batch"):
        rng = torch.Generator().manual_seed(config.seed * 1_000_003 + i)
        store.append(trajectories(synther.sample(min(COMMIT_EVERY, config.n - i), rng), source.task))
    checkpoint.remove()
    return store


def open_real(path: Path) -> Store:
    """What a baseline learns from. Raises PixeltrajError where it is not of real transitions, or empty."""
    source = Store.open(path)
    origin = source.attributes["provenance"]
    if origin.get("imagined") or origin.get("synthetic"):
        raise PixeltrajError(f"{path} is itself imagined; a baseline learns from a store of real transitions")
    source.require_episodes()
    return source


def open_sampled(out: Path, task: Task, how: dict[str, Any]) -> Store:
    """A store that an earlier run began. Raises PixeltrajError where it was made in another way."""
    store = Store.open(out, task)
    before = store.attributes["provenance"]
    other = [key for key, value in how.items() if before.get(key) != value]
    if other:
        raise PixeltrajError(f"{out} was made in another way ({', '.join(other)}); give another --out")
    return store
