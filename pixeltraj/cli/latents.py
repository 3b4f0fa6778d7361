"""`pixeltraj latents STORE [--base BASE]`"""

from dataclasses import dataclass
from pathlib import Path

import tyro
from tqdm import tqdm

from pixeltraj.base import Base
from pixeltraj.cluster import over_shards, require_cluster
from pixeltraj.latents import ShardEncoder, Shards
from pixeltraj.store import Store


@dataclass(frozen=True)
class Config:
    store: tyro.conf.Positional[Path]
    """A rendered store; the latents are kept in it."""
    base: str | None = None
    """A diffusers folder, single file or hub id; the embedded base if not given."""
    cluster: str | None = None
    """A Ray whose workers encode: its address, auto for the one that runs here, local to start one. All paths have to
    lead to the same files on all of its machines."""
    workers: int | None = None
    """Workers of the cluster; one for each of its CPUs if not given."""


def run(config: Config) -> None:
    require_cluster(config.cluster, config.workers)
    store = Store.open(config.store)
    store.require_frames()
    base = Base.load(config.base)
    shards = Shards(store, base.vae_identity)
    if config.cluster:
        lacking, what = shards.lacking(), (config.store, config.base, base.vae_identity)
        encoded = over_shards(config.cluster, config.workers, ShardEncoder, what, lacking)
        for _ in tqdm(encoded, total=len(lacking), desc=f"latents {store.path.name}", unit="shard"):
            pass
    else:
        shards.make(base)
    print(f"{shards.folder}: the latents of all {len(shards.open())} frames")
