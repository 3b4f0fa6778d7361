"""Pruner: where an imagined trajectory ends, without parameters (ATraDiff, section 4.2).

The training windows that reach past the end of an episode close with copies of its last frame, so imagined ones
do too. The paper cuts at the index i, 1 < i < k, with the largest |pre_i - suf_i|, where
    sim_j = sim(s_j, s_{j+1}),  pre_i = mean(sim_1..sim_i),  suf_i = mean(sim_i..sim_{k-1}).
It assumes that there is a redundant tail. A trajectory without one must survive whole, so here a cut is made only
where the tail stands still: every later state within TOLERANCE of its predecessor, which moving ones are not.
"""

from dataclasses import replace

import numpy as np

from pixeltraj.task import Task
from pixeltraj.trajectory import Trajectory

TOLERANCE = 0.1
"""Largest step of a tail, as a share of the largest step of the trajectory."""


def split_point(distances: np.ndarray) -> int | None:
    """The paper's i for distances (k-1,) between successive states, or None where no i is allowed.

    Similarity is the negative distance; i counts transitions, 1 < i < k.
    """
    similarity = -np.asarray(distances, dtype=np.float64)
    last = len(similarity)
    candidates = range(2, last + 1)
    if not candidates:
        return None
    gaps = [abs(similarity[:i].mean() - similarity[i - 1 :].mean()) for i in candidates]
    return candidates[int(np.argmax(gaps))]


def prune(trajectory: Trajectory, task: Task) -> Trajectory:
    """The trajectory without its redundant tail; the same object where it has none."""
    now = [i for i, d in enumerate(task.state) if not d.name.startswith("previous_") and d.name not in task.hidden]
    states = trajectory.states[:, now]
    distances = np.linalg.norm(np.diff(states, axis=0), axis=-1)
    end = split_point(distances)
    if end is None:
        return trajectory
    still = distances <= TOLERANCE * distances.max()
    kept = end - 1 if still[end - 1] else end  # sim_i belongs to both sides of the split
    if kept < 1 or kept == len(still) or not still[kept:].all():
        return trajectory
    return replace(
        trajectory,
        states=trajectory.states[: kept + 1],
        keypoints=trajectory.keypoints[: kept + 1],
        frames=None if trajectory.frames is None else trajectory.frames[: kept + 1],
        **{n: getattr(trajectory, n)[:kept] for n in ("actions", "rewards", "terminations", "truncations")},
    )
