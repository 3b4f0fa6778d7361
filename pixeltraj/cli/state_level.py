"""`pixeltraj state-level STORE --out STORE2`: whole trajectories as numbers, from SynthER's diffusion model."""

import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from tqdm import tqdm

from pixeltraj.checkpoint import Checkpoint
from pixeltraj.cli.synther import open_real, open_sampled
from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.state_level import CONFIG, StateLevel, StateLevelConfig, digest, training_of, window_rows
from pixeltraj.files import provenance
from pixeltraj.store import Store

COMMIT_EVERY = 500
"""Trajectories between two commits to the store."""


@dataclass(frozen=True, kw_only=True)
class Config(StateLevelConfig):
    store: Annotated[Path, tyro.conf.Positional]
    """Store of real transitions, rendered or not; every fifth episode is held out."""
    out: Path
    """The store of sampled trajectories."""
    model: Path | None = None
    """Folder of the model, with which an agent can imagine; taken from there if it is there. Not kept if not given."""
    n: int = 1000
    """Trajectories to sample."""
    heldout: bool = False
    """With --condition: set out from held-out states, to be measured, and not from those it was trained on."""

    def of_level(self) -> StateLevelConfig:
        """Its part of these."""
        return StateLevelConfig(**{field.name: getattr(self, field.name) for field in fields(StateLevelConfig)})


def run(config: Config) -> None:
    """Train or go on training, sample, print what came out."""
    began = time.perf_counter()
    store = synthesize(config)
    transitions = store.frame_count - len(store)
    print(
        f"{len(store)} trajectories of {store.task.name}, {transitions} transitions, in {config.out}, "
        f"{time.perf_counter() - began:.0f} s"
    )


def synthesize(config: Config) -> Store:
    """The store with n trajectories. Deterministic in the configuration, also where it was interrupted.

    Raises PixeltrajError where the source is not of real transitions or too small, and where `out` or `model` holds
    something else.
    """
    if config.n < 1:
        raise PixeltrajError("--n must be at least 1")
    if config.heldout and not config.condition:
        raise PixeltrajError("--heldout says from where trajectories set out; give --condition too")
    level_config = config.of_level()
    level_config.check()
    source = open_real(config.store)
    training, heldout = source.split()
    rows = window_rows(source, config.k, training)
    asked = training_of(level_config, rows)
    how: dict[str, Any] = {
        "synthetic": "state-level",
        "from": source.attributes["provenance"],
        "training": asked,
        "n": config.n,
        "heldout": config.heldout,
        "keypoints": "zeros: states alone do not tell them",
    }
    store = open_sampled(config.out, source.task, how) if config.out.exists() else None
    if store and len(store) == config.n:
        return store
    checkpoint = Checkpoint(config.out.with_name(f"{config.out.name}.checkpoint"), asked)
    level = _model(config, StateLevel(source.task, level_config), rows, checkpoint)
    store = store or Store.create(config.out, source.task, provenance(**how), {})
    starts = _starts(source, heldout if config.heldout else training, config.n, config.seed)
    for i in tqdm(range(len(store), config.n, COMMIT_EVERY), desc="sample", unit="batch"):
        rng = torch.Generator().manual_seed(config.seed * 1_000_003 + i)
        part = starts[i : i + COMMIT_EVERY]
        if not config.condition:
            store.append(level.sample(len(part), rng))
            continue
        trajectories = level.sample_from(source.windows("states", part[:, None])[:, 0], rng)
        for trajectory, row in zip(trajectories, part):
            episode, step = source.place(int(row))
            trajectory.origin |= {"episode": episode, "step": step}
        store.append(trajectories)
    checkpoint.remove()
    return store


def _model(config: Config, level: StateLevel, rows: np.ndarray, checkpoint: Checkpoint) -> StateLevel:
    """Trained, or as `config.model` holds it."""
    if config.model and (config.model / CONFIG).exists():
        there = StateLevel.load(config.model, level.task)
        if there.about["digest"] != digest(rows) or there.config != level.config:
            raise PixeltrajError(f"{config.model} was trained in another way or on other data; give another --model")
        return there
    level.fit(rows, checkpoint)
    if config.model:
        level.save(config.model)
    return level


def _starts(source: Store, episodes: list[int], n: int, seed: int) -> np.ndarray:
    """(n,) rows of the episodes' states, but for their last ones; each as often as any other, or once more."""
    rows = np.concatenate([np.arange(source.offsets[e], source.offsets[e + 1] - 1) for e in episodes])
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.permutation(rows) for _ in range(-(-n // len(rows)))])[:n]
