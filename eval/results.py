"""Results: what the runs of an experiment amount to, in numbers, in one sentence and in a picture."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pixeltraj.eval.statistics import Curve, quartiles
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
        low, median, high = quartiles(scores)
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


TWO_SIDES = ("without", "with")
"""The arms of `pixeltraj eval`: what is said of them speaks of imagination."""


def baseline(results: list[Result]) -> str | None:
    """What the other arms are held against: the first one, of two sides the one without; None without results."""
    arms = list(dict.fromkeys(r.arm for r in results))
    if not arms:
        return None
    return TWO_SIDES[0] if set(arms) <= set(TWO_SIDES) else arms[0]


def others(results: list[Result]) -> list[str]:
    """The arms that are held against the first one; of one side alone, the side with imagination."""
    first = baseline(results)
    if first == TWO_SIDES[0]:
        return [TWO_SIDES[1]]
    return [arm for arm in dict.fromkeys(r.arm for r in results) if arm != first]


def gains(results: list[Result], arm: str = TWO_SIDES[1], against: str = TWO_SIDES[0]) -> np.ndarray:
    """(n,) score of one arm minus score of another, for each seed that was run both ways."""
    score = {(r.arm, r.seed): r.score for r in results}
    seeds = sorted({r.seed for r in results})
    return np.array([score[arm, s] - score[against, s] for s in seeds if {(arm, s), (against, s)} <= {*score}])


def interval(gained: np.ndarray) -> dict[str, float | None]:
    """Mean gain and its 95 % interval (paired t); None where there are too few pairs to say."""
    mean = float(gained.mean()) if len(gained) else None
    if mean is None or len(gained) < FEWEST_PAIRS:
        return {"mean": mean, "low": None, "high": None}
    error = float(_t95(len(gained) - 1) * gained.std(ddof=1) / np.sqrt(len(gained)))
    return {"mean": mean, "low": mean - error, "high": mean + error}


def difference(results: list[Result]) -> dict[str, float | None]:
    """Mean gain of the first arm that is compared, and its interval; of two sides, of imagination."""
    compared = differences(results)
    return next(iter(compared.values())) if compared else interval(np.zeros(0))


def differences(results: list[Result]) -> dict[str, dict[str, float | None]]:
    """The same of every arm that is held against the first one."""
    first = baseline(results)
    return {arm: interval(gains(results, arm, first)) for arm in others(results) if first is not None}


def verdict(results: list[Result]) -> str:
    """Whether imagination helped, in a sentence; of other arms than the two sides, one sentence for each."""
    first = baseline(results)
    if first == TWO_SIDES[0]:
        imagined = any(r.imagined for r in results if r.arm == TWO_SIDES[1])
        return judged("imagination", gains(results), None if imagined else "nothing was imagined")
    said = [judged(arm, gains(results, arm, first)) for arm in others(results) if first is not None]
    return " ".join(said) if said else "Nothing to compare: there is one arm."


def judged(what: str, gained: np.ndarray, flaw: str | None = None) -> str:
    """The sentence. flaw: why nothing can be told, whatever the gains are."""
    found = interval(gained)
    mean, low, high = found["mean"], found["low"], found["high"]
    doubt = f"Cannot tell whether {what} helped"
    if mean is None:
        return f"{doubt}: no seed was run both with and without it."
    if flaw:
        return f"{doubt}: {flaw}."
    if low is None or high is None:
        listed = ", ".join(f"{gain:+.2f}" for gain in gained)
        return f"{doubt}: {len(gained)} of at least {FEWEST_PAIRS} seeds, gains {listed}."
    figures = f"mean gain {mean:+.2f}, 95 % interval {low:+.2f} to {high:+.2f}, {len(gained)} seeds"
    name = what[0].upper() + what[1:]
    if low > 0:
        return f"{name} helped: {figures}."
    if high <= 0:
        return f"{name} did not help: {figures}."
    return f"{doubt}: {figures}."


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
    arms = list(dict.fromkeys(r.arm for r in results))
    for arm, colour in zip(arms, colours(arms)):
        runs = [r for r in results if r.arm == arm]
        label = f"{arm} imagination" if set(arms) <= set(TWO_SIDES) else arm
        draw_curves(axes, [r.curve for r in runs], colour, f"{label} ({len(runs)} seeds)")
    axes.set(title=title, xlabel="decisions", ylabel=measure)
    if measure == "success rate":
        axes.set_ylim(-0.02, 1.02)
    axes.grid(alpha=0.3)
    axes.legend()
    write_whole(path, lambda beside: figure.savefig(beside, format="png", dpi=120))


def draw_curves(axes: Axes, curves: Sequence[Curve], colour: str, label: str) -> None:
    """One arm's curves, one a seed, all of them evaluated at the same decisions."""
    steps = [step for step, _ in curves[0]]
    scores = np.array([[score for _, score in curve] for curve in curves])  # (seeds, evaluations)
    low, median, high = np.percentile(scores, [25, 50, 75], axis=0)
    axes.plot(steps, scores.T, color=colour, linewidth=0.6, alpha=0.5)
    axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(steps, median, color=colour, linewidth=2, label=label)


def colours(arms: Sequence[str]) -> list[str]:
    """One for each arm: grey for what the others are held against."""
    palette = ("orange", "blue", "green", "red", "purple", "brown", "pink", "olive", "cyan")
    return [f"tab:{'gray' if i == 0 else palette[(i - 1) % len(palette)]}" for i in range(len(arms))]
