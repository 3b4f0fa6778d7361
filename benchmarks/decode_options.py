"""The decoder's options against each other: `python -m benchmarks.decode_options [--json FILE] [--option NAME ...]`.

Stores are collected and drawn and a LoRA is trained for each
task, all on the spot; then a decoder of every option is trained on the same episodes with the same number of steps, and
reads the same held-out episodes: real frames, and the same as the generator paints them, because what has to be read in
the end is imagined. Prints a table for each task in Markdown; --json writes all of it. Everything that is made
stays in --out, stage by stage: an interrupted run is taken up there.
"""

import os
import platform
import shutil
import signal
import sys
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
import tyro

from benchmarks.decode_options_config import Benchmark
from benchmarks.decode_options_list import OPTIONS
from benchmarks.decode_options_stages import measured_name, speed_name, stages, timed
from benchmarks.jobs import result, run_stages
from pixeltraj.base import Base
from pixeltraj.cli import guarded
from pixeltraj.files import provenance, write_json

MODULE = "benchmarks.decode_options_stages"
COLUMNS = {
    "state_pct": ("state, % of range", "{:.2f}"),
    "hand_mm": ("hand, mm", "{:.1f}"),
    "object_mm": ("object, mm", "{:.1f}"),
    "angle_rad": ("joint angles, rad", "{:.3f}"),
    "keypoint_mm": ("keypoints, mm", "{:.1f}"),
    "action_r2": ("action R², worst", "{:.2f}"),
    "action_r2_mean": ("action R², mean", "{:.2f}"),
}
"""Words and format of each figure."""
KINDS = ("real", "reconstructed")
"""Frames: as they were drawn; as the generator paints them."""


def report(config: Benchmark) -> dict[str, Any]:
    """tasks.NAME.OPTION.{real, reconstructed}: a list of figures for each seed; .speed: frames a CPU-second."""
    done = {stage.name: result(config.out, stage.name) for stage in (*stages(config), *timed(config))}
    tasks: dict[str, Any] = {}
    for task in config.tasks:
        tasks[task] = {}
        for option in (option for option in config.options if option.concerns(task)):
            runs = [done[measured_name(option, task, seed)] for seed in config.seeds_of(option)]
            found: dict[str, Any] = {kind: [run[kind] for run in runs] for kind in KINDS}
            tasks[task][option.name] = found | {"speed": done[speed_name(option, task)]}
    return {
        "tasks": tasks,
        "seconds": {name: value["seconds"] for name, value in done.items()},
        "cpu_seconds": {name: value["cpu_seconds"] for name, value in done.items()},
        "base": {"path": config.base or "the embedded one", "identity": Base.load(config.base).identity},
        "effort": asdict(config.effort),
        "machine": {"cores": os.cpu_count(), "cpu": platform.machine(), "gpu": torch.cuda.is_available()},
        "provenance": provenance(),
    }


def table(report: dict[str, Any], task: str) -> str:
    """Mean over seeds on real frames / on those that the generator painted; a row for the deviation over seeds."""
    rows = report["tasks"][task]
    some = next(iter(rows.values()))["real"][0]
    keys = [key for key in COLUMNS if some[key] is not None]
    heading = [task, *(COLUMNS[key][0] for key in keys), "frames a CPU-second"]
    lines = [f"| {' | '.join(heading)} |", "|---" * len(heading) + "|"]
    words = {option.name: option.words for option in OPTIONS}
    for name, found in rows.items():
        values = {key: [[run[key] for run in found[kind]] for kind in KINDS] for key in keys}
        cells = [told(COLUMNS[key][1], values[key], np.mean) for key in keys]
        pace = " / ".join(f"{found['speed'][key]:.0f}" for key in ("frames_per_cpu_s", "imagined_frames_per_cpu_s"))
        lines.append(f"| `{name}`: {words[name]} | {' | '.join(cells)} | {pace} |")
        if len(found["real"]) > 1:
            cells = [told(COLUMNS[key][1], values[key], deviation) for key in keys]
            lines.append(f"| its deviation over {len(found['real'])} seeds | {' | '.join(cells)} | |")
    return "\n".join(lines)


def told(unit: str, values: list[list[float | None]], of: Any) -> str:
    """A cell; empty where there is no such figure."""
    return "" if values[0][0] is None else " / ".join(unit.format(of(runs)) for runs in values)


def deviation(runs: list[float]) -> float:
    return float(np.std(runs, ddof=1))


def run(config: Benchmark) -> int:
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as an interrupt does: stages end with it
    listed, last = stages(config), timed(config)
    config.remember()
    run_stages(config, listed, MODULE)
    run_stages(replace(config, at_once=1), last, MODULE)
    measured = report(config)
    shutil.rmtree(config.out / "windows", ignore_errors=True)  # gigabytes, made again within minutes
    if config.json:
        write_json(config.json, measured)
    print("\n\n".join(table(measured, task) for task in config.tasks))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: run(tyro.cli(Benchmark, prog="python -m benchmarks.decode_options", description=__doc__))))
