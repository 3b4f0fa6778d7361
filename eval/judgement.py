"""Judgement: what a report's figures amount to in words, and how each kind of figure is written."""

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

FEWEST_SEEDS = 3
"""Two can agree by chance; on fewer, imagination is never said to help."""
ABSENT = "not measured"
SMALLEST = 1e-4
"""Nearer to zero nobody reads digits."""
NBSP = "\N{NO-BREAK SPACE}"


def figure(value: float | None, unit: str = "") -> str:
    """Three digits and the unit, or "not measured"."""
    if value is None:
        return ABSENT
    if 0 < abs(value) < SMALLEST:
        text = "\N{ALMOST EQUAL TO}0"
    else:
        text = f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 100 else f"{value:#.3g}"
    return f"{text}{NBSP}{unit}" if unit else text


def rate(value: float | None) -> str:
    """A fraction in whole per cent."""
    return ABSENT if value is None else f"{100 * value:.0f}{NBSP}%"


def points(value: float | None) -> str:
    """A difference of two rates, with its sign."""
    return ABSENT if value is None else f"{100 * value:+.0f}".replace("-", "\N{MINUS SIGN}")


def duration(seconds: float | None) -> str:
    if seconds is None or seconds < 120:
        return figure(seconds, "s")
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}{NBSP}min" + (f"{NBSP}{rest}{NBSP}s" if rest else "")


def error(row: Mapping[str, Any]) -> str:
    if row["unit"] == "m" and row["error"] is not None:
        return figure(1000.0 * row["error"], "mm")
    return escape(figure(row["error"], row["unit"]))


def average(values: Iterable[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    return sum(measured) / len(measured) if measured else None


def finals(report: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Scores without and with imagination, of the seeds that have both."""
    without, with_ = (report["agent"]["arms"][arm]["seeds"] for arm in ("without", "with"))
    pairs = [(without[seed]["final"], with_[seed]["final"]) for seed in without if seed in with_]
    pairs = [pair for pair in pairs if None not in pair]
    return [a for a, _ in pairs], [b for _, b in pairs]


def judge(report: dict[str, Any]) -> tuple[str, str, list[str]]:
    """(helped | open | not, headline, sentences): what the numbers allow to be said about imagination."""
    difference = report["agent"]["difference"]
    mean, low, high = difference["mean"], difference["low"], difference["high"]
    without, with_ = finals(report)
    pairs = len(with_)
    if mean is None or not pairs:
        return "open", "Not measured: the agent was not run both with and without imagination.", _cause(report)
    said = [
        f"After {figure(report['agent']['steps'])} decisions the agent solves {rate(average(with_))} of its test "
        f"episodes with imagination and {rate(average(without))} without: {points(mean)} points. Both start from the "
        f"same {figure(report['agent']['offline_episodes'])} offline episodes and the same seeds.",
        f"Over {pairs} seed{'s' * (pairs > 1)} the scores range from {rate(min(with_))} to {rate(max(with_))} with and "
        f"from {rate(min(without))} to {rate(max(without))} without.",
    ]
    if low is not None and high is not None:
        said[1] += f" The 95{NBSP}% interval of the gain is {points(low)} to {points(high)} points."
    if mean <= 0:
        kind, headline = "not", "Imagination did not help here."
        if high is None or high > 0:
            said[1] += " That it does harm is not certain either: a small gain is within the spread."
    elif pairs < FEWEST_SEEDS or low is None or high is None:
        kind, headline = "open", "One cannot tell yet whether imagination helps here."
        said[1] += f" On so few seeds that is no evidence; at least {FEWEST_SEEDS} are needed."
    elif low <= 0:
        kind, headline = "open", "One cannot tell whether imagination helps here."
        said[1] += " The gain is within the spread of the seeds."
    else:
        kind, headline = "helped", "Imagination helped here."
    return kind, headline, said + _cause(report)


def _cause(report: dict[str, Any]) -> list[str]:
    imagined, still = (report["one_step"][name]["error_percent"] for name in ("imagined", "nothing_moves"))
    if imagined is None or still is None:
        return []
    a, b = figure(imagined, "%"), figure(still, "%")
    if imagined < still:
        return [f"One imagined step is {a} of the range off, closer than to say that nothing moves ({b})."]
    return [f"One imagined step is {a} of the range off, no better than to say that nothing moves ({b})."]


SOURCES = {"read": "reading states", "acted": "reading actions", "followed": "imagining"}
"""Where error comes from, by the stage of the page that shows it."""


def weakest(report: dict[str, Any]) -> tuple[str | None, str, str]:
    """(one of SOURCES, a sentence, another of the rest): what costs most, in % of range, mean over all frames of the
    same starts; None where it was not measured. Imagining is charged what it adds to reading the states."""
    followed = report["followed"]
    read, acted, imagined = (followed[name] for name in ("read", "acted", "imagined"))
    if None in (read, acted, imagined):
        return None, "Not all parts were measured, so none can be named.", ""
    costs = {"read": read, "acted": acted, "followed": max(imagined - read, 0.0)}
    worst = max(costs, key=lambda part: costs[part])
    said = {
        "read": f"states read in real frames are {figure(read, '%')} of range off",
        "acted": f"actions read in real frames lead the simulator {figure(acted, '%')} astray",
        "followed": f"states read in imagined frames are {figure(imagined, '%')} from what really followed, "
        f"{figure(costs['followed'], '%')} more than in real ones",
    }
    rest = "; ".join(said[part] for part in SOURCES if part != worst)
    return worst, f"Most is lost in {SOURCES[worst]}: {said[worst]}.", f"{rest[0].upper()}{rest[1:]}."


def final(values: list[float | None]) -> float | None:
    return values[-1] if values else None
