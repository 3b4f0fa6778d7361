"""Comparison: what the trials of a recipe amount to, beside the paper's numbers: a table, and curves like the paper's.

Scores are D4RL-normalised returns where there is a reference, else success rates or returns as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pixeltraj.eval.d4rl_scores import normalised
from pixeltraj.eval.recipes.recipe import Recipe, Trial
from pixeltraj.eval.results import Result, colours, draw_curves
from pixeltraj.eval.statistics import (
    Curve,
    Interval,
    improvement,
    interquartile_means,
    quartiles,
    steps_ratio,
    steps_to,
)
from pixeltraj.files import write_whole
from pixeltraj.tasks import get_task
from pixeltraj.tasks.sequence import SequenceTask

THRESHOLD = 0.8
"""Success rate that `decisions to 80 %` is about."""
HOUR = 3600.0


@dataclass(frozen=True)
class Finished:
    """A trial and all of its runs."""

    trial: Trial
    results: tuple[Result, ...]

    @property
    def arms(self) -> list[str]:
        return [side.name for side in self.trial.sides]

    def against(self, arm: str) -> str:
        """What an arm is held against: the first one with the same agent."""
        agent = {side.name: side.agent for side in self.trial.sides}
        return next(name for name in self.arms if agent[name] == agent[arm])

    def runs(self, arm: str) -> list[Result]:
        return [result for result in self.results if result.arm == arm]

    def share(self, score: float) -> float:
        """Of what can be reached on a sparse task: a sequence pays 1 for each of its subtasks."""
        task = get_task(self.trial.task)
        return score / len(task.subtasks) if isinstance(task, SequenceTask) else score

    def shown(self, score: float) -> float:
        """The normalised score, or where there is none the success rate, or the return itself."""
        known = normalised(self.trial.task, score)
        return self.share(score) if known is None else known

    def scores(self, arm: str, hours: bool) -> np.ndarray:
        """(seeds,) what a run is worth: its score as shown, or the hours that it took."""
        return np.array([r.seconds / HOUR if hours else self.shown(r.score) for r in self.runs(arm)])

    def curve(self, result: Result) -> Curve:
        return [(step, self.shown(score)) for step, score in result.curve]

    def reached(self, arm: str) -> list[int | None]:
        """Decisions to the threshold, one a run."""
        shares = ([(step, self.share(score)) for step, score in result.curve] for result in self.runs(arm))
        return [steps_to(curve, THRESHOLD) for curve in shares]


def table(recipe: Recipe, finished: Sequence[Finished]) -> str:
    """Markdown: a row for each trial and arm, then one for each panel and arm."""
    hours = recipe.measure == "hours"
    unit = "hours" if hours else "score"
    lines = [f"# {recipe.name}", "", f"{recipe.shows}.", ""]
    lines += [f"Unlike the paper: {recipe.differs}.", ""] if recipe.differs else []
    lines += [
        f"| task | data | arm | {unit}: median (25-75 %) | paper | better than the first one | decisions to 80 % "
        "| of the first one's |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in finished:
        lines += [_row(one, arm, hours) for arm in one.arms]
    lines += ["", f"| panel | arm | {unit}: interquartile mean | paper, mean |", "|---|---|---|---|"]
    for panel, members in panels(finished).items():
        arms = members[0].arms
        means = interquartile_means({arm: _matrix(members, arm, hours) for arm in arms}, np.random.default_rng(0))
        for arm in arms:
            lines.append(f"| {panel} | {arm} | {means[arm]} | {_number(paper_mean(members, arm))} |")
    notes = (
        "Scores are the mean of the last three evaluations; intervals are 95 % bootstraps over seeds. "
        "The first one is the first arm with the same agent; `better` is the probability that a run beats one of its "
        "runs. `decisions to 80 %`: "
        "median over seeds, `never` within the budget counted as such; its ratio is below 1 where an arm is sooner."
    )
    return "\n".join([*lines, "", notes, ""])


def panels(finished: Sequence[Finished]) -> dict[str, list[Finished]]:
    found: dict[str, list[Finished]] = {}
    for one in finished:
        found.setdefault(one.trial.panel, []).append(one)
    return found


def paper_mean(members: Sequence[Finished], arm: str) -> float | None:
    """The paper's numbers of an arm, averaged; None where it does not give them all. One panel's trials that all carry
    the panel's own number average to it."""
    known = [one.trial.paper.get(arm) for one in members]
    numbers = [number for number in known if number is not None]
    return float(np.mean(numbers)) if len(numbers) == len(known) else None


def _row(one: Finished, arm: str, hours: bool) -> str:
    low, median, high = quartiles(one.scores(arm, hours))
    first = one.against(arm)
    better = reached = sooner = ""
    if arm != first and not hours:
        own, other = (one.scores(name, hours)[:, None] for name in (arm, first))
        better = str(improvement(own, other, np.random.default_rng(0)))
    if get_task(one.trial.task).reward == "sparse" and not hours:
        steps = [np.inf if s is None else s for s in one.reached(arm)]
        reached = f"{np.median(steps):.0f}" if np.isfinite(np.median(steps)) else "never"
        sooner = "" if arm == first else str(ratio(one, arm))
    return (
        f"| {one.trial.task} | {one.trial.dataset} | {arm} | {median:.2f} ({low:.2f}-{high:.2f}) "
        f"| {_number(one.trial.paper.get(arm))} | {better} | {reached} | {sooner} |"
    )


def ratio(one: Finished, arm: str) -> Interval:
    """Decisions to the threshold over those of the arm that it is held against."""
    budget = max(result.steps for result in one.results)
    return steps_ratio(one.reached(arm), one.reached(one.against(arm)), budget, np.random.default_rng(0))


def _matrix(members: Sequence[Finished], arm: str, hours: bool) -> np.ndarray:
    """(seeds, trials)"""
    return np.stack([one.scores(arm, hours) for one in members], axis=1)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def plot(recipe: Recipe, finished: Sequence[Finished], path: Path) -> None:
    """A PNG with a panel for each of the paper's: medians over seeds of curves that are averaged over the panel's
    trials, quartiles as bands, and the paper's numbers as dashed lines; of hours, bars."""
    groups = panels(finished)
    columns = min(len(groups), 4)
    rows = -(-len(groups) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.4 * rows + 0.8), layout="constrained")
    for axes, (panel, members) in zip(np.ravel(figure.subplots(rows, columns, squeeze=False)), groups.items()):
        draw = _bars if recipe.measure == "hours" else _curves
        draw(axes, members)
        axes.set_title(panel)
        axes.grid(alpha=0.3)
    for axes in figure.axes[len(groups) :]:
        axes.set_visible(False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4), fontsize=9)
    write_whole(path, lambda beside: figure.savefig(beside, format="png", dpi=120))


def _curves(axes: Axes, members: Sequence[Finished]) -> None:
    arms = members[0].arms
    for arm, colour in zip(arms, colours(arms)):
        draw_curves(axes, averaged(members, arm), colour, arm)
        paper = paper_mean(members, arm)
        if paper is not None:
            axes.axhline(paper, color=colour, linestyle="--", linewidth=1.2)
    told = any(normalised(one.trial.task, 0.0) is not None for one in members)
    known = any(paper_mean(members, arm) is not None for arm in arms)
    axes.set_xlabel("decisions" + ("; dashed: the paper" if known else ""))
    axes.set_ylabel("normalised return" if told else "score")


def averaged(members: Sequence[Finished], arm: str) -> list[Curve]:
    """One curve a seed: the mean over the panel's trials."""
    every = [[one.curve(result) for result in one.runs(arm)] for one in members]  # (trials, seeds, evaluations, 2)
    return [
        [(points[0][0], float(np.mean([score for _, score in points]))) for points in zip(*curves)]
        for curves in zip(*every)
    ]


def _bars(axes: Axes, members: Sequence[Finished]) -> None:
    """Hours as multiples of the first arm's, ours and the paper's: machines differ, ratios can be compared."""
    arms, places = members[0].arms, np.arange(len(members[0].arms))
    ours = np.array([np.median(_matrix(members, arm, hours=True)) for arm in arms])
    papers = np.array([paper_mean(members, arm) or np.nan for arm in arms])
    axes.bar(places - 0.2, ours / ours[0], 0.4, label="ours", color="tab:orange")
    axes.bar(places + 0.2, papers / papers[0], 0.4, label="paper", color="tab:gray", hatch="//")
    axes.set_xticks(places, arms, rotation=25, ha="right", fontsize=8)
    axes.set_ylabel(f"wall-clock time over that of {arms[0]}")
