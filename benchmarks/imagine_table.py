"""The table of the benchmark of imagination: metric, value, what reading alone misses, target, met or not."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Row(NamedTuple):
    metric: str
    value: float | None
    unit: str
    """A format of the value."""
    real: float | None
    """The same of real frames, through the same reader."""
    target: float | None
    at_least: bool = False
    """Whether more is better."""

    def __str__(self) -> str:
        def told(value: float | None) -> str:
            return "" if value is None else self.unit.format(value)

        sign = "≥" if self.at_least else "≤"
        wanted = "reported" if self.target is None else f"{sign} {told(self.target)}"
        value = "not measured" if self.value is None else told(self.value)
        return f"| {self.metric} | {value} | {told(self.real)} | {wanted} | {self.verdict} |"

    @property
    def verdict(self) -> str:
        if self.target is None or self.value is None:
            return ""
        met = self.value >= self.target if self.at_least else self.value <= self.target
        return "met" if met else "missed"


def table(report: dict[str, Any]) -> str:
    """Markdown, with what has to be known about the figures below it."""
    head = ["| metric | value | reading real frames | target | |", "|---|---|---|---|---|"]
    parts: tuple[Callable[[dict[str, Any]], list[Row]], ...] = (
        vae,
        pixels,
        dynamics,
        lengths,
        unseen,
        speed,
        diversity,
    )
    return "\n".join([*head, *(str(row) for part in parts for row in part(report)), "", *notes(report)])


def vae(report: dict[str, Any]) -> list[Row]:
    wanted = {
        "psnr": ("held-out episodes: PSNR", 35.0),
        "fg_psnr": ("held-out episodes: foreground PSNR", 30.0),
        "heldout_psnr": ("held-out tasks: PSNR", 30.0),
        "heldout_fg_psnr": ("held-out tasks: foreground PSNR", 25.0),
    }
    return [
        Row(f"VAE, {name}", report["vae"][key], "{:.1f} dB", None, target, True)
        for key, (name, target) in wanted.items()
    ]


def pixels(report: dict[str, Any]) -> list[Row]:
    rows = []
    wanted: dict[str, tuple[float | None, ...]] = {
        "k5": (0.98, 1.0, 2.0, 3.0),
        "k5_all_lengths": (None,) * 4,
        "k25": (0.95, 2.0, 4.0, 6.0),
    }
    said = {
        "k5": "k=5, a LoRA of that length",
        "k5_all_lengths": "k=5, a LoRA of all lengths",
        "k25": "k=25, a LoRA of all lengths",
    }
    for key, targets in wanted.items():
        names = ("static goal within 2 px", "object, median", "hand, best of the samples", "hand, mean of the samples")
        metrics = ("goal_ok", "object_px", "hand_px_best", "hand_px_mean")
        for metric, name, target in zip(metrics, names, targets):
            unit = "{:.1%}" if metric == "goal_ok" else "{:.2f} px"
            real = report[key]["real_frames"][metric]
            what = f"{said[key]}, last tile: {name}"
            rows.append(Row(what, report[key][metric], unit, real, target, metric == "goal_ok"))
    return rows


def dynamics(report: dict[str, Any]) -> list[Row]:
    rows = []
    for task, one in report["locomotion"].items():
        by_k = report["detail"][f"dynamics-{task}"]["by_k"]
        worst = max(by_k.values(), key=lambda row: row["angle_rad"])
        name = f"{task}, {' and '.join(by_k)}, the worse: joint angles"
        rows.append(Row(name, one["angle_rad"], "{:.3f} rad", worst["real_frames"], 0.1))
    for name, one in report["detail"]["one_step"].items():
        rows.append(Row(f"one-step error, imagined / real, {name}", one["ratio"], "{:.2f}", 1.0, None))
    return [*rows, Row("one-step error, imagined / real, the worst", report["one_step_ratio"], "{:.2f}", 1.0, 2.0)]


def lengths(report: dict[str, Any]) -> list[Row]:
    found = report["length"]
    return [
        Row("one diffuser over one for each length: worst metric", report["onediff_worst_pct"], "{:+.1f} %", None, 5.0),
        Row("length estimator: the right preset", found["preset_acc"], "{:.1%}", None, 0.8, True),
        Row("pruner: end within 1 frame, padded", found["prune_within1"], "{:.1%}", None, 0.9, True),
        Row("pruner: untouched, unpadded", found["unpruned_kept"], "{:.1%}", None, 0.95, True),
    ]


def unseen(report: dict[str, Any]) -> list[Row]:
    rows, against = [], report["lora_vs_scratch"]
    real = against and against["figures"]["real_frames"]["error_px"]
    name = "held-out task: base + LoRA, error in the last tile"
    rows.append(Row(name, against and against["lora"], "{:.2f} px", real, against and against["scratch"]))
    if report["prompts"]:
        for kind, one in report["prompts"]["by_kind"].items():
            rows.append(Row(f"held-out task, prompt {kind}: error", one["error_px"], "{:.2f} px", real, None))
    return rows


def speed(report: dict[str, Any]) -> list[Row]:
    found, wanted = report["transitions_per_cpu_s"], {"k5": 100.0, "k25": 60.0}
    name = "transitions imagined and decoded a CPU-second"
    return [Row(f"{name}, {key}", found[key], "{:.0f}", None, target, True) for key, target in wanted.items()]


def diversity(report: dict[str, Any]) -> list[Row]:
    rows = []
    for key, found in report["diversity"].items():
        for metric, name, unit in (
            ("hand_px", "hands", "{:.2f} px"),
            ("object_px", "objects", "{:.2f} px"),
            ("distinct_pairs", "distinct pairs", "{:.1%}"),
        ):
            what = f"{key}, futures of one start: {name}"
            rows.append(Row(what, found["imagined"][metric], unit, found["real"][metric], None))
        ratio = found["copying"]["ratio"]
        rows.append(Row(f"{key}, distance to the nearest training window over real", ratio, "{:.2f}", 1.0, None))
    return rows


def notes(report: dict[str, Any]) -> list[str]:
    detail = report["detail"]
    errors = {name: found for name, found in detail.items() if name.startswith("errors-")}
    read = "; ".join(
        f"{name.removeprefix('errors-')}: {found['windows']} windows of {found['samples']} futures, object read by "
        f"{found['reader']['object']}, goal by {found['reader']['goal']}"
        for name, found in errors.items()
    )
    seconds = {name: value for name, value in report["cpu_seconds"].items() if name.startswith("lora-")}
    slowest = max(seconds, key=lambda name: seconds[name])
    return [
        f"Windows in which the object moves more than 2 px; padded after success. {read}. For the futures of one start "
        f'"reading real frames" shows how far real ones spread from the same simulator state.',
        f"{report['effort']['num_inference_steps'] or '2, from k=15 on 3'} denoising steps. "
        f"LoRAs took at most {seconds[slowest]:.0f} "
        f"CPU-seconds ({slowest}), all stages {sum(report['cpu_seconds'].values()) / 60:.0f} CPU-minutes. "
        f"Base {report['base']['identity']}, seed {report['effort']['seed']}.",
        *(f"Not measured: {key}; {why}." for key, why in report["not_measured"].items()),
    ]
