"""How exactly frames are read, and what imagined transitions are worth: `python -m benchmarks.decode [--json FILE]`.

About eight minutes on two cores for every two tasks. Stores are collected and drawn, a LoRA and a decoder of the base
trained for each task, all on the spot; errors are those on held-out episodes; then imagined transitions, transitions
that the decoder reads from real frames, and SynthER's are audited against the simulator. Prints the tables in Markdown;
--json writes all of it. Everything that is made stays in --out, stage by stage: an interrupted run is taken up there.
"""

import os
import platform
import sys
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
import tyro

from benchmarks.decode_config import Benchmark
from benchmarks.decode_stages import stages, timed
from benchmarks.jobs import result, run_benchmark
from pixeltraj.base import Base
from pixeltraj.cli import guarded
from pixeltraj.files import provenance
from pixeltraj.tasks import get_task

MODULE = "benchmarks.decode_stages"
TARGETS = {
    "state_pct": ("state, mean over what can be seen, % of range", "{:.2f}", 1.0),
    "hand_mm": ("hand, mean over x, y, z, mm", "{:.1f}", 4.0),
    "object_mm": ("object, mean over x, y, z, mm", "{:.1f}", 3.0),
    "angle_rad": ("joint angles, rad", "{:.3f}", 0.05),
    "action_r2": ("action R², the worst dimension", "{:.2f}", -0.85),
    "reward_precision": ("sparse reward, precision", "{:.2f}", -0.98),
    "reward_recall": ("sparse reward, recall", "{:.2f}", -0.9),
}
"""Words, format and target of each figure; a negative target is a least one."""

REWARDS = {
    "reward_precision": ("sparse reward, precision", "reward", "precision"),
    "reward_recall": ("sparse reward, recall", "reward", "recall"),
    "reward_r2": ("dense reward, R²", "reward", "r2"),
    "end_precision": ("end, precision", "termination", "precision"),
    "end_recall": ("end, recall", "termination", "recall"),
}
"""Words of each figure of learned rewards and of the task's own, and where the decoder's measurement has it."""


def task_figures(task: str, metrics: dict[str, Any]) -> dict[str, float | None]:
    """What the decoder misreads on real frames, under short names; None where a task has no such thing."""
    state, about = metrics["state"], get_task(task)
    seen = {name: row for name, row in state.items() if name not in about.hidden}
    percent = [row["percent_of_range"] for row in seen.values() if row["percent_of_range"] is not None]
    angles = [row["error"] for row in seen.values() if row["unit"] == "rad"]

    def millimetres(thing: str) -> float | None:
        rows = [seen[f"{thing}_{axis}"]["error"] for axis in "xyz" if f"{thing}_{axis}" in seen]
        return 1000 * float(np.mean(rows)) if rows else None

    sparse = about.reward == "sparse"
    return {
        "state_pct": float(np.mean(percent)),
        "hand_mm": millimetres("hand"),
        "object_mm": millimetres("object"),
        "angle_rad": float(np.mean(angles)) if angles else None,
        "action_r2": min(metrics["action_r2"]),
        "reward_precision": metrics["reward"]["precision"] if sparse else None,
        "reward_recall": metrics["reward"]["recall"] if sparse else None,
    }


def reward_figures(found: dict[str, Any]) -> dict[str, float | None]:
    """The learned reward (`learned_...`) and the task's own (`own_...`), by the keys of `REWARDS`."""
    return {
        f"{name}_{key}": found[name][part].get(figure) if found else None
        for name in ("learned", "own")
        for key, (_, part, figure) in REWARDS.items()
    }


def audit_figures(found: dict[str, Any]) -> dict[str, float | None]:
    """One-step errors, % of range."""
    imagined, read = found["imagined"]["summary"], found["read"]["summary"]
    return {
        "one_step": imagined["one_step"],
        "one_step_real": read["one_step"],
        "one_step_exact": imagined["one_step_real"],
        "one_step_static": imagined["one_step_static"],
        "one_step_synther": imagined["one_step_synther"],
        "foreseen": found["uncertainty"],
    }


def report(config: Benchmark) -> dict[str, Any]:
    """What the issue asks for, under its keys, and in `detail` everything else that was measured."""
    done = {stage.name: result(config.out, stage.name) for stage in (*stages(config), *timed(config))}
    return {
        "tasks": {
            task: task_figures(task, done[f"decoder-{task}"]["metrics"])
            | reward_figures(done.get(f"rewards-{task}", {}))
            for task in config.tasks
        },
        "audit": {task: audit_figures(done[f"audit-{task}"]) for task in config.tasks},
        "frames_per_cpu_s": done["speed"]["frames_per_cpu_s"],
        "decode_share": done["speed"]["decode_share"],
        "detail": done,
        "seconds": {name: value["seconds"] for name, value in done.items()},
        "cpu_seconds": {name: value["cpu_seconds"] for name, value in done.items()},
        "base": {"path": config.base or "the embedded one", "identity": Base.load(config.base).identity},
        "effort": asdict(config.effort),
        "machine": {"cores": os.cpu_count(), "cpu": platform.machine(), "gpu": torch.cuda.is_available()},
        "provenance": provenance(),
    }


def table(report: dict[str, Any]) -> str:
    tasks = list(report["tasks"])
    lines = [f"| read from real frames | {' | '.join(tasks)} | target |", "|---" * (len(tasks) + 2) + "|"]

    def told(value: float | None, unit: str, target: float) -> str:
        if value is None:
            return ""
        met = value >= -target if target < 0 else value <= target
        return unit.format(value) + ("" if met else " ✗")

    for key, (words, unit, target) in TARGETS.items():
        cells = [told(report["tasks"][task][key], unit, target) for task in tasks]
        lines.append(f"| {words} | {' | '.join(cells)} | {'≥' if target < 0 else '≤'} {abs(target)} |")
    lines += ["", f"| reward learned / the task's own | {' | '.join(tasks)} |", "|---" * (len(tasks) + 1) + "|"]
    for key, (words, _, _) in REWARDS.items():
        pairs = [[report["tasks"][task][f"{name}_{key}"] for name in ("learned", "own")] for task in tasks]
        cells = [" / ".join(f"{value:.2f}" for value in pair if value is not None) for pair in pairs]
        lines.append(f"| {words} | {' | '.join(cells)} |")
    lines += ["", f"| one step, % of range | {' | '.join(tasks)} |", "|---" * (len(tasks) + 1) + "|"]
    for key, words in (
        ("one_step", "imagined"),
        ("one_step_real", "read from real frames"),
        ("one_step_exact", "real states"),
        ("one_step_static", "nothing moves"),
        ("one_step_synther", "SynthER"),
        ("foreseen", "rank correlation of the imagined ones with the stated uncertainty"),
    ):
        values = [report["audit"][task][key] for task in tasks]
        lines.append(f"| {words} | {' | '.join('' if v is None else f'{v:.2f}' for v in values)} |")
    speed = f"{report['frames_per_cpu_s']:.0f} frames decoded a CPU-second (≥ 400); decoding takes"
    return "\n".join([*lines, "", f"{speed} {100 * report['decode_share']:.0f} % of the time of imagining (≤ 25 %)."])


def run(config: Benchmark) -> int:
    run_benchmark(config, [stages(config), timed(config)], MODULE, report, table)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: run(tyro.cli(Benchmark, prog="python -m benchmarks.decode", description=__doc__))))
