"""Results: what the runs of an experiment amount to, in numbers, in one sentence and in a picture."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from pixeltraj.files import write_whole

FINAL = 3
"""Evaluations at the end whose mean is a run's score: one alone is too noisy."""
FEWEST_PAIRS = 3
"""Two seeds can agree by chance; no verdict is passed on fewer."""


@dataclass
class Result:
    """One finished run."""

    arm: str
    seed: int
    steps: int
    """Decisions the agent took."""
    curve: list[tuple[int, float]]
    """Decisions so far, and the success rate (sparse tasks) or mean return (dense ones) at that point."""
    seconds: float
    """Wall-clock time of the whole run."""
    seconds_imagining: float
    own: int
    """Transitions of the agent's own."""
    imagined: int
    """Imagined transitions."""
    requested: int
    """Trajectories asked of the imagination."""
    received: int
    score: float = field(init=False)
    """Mean of the last evaluations; the one before the first decision does not count."""

    def __post_init__(self) -> None:
        scores = [score for step, score in self.curve if step > 0]
        self.score = float(np.mean(scores[-FINAL:]))


def summary(results: list[Result]) -> dict[str, dict[str, float]]:
    """Per arm: median, quartiles, mean, spread (standard deviation over seeds) and mean seconds."""
    rows = {}
    for arm in dict.fromkeys(r.arm for r in results):
        runs = [r for r in results if r.arm == arm]
        scores = np.array([r.score for r in runs])
        low, median, high = np.percentile(scores, [25, 50, 75])
        rows[arm] = {
            "seeds": len(runs),
            "median": float(median),
            "percentile_25": float(low),
            "percentile_75": float(high),
            "mean": float(scores.mean()),
            "spread": float(scores.std(ddof=1)) if len(runs) > 1 else 0.0,
            "seconds": float(np.mean([r.seconds for r in runs])),
            "seconds_imagining": float(np.mean([r.seconds_imagining for r in runs])),
        }
    return rows


def gains(results: list[Result]) -> np.ndarray:
    """(n,) score with minus score without imagination, for each seed that was run both ways."""
    score = {(r.arm, r.seed): r.score for r in results}
    seeds = sorted({r.seed for r in results})
    return np.array(
        [score["with", s] - score["without", s] for s in seeds if {("with", s), ("without", s)} <= {*score}]
    )


def difference(results: list[Result]) -> dict[str, float | None]:
    """Mean gain and its 95 % interval (paired t); None where there are too few pairs to say."""
    gained = gains(results)
    mean = float(gained.mean()) if len(gained) else None
    if mean is None or len(gained) < FEWEST_PAIRS:
        return {"mean": mean, "low": None, "high": None}
    error = float(_t95(len(gained) - 1) * gained.std(ddof=1) / np.sqrt(len(gained)))
    return {"mean": mean, "low": mean - error, "high": mean + error}


def verdict(results: list[Result]) -> str:
    """Whether imagination helped, in a sentence."""
    gained, interval = gains(results), difference(results)
    mean, low, high = interval["mean"], interval["low"], interval["high"]
    if mean is None:
        return "Cannot tell whether imagination helped: no seed was run both with and without it."
    if not any(r.imagined for r in results if r.arm == "with"):
        return "Cannot tell whether imagination helped: nothing was imagined."
    if low is None or high is None:
        listed = ", ".join(f"{gain:+.2f}" for gain in gained)
        return (
            f"Cannot tell whether imagination helped: {len(gained)} of at least {FEWEST_PAIRS} seeds, gains {listed}."
        )
    figures = f"mean gain {mean:+.2f}, 95 % interval {low:+.2f} to {high:+.2f}, {len(gained)} seeds"
    if low > 0:
        return f"Imagination helped: {figures}."
    if high <= 0:
        return f"Imagination did not help: {figures}."
    return f"Cannot tell whether imagination helped: {figures}."


def _t95(freedom: int) -> float:
    """The 97.5 % point of Student's t; beyond the table, within 0.5 %."""
    table = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
    return table[freedom - 1] if freedom <= len(table) else 1.96 + 2.7 / freedom


def table(results: list[Result], measure: str) -> str:
    """Markdown, one row an arm."""
    lines = [
        f"| arm | {measure}: median (25-75 %) | mean ± spread | seeds | seconds a run | of them imagining |",
        "|---|---|---|---|---|---|",
    ]
    for arm, row in summary(results).items():
        lines.append(
            f"| {arm} | {row['median']:.2f} ({row['percentile_25']:.2f}-{row['percentile_75']:.2f}) "
            f"| {row['mean']:.2f} ± {row['spread']:.2f} | {row['seeds']:.0f} "
            f"| {row['seconds']:.0f} | {row['seconds_imagining']:.0f} |"
        )
    return "\n".join(lines)


def plot(results: list[Result], title: str, measure: str, path: Path) -> None:
    """Learning curves as a PNG: the median over seeds, the quartiles as a band, every seed as a thin line."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for colour, arm in zip(("tab:gray", "tab:orange"), dict.fromkeys(r.arm for r in results)):
        runs = [r for r in results if r.arm == arm]
        steps = [step for step, _ in runs[0].curve]
        scores = np.array([[score for _, score in r.curve] for r in runs])  # (seeds, evaluations)
        low, median, high = np.percentile(scores, [25, 50, 75], axis=0)
        axes.plot(steps, scores.T, color=colour, linewidth=0.6, alpha=0.5)
        axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(steps, median, color=colour, linewidth=2, label=f"{arm} imagination ({len(runs)} seeds)")
    axes.set(title=title, xlabel="decisions", ylabel=measure)
    if measure == "success rate":
        axes.set_ylim(-0.02, 1.02)
    axes.grid(alpha=0.3)
    axes.legend()
    write_whole(path, lambda beside: figure.savefig(beside, format="png", dpi=120))
