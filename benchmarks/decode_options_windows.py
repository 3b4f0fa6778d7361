"""Windows of a store as one input shows them, read once for all options and seeds that use them."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from pixeltraj.decode.features import See, Windows
from pixeltraj.decode.train import ENDS, TrainConfig
from pixeltraj.files import write_whole
from pixeltraj.generator import Generator
from pixeltraj.store import Store
from pixeltraj.windows import store_windows


@dataclass
class Lesson:
    """What a decoder of one task is trained and measured on, each kind as `pixeltraj.decode.train` reads it."""

    clean: Windows
    noisy: Windows
    """The same, noised and painted by the generator."""
    moved: Windows
    real: Windows
    """Held out, as measured there."""
    reconstructed: Windows
    """The same, painted by the generator; no noise was added before."""

    @classmethod
    def read(cls, see: See | None, store: Store, generator: Generator, config: TrainConfig) -> "Lesson":
        """config: windows, noise, move and seed."""
        training, heldout = store.split()
        every = -(-len(store_windows(store, generator.k, training)) // config.windows)

        def read(episodes: list[int], **how: Any) -> Windows:
            return Windows.read(store, episodes, generator, stride=every, seed=config.seed, see=see, **how)

        return cls(
            clean=read(training, ends=ENDS),
            noisy=read(training, noise=config.noise, reconstruct=True, ends=ENDS),
            moved=read(training, noise=config.noise, move=config.move),
            real=read(heldout),
            reconstructed=read(heldout, reconstruct=True),
        )

    def save(self, path: Path) -> None:
        tensors = {
            f"{kind}.{name}": torch.as_tensor(getattr(getattr(self, kind), name)).contiguous()
            for kind in KINDS
            for name in NAMES
        }
        write_whole(path, lambda beside: save_file(tensors, beside))

    @classmethod
    def load(cls, path: Path) -> "Lesson":
        """What `save` wrote."""
        tensors = load_file(path)

        def windows(kind: str) -> Windows:
            found = {name: tensors[f"{kind}.{name}"] for name in NAMES}
            return Windows(**{name: value if name == "features" else value.numpy() for name, value in found.items()})

        return cls(**{kind: windows(kind) for kind in KINDS})


KINDS = [field.name for field in fields(Lesson)]
NAMES = [field.name for field in fields(Windows)]
