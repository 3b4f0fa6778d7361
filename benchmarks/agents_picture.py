"""Learning curves of the benchmark of agents, a PNG: a row for each setting, with the cloning term and without."""

from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.agents_online import WITH_CLONING, WITHOUT_DECISIONS
from pixeltraj.eval.results import Result, colours, draw_curves
from pixeltraj.files import write_whole


def draw(settings: dict[str, dict[str, list[Result]]], path: Path) -> None:
    """settings: of one part, setting -> arm -> its runs (`agents_stages.finished`), one at least. Arms that take no
    decisions are left out, and columns that nobody is in."""
    panels = {setting: columns(by_arm) for setting, by_arm in settings.items()}
    wide = max(len(found) for found in panels.values())
    figure = Figure(figsize=(5.6 * wide, 3.6 * len(panels)), layout="constrained")
    for row, (setting, found) in zip(figure.subplots(len(panels), wide, squeeze=False), panels.items()):
        for axes, (words, by_arm) in zip(row, found.items()):
            for (arm, runs), colour in zip(by_arm.items(), colours(list(by_arm))):
                draw_curves(axes, [run.curve for run in runs], colour, arm.removesuffix(WITH_CLONING))
            axes.set(title=f"{setting}, {words}", xlabel="decisions", ylabel="success", ylim=(-0.02, 1.02))
            axes.grid(alpha=0.3)
            axes.legend(fontsize=8)
        for axes in row[len(found) :]:
            axes.set_visible(False)
    write_whole(path, lambda beside: figure.savefig(beside, format="png", dpi=110))


def columns(by_arm: dict[str, list[Result]]) -> dict[str, dict[str, list[Result]]]:
    online = {arm: runs for arm, runs in by_arm.items() if arm not in WITHOUT_DECISIONS}
    cloning = {arm: runs for arm, runs in online.items() if arm.endswith(WITH_CLONING)}
    found = {"with cloning": cloning, "without": {arm: runs for arm, runs in online.items() if arm not in cloning}}
    return {words: arms for words, arms in found.items() if arms}
