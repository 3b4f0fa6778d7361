"""Losses: what is lost between real frames and an agent's batch, by dimension and by how far ahead."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pixeltraj.eval.cases import Case, changing
from pixeltraj.task import Task
from pixeltraj.trajectory import Trajectory

Pairs = Sequence[tuple[np.ndarray, np.ndarray]]
"""Two runs of states (T+1, S) each that begin in one state; the longer one is cut."""


def losses(
    task: Task,
    span: np.ndarray,
    cases: Sequence[Case],
    read: Sequence[Trajectory | None],
    acted: Sequence[Trajectory | None],
) -> dict[str, Any]:
    """What report.json says of them, JSON-able; all of it in % of range but `dimensions`, which has units too.

    read: for each case what the decoder reads in the real frames that followed its start; acted: the simulator from
    there, fed the actions that were read. None where nothing followed.
    `followed` compares imagined states with what really followed, on the frames that both have; a future may honestly
    differ from the one that came, so this is more than what is lost.
    """
    imagined = [(case.imagined.states, case.replay.states) for case in cases]
    still = [(np.broadcast_to(b[:1], b.shape), b) for _, b in imagined]
    real = [case.real.states if case.real else None for case in cases]
    seen = [(one.states, true) for one, true in zip(read, real) if one is not None and true is not None]
    driven = [(one.states, true) for one, true in zip(acted, real) if one is not None and true is not None]
    came = [(case.imagined.states, true) for case, true in zip(cases, real) if true is not None]
    waited = [(np.broadcast_to(b[:1], b.shape), b) for _, b in came]
    moves = changing(task, span)

    def percent(pairs: Pairs) -> float | None:
        rows = _apart(pairs)
        return float(100 * (rows[:, moves] / span[moves]).mean()) if len(rows) else None

    columns = {"imagined": _apart(imagined), "read": _apart(seen), "nothing_moves": _apart(still)}
    return {
        "horizon": _horizon({"imagined": imagined, "read": seen, "acted": driven, "nothing_moves": still}, span, moves),
        "dimensions": [
            {"name": d.name, "unit": d.unit, **{key: _cell(rows, i, i in moves, span) for key, rows in columns.items()}}
            for i, d in enumerate(task.state)
        ],
        "followed": {
            "starts": len(came),
            "read": percent(seen),
            "acted": percent(driven),
            "imagined": percent(came),
            "nothing_moves": percent(waited),
        },
        "open_loop": {"imagined": percent(imagined), "nothing_moves": percent(still)},
        "ended_early": sum(len(case.replay) < len(case.imagined) for case in cases),
    }


def _apart(pairs: Pairs) -> np.ndarray:
    """(n, S) absolute differences of all frames but the first, which is known."""
    rows = [np.abs(a[1 : len(b)].astype(np.float64) - b[1 : len(a)]) for a, b in pairs]
    return np.concatenate(rows) if rows else np.empty((0, 0))


def _cell(rows: np.ndarray, i: int, moves: bool, span: np.ndarray) -> dict[str, float | None]:
    if not len(rows):
        return {"error": None, "percent": None}
    mean = float(rows[:, i].mean())
    return {"error": mean, "percent": float(100 * mean / span[i]) if moves else None}


def _horizon(curves: dict[str, Pairs], span: np.ndarray, moves: np.ndarray) -> dict[str, list[Any]]:
    """After 1, 2, ... steps: the mean of those that got so far, and how many did."""
    longest = max((min(len(a), len(b)) for a, b in curves["imagined"]), default=1)
    result: dict[str, list[Any]] = {"steps": list(range(1, longest)), "trajectories": []}
    for name, pairs in curves.items():
        result[name] = []
        for step in range(1, longest):
            there = [np.abs(a[step].astype(np.float64) - b[step]) for a, b in pairs if min(len(a), len(b)) > step]
            value = 100 * (np.array(there)[:, moves] / span[moves]).mean() if there else None
            result[name].append(None if value is None else float(value))
            if name == "imagined":
                result["trajectories"].append(len(there))
    return result
