"""The figures in README: `python -m benchmarks.demo [--json FILE]` runs the demo, or reads a finished one.

Prints the table in Markdown; --json writes the whole report.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from pixeltraj.cli.demo import Config, run
from pixeltraj.files import read_json, write_json


@dataclass(frozen=True)
class Benchmark:
    demo: Config = field(default_factory=Config)
    """The demo that is measured."""
    json: Path | None = None
    """Where to write the report."""


def table(report: dict[str, Any]) -> str:
    def mean_percent(rows: list[dict[str, Any]]) -> str:
        known = [row["percent_of_range"] for row in rows if row["percent_of_range"] is not None]
        return f"{sum(known) / len(known):.1f} %"

    def reward(row: dict[str, Any]) -> str:
        return " / ".join("not measured" if row[k] is None else f"{row[k]:.2f}" for k in ("precision", "recall"))

    step = report["one_step"]
    keypoints = report["decoder"]["keypoints_mm"]
    rows = [
        ("frames rendered a second", f"{report['render']['frames_per_second']:.0f}"),
        (
            "VAE, held-out frames: PSNR, whole / foreground",
            f"{report['vae']['psnr_db']:.1f} / {report['vae']['foreground_psnr_db']:.1f} dB",
        ),
        (
            "held-out denoising loss before / after fine-tuning",
            " / ".join(f"{report['finetune'][k]:.3f}" for k in ("heldout_loss_before", "heldout_loss_after")),
        ),
        ("keypoints on held-out real frames", ", ".join(f"{n} {mm:.1f} mm" for n, mm in keypoints.items())),
        ("state error on held-out real frames, of range", mean_percent(report["decoder"]["states"])),
        ("success on held-out real frames: precision / recall", reward(report["decoder"]["reward"])),
        (
            "state error of imagined frames against the simulator fed the decoded actions, last frame, of range",
            mean_percent(report["imagined"]["states"]),
        ),
        (
            "one-step error: imagined / real / nothing moves / shuffled actions, of range",
            " / ".join(
                f"{step[k]['error_percent']:.2f} %" for k in ("imagined", "real", "nothing_moves", "shuffled_actions")
            ),
        ),
        ("trajectories imagined and decoded a second", f"{report['imagined']['trajectories_per_second']:.1f}"),
    ]
    for arm, runs in report["agent"]["arms"].items():
        finals = [run["final"] for run in runs["seeds"].values()]
        rows.append((f"agent {arm} imagination, success per seed", ", ".join(f"{value:.2f}" for value in finals)))
    lines = ["| joint | figure |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    return "\n".join([*lines, "", report["agent"]["verdict"]])


def main() -> None:
    config = tyro.cli(Benchmark, description=__doc__)
    run(config.demo)
    report = read_json(config.demo.out / "report.json", "report")
    if config.json:
        write_json(config.json, report)
    print(table(report))


if __name__ == "__main__":
    main()
