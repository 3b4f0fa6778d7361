"""Page: a checked report as one HTML document with its pictures inside."""

import base64
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.judgement import ABSENT, NBSP, average, duration, error, figure, finals, judge, points, rate


def _table(head: list[str], rows: list[list[str]], kind: str = "") -> str:
    """Cells are HTML already; the first column names the row."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    cells = [[c if c.startswith("<td") else f"<td>{_dim(c)}</td>" for c in row[1:]] for row in rows]
    body = "".join(f"<tr><th>{row[0]}</th>{''.join(line)}</tr>" for row, line in zip(rows, cells))
    return f'<div class="scroll"><table class="{kind}"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _dim(cell: str) -> str:
    return f'<span class="absent">{cell}</span>' if cell == ABSENT else cell


def _bar_cell(text: str, value: float | None, largest: float) -> str:
    share = 0.0 if value is None or not largest else 100 * min(value / largest, 1.0)
    return f'<td class="bar" style="--share:{share:.1f}%">{_dim(text)}</td>'


def _bars(rows: list[tuple[str, float | None, str]], highlight: str = "") -> str:
    """Horizontal bars: name, length, what is written beside it."""
    largest = max((value for _, value, _ in rows if value is not None), default=0.0) or 1.0
    lines = [
        f'<li class="{"lit" if name == highlight else ""}"><span>{escape(name)}</span><span class="track">'
        f'<i style="width:{100 * (value or 0.0) / largest:.1f}%"></i></span><b>{_dim(text)}</b></li>'
        for name, value, text in rows
    ]
    return f'<ul class="bars">{"".join(lines)}</ul>' if rows else f'<p class="absent">{ABSENT}</p>'


def _picture(folder: Path, name: str | None, alt: str) -> str:
    if name is None:
        return f'<p class="absent">{ABSENT}</p>'
    path = folder / name
    if not path.is_file():
        raise PixeltrajError(
            f"{folder / 'report.json'} names the picture {name}, which is not in {folder}; draw it again"
        )
    kind = "gif" if path.suffix == ".gif" else "png"
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{escape(alt)}" src="data:image/{kind};base64,{data}">'


def _curves(report: dict[str, Any]) -> str:
    """Learning curves as SVG: every seed a thin line, their mean a thick one."""
    width, height, left, bottom, top = 480, 270, 52, 40, 12
    arms = {arm: list(report["agent"]["arms"][arm]["seeds"].values()) for arm in ("without", "with")}
    last = max((step for runs in arms.values() for run in runs for step in run["steps"] if step is not None), default=0)
    if not last:
        return f'<p class="absent">{ABSENT}</p>'

    def line(points_: Iterable[tuple[float | None, float | None]], kind: str) -> str:
        at = " ".join(
            f"{left + (width - left - 14) * step / last:.1f},{height - bottom - (height - bottom - top) * score:.1f}"
            for step, score in points_
            if step is not None and score is not None
        )
        return f'<polyline class="{kind}" points="{at}"/>'

    parts = []
    for level in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = height - bottom - (height - bottom - top) * level
        parts.append(f'<line x1="{left}" x2="{width - 14}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4}" text-anchor="end">{rate(level)}</text>')
    for share, anchor in ((0.0, "middle"), (0.5, "middle"), (1.0, "end")):
        x = left + (width - left - 14) * share
        parts.append(f'<text x="{x}" y="{height - 20}" text-anchor="{anchor}">{figure(round(last * share))}</text>')
    parts.append(f'<text x="{(left + width) / 2}" y="{height - 2}" text-anchor="middle">decisions of the agent</text>')
    for arm, runs in arms.items():
        parts += [line(zip(run["steps"], run["success"]), f"{arm} seed") for run in runs]
        if runs and all(run["steps"] == runs[0]["steps"] for run in runs):
            middle = [average(scores) for scores in zip(*(run["success"] for run in runs))]
            parts.append(line(zip(runs[0]["steps"], middle), arm))
    label = "success rate against decisions, with and without imagination"
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _card(title: str, note: str, *content: str, wide: bool = False) -> str:
    return (
        f'<section class="card{" wide" if wide else ""}"><h3>{escape(title)}</h3>'
        f'<p class="note">{escape(note)}</p>{"".join(content)}</section>'
    )


# The page


def page(report: dict[str, Any], folder: Path) -> str:
    kind, headline, said = judge(report)
    task, prompt = escape(report["task"]), escape(report["prompt"])
    words = escape(report["agent"]["verdict"])
    paragraphs = "".join(f"<p>{escape(sentence)}</p>" for sentence in said)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>pixeltraj: {task}</title><style>{STYLE}</style></head><body><main>
<header><p class="note">pixeltraj demo report &middot; {task}</p><h1>&ldquo;{prompt}&rdquo;</h1></header>
<section class="verdict {kind}"><h2>{escape(headline)}</h2>{paragraphs}
<p class="note">The comparison&rsquo;s own words: {words}</p></section>
<ul class="tiles">{_tiles(report)}</ul>
<div class="cards">{_shown(report, folder)}</div>
<h2>Every joint, measured</h2><div class="cards">{_joints(report)}</div>
<h2>Frame by frame</h2><div class="cards">{_film(report, folder)}</div>
<h2>How it was made</h2><div class="cards">{_made(report)}</div>
</main></body></html>
"""


def _tiles(report: dict[str, Any]) -> str:
    def percent(part: str) -> str:
        return figure(average(row["percent_of_range"] for row in report[part]["states"]), "%")

    step = report["one_step"]
    without, with_ = map(average, finals(report))
    tiles = [
        ("agent&rsquo;s success with imagination", rate(with_), f"without: {rate(without)}"),
        (
            "error of one imagined step",
            figure(step["imagined"]["error_percent"], "%"),
            f"nothing moves: {figure(step['nothing_moves']['error_percent'], '%')}",
        ),
        ("state error, imagined frames", percent("imagined"), f"real frames: {percent('decoder')}"),
        (
            "imagined trajectories a second",
            figure(report["imagined"]["trajectories_per_second"]),
            f"{figure(report['imagined']['count'])} measured",
        ),
        (
            "the whole demo took",
            duration(_total(report)),
            f"{figure(report['render']['frames_per_second'])} frames/s drawn",
        ),
    ]
    return "".join(f"<li><span>{a}</span><strong>{_dim(b)}</strong><span>{c}</span></li>" for a, b, c in tiles)


def _total(report: dict[str, Any]) -> float | None:
    measured = [s for s in report["seconds"].values() if s is not None]
    return sum(measured) if measured else None


def _shown(report: dict[str, Any], folder: Path) -> str:
    animation = _picture(folder, report["pictures"]["grid_gif"], "animation: imagined frames beside real ones")
    legend = '<p class="legend"><i class="with"></i>with imagination <i class="without"></i>without</p>'
    file = report["agent"]["curves_png"]
    below = f'<p class="note">Thin: one seed. Thick: their mean.{f" As a file: {escape(file)}." if file else ""}</p>'
    return _card("Imagined beside real", "Held-out start states; the same moment of both.", animation) + _card(
        "Does the agent learn faster?", "Success rate on test episodes while it learns.", legend, _curves(report), below
    )


def _film(report: dict[str, Any], folder: Path) -> str:
    picture = _picture(folder, report["pictures"]["grid_png"], "imagined and real frames")
    return _card(
        "Imagined above, real below",
        "What the diffusion model imagined and the decoder read in it; what really happened from the same state.",
        f'<div class="scroll film">{picture}</div>',
        wide=True,
    )


def _joints(report: dict[str, Any]) -> str:
    tune, vae, decoder, imagined = (report[part] for part in ("finetune", "vae", "decoder", "imagined"))
    drawn = [
        ["frames drawn a second", figure(report["render"]["frames_per_second"])],
        ["VAE, whole frame", figure(vae["psnr_db"], "dB")],
        ["VAE, foreground", figure(vae["foreground_psnr_db"], "dB")],
    ]
    tuned = [
        ["training", figure(tune["loss_before"]), figure(tune["loss_after"])],
        ["held out", figure(tune["heldout_loss_before"]), figure(tune["heldout_loss_after"])],
    ]
    located = [[escape(name), figure(mm, "mm")] for name, mm in decoder["keypoints_mm"].items()]
    acted = [[f"action {i + 1}", figure(r2)] for i, r2 in enumerate(decoder["action_r2"])] or [["actions", ABSENT]]
    rewards = [
        [key.replace("_", " "), *(figure(part["reward"][key]) for part in (decoder, imagined))]
        for key in ("precision", "recall", "positives", "windows")
    ]
    squared = "R\N{SUPERSCRIPT TWO}"
    cards = [
        ("State to frame to latents", "Rendering speed; what the VAE keeps of a frame (PSNR).",
         _table(["", "measured"], drawn)),
        ("Frames to imagination", f"LoRA fine-tuning, {figure(tune['steps'])} steps: diffusion loss.",
         _table(["", "before", "after"], tuned)),
        ("Frames to keypoints", "Distance from the true 3D points, held-out real frames.",
         _table(["keypoint", "error"], located)),
        ("Frames to actions", f"{squared} on held-out real windows: 1 is perfect, 0 is no better than the mean action.",
         _table(["", squared], acted)),
        ("Frames to rewards", "Is the solved step found, and only it? Positives: windows really solved.",
         _table(["", "real frames", "imagined"], rewards)),
        ("Imagination to agent", "Success rate at the end, each seed.",
         _table(["seed", "without", "with", "gain"], _seeds(report))),
        ("Frames to states", "Mean error and % of the range: held-out real frames; imagined frames against the "
         "simulator fed the decoded actions.",
         _table(["state", "real frames", "imagined"], _states(report), "dense states")),
        ("One step in the simulator", "Set it to a state, apply the action, compare with the next; % of the range.",
         *_steps(report)),
    ]  # fmt: skip
    return "".join(_card(*card) for card in cards)


def _seeds(report: dict[str, Any]) -> list[list[str]]:
    without, with_ = (report["agent"]["arms"][arm]["seeds"] for arm in ("without", "with"))
    rows = []
    for seed in dict.fromkeys([*without, *with_]):
        a, b = (arm.get(seed, {}).get("final") for arm in (without, with_))
        rows.append([escape(seed), rate(a), rate(b), points(None if a is None or b is None else b - a)])
    difference = report["agent"]["difference"]
    rows.append(["mean", *(rate(average(scores)) for scores in finals(report)), points(difference["mean"])])
    rows.append([f"95{NBSP}% interval", "", "", ABSENT if difference["low"] is None else
                 f"{points(difference['low'])} to {points(difference['high'])}"])  # fmt: skip
    return rows


def _states(report: dict[str, Any]) -> list[list[str]]:
    parts = [report[part]["states"] for part in ("decoder", "imagined")]
    largest = max((row["percent_of_range"] or 0.0 for part in parts for row in part), default=0.0)

    def cell(row: Mapping[str, Any]) -> str:
        percent = row["percent_of_range"]
        text = (
            ABSENT
            if row["error"] is None and percent is None
            else f"{error(row)} <small>{figure(percent, '%')}</small>"
        )
        return _bar_cell(text, percent, largest)

    return [[escape(real["name"].replace("_", " ")), cell(real), cell(dreamt)] for real, dreamt in zip(*parts)]


def _steps(report: dict[str, Any]) -> tuple[str, str]:
    names = {
        "imagined": "imagined",
        "real": "real",
        "nothing_moves": "nothing moves",
        "shuffled_actions": "shuffled actions",
    }
    steps = {label: report["one_step"][name] for name, label in names.items()}
    bars = _bars([(n, s["error_percent"], figure(s["error_percent"], "%")) for n, s in steps.items()], "imagined")
    rows = [
        [escape(row["name"].replace("_", " ")),
         *(figure(s["per_dimension"][i] if s["per_dimension"] else None) for s in steps.values())]
        for i, row in enumerate(report["decoder"]["states"])
    ]  # fmt: skip
    return bars, _table(["%", *names.values()], rows, "dense")


def _made(report: dict[str, Any]) -> str:
    total = _total(report)
    seconds = [(stage, s, duration(s)) for stage, s in report["seconds"].items()]
    facts = [["seed", escape(str(report["seed"]))]]
    facts += [[escape(str(key)), escape(str(value))] for key, value in report["machine"].items()]
    versions = [[escape(name), escape(str(version))] for name, version in report["versions"].items()]
    data = {"collected": "Collected", "base_has_seen": "The base has seen", "heldout": "Held out"}
    seen = "".join(f"<dt>{label}</dt><dd>{escape(report['data'][key])}</dd>" for key, label in data.items())
    return (
        _card("Seconds per stage", f"{duration(total)} in all.", _bars(seconds))
        + _card("What each model has seen", "Read the numbers above with this in mind.", f"<dl>{seen}</dl>")
        + _card("Machine and seed", "Where this ran.", _table(["", ""], facts, "facts"))
        + _card("Versions", "What it ran with.", _table(["", ""], versions, "facts"))
    )


STYLE = """
:root{color-scheme:light dark;--paper:#f6f7f9;--card:#fff;--ink:#17202b;--muted:#5d6b7c;--line:#e1e6ec;--with:#c2570c;
--without:#6b7f96;--wash:#fbe3d0;--good:#15803d;--bad:#b91c1c;--open:#a16207}
@media (prefers-color-scheme:dark){:root{--paper:#0d1218;--card:#151c25;--ink:#e9eef5;--muted:#94a3b5;--line:#263140;
--with:#ffb454;--without:#8296ae;--wash:#4a3413;--good:#4ade80;--bad:#f87171;--open:#facc15}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font-variant-numeric:tabular-nums;
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1160px;margin:0 auto;padding:28px 20px 56px}
h1{font-size:clamp(24px,4vw,36px);line-height:1.2;margin:0 0 20px;text-wrap:balance}
h2{font-size:21px;margin:40px 0 14px}h3{font-size:16px;margin:0}
p{margin:0 0 8px}.note{color:var(--muted);font-size:13.5px;margin-bottom:10px}
.absent{color:var(--muted);font-style:italic}
.verdict{background:var(--card);border:1px solid var(--line);border-left:6px solid var(--open);border-radius:10px;
padding:18px 22px}
.verdict.helped{border-left-color:var(--good)}.verdict.not{border-left-color:var(--bad)}
.verdict h2{margin:0 0 8px;font-size:24px;line-height:1.25}.verdict p{max-width:100ch}.verdict .note{margin:0}
.tiles{list-style:none;margin:16px 0;padding:0;display:grid;gap:12px;
grid-template-columns:repeat(auto-fit,minmax(160px,1fr))}
.tiles li{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 16px;display:flex;
flex-direction:column}
.tiles span{color:var(--muted);font-size:13px}.tiles span:first-child{flex:1}
.tiles strong{font-size:26px;line-height:1.3;white-space:nowrap}
.tiles li:first-child strong{color:var(--with)}
.tiles strong .absent,.bars .absent{font-size:15px;font-weight:400}
.cards{display:grid;gap:16px;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr))}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:16px 20px;min-width:0}
.wide{grid-column:1/-1}
img,svg{display:block;width:100%;height:auto;border-radius:6px}
.scroll{overflow-x:auto}.film img{min-width:640px}
table{border-collapse:collapse;width:100%;font-size:14px}
th,td{padding:5px 8px;text-align:right;border-bottom:1px solid var(--line)}
tr>:first-child{text-align:left;padding-left:0}tbody th{font-weight:400;white-space:nowrap}
thead th{color:var(--muted);font-weight:500;font-size:13px;vertical-align:bottom}
tbody tr:last-child>*{border-bottom:0}
.facts thead{display:none}.facts td{overflow-wrap:anywhere}.facts th{color:var(--muted)}
.dense{font-size:13px}.dense th,.dense td{padding-top:3px;padding-bottom:3px}
.states{table-layout:fixed}.states th:first-child{width:30%}
.bar{background:linear-gradient(to left,var(--wash) var(--share),transparent 0) no-repeat}
small{color:var(--muted);font-size:12px;display:inline-block;min-width:4.6em}
.bars{list-style:none;margin:0 0 12px;padding:0;font-size:14px}
.bars li{display:grid;grid-template-columns:minmax(90px,9em) 1fr 6em;gap:10px;align-items:center;padding:3px 0}
.track{background:var(--line);border-radius:4px;height:12px}
.track i{display:block;height:100%;background:var(--without);border-radius:4px;min-width:2px}
.lit i{background:var(--with)}
.bars b{font-weight:500;text-align:right;white-space:nowrap}
.legend{font-size:14px}
.legend i{display:inline-block;width:18px;height:4px;border-radius:2px;vertical-align:middle;margin:0 6px}
.legend i:first-child{margin-left:0}.legend .with{background:var(--with)}.legend .without{background:var(--without)}
svg line{stroke:var(--line)}svg text{fill:var(--muted);font-size:12.5px}
polyline{fill:none;stroke-width:3;stroke-linejoin:round;stroke-linecap:round}
polyline.with{stroke:var(--with)}polyline.without{stroke:var(--without)}polyline.seed{stroke-width:1.2;opacity:.45}
dl{margin:0}dt{color:var(--muted);font-size:13px}dd{margin:0 0 10px}
@media (max-width:520px){main{padding:18px 12px 40px}.card,.verdict{padding:14px}.dense{font-size:11.5px}
.dense tr>*{padding-left:3px;padding-right:3px}
.tiles li:last-child:nth-child(odd){grid-column:1/-1}.bars li{grid-template-columns:8em 1fr 5.6em}
th,td{padding-left:5px;padding-right:5px}}
"""
