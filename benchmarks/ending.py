"""Where trajectories end: `python -m benchmarks.ending STORE --decoder DECODER [--lora LORA] [--json FILE]`.

On held-out episodes of a rendered store, for each length k that the decoder reads:

    real frames     every padded window is decoded whole, and each of the pruner's rules tells where it ends. Padded
                    windows: is that within one frame of the truth? Windows that end before the episode does: are they
                    left untouched? `chain` is what imagination does: cut where the decoder reads a termination, then
                    by the rule.
    imagined        the truth is not known: how many the decoder ends, how many the rule cuts after that, and the mean
                    length. Where the decoder reads a termination, does the rule alone end within one frame of it?

And the length estimator of the store, trained on its other episodes: how often it chooses the preset that is needed.
Prints a table in Markdown; JSON keys are length.{preset_acc, prune_within1, unpruned_kept}, of the default rule, and
rules, imagined, estimator with the counts.
"""

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, get_args

import numpy as np
import torch
import tyro
from torch import Tensor

from pixeltraj.base import Base
from pixeltraj.cli.starts import StoreStarts
from pixeltraj.decode.decoder import Decoder
from pixeltraj.decode.features import Windows
from pixeltraj.files import write_json
from pixeltraj.generator import Generator
from pixeltraj.grid import LENGTHS
from pixeltraj.imaginer import Imaginer, Start
from pixeltraj.length import LengthConfig, LengthEstimator, measure, train_length
from pixeltraj.pruner import Rule, prune, shortened
from pixeltraj.store import Store
from pixeltraj.task import Task
from pixeltraj.trajectory import Trajectory

RULES: tuple[Rule, ...] = get_args(Rule)
"""The first is the one that imagination uses."""
BATCH = 32


@dataclass(frozen=True)
class Benchmark:
    store: Annotated[Path, tyro.conf.Positional]
    """A rendered store; its held-out episodes are measured on."""
    decoder: Path
    """Folder that `pixeltraj decode train` wrote."""
    lora: Path | None = None
    """Folder that fine-tuning wrote; the base alone if not given."""
    base: str | None = None
    """A diffusers folder, single file or hub id; the embedded base if not given."""
    k: tuple[int, ...] | None = None
    """Lengths of the windows; all that the decoder reads if not given."""
    length: Path | None = None
    """Folder that `pixeltraj length` wrote; an estimator is trained on the store if not given."""
    stride: int = 1
    """Every so-manieth window is decoded."""
    imagined: int = 32
    """Trajectories imagined of each length."""
    num_inference_steps: int | None = None
    """Denoising steps of the sampler."""
    seed: int = 0
    """Of the start states and the noise."""
    json: Path | None = None
    """Where to write the figures."""


@dataclass
class Read:
    """A grid as the decoder reads it."""

    trajectory: Trajectory
    """Of all its frames: padding is not cut, terminations are not believed."""
    told: int | None
    """Transitions up to the first that the decoder reads as a termination; None where there is none."""
    real: int = 0
    """Transitions that are no padding; not known of imagined ones."""

    @property
    def believed(self) -> Trajectory:
        """Cut where the decoder reads a termination, as `Decoder.decode` does."""
        if self.told is None:
            return self.trajectory
        cut = shortened(self.trajectory, self.told)
        return replace(cut, terminations=np.arange(self.told) == self.told - 1)


def measure_ending(config: Benchmark) -> dict[str, Any]:
    """All figures, JSON-able."""
    store = Store.open(config.store)
    generator = Generator.load(Base.load(config.base), config.lora)
    decoder = Decoder.load(config.decoder, generator, store.task)
    estimator = measure_length(store, config.length)
    lengths = config.k or decoder.lengths
    windows = [w for k in lengths for w in read_windows(decoder, store, store.split()[1], k, config.stride)]
    rules = measure_rules(windows, store.task)
    imagined: dict[str, Any] = {}
    for k in lengths if config.imagined else ():
        grids = read_imagined(decoder, store, k, config.imagined, config.seed, config.num_inference_steps)
        imagined[str(k)] = measure_imagined(grids, store.task)
    default = rules[RULES[0]]["all"]
    return {
        "task": store.task.name,
        "k": list(lengths),
        "length": {
            "preset_acc": estimator.get("right_preset"),
            "prune_within1": default["padded_within1"],
            "unpruned_kept": default["unpadded_kept"],
        },
        "estimator": estimator,
        "rules": rules,
        "imagined": imagined,
    }


def measure_length(store: Store, folder: Path | None = None) -> dict[str, Any]:
    """`pixeltraj.length.measure` on the held-out episodes, of the estimator in the folder, or of one that is trained
    here."""
    if folder is not None:
        return measure(LengthEstimator.load(folder, store.task), store, store.split()[1])
    with tempfile.TemporaryDirectory() as out:
        about: dict[str, Any] = train_length(LengthConfig(store.path, Path(out), k=LENGTHS)).about["metrics"]
        return about


def read_windows(decoder: Decoder, store: Store, episodes: list[int], k: int, stride: int = 1) -> list[Read]:
    """Windows of k frames of the given episodes, but for those that start where an episode has ended."""
    windows = Windows.read(store, episodes, decoder.generator.at(decoder.readable(k)), stride=stride)
    read: list[Read] = []
    for at in range(0, len(windows), BATCH):
        read += read_features(decoder, windows.features[at : at + BATCH], windows.states[at : at + BATCH, 0])
    for one, real in zip(read, windows.real.sum(axis=1)):
        one.real = int(real)
    return [one for one in read if one.real]


def read_features(decoder: Decoder, features: Tensor, starts: np.ndarray) -> list[Read]:
    """features (B, K, C, L, L), starts (B, S) -> B grids, uncut."""
    reading = decoder.read(features, starts)
    read: list[Read] = []
    for row, over in enumerate(reading.terminations):
        none = np.zeros_like(over)
        states, keypoints = reading.states[row], reading.keypoints[row]
        whole = Trajectory(states, reading.actions[row], reading.rewards[row], none, none, keypoints)
        read.append(Read(whole, int(over.argmax()) + 1 if over.any() else None))
    return read


def measure_rules(windows: list[Read], task: Task) -> dict[str, Any]:
    """rule -> "all" and each k -> counts and shares; shares of nothing are None."""
    result: dict[str, Any] = {}
    for rule in RULES:
        ends = {"all": [(w, len(prune(w.trajectory, task, rule)), len(prune(w.believed, task, rule))) for w in windows]}
        for end in ends["all"]:
            ends.setdefault(str(len(end[0].trajectory) + 1), []).append(end)
        result[rule] = {name: counts(some) for name, some in ends.items()}
    return result


def counts(ends: list[tuple[Read, int, int]]) -> dict[str, Any]:
    """ends: windows, the transitions that the rule keeps, and those that decoder and rule keep."""
    padded = [(kept - w.real, chain - w.real) for w, kept, chain in ends if w.real < len(w.trajectory)]
    whole = [(kept - w.real, chain - w.real) for w, kept, chain in ends if w.real == len(w.trajectory)]
    return {
        "padded": len(padded),
        "padded_exact": share(e == 0 for e, _ in padded),
        "padded_within1": share(abs(e) <= 1 for e, _ in padded),
        "padded_too_short": share(e < -1 for e, _ in padded),
        "unpadded": len(whole),
        "unpadded_kept": share(e == 0 for e, _ in whole),
        "chain": {
            "padded_within1": share(abs(c) <= 1 for _, c in padded),
            "unpadded_kept": share(c == 0 for _, c in whole),
        },
    }


def share(hits: Iterable[bool]) -> float | None:
    counted = list(hits)
    return float(np.mean(counted)) if counted else None


class Listener:
    """A decoder that keeps what it read, before it is cut."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder, self.task = decoder, decoder.task
        self.read: list[Read] = []

    def decode(
        self,
        latents: Tensor,
        first: Tensor,
        prompts: list[str],
        starts: np.ndarray,
        maps: list[Tensor] | None = None,
    ) -> list[Trajectory]:
        read = read_features(self.decoder, self.decoder.look(latents, first, prompts, maps), starts)
        self.read += read
        return [one.believed for one in read]


def read_imagined(
    decoder: Decoder, store: Store, k: int, n: int, seed: int, num_inference_steps: int | None = None
) -> list[Read]:
    """n grids of k frames, imagined from states of held-out episodes."""
    rows = [int(store.offsets[episode]) + step for episode, step in StoreStarts(store, seed).pairs(n)]
    starts = [Start(store.read("states", row, row + 1)[0], store.read("frames", row, row + 1)[0]) for row in rows]
    listener = Listener(decoder)
    imaginer = Imaginer(decoder.generator.at(decoder.readable(k)), listener, num_inference_steps)
    imaginer.imagine(starts, torch.Generator().manual_seed(seed))
    return listener.read


def measure_imagined(grids: list[Read], task: Task) -> dict[str, Any]:
    """How many end in a termination that is read; how many of all each rule cuts then, and the transitions left.
    Where the termination is followed by further frames: does the rule alone end within one frame of it?"""
    followed = [grid for grid in grids if grid.told is not None and grid.told < len(grid.trajectory)]
    result: dict[str, Any] = {
        "trajectories": len(grids),
        "terminated": share(grid.told is not None for grid in grids),
        "followed": len(followed),
        "mean_length": float(np.mean([len(grid.believed) for grid in grids])),
    }
    for rule in RULES:
        pruned = [(len(prune(grid.believed, task, rule)), len(grid.believed)) for grid in grids]
        apart = [len(prune(grid.trajectory, task, rule)) - (grid.told or 0) for grid in followed]
        result[rule] = {
            "cut": share(kept < before for kept, before in pruned),
            "mean_length": float(np.mean([kept for kept, _ in pruned])),
            "agrees_within1": share(abs(frames) <= 1 for frames in apart),
        }
    return result


def table(figures: dict[str, Any]) -> str:
    def percent(value: float | None) -> str:
        return "not measured" if value is None else f"{100 * value:.1f} %"

    estimator = figures["estimator"]
    lines = [
        f"{figures['task']}: the right preset for {percent(estimator.get('right_preset'))} of {estimator['states']} "
        f"held-out states",
        "",
        "| real windows, k | rule | within 1 frame, padded | exact | untouched, unpadded | with the decoder's ends |",
        "|---|---|---|---|---|---|",
    ]
    for rule, by_k in figures["rules"].items():
        for k, row in by_k.items():
            chain = " / ".join(percent(row["chain"][name]) for name in ("padded_within1", "unpadded_kept"))
            lines.append(
                f"| {k} | {rule} | {percent(row['padded_within1'])} of {row['padded']} | "
                f"{percent(row['padded_exact'])} | {percent(row['unpadded_kept'])} of {row['unpadded']} | {chain} |"
            )
    if figures["imagined"]:
        lines += ["", "| imagined, k | ended by the decoder | rule | cut | transitions | within 1 frame of that end |"]
        lines += ["|---|---|---|---|---|---|"]
    for k, row in figures["imagined"].items():
        ended = f"{percent(row['terminated'])} of {row['trajectories']}"
        for rule in figures["rules"]:
            one = row[rule]
            lines.append(
                f"| {k} | {ended} | {rule} | {percent(one['cut'])} | {row['mean_length']:.1f} -> "
                f"{one['mean_length']:.1f} | {percent(one['agrees_within1'])} of {row['followed']} |"
            )
    return "\n".join(lines)


def main() -> None:
    config = tyro.cli(Benchmark, prog="python -m benchmarks.ending", description=__doc__)
    torch.set_num_threads(1)
    figures = measure_ending(config)
    if config.json:
        write_json(config.json, figures)
    print(table(figures))


if __name__ == "__main__":
    main()
