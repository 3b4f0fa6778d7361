"""The tables of the benchmark of agents, in Markdown; what is not there yet is not in them."""

from typing import Any

from benchmarks.agents_speed import table as speed_table

WHAT = {"online": "", "adaptation": "the generator has seen other tasks, "}
"""Of headings."""


def table(report: dict[str, Any]) -> str:
    lines: list[str] = []
    for part in ("online", "adaptation", "locomotion", "offline"):
        for setting, arms in report.get(part, {}).items():
            lines += [*(sparse if part in WHAT else runner)(part, setting, arms, report), ""]
        if report.get(part) and part not in WHAT:
            lines += [SCORES, ""]
        if timed := report.get("wallclock", {}).get(part):
            lines += [
                f"A run with imagination takes {timed['ratio']:.2f} times as long as one without "
                f"({100 * timed['imagining']:.0f} % of it imagining; median of {timed['pairs']} pairs).",
                "",
            ]
    if rates := report.get("agents"):
        lines += ["### Updates in a CPU-second, batch 256, two hidden layers of 256", "", speed_table(rates)]
    return "\n".join(lines).rstrip() or "Nothing is finished yet."


def sparse(part: str, task: str, arms: dict[str, Any], report: dict[str, Any]) -> list[str]:
    """A row an arm, and what has to be known about them."""
    steps = max(arm["budget"] for arm in arms.values())
    lines = [
        f"### {task}, {WHAT[part]}{steps} decisions",
        "",
        "| arm | success (95 %) | decisions to 80 %: median (each seed) | over those of | better than it | seeds "
        "| seconds (imagining) |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [row(name, arm) for name, arm in arms.items()]
    known = notes(task, report)
    return [*lines, "", *(known if part == "online" else [known[0], ADAPTATION])]


ADAPTATION = (
    "The LoRA is trained on 14 other tasks and the decoder on the task's own demonstrations, which all arms have. "
    "`imagination` stays as it was; `td-error` and `reward` learn on, four times a run. The base itself has seen the "
    "task in words."
)


def runner(part: str, setting: str, arms: dict[str, Any], report: dict[str, Any]) -> list[str]:
    """A row an arm, below them the data that was learned from."""
    steps = max(arm["budget"] for arm in arms.values())
    lines = [
        f"### {setting}, {steps} {'updates' if part == 'offline' else 'decisions'}",
        "",
        "| arm | normalised score (95 %) | each seed | return | over that of | better than it | seconds (imagining) |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, arm in arms.items():
        over = f"{interval(arm['gain'], sign='+')} {arm['against']}" if arm["gain"] else ""
        each = ", ".join(f"{score:.1f}" for score in arm["score"]["all"])
        better = interval(arm["better"]) if arm["better"] else ""
        lines.append(
            f"| {name} | {interval(arm['score'])} | {each} | {arm['return']:.0f} | {over} | {better} | {seconds(arm)} |"
        )
    return [*lines, "", *data_notes(report["made"][part].get(setting, {}).get("data", {}).get("data", {}))]


SCORES = (
    "Score: D4RL-normalised (0 random, 100 expert), the mean of the last three evaluations. Intervals are 95 % "
    "bootstraps over seeds."
)


def data_notes(stores: dict[str, Any]) -> list[str]:
    return [
        f"Data {name}: {store['training_episodes']} episodes of {store['transitions']} transitions in all, normalised "
        f"return {store['return']['mean']:.1f} in the mean, {store['return']['low']:.1f} to "
        f"{store['return']['high']:.1f} (10th to 90th percentile)."
        for name, store in stores.items()
    ]


def row(name: str, arm: dict[str, Any]) -> str:
    ratio = f"{interval(arm['steps_ratio'], open_end=True)} {arm['against']}" if arm["steps_ratio"] else ""
    steps = "offline" if arm["offline"] else decisions(arm["steps_to_80"])
    better = interval(arm["better"]) if arm["better"] else ""
    cells = interval(arm["success"]), steps, ratio, better, str(len(arm["seeds"])), seconds(arm)
    return f"| {name} | {' | '.join(cells)} |"


def seconds(arm: dict[str, Any]) -> str:
    """Of a run; in brackets, of them imagining."""
    imagining = arm["seconds_imagining"]
    return f"{arm['seconds']:.0f}" + (f" ({imagining:.0f})" if imagining else "")


def decisions(steps: dict[str, Any]) -> str:
    each = ", ".join("never" if s is None else f"{s}" for s in steps["all"])
    return f"{'never' if steps['median'] is None else format(steps['median'], '.0f')} ({each})"


def interval(found: dict[str, float | None], open_end: bool = False, sign: str = "") -> str:
    """open_end: an upper end that is not known is one that cannot be given. sign: + to show that of positive ones."""
    value, low, high = ("?" if found[n] is None else format(found[n], f"{sign}.2f") for n in ("value", "low", "high"))
    if found["low"] is None and found["high"] is None:
        return value
    return f"{value} ({low} to {'∞' if found['high'] is None and open_end else high})"


def notes(task: str, report: dict[str, Any]) -> list[str]:
    stores = report["seen_by_base"][task]
    listed = ", ".join(f"{one['store']} ({one['policy']}, noise {one['noise']})" for one in stores)
    known = f"The base has seen other episodes of this very task: {listed}" if stores else "The base never saw the task"
    return [
        "Success: the mean of the last three evaluations. Decisions to 80 %: the first evaluation from which on "
        "the mean stays there, 0 is before the first decision; a run that never does counts as later than its "
        "budget. `over those of`: ratio of medians, `?` where a median run never got there. `better`: the share of "
        "seeds that win, ties half. Intervals are 95 % bootstraps over seeds. `cloning` takes as many updates as the "
        "others take decisions.",
        f"{known}. Beside it, `imagination` has the demonstrations of all arms; the U-Net of `imagination-own` has "
        f"only these, though its VAE is the base's.",
    ]
