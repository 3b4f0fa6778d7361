"""Export: a store, real or imagined, in another format."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from pixeltraj.errors import PixeltrajError
from pixeltraj.files import provenance
from pixeltraj.render.exchange.imagefolder import Columns, export_imagefolder
from pixeltraj.render.exchange.minari_dataset import export_minari
from pixeltraj.render.exchange.npz import export_npz
from pixeltraj.store import Store


@dataclass(frozen=True)
class ExportConfig:
    store: tyro.conf.Positional[Path]
    """The store; for imagefolder a rendered one."""
    format: Literal["minari", "npz", "imagefolder"]
    """minari: a dataset of states, actions and rewards. npz: the same as flat arrays. imagefolder: k-frame images."""
    out: Path
    """The file or folder, which must not exist yet; of minari the id: NAMESPACE/NAME-v0, under MINARI_DATASETS_PATH."""
    k: int = 5
    """Frames in an image (imagefolder)."""
    every: int = 1
    """An image starts at every so many frames of an episode (imagefolder)."""
    heldout: bool = False
    """The episodes held out from training, as OUT/test, in place of OUT/train (imagefolder)."""
    columns: Columns = "text-to-image"
    """Which of diffusers' training scripts the images are laid out for (imagefolder)."""
    author: str | None = None
    """Of the dataset (minari)."""
    code: str | None = None
    """A permanent link to the code that made it (minari)."""


def export(config: ExportConfig) -> str:
    """Write it -> what was written, in words."""
    store = Store.open(config.store)
    store.require_episodes()
    what = f"{config.out}: {len(store)} episodes of {store.task.name}"
    if config.format == "imagefolder":
        count = export_imagefolder(store, config.out, config.k, config.every, config.heldout, config.columns)
        return f"{config.out}: {count} images of {config.k} frames of {store.task.name}"
    about = {
        **provenance(),
        "task": store.task.name,
        "action_repeat": store.task.action_repeat,
        "imagined": any(store.attributes["provenance"].get(name) for name in ("imagined", "synthetic")),
        "store": store.attributes["provenance"],
    }
    if config.format == "npz":
        if config.out.exists():
            raise PixeltrajError(f"{config.out} exists already; give another --out or remove it")
        return f"{what}, {export_npz(store, config.out, about)} transitions"
    path = export_minari(store, str(config.out), about, algorithm(store), config.author, config.code)
    return f"{what}, in {path}; minari.load_dataset({str(config.out)!r}) opens it"


def algorithm(store: Store) -> str:
    """How the store's actions came about, in words."""
    made: dict[str, Any] = store.attributes["provenance"]
    if made.get("imagined"):
        return "synthetic: imagined by pixeltraj with Stable Diffusion, not simulated"
    if "synthetic" in made:
        return f"synthetic: transitions drawn by {made['synthetic']}, not simulated"
    if "policy" in made:
        return f"pixeltraj collect: policy {made['policy']}, Gaussian noise {made['noise']} on its actions"
    return f"imported by pixeltraj from {made.get('from', 'elsewhere')}"
