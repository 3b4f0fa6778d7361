"""Findings: what an examination amounts to, JSON-able.

Refused and diverged transitions are counted and in no average.
"""

from typing import Any

import numpy as np

from pixeltraj.decode.audit import open_loop, summary
from pixeltraj.decode.coherence import coherence, static_drift
from pixeltraj.decode.examination import Examination
from pixeltraj.decode.inverse_dynamics import SURE, action_residual
from pixeltraj.decode.subject import Subject
from pixeltraj.decode.yardstick import Yardstick
from pixeltraj.simulator import Simulator
from pixeltraj.task import Task

_SELDOM = 0.05
"""A dimension of the action that is told in a smaller part of the transitions has no residual."""


def findings(
    simulator: Simulator,
    subject: Subject,
    examined: Examination,
    yardstick: Yardstick,
    still: list[int],
    rng: np.random.Generator,
) -> dict[str, Any]:
    """All that is found in one subject but its coverage. still: `static_keypoints`."""
    task, sound = simulator.task, ~(examined.refused | examined.diverged)
    joints, contacts = yardstick.violations(examined)
    told = yardstick.reward_told(examined)
    return {
        "trajectories": len(subject.trajectories),
        "transitions": len(sound),
        "refused": int(examined.refused.sum()),
        "diverged": int(examined.diverged.sum()),
        "one_step": _one_step(examined, sound, yardstick),
        "action_residual": _action_residual(residuals(examined, yardstick), int(sound.sum())),
        "violations": {
            "transitions": int(sound.sum()),
            "joint_limits": int(joints.sum()),
            "contacts": int(contacts.sum()),
            "either": int((joints | contacts).sum()),
            "deepest_mm": float(1000 * np.nanmax(examined.depth)) if sound.any() else None,
            "worst_joint_excess": float(np.nanmax(examined.excess)) if sound.any() else None,
        },
        "reward": _reward(task, examined, told, yardstick),
        "termination": {
            "compared": int(told.sum()),
            "wrong": int(yardstick.termination_wrong(examined).sum()),
            "claimed": int(examined.terminations[told, 0].sum()),
            "simulator": int(examined.terminations[told, 1].sum()),
        },
        "static_drift": static_drift(task, subject.trajectories, still),
        "coherence": coherence(task, subject.trajectories),
        "open_loop": _open_loop(simulator, subject, examined, yardstick, rng),
    }


def arrays(subject: Subject, examined: Examination, yardstick: Yardstick) -> dict[str, np.ndarray]:
    """A row for every transition of the subject, in the order of its store; refused and diverged ones are NaN."""
    moving = yardstick.moving
    error = examined.error.astype(np.float32)
    return {
        "episode": np.array(subject.episodes, dtype=np.int64)[examined.trajectory],
        "step": examined.step.astype(np.int64),
        "error": error,
        "error_pct": (100 * np.abs(error) / np.where(moving, yardstick.span, 1.0))[:, moving]
        .mean(axis=1)
        .astype(np.float32),
        "action_residual": residuals(examined, yardstick).astype(np.float32),
        "violation": np.logical_or(*yardstick.violations(examined)),
        "reward_wrong": yardstick.reward_wrong(examined),
        "termination_wrong": yardstick.termination_wrong(examined),
        "diverged": examined.diverged,
        "refused": examined.refused,
    }


def sound_trajectories(examined: Examination) -> list[int]:
    """Places of the trajectories none of whose transitions is refused or diverged."""
    unsound = set(examined.trajectory[examined.refused | examined.diverged].tolist())
    return [i for i in np.unique(examined.trajectory).tolist() if i not in unsound]


def residuals(examined: Examination, yardstick: Yardstick) -> np.ndarray:
    """(n, A), see `inverse_dynamics.action_residual`."""
    return action_residual(examined.error, examined.responses, examined.actions, yardstick.noise)


def _one_step(examined: Examination, sound: np.ndarray, yardstick: Yardstick) -> dict[str, Any] | None:
    if not sound.any():
        return None
    task, span = yardstick.task, yardstick.span
    rows = {"error": examined.error, "nothing_moves": examined.moved, "set_state": examined.reached - examined.now}
    return {name: summary(task, np.abs(errors[sound]), span) for name, errors in rows.items()}


def _action_residual(residual: np.ndarray, sound: int) -> dict[str, Any]:
    """`mean` |residual| of each dimension that is told, and in which share of the transitions it is."""
    dimensions = []
    for column in residual.T:
        known = column[np.isfinite(column)]
        share = len(known) / max(sound, 1)
        row: dict[str, Any] = {"mean": None, "median": None, "bias": None, "told": share}
        if share >= _SELDOM:
            size = np.abs(known)
            row |= {"mean": float(size.mean()), "median": float(np.median(size)), "bias": float(known.mean())}
        else:
            row["why"] = (
                f"told in {share:.0%} of the transitions: in the others one decision's action moves the state too "
                f"little against what real transitions miss by (a correction is known to +-{SURE} or worse)"
            )
        dimensions.append(row)
    means = [row["mean"] for row in dimensions if row["mean"] is not None]
    return {"mean": float(np.mean(means)) if means else None, "dimensions": dimensions}


def _reward(task: Task, examined: Examination, told: np.ndarray, yardstick: Yardstick) -> dict[str, Any]:
    claimed, true = examined.rewards[told].T
    found: dict[str, Any] = {"compared": int(told.sum()), "wrong": int(yardstick.reward_wrong(examined).sum())}
    if task.reward == "sparse":
        said, was = claimed > 0.5, true > 0.5
        both = int((said & was).sum())
        found |= {"claimed": int(said.sum()), "simulator": int(was.sum()), "both": both}
        return found | {
            "precision": both / said.sum() if said.any() else None,
            "recall": both / was.sum() if was.any() else None,
        }
    return found | {"error": float(np.abs(claimed - true).mean()) if told.any() else None}


def _open_loop(
    simulator: Simulator, subject: Subject, examined: Examination, yardstick: Yardstick, rng: np.random.Generator
) -> dict[str, Any] | None:
    """Of the trajectories that are sound, where the simulator can be let go from exactly their start."""
    kept = sound_trajectories(examined)
    if not subject.exact or not kept:
        return None
    chosen, starts = [subject.trajectories[i] for i in kept], [subject.near[i] for i in kept]
    return open_loop(simulator, chosen, starts, yardstick.span, rng)
