"""Rendering a store: one 84x84 frame for every simulator state in it."""

import os
from dataclasses import dataclass
from pathlib import Path

import tyro
from tqdm import tqdm

from pixeltraj.cluster import over_shards
from pixeltraj.errors import PixeltrajError
from pixeltraj.render.backends import Backend
from pixeltraj.render.drawing import SHARD, ShardDrawer, draw_missing
from pixeltraj.render.workers import draw_in_parallel
from pixeltraj.store import Store

_WORTH_A_WORKER = 1000
"""Frames; a worker takes about two seconds to start."""


@dataclass(frozen=True)
class RenderConfig:
    store: tyro.conf.Positional[Path]
    """The store whose frames are to be drawn."""
    renderer: Backend = "auto"
    """What draws: mujoco (OpenGL), ray or ray-2x2 (no OpenGL needed; one ray a pixel or four), pyrender (an extra);
    auto takes mujoco where it works, else ray."""
    workers: int | None = None
    """Processes that draw; one for each CPU and each thousand frames if not given."""
    cluster: str | None = None
    """A Ray whose workers draw: its address, auto for the one that runs here, local to start one. The store has to
    stand at the same path on all of its machines."""


def render(config: RenderConfig) -> Store:
    """Draw the frames that are missing; an interrupted run is taken up where it stopped, a chunk lost at most.

    Several calls may render one store at once, and share its chunks out among them.
    """
    if config.workers is not None and config.workers < 1:
        raise PixeltrajError("--workers must be at least 1")
    store = Store.open(config.store)
    store.require_episodes()
    missing = store.frame_count - store.rendered
    workers = config.workers or max(1, min(_usable_cpus(), missing // _WORTH_A_WORKER))
    name = config.store.name
    with tqdm(total=store.frame_count, initial=store.rendered, desc=f"render {name}", unit="frame") as bar:
        if config.cluster:
            shards = sorted({chunk // SHARD for chunk in store.missing_chunks()})
            what = (config.store, config.renderer)
            for _ in over_shards(config.cluster, config.workers, ShardDrawer, what, shards):
                bar.update(store.rendered - bar.n)
        elif workers > 1:
            draw_in_parallel(store, config.renderer, workers, bar)
        else:
            for _ in draw_missing(store, config.renderer, at=lambda row: None):
                bar.update(store.rendered - bar.n)
    return Store.open(config.store)


def _usable_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
