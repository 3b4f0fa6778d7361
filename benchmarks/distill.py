"""What distillation to few steps costs: `python -m benchmarks.distill [--json FILE]`, about 17 CPU-minutes.

A store is collected and drawn, a LoRA tuned to it and distilled, and a decoder trained for each of the two, all on the
spot; then what either imagines from held-out frames is held against how the simulator went on. Prints the table in
Markdown; --json writes all of it. Everything that is made stays in --out, stage by stage: an interrupted run is taken
up there.
"""

import os
import platform
import sys
from dataclasses import asdict
from typing import Any

import torch
import tyro

from benchmarks.distill_stages import STEPS, Benchmark, stages, timed
from benchmarks.jobs import result, run_benchmark
from pixeltraj.base import Base
from pixeltraj.cli import guarded
from pixeltraj.files import provenance

MODULE = "benchmarks.distill_stages"
COLUMNS = {
    "state_pct": ("state, % of range", ".2f"),
    "best_pct": ("its best future", ".2f"),
    "hand_mm": ("hand, mm", ".1f"),
    "object_mm": ("object, mm", ".1f"),
    "spread_mm": ("spread of futures, mm", ".1f"),
    "one_step_pct": ("one step, % of range", ".2f"),
    "grids_per_cpu_s": ("grids a CPU-second", ".1f"),
}
"""Words and format of each figure."""


def report(config: Benchmark) -> dict[str, Any]:
    done = {stage.name: result(config.out, stage.name) for stage in (*stages(config), *timed(config))}
    measured = {who: done[f"errors-{who}"] for who in STEPS}
    return {
        **{who: found["by_steps"] for who, found in measured.items()},
        "real_frames": {who: found["real_frames"] for who, found in measured.items()},
        "nothing_moves": measured["teacher"]["nothing_moves"],
        "gap": {when: done["lora-student"][f"heldout_loss_{when}"] for when in ("before", "after")},
        "detail": done,
        "seconds": {name: value["seconds"] for name, value in done.items()},
        "cpu_seconds": {name: value["cpu_seconds"] for name, value in done.items()},
        "base": {"path": config.base or "the embedded one", "identity": Base.load(config.base).identity},
        "task": config.task,
        "effort": asdict(config.effort),
        "machine": {"cores": os.cpu_count(), "cpu": platform.machine(), "gpu": torch.cuda.is_available()},
        "provenance": provenance(),
    }


def table(report: dict[str, Any]) -> str:
    lines = [f"| | {' | '.join(words for words, _ in COLUMNS.values())} |", "|---" * (len(COLUMNS) + 1) + "|"]

    def row(name: str, figures: dict[str, float]) -> str:
        cells = [format(figures[key], form) if key in figures else "" for key, (_, form) in COLUMNS.items()]
        return f"| {name} | {' | '.join(cells)} |"

    for who, name in (("teacher", "fine-tuned"), ("student", "distilled")):
        for steps, figures in report[who].items():
            lines.append(row(f"{name}, {steps} step{'s' if steps != '1' else ''}", figures))
        alone = {
            key: value for key, value in report["real_frames"][who].items() if key not in ("best_pct", "spread_mm")
        }
        lines.append(row(f"{name}: reading real frames", alone))
    still = {key: value for key, value in report["nothing_moves"].items() if key not in ("best_pct", "spread_mm")}
    lines.append(row("nothing moves", still))
    gap = report["gap"]
    return "\n".join(
        [
            *lines,
            "",
            f"Mean squared distance of one step from the teacher's whole way: {gap['before']:.4f} before, "
            f"{gap['after']:.4f} after distillation. {sum(report['cpu_seconds'].values()) / 60:.0f} CPU-minutes.",
        ]
    )


def run(config: Benchmark) -> int:
    run_benchmark(config, [stages(config), timed(config)], MODULE, report, table)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: run(tyro.cli(Benchmark, prog="python -m benchmarks.distill", description=__doc__))))
