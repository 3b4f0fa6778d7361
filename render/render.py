"""Rendering a store: one 84x84 frame for every simulator state in it."""

from dataclasses import dataclass
from pathlib import Path

import tyro
from tqdm import tqdm

from pixeltraj.render.backends import open_renderer
from pixeltraj.store import CHUNK, Store


@dataclass(frozen=True)
class RenderConfig:
    store: tyro.conf.Positional[Path]
    """The store whose frames are to be drawn."""
    samples: int = 4
    """Multisampling of edges; 0 is twice as fast and coarser."""


def render(config: RenderConfig) -> Store:
    """Draw the frames that are missing, chunk by chunk; an interrupted run is taken up where it stopped."""
    store = Store.open(config.store)
    store.require_episodes()
    simulator = store.task.make()
    with open_renderer(simulator, samples=config.samples) as renderer:
        store.begin_rendering(renderer.settings)
        missing = store.frame_count - store.rendered
        with tqdm(total=missing, desc=f"render {config.store.name}", unit="frame") as bar:
            while (start := store.rendered) < store.frame_count:
                stop = min((start // CHUNK + 1) * CHUNK, store.frame_count)
                store.append_frames(renderer.frames(store.read("snapshots", start, stop)))
                bar.update(stop - start)
    return store
