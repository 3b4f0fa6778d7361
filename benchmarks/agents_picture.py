"""Learning curves of the benchmark of agents, a PNG: a row for each setting, with the cloning term and without."""

from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.agents_online import WITH_CLONING, WITHOUT_DECISIONS
from pixeltraj.eval.results import Result, colours, draw_curves
from pixeltraj.files import write_whole


def draw(settings: dict[str, dict[str, list[Result]]], path: Path, arms: tuple[str, ...] = ()) -> None:
    """settings: of one part, setting -> arm -> its runs (`agents_stages.finished`), one at least. arms: those that are
    drawn; all if none is named. Those that take no decisions are left out, and columns that nobody is in. An arm has
    one colour everywhere, with the cloning term and without."""
    panels = {setting: columns(by_arm, arms) for setting, by_arm in settings.items()}
    names = dict.fromkeys(
        arm.removesuffix(WITH_CLONING) for found in panels.values() for one in found.values() for arm in one
    )
    colour = dict(zip(names, colours(list(names))))
    wide = max(len(found) for found in panels.values())
    figure = Figure(figsize=(5.6 * wide, 3.6 * len(panels)), layout="constrained")
    for row, (setting, found) in zip(figure.subplots(len(panels), wide, squeeze=False), panels.items()):
        for axes, (words, by_arm) in zip(row, found.items()):
            for arm, runs in by_arm.items():
                name = arm.removesuffix(WITH_CLONING)
                draw_curves(axes, [run.curve for run in runs], colour[name], name)
            axes.set(title=f"{setting}, {words}", xlabel="decisions", ylabel="success", ylim=(-0.02, 1.02))
            axes.grid(alpha=0.3)
        for axes in row[len(found) :]:
            axes.set_visible(False)
    lines = {line.get_label(): line for axes in figure.axes for line in axes.lines}
    figure.legend([lines[name] for name in names], list(names), loc="outside lower center", ncols=3 * wide, fontsize=8)
    write_whole(path, lambda beside: figure.savefig(beside, format="png", dpi=110))


def columns(by_arm: dict[str, list[Result]], arms: tuple[str, ...] = ()) -> dict[str, dict[str, list[Result]]]:
    online = {arm: runs for arm, runs in by_arm.items() if arm not in WITHOUT_DECISIONS and (not arms or arm in arms)}
    cloning = {arm: runs for arm, runs in online.items() if arm.endswith(WITH_CLONING)}
    found = {"with cloning": cloning, "without": {arm: runs for arm, runs in online.items() if arm not in cloning}}
    return {words: runs for words, runs in found.items() if runs}
