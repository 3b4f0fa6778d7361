"""The stages of the benchmark of distillation, what they are asked to do and where they keep it.

`python -m benchmarks.distill_stages OUT NAME` does one.
"""

import sys
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.imagine_dynamics import really, starts
from benchmarks.imagine_grids import BATCH, moving_windows, real_grids
from benchmarks.imagine_tuning import collected
from benchmarks.jobs import Stage, remember, run_stage
from pixeltraj.base import Base
from pixeltraj.cli import guarded
from pixeltraj.decode.audit import one_step
from pixeltraj.decode.decoder import CONFIG, Decoder
from pixeltraj.decode.train import TrainConfig, train
from pixeltraj.decode.yardstick import span_of
from pixeltraj.files import read_json
from pixeltraj.finetune.distill import DistillConfig, distill
from pixeltraj.finetune.train import FinetuneConfig, finetune
from pixeltraj.generator import Generator
from pixeltraj.imaginer import Imaginer, Start
from pixeltraj.latents import store_latents
from pixeltraj.store import Store

K = 5
LEAST = 2.0
"""Pixels by which the object has to move within a window that counts."""
Who = Literal["teacher", "student"]
STEPS: dict[Who, tuple[int, ...]] = {"teacher": (1, 2, 3, 4, 10), "student": (1, 2, 3, 4)}
"""Denoising steps that are measured."""


@dataclass(frozen=True)
class Effort:
    """How much is collected, trained and measured. A finished stage is only taken up by the same effort."""

    frames: int = 1500
    """Frames of the store; every fifth episode is held out."""
    lora_steps: int = 500
    """Fine-tuning steps of the teacher."""
    distill_steps: int = 300
    """Steps of the distillation."""
    decoder_steps: int = 800
    """Steps of each decoder's keypoint head; its other heads get as many."""
    starts: int = 80
    """Held-out windows from which imagination sets out."""
    samples: int = 4
    """Futures that are imagined from each of them."""
    audited: int = 32
    """Trajectories whose transitions are done again in the simulator."""
    seed: int = 0
    """Of everything that is trained, drawn and imagined."""


@dataclass(frozen=True)
class Benchmark:
    json: Path | None = None
    """Where to write the figures."""
    out: Path = Path("runs/benchmarks/distill")
    """Folder of everything that is made; an interrupted run is taken up there."""
    base: str | None = None
    """A diffusers folder, single file or hub id; the embedded base if not given."""
    task: str = "push-v3"
    """A task of Meta-World."""
    at_once: int = 2
    """Processes at a time, of one thread each."""
    effort: Effort = field(default_factory=Effort)

    def store(self, task: str) -> Path:
        return self.out / "stores" / task

    def lora(self, who: Who) -> Path:
        return self.out / "loras" / who

    def decoder(self, who: Who) -> Path:
        return self.out / "decoders" / who

    def remember(self) -> None:
        """Write down what is asked, in `out`. Raises PixeltrajError where something else was begun there."""
        identity = Base.load(self.base).identity
        asked = {"base": self.base, "identity": identity, "task": self.task, "effort": asdict(self.effort)}
        remember(self.out, asked)

    @classmethod
    def recall(cls, out: Path) -> "Benchmark":
        """What `remember` wrote."""
        said = read_json(out / "config.json", "benchmark")
        return cls(out=out, base=said["base"], task=said["task"], effort=Effort(**said["effort"]))


def stages(config: Benchmark) -> list[Stage[Benchmark]]:
    return [
        Stage("store", partial(collected, task=config.task)),
        Stage("lora-teacher", tuned, ("store",)),
        Stage("lora-student", distilled, ("lora-teacher",)),
        *(Stage(f"decoder-{who}", partial(decoding, who=who), (f"lora-{who}",)) for who in STEPS),
    ]


def timed(config: Benchmark) -> list[Stage[Benchmark]]:
    """What must not run beside anything else."""
    one, other = (f"errors-{who}" for who in STEPS)
    return [Stage(one, partial(errors, who="teacher")), Stage(other, partial(errors, who="student"), (one,))]


def tuned(config: Benchmark) -> dict[str, Any]:
    effort, store = config.effort, config.store(config.task)
    done = finetune(
        FinetuneConfig(store, config.lora("teacher"), config.base, (K,), steps=effort.lora_steps, seed=effort.seed)
    )
    return {name: done[name] for name in ("steps", "heldout_loss_before", "heldout_loss_after")}


def distilled(config: Benchmark) -> dict[str, Any]:
    effort, store, out = config.effort, config.store(config.task), config.lora("student")
    done = distill(
        DistillConfig(config.lora("teacher"), store, out, config.base, steps=effort.distill_steps, seed=effort.seed)
    )
    return {name: done[name] for name in ("steps", "heldout_loss_before", "heldout_loss_after")}


def decoding(config: Benchmark, who: Who) -> dict[str, Any]:
    """Each reads the grids of its own generator."""
    steps, folder = config.effort.decoder_steps, config.decoder(who)
    if not (folder / CONFIG).exists():
        asked = {"k": (K,), "steps": steps, "head_steps": steps, "copies": 2, "seed": config.effort.seed}
        train(TrainConfig(config.store(config.task), folder, config.base, config.lora(who), **asked))
    return {"trained": steps}


def errors(config: Benchmark, who: Who) -> dict[str, Any]:
    """What is imagined from held-out frames against how the simulator went on, for each number of denoising steps; what
    the decoder reads from the real frames of the same windows; and what is missed if nothing moves."""
    effort, store = config.effort, Store.open(config.store(config.task))
    decoder = Decoder.load(config.decoder(who), Generator.load(Base.load(config.base), config.lora(who), K))
    rows = moving_windows(store, K, effort.starts, LEAST, effort.seed)
    repeated, truth = np.repeat(rows, effort.samples, axis=0), store.windows("states", rows)
    measured: dict[str, Any] = {}
    for steps in STEPS[who]:
        states, spent = imagined(store, decoder, repeated, steps, effort.seed)
        found = figures(store, states, np.repeat(truth, effort.samples, axis=0), effort.samples)
        speed = {"grids_per_cpu_s": len(states) / sum(spent), "sampling_share": spent[0] / sum(spent)}
        measured[str(steps)] = found | speed | {"one_step_pct": audited(config, store, decoder, steps)}
    grids = real_grids(store, decoder.generator, rows)
    first = store_latents(store, decoder.generator.base)[torch.from_numpy(rows[:, 0])].float()
    features = decoder.look(grids, first, [store.task.prompt] * len(rows))
    real = figures(store, decoder.read(features, truth[:, 0]).states, truth, 1)
    still = figures(store, np.repeat(truth[:, :1], K, axis=1), truth, 1)
    return {
        "by_steps": measured,
        "real_frames": real | {"one_step_pct": audited(config, store, decoder, None)},
        "nothing_moves": still,
        "windows": len(rows),
    }


def imagined(
    store: Store, decoder: Decoder, rows: np.ndarray, steps: int, seed: int
) -> tuple[np.ndarray, tuple[float, float]]:
    """States (B, K, S) decoded from what is imagined from the first frames of windows (B, K), and the CPU-seconds of
    sampling and of decoding. The same seed gives every generator the same noise."""
    generator, rng = decoder.generator, torch.Generator().manual_seed(seed)
    latents, starts = store_latents(store, generator.base), store.windows("states", rows[:, :1])[:, 0]
    states, sampling, decoding = [], 0.0, 0.0
    for part in tqdm(np.array_split(np.arange(len(rows)), -(-len(rows) // BATCH)), desc=f"{steps} steps", unit="batch"):
        first, prompts = latents[torch.from_numpy(rows[part, 0])].float(), [store.task.prompt] * len(part)
        maps, began = list[Tensor](), time.process_time()
        grids = generator.sample(first, prompts, rng, steps, torch.from_numpy(starts[part]), maps=maps)
        there = time.process_time()
        states.append(decoder.read(decoder.look(grids, first, prompts, maps), starts[part]).states)
        sampling, decoding = sampling + there - began, decoding + time.process_time() - there
    return np.concatenate(states), (sampling, decoding)


def figures(store: Store, states: np.ndarray, truth: np.ndarray, samples: int) -> dict[str, float]:
    """Mean absolute errors of states (B, K, S), of which `samples` neighbours begin alike, after their first frame: of
    hand and object in mm, of all that moves and can be seen in percent of its range, and the same for the best of the
    futures of each start; and how far futures of one start are from their mean, in mm of the hand."""
    task, span = store.task, span_of(store)
    hand, thing = (task.indices(tuple(f"{name}_{axis}" for axis in "xyz")) for name in ("hand", "object"))
    seen = [i for i in np.flatnonzero(span > 0) if i not in task.indices(task.hidden)]
    missed = np.abs(states - truth)[:, 1:]
    percent = 100 * (missed[..., seen] / span[seen]).mean(axis=(1, 2)).reshape(-1, samples)
    futures = states[:, 1:, hand].reshape(-1, samples, K - 1, len(hand))
    return {
        "hand_mm": 1000 * float(missed[..., hand].mean()),
        "object_mm": 1000 * float(missed[..., thing].mean()),
        "state_pct": float(percent.mean()),
        "best_pct": float(percent.min(axis=1).mean()),
        "spread_mm": 1000 * float(np.abs(futures - futures.mean(axis=1, keepdims=True)).mean()),
    }


def audited(config: Benchmark, store: Store, decoder: Decoder, steps: int | None) -> float:
    """One-step error in percent of range: each transition done again in the simulator. steps None: of trajectories read
    from real frames."""
    rows = starts(store, K, config.effort.audited, config.effort.seed)
    if steps is None:
        trajectories = really(store, decoder, rows)
    else:
        states, frames = (store.windows(name, rows[:, :1])[:, 0] for name in ("states", "frames"))
        begin = [Start(state, frame) for state, frame in zip(states, frames)]
        rng = torch.Generator().manual_seed(config.effort.seed)
        trajectories = Imaginer(decoder.generator, decoder, steps).imagine(begin, rng)
    near = list(store.windows("snapshots", rows[:, :1])[:, 0])
    drawn = np.random.default_rng(config.effort.seed)
    found = one_step(store.task.make(), trajectories, near, span_of(store), drawn)
    return float(found["error"]["percent_of_range"])


def main() -> int:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # denormal gradients make steps ten times slower
    config, name = Benchmark.recall(Path(sys.argv[1])), sys.argv[2]
    run_stage(config, {stage.name: stage for stage in (*stages(config), *timed(config))}[name])
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
