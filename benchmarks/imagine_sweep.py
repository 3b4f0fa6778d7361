"""What the error depends on: `python -m benchmarks.imagine_sweep [--json FILE] [--figure PNG]`.

After benchmarks.imagine: takes stores, LoRAs and decoder of its first task up where it left them and measures k=5 as it
does, in median pixels by which hand and object are missed in the last tile. Over the frame index, the denoising steps
and the guidance of each condition; with --train, in another quarter of an hour, over the LoRA's rank and its training
steps too.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
import tyro
from tqdm import tqdm

from benchmarks.imagine_config import Benchmark
from benchmarks.imagine_errors import Reader, figures, shaped, windows
from benchmarks.imagine_grids import imagined_grids
from benchmarks.imagine_tuning import reader
from benchmarks.jobs import result
from pixeltraj.base import Base
from pixeltraj.cli import guarded
from pixeltraj.errors import PixeltrajError
from pixeltraj.files import read_json, write_json, write_whole
from pixeltraj.finetune.train import FinetuneConfig, finetune
from pixeltraj.generator import Generator
from pixeltraj.guidance import UNGUIDED, Guidance
from pixeltraj.store import Store

matplotlib.use("Agg")
from matplotlib import pyplot as plt

K = 5
STEPS = (1, 2, 3, 4, 8, 16)
SCALES = (0.0, 1.0, 1.5, 2.0)
RANKS = (4, 16, 64)
TRAINED = (60, 125, 250, 500)


@dataclass(frozen=True)
class Sweep:
    out: Path = Path("runs/benchmarks/imagine")
    """Folder of a finished benchmark of imagination."""
    json: Path | None = None
    """Where to write the figures."""
    figure: Path | None = None
    """Where to draw them, a PNG."""
    train: bool = False
    """Also sweep over rank and training steps."""


class Errors:
    """Of any generator, on the benchmark's own windows, noise and reader."""

    def __init__(self, config: Benchmark) -> None:
        self.config, task = config, config.tasks[0]
        self.store = Store.open(config.store(task))
        self.rows = windows(config, self.store, K)
        self.decoder = reader(config, task)
        self.read = Reader(self.store, self.decoder, self.rows)

    def of(self, generator: Generator, steps: int | None = None, guidance: Guidance = UNGUIDED) -> dict[str, float]:
        effort = self.config.effort
        steps = steps or effort.num_inference_steps
        grids = imagined_grids(self.store, generator, self.rows, effort.samples, steps, effort.seed, guidance)
        return figures(*shaped(self.read.last(grids, np.repeat(self.rows, effort.samples, axis=0)), effort.samples))


def sweeps(config: Benchmark, train: bool) -> dict[str, Any]:
    """For each curve its values, and the figures at each of them."""
    errors, seed = Errors(config), config.effort.seed
    tuned = errors.decoder.generator
    found: dict[str, Any] = {"denoising steps": [{"value": n, **errors.of(tuned, n)} for n in bar(STEPS, "steps")]}
    for condition in ("prompt", "state", "frame"):
        found[f"guidance of the {condition}"] = [
            {"value": scale, **errors.of(tuned, guidance=replace(Guidance(), **{condition: scale}))}
            for scale in bar(SCALES, condition)
        ]
    if train:
        found["rank"] = [{"value": r, **errors.of(lora(config, rank=r, seed=seed))} for r in RANKS]
        steps = [n for n in TRAINED if n <= 2 * config.effort.lora_steps]
        found["training steps"] = [{"value": n, **errors.of(lora(config, steps=n, seed=seed))} for n in steps]
        found["training steps"].insert(0, {"value": 0, **errors.of(Generator.load(Base.load(config.base)))})
    frames = result(config.out, f"errors-{config.tasks[0]}-k25")
    if frames:
        found["frame"] = [
            {"value": i, **{f"{name}_px": row["imagined"][i] for name, row in frames["decoder_px_by_frame"].items()}}
            for i in range(25)
        ]
    return found


def bar(values: Iterable[Any], name: str) -> Iterable[Any]:
    return tqdm(list(values), desc=name)


def lora(config: Benchmark, steps: int | None = None, rank: int = 16, seed: int = 0) -> Generator:
    """One for k=5 alone."""
    steps = steps or config.effort.lora_steps
    out = config.lora(config.tasks[0], f"{K}-rank{rank}-steps{steps}")
    finetune(FinetuneConfig(config.store(config.tasks[0]), out, config.base, (K,), steps=steps, rank=rank, seed=seed))
    return Generator.load(Base.load(config.base), out)


def draw(found: dict[str, Any], path: Path) -> None:
    """A panel a curve."""
    columns = 3
    rows = -(-len(found) // columns)
    sheet, axes = plt.subplots(rows, columns, figsize=(12, 3.4 * rows), squeeze=False, layout="constrained")
    for axis, (name, points) in zip(axes.flat, found.items()):
        at = [point["value"] for point in points]
        hand = "hand_px" if name == "frame" else "hand_px_mean"
        axis.plot(at, [point[hand] for point in points], "o-", color="#c2410c", label="hand")
        axis.plot(at, [point["object_px"] for point in points], "s-", color="#0f766e", label="object")
        axis.set(xlabel=name, ylabel="median error, pixels", ylim=(0, None))
        axis.grid(alpha=0.3)
    axes.flat[0].legend()
    for axis in axes.flat[len(found) :]:
        axis.remove()
    write_whole(path, lambda beside: sheet.savefig(beside, dpi=110))


def run(config: Sweep) -> int:
    torch.set_num_threads(1)
    if not (config.out / "config.json").exists():
        raise PixeltrajError(f"no benchmark at {config.out}: run `python -m benchmarks.imagine` first")
    found = sweeps(Benchmark.recall(config.out), config.train)
    cache = config.out / "sweep.json"
    found = (read_json(cache, "sweep") if cache.exists() else {}) | found  # what was trained for before stays
    write_json(cache, found)
    if config.json:
        write_json(config.json, found)
    if config.figure:
        draw(found, config.figure)
    for name, points in found.items():
        print(f"\n{name}: " + ", ".join(f"{p['value']}: {p.get('hand_px_mean', p.get('hand_px')):.2f}" for p in points))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: run(tyro.cli(Sweep, prog="python -m benchmarks.imagine_sweep", description=__doc__))))
