"""Player: cases as the page's script takes them: one JSON, and a sheet of frames for each kind of picture."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pixeltraj.eval.cases import Case
from pixeltraj.eval.sprites import COLUMNS, sprite_sheet
from pixeltraj.picture import COLOURS
from pixeltraj.task import Task
from pixeltraj.trajectory import Trajectory

KINDS = ("imagined", "replay", "real")
_CHECKS = ("one_step", "action_residual", "violation", "diverged", "reward_wrong")


def player(task: Task, span: np.ndarray, shown: Sequence[Case], order: Sequence[Case]) -> dict[str, Any]:
    """What the page's script plays, JSON-able.

    shown: cases whose frames are drawn; order: all of them from the best to the worst, in which each has its rank.
    """
    ranks = {case.episode: rank for rank, case in enumerate(order)}
    frames: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    rows = [_row(task, span, case, ranks[case.episode], frames) for case in reversed(shown)]
    return {
        "columns": COLUMNS,
        "sheets": {kind: sprite_sheet(parts) if parts else None for kind, parts in frames.items()},
        "keypoints": [
            {"name": point.name.replace("_", " "), "colour": COLOURS[i % len(COLOURS)]}
            for i, point in enumerate(task.keypoints)
        ],
        "sparse": task.reward == "sparse",
        "all": len(order),
        "cases": rows,
    }


def _row(task: Task, span: np.ndarray, case: Case, rank: int, frames: dict[str, list[np.ndarray]]) -> dict[str, Any]:
    parts = {"imagined": case.imagined, "replay": case.replay, "real": case.real}
    row: dict[str, Any] = {
        "episode": case.episode,
        "rank": rank,
        "from": {name: case.imagined.origin.get(name) for name in ("episode", "step")},
        "error": _number(case.gap.mean),
        "percent": _numbers(case.gap.percent),
        "mm": _numbers(case.gap.millimetres),
        "px": _numbers(case.gap.pixels),
        "worst": [_worst(task, span, apart) for apart in case.gap.dimensions],
        "checks": {name: _numbers(case.checks[name]) for name in _CHECKS if name in case.checks},
        "diverged": bool(case.replay.origin.get("diverged")),
    }
    for kind, trajectory in parts.items():
        row[kind] = None if trajectory is None else _strip(task, trajectory, frames[kind])
    return row


def _strip(task: Task, trajectory: Trajectory, frames: list[np.ndarray]) -> dict[str, Any]:
    """Adds the frames to a sheet and says where they are, where the keypoints are in them, and how it ended."""
    assert trajectory.frames is not None
    first = len(frames)
    frames.extend(trajectory.frames)
    return {
        "first": first,
        "frames": len(trajectory.frames),
        "keypoints": _numbers(task.camera.project(trajectory.keypoints)[..., :2]),
        "rewards": _numbers(trajectory.rewards, digits=3),
        "ended": bool(trajectory.terminations.any()),
    }


def _worst(task: Task, span: np.ndarray, apart: np.ndarray) -> dict[str, Any]:
    """The dimension of a frame that is furthest off, in % of its range and in its unit."""
    share = np.where(span > 0, apart / np.where(span > 0, span, 1.0), 0.0)
    share[task.indices(task.static)] = 0.0
    i = int(share.argmax())
    unit, error = task.state[i].unit, float(apart[i])
    said = f"{1000 * error:.3g} mm" if unit == "m" else f"{error:.3g} {unit}"
    return {"name": task.state[i].name.replace("_", " "), "percent": _number(100 * share[i]), "said": said}


def _numbers(values: np.ndarray, digits: int = 2) -> list[Any]:
    """Nested lists; what is not finite is None, which JSON can say."""
    rounded = np.asarray(values, dtype=np.float64).round(digits)
    return np.where(np.isfinite(rounded), rounded, None).tolist()  # type: ignore[call-overload]


def _number(value: float) -> float | None:
    return round(float(value), 2) if np.isfinite(value) else None
