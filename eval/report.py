"""Report: report.json and the pictures beside it -> report.html, one file that needs nothing else.

FOLDER/report.json holds what `CONTRACT` below says. A number that was not measured is null (never left out) and is
shown as "not measured". What is not plain from its name:

    states           one entry a dimension of the task's state: mean absolute error in `unit`, and in % of its range
    decoder          on held-out real frames; keypoints_mm and action_r2 (one an action dimension) likewise
    imagined         states decoded from imagined frames, against the simulator fed the decoded actions
    reward           positives: windows in which the task is really solved, among `windows`
    one_step         set the simulator to s_t, apply a_t, compare with s_t+1; % of range, and the same per dimension
                     imagined: imagined transitions. real: real transitions through the same check, its
                     floor. nothing_moves: s_t+1 = s_t. shuffled_actions: another transition's a_t
    agent.arms       success rates in [0, 1] after so many steps; final: the run's score
    agent.difference with minus without, mean over seeds and its 95 % interval
    data             in words: what was collected, what the base has seen, what is held out
    pictures         file names in FOLDER, or null; the page itself has none of them
    horizon          after 1, 2, ... steps, % of range: imagined states against the simulator fed the decoded actions,
                     `read` states read in real frames, `acted` the simulator fed the actions read in real frames, both
                     against what really followed; `nothing_moves` the start for ever
    dimensions       the same (but `acted`) for each dimension, mean over all frames but the first
    followed         imagined states against what really followed; the others on the same starts
    open_loop        horizon's mean over all frames
    ended_early      replays that the simulator ended before imagination did
    audit            of `pixeltraj audit`, or null
    identities       in words: which models, which data
"""

import math
from pathlib import Path
from typing import Any

from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.page import page
from pixeltraj.files import read_json, write_whole

NUMBER, TEXT, FILE = "a number or null", "a text", "a file name or null"
EVERY = "*"
"""As a key: any number of keys of any name."""

_STATES = [{"name": TEXT, "unit": TEXT, "error": NUMBER, "percent_of_range": NUMBER}]
_REWARD = {"precision": NUMBER, "recall": NUMBER, "positives": NUMBER, "windows": NUMBER}
_ERROR = {"error": NUMBER, "percent": NUMBER}
_STEP = {"error_percent": NUMBER, "per_dimension": [NUMBER]}
_ARM = {"seeds": {EVERY: {"steps": [NUMBER], "success": [NUMBER], "final": NUMBER}}}
CONTRACT: dict[str, Any] = {
    "task": TEXT,
    "prompt": TEXT,
    "machine": {EVERY: None},
    "seed": NUMBER,
    "versions": {EVERY: None},
    "seconds": {EVERY: NUMBER},
    "render": {"frames_per_second": NUMBER},
    "finetune": {
        "loss_before": NUMBER,
        "loss_after": NUMBER,
        "steps": NUMBER,
        "heldout_loss_before": NUMBER,
        "heldout_loss_after": NUMBER,
    },
    "vae": {"psnr_db": NUMBER, "foreground_psnr_db": NUMBER},
    "decoder": {"states": _STATES, "keypoints_mm": {EVERY: NUMBER}, "action_r2": [NUMBER], "reward": _REWARD},
    "imagined": {"states": _STATES, "reward": _REWARD, "trajectories_per_second": NUMBER, "count": NUMBER},
    "one_step": {"imagined": _STEP, "real": _STEP, "nothing_moves": _STEP, "shuffled_actions": _STEP},
    "agent": {
        "arms": {"without": _ARM, "with": _ARM},
        "difference": {"mean": NUMBER, "low": NUMBER, "high": NUMBER},
        "verdict": TEXT,
        "steps": NUMBER,
        "offline_episodes": NUMBER,
        "curves_png": FILE,
    },
    "pictures": {"grid_png": FILE, "grid_gif": FILE},
    "horizon": {
        "steps": [NUMBER],
        "trajectories": [NUMBER],
        "imagined": [NUMBER],
        "read": [NUMBER],
        "acted": [NUMBER],
        "nothing_moves": [NUMBER],
    },
    "dimensions": [{"name": TEXT, "unit": TEXT, "imagined": _ERROR, "read": _ERROR, "nothing_moves": _ERROR}],
    "followed": {"starts": NUMBER, "read": NUMBER, "acted": NUMBER, "imagined": NUMBER, "nothing_moves": NUMBER},
    "open_loop": {"imagined": NUMBER, "nothing_moves": NUMBER},
    "ended_early": NUMBER,
    "audit": None,
    "identities": {EVERY: None},
    "data": {"collected": TEXT, "base_has_seen": TEXT, "heldout": TEXT},
}
"""A dict: these keys, and others are let be. A list: entries of that shape. None: anything."""


def write_report(folder: Path, player: dict[str, Any] | None = None) -> Path:
    """Write `folder`/report.html and return its path; `player` as `pixeltraj.eval.player` makes it.

    Raises PixeltrajError where report.json is missing, lacks a key or holds another kind of value.
    """
    source = folder / "report.json"
    report = read_json(source, "report")
    _check(report, CONTRACT, source, "")
    _check_lengths(report, source)
    write_whole(folder / "report.html", lambda beside: beside.write_text(page(report, player), encoding="utf-8"))
    return folder / "report.html"


def _check(value: Any, shape: Any, source: Path, where: str) -> None:
    if isinstance(shape, dict) and isinstance(value, dict):
        for key in value if EVERY in shape else shape:
            if key not in value:
                name = f"{where}.{key}".lstrip(".")
                raise PixeltrajError(
                    f"{source} has no {name}; write it (null where not measured) or make it again: `pixeltraj report`"
                )
            _check(value[key], shape.get(key, shape.get(EVERY)), source, f"{where}.{key}")
        return
    if isinstance(shape, list) and isinstance(value, list):
        for i, item in enumerate(value):
            _check(item, shape[0], source, f"{where}[{i}]")
        return
    number = value is None or (isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value))
    text = isinstance(value, str)
    if shape is None or (shape == NUMBER and number) or (shape == TEXT and text):
        return
    if shape == FILE and (text or value is None):
        return
    wanted = "an object" if isinstance(shape, dict) else "a list" if isinstance(shape, list) else shape
    raise PixeltrajError(f"{source}: {where.lstrip('.') or 'the whole'} is {value!r:.40}, wanted {wanted}")


def _check_lengths(report: dict[str, Any], source: Path) -> None:
    names = [row["name"] for row in report["decoder"]["states"]]
    if [row["name"] for row in report["imagined"]["states"]] != names:
        raise PixeltrajError(f"{source}: imagined.states and decoder.states must name the same dimensions in one order")
    for name, row in report["one_step"].items():
        if name in CONTRACT["one_step"] and len(row["per_dimension"]) not in (0, len(names)):
            raise PixeltrajError(f"{source}: one_step.{name}.per_dimension must have {len(names)} entries or none")
    for arm in ("without", "with"):
        for seed, run in report["agent"]["arms"][arm]["seeds"].items():
            if len(run["steps"]) != len(run["success"]):
                raise PixeltrajError(f"{source}: agent.arms.{arm}.seeds.{seed} has steps and success of unlike length")

    horizon = report["horizon"]
    for name, values in horizon.items():
        if len(values) != len(horizon["steps"]):
            raise PixeltrajError(f"{source}: horizon.{name} must have {len(horizon['steps'])} entries")
