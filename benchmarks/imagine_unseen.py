"""A task that the base has never seen: what a LoRA makes of it, what training from scratch does, what prompts do.

All of them are read by the decoder of the LoRA with language prompts: latents of one VAE are latents.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.imagine_config import Benchmark
from benchmarks.imagine_errors import Reader, figures, shaped, windows
from benchmarks.imagine_grids import imagined_grids
from benchmarks.imagine_tuning import generator, reader
from pixeltraj.base import PRETRAINING, Base
from pixeltraj.finetune.pretrain import PretrainConfig, pretrain
from pixeltraj.generator import Generator
from pixeltraj.prompt import PromptKind
from pixeltraj.store import Store

TASK = "push-back-v3"
K = 5
KINDS: tuple[PromptKind, ...] = ("language", "one-hot", "none")
SEEDS = 3


def label(kind: PromptKind, seed: int) -> str:
    """Of the LoRA; the first one is what the decoder belongs to."""
    return "all" if (kind, seed) == (KINDS[0], 0) else f"{kind}-{seed}"


def from_scratch(config: Benchmark) -> dict[str, Any]:
    """The task's U-Net from random weights on its store alone."""
    effort, store = config.effort, config.store(TASK)
    channels = train_from_scratch(config.base, store, config.out / "scratch", effort.scratch_steps, effort.seed)
    return {"steps": effort.scratch_steps, "channels": list(channels)}


def train_from_scratch(base: str | None, store: Path, out: Path, steps: int, seed: int = 0) -> tuple[int, ...]:
    """A base whose U-Net, text encoder and state encoder, as large as those of `base`, have seen nothing but the
    store; with the VAE of `base`. Returns the U-Net's channels. Gone on with where it was interrupted, and not trained
    again where it is there."""
    known = Base.load(base)
    if not (out / "vae").is_dir():
        beside = out / ".vae.partial"
        shutil.rmtree(beside, ignore_errors=True)
        known.vae.save_pretrained(beside)
        beside.rename(out / "vae")
    channels = tuple(known.unet.config.block_out_channels)
    if not (out / PRETRAINING).exists():
        pretrain(PretrainConfig(stores=(store,), out=out, steps=steps, k=(K,), channels=channels, seed=seed))
    return channels


def errors(config: Benchmark, made: dict[str, Generator]) -> dict[str, dict[str, Any]]:
    """name -> figures of that generator on the task, from the same windows and noise; `error_px` is the median over
    the windows of what hand, object and goal are missed by in the last tile, in the mean over three and all futures.
    """
    effort, store = config.effort, Store.open(config.store(TASK))
    rows = windows(config, store, K)
    read = Reader(store, reader(config, TASK), rows)
    repeated = np.repeat(rows, effort.samples, axis=0)
    found = {}
    for name, one in made.items():
        grids = imagined_grids(store, one, rows, effort.samples, effort.num_inference_steps, effort.seed)
        missed = shaped(read.last(grids, repeated), effort.samples)
        found[name] = {"error_px": float(np.median(np.mean(missed, axis=(0, 2)))), **figures(*missed)}
    found["real_frames"] = {
        "error_px": float(np.median(np.mean(shaped(read.real, 1), axis=(0, 2)))),
        **figures(*shaped(read.real, 1)),
    }
    return found


def lora_against_scratch(config: Benchmark) -> dict[str, Any]:
    made = {
        "lora": generator(config, TASK),
        "scratch": Generator.load(Base.load(str(config.out / "scratch"))),
        "base_untuned": Generator.load(Base.load(config.base), k=K),
    }
    found = errors(config, made)
    lora, scratch = (found[name]["error_px"] for name in ("lora", "scratch"))
    return {"lora": lora, "scratch": scratch, "better": lora < scratch, "task": TASK, "figures": found}


def prompt_errors(config: Benchmark) -> dict[str, Any]:
    """kind -> the mean and the single error_px of three seeds."""
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for kind in KINDS:
        for seed in range(SEEDS):
            one = errors(config, {"lora": generator(config, TASK, label(kind, seed))})
            found[kind].append(one["lora"])
    by_kind = {}
    for told, rows in found.items():
        of_seeds = [row["error_px"] for row in rows]
        by_kind[told] = {"error_px": float(np.mean(of_seeds)), "error_px_by_seed": of_seeds, "figures": rows}
    return {"task": TASK, "k": K, "by_kind": by_kind}
