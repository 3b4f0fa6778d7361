"""Coherence: does what moves move smoothly, and does what cannot move stand still?"""

from typing import Any

import numpy as np

from pixeltraj.store import Store
from pixeltraj.task import Task
from pixeltraj.trajectory import Trajectory

STILL = 1e-3
"""Metres that a keypoint may move within an episode of real data and still be called static."""


def static_keypoints(real: Store, episodes: list[int]) -> list[int]:
    """Keypoints that stay where they are in all of these episodes: goals, as a rule."""
    moved = np.zeros(len(real.task.keypoints))
    for episode in episodes:
        points = real.read("keypoints", int(real.offsets[episode]), int(real.offsets[episode + 1]))
        moved = np.maximum(moved, np.linalg.norm(points - points[:1], axis=-1).max(axis=0))
    return [int(i) for i in np.flatnonzero(moved < STILL)]


def static_drift(task: Task, trajectories: list[Trajectory], points: list[int]) -> dict[str, Any] | None:
    """How far what is static is, after each step, from where it was in frame 0: `mean` and `max`.

    points: `static_keypoints`. `dimensions` are in their units, keypoints in mm, if they were located at all.
    None where nothing is static.
    """
    trajectories = [t for t in trajectories if np.isfinite(t.states).all() and np.isfinite(t.keypoints).all()]
    fixed = task.indices(task.static)
    points = points if any(t.keypoints.any() for t in trajectories) else []
    if not trajectories or not (fixed or points):
        return None
    states = np.concatenate([np.abs(t.states[1:, fixed] - t.states[:1, fixed]) for t in trajectories])
    shift = [np.linalg.norm(t.keypoints[1:, points] - t.keypoints[:1, points], axis=-1) for t in trajectories]
    moved = 1000 * np.concatenate(shift)

    def both(values: np.ndarray) -> dict[str, float]:
        return {"mean": float(values.mean()), "max": float(values.max())}

    return {
        "dimensions": {
            task.state[d].name: {"unit": task.state[d].unit, **both(states[:, i])} for i, d in enumerate(fixed)
        },
        "keypoints_mm": {task.keypoints[p].name: both(moved[:, i]) for i, p in enumerate(points)},
    }


def coherence(task: Task, trajectories: list[Trajectory]) -> dict[str, Any] | None:
    """Second differences |p_{t+1} - 2 p_t + p_{t-1}| of the keypoints, mm: `mean` and `p95`, together and of each.

    None where no trajectory has three frames, or where keypoints were never located (all zero).
    """
    points = [t.keypoints for t in trajectories if len(t) >= 2 and np.isfinite(t.keypoints).all()]
    if not any(p.any() for p in points):
        return None
    bent = np.concatenate([1000 * np.linalg.norm(np.diff(p, n=2, axis=0), axis=-1) for p in points])
    return {
        **_spread(bent),
        "keypoints": {k.name: _spread(bent[:, i]) for i, k in enumerate(task.keypoints)},
    }


def _spread(values: np.ndarray) -> dict[str, float]:
    return {"mean": float(values.mean()), "p95": float(np.percentile(values, 95))}
