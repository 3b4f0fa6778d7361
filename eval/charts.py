"""Charts: tables, bars and curves as pieces of HTML; an absent number is written as such, never drawn as zero."""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from pixeltraj.eval.judgement import ABSENT, error, figure

Point = tuple[float | None, float | None]


def table(head: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """Cells are HTML already; the first column names the row."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    cells = [[c if c.startswith("<td") else f"<td>{dim(c)}</td>" for c in row[1:]] for row in rows]
    body = "".join(f"<tr><th>{row[0]}</th>{''.join(line)}</tr>" for row, line in zip(rows, cells))
    return f'<div class="scroll"><table class="{kind}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def dim(cell: str) -> str:
    return f'<span class="absent">{cell}</span>' if cell == ABSENT else cell


def words(name: str) -> str:
    """A name of the code as HTML for people."""
    return escape(name.replace("_", " "))


def bar_cell(text: str, value: float | None, largest: float) -> str:
    share = 0.0 if value is None or not largest else 100 * min(value / largest, 1.0)
    return f'<td class="bar" style="--share:{share:.1f}%">{dim(text)}</td>'


def bars(rows: Sequence[tuple[str, float | None, str]], highlight: str = "") -> str:
    """Horizontal bars: name, length, what is written beside it."""
    largest = max((value for _, value, _ in rows if value is not None), default=0.0) or 1.0
    lines = [
        f'<li class="{"lit" if name == highlight else ""}"><span>{escape(name)}</span><span class="track">'
        f'<i style="width:{100 * (value or 0.0) / largest:.1f}%"></i></span><b>{dim(text)}</b></li>'
        for name, value, text in rows
    ]
    return f'<ul class="bars">{"".join(lines)}</ul>' if rows else f'<p class="absent">{ABSENT}</p>'


def dimension_bars(rows: Sequence[Mapping[str, Any]]) -> str:
    """Of each dimension the error of imagined states, of real frames as they are read, and a tick where "nothing
    moves" would be; the largest first. Dimensions without a range are left out."""
    shown = [row for row in rows if row["imagined"]["percent"] is not None]
    if not shown:
        return f'<p class="absent">{ABSENT}</p>'
    parts = ("imagined", "read", "nothing_moves")
    largest = max(row[part]["percent"] or 0.0 for row in shown for part in parts) or 1.0

    def line(row: Mapping[str, Any]) -> str:
        wide = {part: 100 * (row[part]["percent"] or 0.0) / largest for part in parts}
        tick = f'<u style="left:{wide["nothing_moves"]:.1f}%"></u>' if row["nothing_moves"]["percent"] else ""
        said = "".join(
            f'<b class="{kind}">{dim(figure(row[part]["percent"], "%"))} <small>'
            f"{error({'unit': row['unit'], 'error': row[part]['error']}) if row[part]['error'] is not None else ''}"
            f"</small></b>"
            for part, kind in (("imagined", "with"), ("read", "without"))
        )
        return (
            f'<li><span>{words(row["name"])}</span><span class="track">'
            f'<i class="with" style="width:{wide["imagined"]:.1f}%"></i>'
            f'<i class="without" style="width:{wide["read"]:.1f}%"></i>{tick}</span>{said}</li>'
        )

    order = sorted(shown, key=lambda row: -row["imagined"]["percent"])
    return f'<ul class="bars dimensions">{"".join(map(line, order))}</ul>'


def curves(
    lines: Iterable[tuple[str, Sequence[Point]]], last: float, top: float, levels: Mapping[float, str], below: str,
    label: str, first: float = 0.0,
) -> str:  # fmt: skip
    """An SVG of lines (class, points) from x = first .. last and y = 0 .. top; levels: heights and what is written at
    them. Nothing to draw is said."""
    width, height, left, bottom, above = 480, 270, 52, 40, 12
    if last <= first or top <= 0:
        return f'<p class="absent">{ABSENT}</p>'
    along, tall = width - left - 14, height - bottom - above

    def x_of(x: float) -> float:
        return left + along * (x - first) / (last - first)

    def y_of(y: float) -> float:
        return height - bottom - tall * y / top

    parts = []
    for level, text in levels.items():
        parts.append(f'<line x1="{left}" x2="{width - 14}" y1="{y_of(level):.1f}" y2="{y_of(level):.1f}"/>')
        parts.append(f'<text x="{left - 8}" y="{y_of(level) + 4:.1f}" text-anchor="end">{text}</text>')
    for share, anchor in ((0.0, "middle"), (0.5, "middle"), (1.0, "end")):
        at = round(first + share * (last - first))
        parts.append(f'<text x="{x_of(at):.1f}" y="{height - 20}" text-anchor="{anchor}">{figure(at)}</text>')
    parts.append(f'<text x="{(left + width) / 2}" y="{height - 2}" text-anchor="middle">{escape(below)}</text>')
    for kind, points in lines:
        known = [(x, y) for x, y in points if x is not None and y is not None]
        at_ = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in known)
        parts.append(f'<polyline class="{kind}" points="{at_}"/>')
        parts += [f'<circle class="{kind}" cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="4"/>' for x, y in known[:1]
                  if len(known) == 1]  # fmt: skip
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'


def round_levels(top: float, unit: str = "%") -> dict[float, str]:
    """About four round heights from 0 to at least top, and how they are written."""
    if top <= 0:
        return {}
    rough = top / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough)
    return {i * step: f"{i * step:.3g}\N{NO-BREAK SPACE}{unit}" for i in range(math.ceil(top / step - 1e-9) + 1)}
