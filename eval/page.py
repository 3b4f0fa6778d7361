"""Page: a checked report and what its player plays as one HTML document that needs nothing else.

report.html beside this file is the template: style, skeleton and script; {{name}} stands where a piece made here goes.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from pixeltraj.eval.charts import bar_cell, bars, curves, dim, dimension_bars, round_levels, table, words
from pixeltraj.eval.judgement import (
    ABSENT,
    NBSP,
    average,
    duration,
    error,
    figure,
    final,
    finals,
    judge,
    points,
    rate,
    weakest,
)

TEMPLATE = Path(__file__).with_name("report.html")
SQUARED = "R\N{SUPERSCRIPT TWO}"


def page(report: dict[str, Any], player: dict[str, Any] | None) -> str:
    """player: what `pixeltraj.eval.player` made of the run's trajectories; without it nothing is played."""
    template = TEMPLATE.read_text(encoding="utf-8")
    script = template.split("<script>")[1].split("</script>")[0]
    kind, headline, said = judge(report)
    pieces = {
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "task": escape(report["task"]),
        "prompt": escape(report["prompt"]),
        "player_data": json.dumps(player).replace("<", "\\u003c"),
        "lost": escape(weakest(report)[1]),
        "rest": escape(weakest(report)[2]),
        "stages": _stages(report),
        "kind": kind,
        "headline": escape(headline),
        "said": "".join(f"<p>{escape(sentence)}</p>" for sentence in said),
        "own_words": escape(report["agent"]["verdict"]),
        "dimensions": dimension_bars(report["dimensions"]),
        "horizon": _horizon(report),
        "early": _early(report),
        "audit": _audit(report),
        "learning": _learning(report),
        "curves_file": f" As a file: {escape(report['agent']['curves_png'])}." if report["agent"]["curves_png"] else "",
        "seeds": table(["seed", "without", "with", "gain"], _seeds(report)),
        "joints": _joints(report),
        "made": _made(report),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: pieces[found[1]], template)


def _card(title: str, note: str, *content: str) -> str:
    return (
        f'<section class="card"><h3>{escape(title)}</h3><p class="note">{escape(note)}</p>{"".join(content)}</section>'
    )


# Where it loses


def _stages(report: dict[str, Any]) -> str:
    """From real frames to the agent: what is left after each part, and how much that is."""
    vae, followed, step, ahead = (report[part] for part in ("vae", "followed", "one_step", "horizon"))
    one = {name: row["error_percent"] for name, row in step.items()}
    last = {name: final(ahead[name]) for name in ("imagined", "nothing_moves")}
    without, with_ = map(average, finals(report))
    parts: list[tuple[str, str, float | None, str, str]] = [
        ("vae", "VAE", None, figure(vae["psnr_db"], "dB"),
         f"What is left of a frame once it is latents; {figure(vae['foreground_psnr_db'], 'dB')} where things move."),
        ("read", "Reading states", followed["read"], figure(followed["read"], "%"),
         f"The decoder on the real frames that followed {figure(followed['starts'])} starts, beside the true states."),
        ("acted", "Reading actions", followed["acted"], figure(followed["acted"], "%"),
         "The simulator fed the actions that were read in those frames, beside what really followed."),
        ("followed", "Imagining", followed["imagined"], figure(followed["imagined"], "%"),
         "States read in imagined frames, beside what really followed; a future may differ honestly (nothing moves: "
         f"{figure(followed['nothing_moves'], '%')})."),
        ("one_step", "One step", one["imagined"], figure(one["imagined"], "%"),
         f"The simulator set to an imagined state, given the action, beside the next (real steps: "
         f"{figure(one['real'], '%')}, nothing moves: {figure(one['nothing_moves'], '%')})."),
        ("open_loop", "Open loop", last["imagined"], figure(last["imagined"], "%"),
         f"After {figure(len(ahead['steps']))} steps, beside the simulator fed only imagined actions (nothing moves: "
         f"{figure(last['nothing_moves'], '%')})."),
        ("agent", "Agent", None, rate(with_),
         "It was not run both with and without imagination: `pixeltraj eval` does." if with_ is None else
         f"Success with imagination; without: {rate(without)}. {judge(report)[1]}"),
    ]  # fmt: skip
    largest = max((value for _, _, value, _, _ in parts if value is not None), default=0.0) or 1.0
    lit = weakest(report)[0]
    return "".join(
        f'<li class="{"lit" if key == lit else ""}"><h3>{i} {name}</h3><strong>{dim(text)}</strong>'
        + (
            f'<span class="track"><i style="width:{100 * value / largest:.1f}%"></i></span>'
            if value is not None
            else ""
        )
        + f"<p>{escape(sentence)}</p></li>"
        for i, (key, name, value, text, sentence) in enumerate(parts, 1)
    )


def _horizon(report: dict[str, Any]) -> str:
    rows = report["horizon"]
    kinds = {"nothing_moves": "still", "acted": "acted", "read": "without", "imagined": "with"}
    highest = max((value for name in kinds for value in rows[name] if value is not None), default=0.0)
    levels, steps = round_levels(highest), rows["steps"]
    lines = [(kind, [(0.0, 0.0), *zip(steps, rows[name])]) for name, kind in kinds.items()]
    label = "error in % of range against steps ahead: imagined, states and actions read in real frames, nothing moves"
    drawn = curves(lines, steps[-1] if steps else 0, max(levels, default=0.0), levels, "steps ahead", label)
    few = [*dict.fromkeys([*steps[:1], *steps[(len(steps) - 1) // 2 :][:1], *steps[-1:]])]
    cells = [
        [name, *(figure(rows[key][step - 1], "%") for step in few)]
        for key, name in (
            ("imagined", "imagined"),
            ("read", "states read"),
            ("acted", "actions read"),
            ("nothing_moves", "nothing moves"),
        )
    ]
    cells.append(["trajectories", *(figure(rows["trajectories"][step - 1]) for step in few)])
    return drawn + table(["after", *(f"{step} step{'s' * (step > 1)}" for step in few)], cells, "dense")


def _early(report: dict[str, Any]) -> str:
    early, count = report["ended_early"], report["imagined"]["count"]
    if not early:
        return ""
    return f"In {figure(early)} of {figure(count)} the simulator ended first; only frames that both have are compared."


def _audit(report: dict[str, Any]) -> str:
    said = report["audit"]
    if not said:
        return (
            '<p class="note">Each transition by itself (action residual, limits broken, rewards wrong): '
            f'<span class="absent">{ABSENT}</span>. <code>pixeltraj audit RUN/imagined --real RUN/demos --out '
            "RUN/audit</code> measures it, then make this page again.</p>"
        )
    columns = said["columns"]
    lines = [
        [words(label), *("\N{EN DASH}" if values[i] is None else figure(values[i]) for values in columns.values())]
        for i, label in enumerate(said["labels"])
    ]
    wrong = "; ".join(
        f"{figure(said[key])} {text}"
        for key, text in (
            ("violations", "break limits"),
            ("rewards_wrong", "have another reward than the simulator\N{RIGHT SINGLE QUOTATION MARK}s"),
            ("diverged", "make the simulator diverge"),
        )
    )
    return table(["audit", *map(words, columns)], lines, "dense") + (
        f'<p class="note">Of {figure(said["transitions"])} transitions {wrong}.</p>'
    )


# The agent


def _learning(report: dict[str, Any]) -> str:
    """Learning curves: every seed a thin line, their mean a thick one."""
    arms = {arm: list(report["agent"]["arms"][arm]["seeds"].values()) for arm in ("without", "with")}
    last = max((step for runs in arms.values() for run in runs for step in run["steps"] if step is not None), default=0)
    lines = []
    for arm, runs in arms.items():
        lines += [(f"{arm} seed", list(zip(run["steps"], run["success"]))) for run in runs]
        if runs and all(run["steps"] == runs[0]["steps"] for run in runs):
            middle = [average(scores) for scores in zip(*(run["success"] for run in runs))]
            lines.append((arm, list(zip(runs[0]["steps"], middle))))
    levels = {level: rate(level) for level in (0.0, 0.25, 0.5, 0.75, 1.0)}
    label = "success rate against decisions, with and without imagination"
    return curves(lines, last, 1.0, levels, "decisions of the agent", label)


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


# Every joint


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
        [key.replace("_", " "), *(figure(part["reward"].get(key)) for part in (decoder, imagined))]
        for key in ("precision", "recall", "positives", "windows", "error")
        if key != "error" or key in decoder["reward"]
    ]
    made = [
        ["trajectories imagined", figure(imagined["count"])],
        ["a second", figure(imagined["trajectories_per_second"])],
        ["open loop, all frames", figure(report["open_loop"]["imagined"], "%")],
        ["nothing moves, all frames", figure(report["open_loop"]["nothing_moves"], "%")],
    ]
    cards = [
        ("State to frame to latents", "Rendering speed; what the VAE keeps of a frame (PSNR).",
         table(["", "measured"], drawn)),
        ("Frames to imagination", f"LoRA fine-tuning, {figure(tune['steps'])} steps: diffusion loss.",
         table(["", "before", "after"], tuned)),
        ("Frames to keypoints", "Distance from the true 3D points, held-out real frames.",
         table(["keypoint", "error"], located or [["keypoints", ABSENT]])),
        ("Frames to actions", f"{SQUARED} on held-out real windows: 1 is perfect, 0 is no better than the mean action.",
         table(["", SQUARED], acted)),
        ("Frames to rewards", "Is the solved step found, and only it? Positives: windows really solved.",
         table(["", "real frames", "imagined"], rewards)),
        ("Imagination", "How many, how fast, and how far from the simulator fed their actions.",
         table(["", "measured"], made)),
        ("Frames to states", "Mean error and % of the range: held-out real frames; imagined frames, the last one, "
         "against the simulator fed the decoded actions.",
         table(["state", "real frames", "imagined"], _states(report), "dense states")),
        ("One step in the simulator", "Set it to a state, apply the action, compare with the next; % of the range.",
         *_steps(report)),
    ]  # fmt: skip
    return "".join(_card(*card) for card in cards)


def _states(report: dict[str, Any]) -> list[list[str]]:
    parts = [report[part]["states"] for part in ("decoder", "imagined")]
    largest = max((row["percent_of_range"] or 0.0 for part in parts for row in part), default=0.0)

    def cell(row: Mapping[str, Any]) -> str:
        percent = row["percent_of_range"]
        if row["error"] is None and percent is None:
            return bar_cell(ABSENT, None, largest)
        return bar_cell(f"{error(row)} <small>{figure(percent, '%')}</small>", percent, largest)

    return [[words(real["name"]), cell(real), cell(dreamt)] for real, dreamt in zip(*parts)]


def _steps(report: dict[str, Any]) -> tuple[str, str]:
    names = {
        "imagined": "imagined",
        "real": "real",
        "nothing_moves": "nothing moves",
        "shuffled_actions": "shuffled actions",
    }
    steps = {label: report["one_step"][name] for name, label in names.items()}
    drawn = bars([(n, s["error_percent"], figure(s["error_percent"], "%")) for n, s in steps.items()], "imagined")
    rows = [
        [words(row["name"]),
         *(figure(s["per_dimension"][i] if s["per_dimension"] else None) for s in steps.values())]
        for i, row in enumerate(report["decoder"]["states"])
    ]  # fmt: skip
    return drawn, table(["%", *names.values()], rows, "dense")


# How it was made


def _made(report: dict[str, Any]) -> str:
    measured = [s for s in report["seconds"].values() if s is not None]
    seconds = [(stage, s, duration(s)) for stage, s in report["seconds"].items()]
    facts = [["seed", escape(str(report["seed"]))]]
    facts += [[escape(str(key)), escape(str(value))] for key, value in report["machine"].items()]
    versions = [[escape(name), escape(str(version))] for name, version in report["versions"].items()]
    names = [[escape(name), escape(str(which))] for name, which in report["identities"].items()]
    data = {"collected": "Collected", "base_has_seen": "The base has seen", "heldout": "Held out"}
    seen = "".join(f"<dt>{label}</dt><dd>{escape(report['data'][key])}</dd>" for key, label in data.items())
    return (
        _card("Seconds per part", f"{duration(sum(measured) if measured else None)} in all.", bars(seconds))
        + _card("What each model has seen", "Read the numbers above with this in mind.", f"<dl>{seen}</dl>")
        + _card("Which models, which data", "By hash, seed and settings.", table(["", ""], names, "facts"))
        + _card("Machine and versions", "Where and with what this ran.", table(["", ""], facts + versions, "facts"))
    )
