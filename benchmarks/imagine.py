"""How true imagination is: `python -m benchmarks.imagine [--json FILE]`, under twenty minutes on two cores.

Stores are collected and drawn, LoRAs are tuned for less than three minutes each and decoders trained, all on the spot;
then what is imagined from held-out episodes is held against the simulator. Prints the table in Markdown; --json writes
all of it. Everything that is made stays in --out, stage by stage: an interrupted run is taken up there, and a finished
one only prints. --scratch, --prompts and --pictures take longer and may be added later.
"""

import os
import platform
import sys
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
import tyro

from benchmarks.imagine_config import EPISODES_FROM, HELDOUT_TASKS, Benchmark
from benchmarks.imagine_pictures import draw_extremes
from benchmarks.imagine_stages import stages, timed, unseen
from benchmarks.imagine_table import table
from benchmarks.jobs import result, run_benchmark
from pixeltraj.base import Base
from pixeltraj.cli import guarded
from pixeltraj.files import provenance

MODULE = "benchmarks.imagine_stages"
PIXELS = ("goal_ok", "object_px", "hand_px_best", "hand_px_mean")

LATER = {
    "lora_vs_scratch": "training from scratch takes half an hour: add --scratch",
    "prompts": "comparing language, one-hot and no prompts takes half an hour: add --prompts",
}


def report(config: Benchmark) -> dict[str, Any]:
    """What the issue asks for, under its keys, and in `detail` everything else that was measured."""
    every = {stage.name: result(config.out, stage.name) for stage in (*stages(config), *timed(config))}
    later = {stage.name: result(config.out, stage.name) for stage in unseen(True, True)}
    done = every | {name: value for name, value in later.items() if value is not None}
    listed = [*config.tasks, *config.runners]
    one_step = {f"{task} {k}": row for task in listed for k, row in done[f"dynamics-{task}"]["one_step"].items()}
    length, speed = done["length"]["length"], done["speed"]
    return {
        "vae": {key: done["vae"][key] for key in ("psnr", "fg_psnr", "heldout_psnr", "heldout_fg_psnr")},
        "k5": own_length(done, config.tasks[0]),
        "k5_all_lengths": over_tasks([done[f"errors-{task}-k5"] for task in config.tasks]),
        "k25": over_tasks([done[f"errors-{task}-k25"] for task in config.tasks]),
        "locomotion": {task: {"angle_rad": done[f"dynamics-{task}"]["angle_rad"]} for task in config.runners},
        "one_step_ratio": max(row["ratio"] for row in one_step.values()),
        "onediff_worst_pct": done["onediff"]["worst_pct"],
        "lora_vs_scratch": done.get("lora_vs_scratch"),
        "prompts": done.get("prompts"),
        "length": {key: length[key] for key in ("preset_acc", "prune_within1", "unpruned_kept")},
        "transitions_per_cpu_s": {key: speed[key] for key in ("k5", "k25")},
        "diversity": {key: done["diversity"][key] for key in ("k5", "k25")},
        "detail": {"one_step": one_step} | done,
        "not_measured": {key: why for key, why in LATER.items() if key not in done},
        "seconds": {name: value["seconds"] for name, value in done.items()},
        "cpu_seconds": {name: value["cpu_seconds"] for name, value in done.items()},
        "base": {"path": config.base or "the embedded one", "identity": Base.load(config.base).identity},
        "effort": asdict(config.effort),
        "episodes_from_seed": EPISODES_FROM,
        "heldout_tasks": list(HELDOUT_TASKS),
        "machine": {
            "cores": os.cpu_count(),
            "cpu": platform.machine(),
            "system": platform.system(),
            "gpu": torch.cuda.is_available(),
        },
        "provenance": provenance(),
    }


def own_length(done: dict[str, Any], task: str) -> dict[str, Any]:
    """k=5 by the LoRA that was tuned to k=5 alone, which is what `finetune` makes unless it is told otherwise."""
    metrics = done["onediff"]["metrics"]
    real = done[f"errors-{task}-k5"]["real_frames"]
    return {name: metrics[f"k5.{name}"]["alone"] for name in PIXELS} | {"real_frames": {n: real[n] for n in PIXELS}}


def over_tasks(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean over tasks, for what was imagined and for real frames read in the same way."""
    means = {name: float(np.mean([one[name] for one in found])) for name in PIXELS}
    real = {name: float(np.mean([one["real_frames"][name] for one in found])) for name in PIXELS}
    return means | {"real_frames": real}


def run(config: Benchmark) -> int:
    extra = unseen(config.scratch, config.prompts) if config.scratch or config.prompts else []
    run_benchmark(config, [stages(config), timed(config), extra], MODULE, report, table)
    if config.pictures:
        for task in config.tasks:
            print(*draw_extremes(config, task, config.pictures), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: run(tyro.cli(Benchmark, prog="python -m benchmarks.imagine", description=__doc__))))
