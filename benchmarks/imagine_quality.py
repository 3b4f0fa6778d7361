"""Quality and speed of the parts: what the VAE gives back, and how much is imagined in a second."""

import time
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.imagine_config import HELDOUT_TASKS, Benchmark
from benchmarks.imagine_errors import windows
from benchmarks.imagine_tuning import LONGEST, drawn, reader
from pixeltraj.base import Base
from pixeltraj.finetune.vae import psnr
from pixeltraj.imaginer import Imaginer, Start
from pixeltraj.store import Store

SEEN_TASKS = (
    "push-v3",
    "coffee-push-v3",
    "peg-insert-side-v3",
    "HalfCheetah-v5",
    "Hopper-v5",
    "PointMaze_Medium-v3",
    "FrankaKitchen-v1",
    "AdroitHandDoor-v1",
)
"""Of the mixture that the embedded base was pretrained on; new episodes of them."""
BATCH = 32
"""Grids of five frames that are imagined together while the clock runs."""
TIMED = 3
"""Batches of starts that are timed."""


def vae(config: Benchmark) -> dict[str, Any]:
    """PSNR in dB of encoding and decoding, the mean over tasks: new episodes of tasks that the base has seen, and of
    tasks that it has not."""
    base, quality = Base.load(config.base), {}
    for task in tqdm((*SEEN_TASKS, *HELDOUT_TASKS), desc="VAE", unit="task"):
        store = drawn(
            config.out / "stores" / f"vae-{task}", task, config.effort.vae_frames, episodes=2, longest=LONGEST
        )
        quality[task] = psnr(base.vae, store, list(range(len(store))))
    means = {
        key: float(np.mean([quality[task][name] for task in tasks]))
        for key, name, tasks in (
            ("psnr", "psnr_db", SEEN_TASKS),
            ("fg_psnr", "foreground_psnr_db", SEEN_TASKS),
            ("heldout_psnr", "psnr_db", HELDOUT_TASKS),
            ("heldout_fg_psnr", "foreground_psnr_db", HELDOUT_TASKS),
        )
    }
    return means | {"by_task": quality}


def speed(config: Benchmark, task: str) -> dict[str, Any]:
    """Transitions that are imagined and decoded in a second of one CPU core, without drawing their frames."""
    store, decoder = Store.open(config.store(task)), reader(config, task)
    torch.set_num_threads(1)
    measured: dict[str, Any] = {"num_inference_steps": config.effort.num_inference_steps, "batch": BATCH}
    for k in config.measured_lengths(task):
        imaginer = Imaginer(decoder.generator.at(k), decoder, config.effort.num_inference_steps, BATCH)
        size = max(1, BATCH * 5 // k)
        first = windows(config, store, k)[:, :1]
        first = np.resize(first, (size, 1))
        states, frames = store.windows("states", first)[:, 0], store.windows("frames", first)[:, 0]
        begin = [Start(state, frame) for state, frame in zip(states, frames)]
        rng = torch.Generator().manual_seed(config.effort.seed)
        imaginer.imagine(begin, rng)  # the first time, memory is laid out
        began, kept = time.process_time(), 0
        for _ in range(TIMED):
            kept += sum(len(trajectory) for trajectory in imaginer.imagine(begin, rng))
        spent = time.process_time() - began
        measured[f"k{k}"] = kept / spent
        measured[f"k{k}_before_cutting"] = TIMED * size * (k - 1) / spent
    return measured
