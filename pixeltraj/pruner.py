"""Pruner: where an imagined trajectory ends (ATraDiff, section 4.2).

The training windows that reach past the end of an episode close with copies of its last frame, so imagined ones do
too. Two rules tell where they begin, both from the lengths of the steps between successive decoded states, measured
in what a decoder misreads from one frame to the next (`step_lengths`); the paper's similarity is the negative length.

paper:       ends at the state s_i, 1 < i < k, with the largest |pre_i - suf_i|, where sim_j = sim(s_j, s_{j+1}),
             pre_i = mean(sim_1..sim_i), suf_i = mean(sim_i..sim_{k-1}). Without parameters, but it always cuts:
             a trajectory that has no redundant tail loses some of its transitions.
likelihood:  each step is either moving or still, and its length tells how much likelier one is than the other. It
             ends where "moving before, still after" is likeliest, and stays whole unless that is likelier than that
             there is no tail at all. A slow frame among moving ones weighs less than they do.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np

from pixeltraj.task import Task
from pixeltraj.trajectory import Trajectory

Rule = Literal["likelihood", "paper"]

JITTER = 0.1
"""Pixels by which a keypoint that has not moved is read elsewhere in the next frame, measured on real padding."""
STILL = 2.5
"""Length of a step, in jitters, that is as likely still as moving. Imagined frames jitter more than real ones."""
SHARE = 0.4
"""The same as a share of the longest step: where all is slow, slow steps are no sign of an end."""
WEIGHT = 1.5
"""Most that one step counts, in powers of e: a single misread frame must not outweigh all others."""
EVIDENCE = 0.5
"""How much likelier, in powers of e, a tail must be than none."""
NUDGES = 8
"""Random sides to which keypoints are nudged to see what their jitter does to the state."""


def prune(trajectory: Trajectory, task: Task, rule: Rule = "likelihood") -> Trajectory:
    """The trajectory without its redundant tail; the same object where it has none. At least one transition is kept.

    One whose last transition terminates stays whole by the likelihood: its end was read.
    """
    if rule == "likelihood" and trajectory.terminations[-1:].any():
        return trajectory
    return shortened(trajectory, RULES[rule](step_lengths(trajectory, task)))


def shortened(trajectory: Trajectory, kept: int) -> Trajectory:
    """Its first transitions; the same object if those are all."""
    if kept >= len(trajectory):
        return trajectory
    frames = ("states", "keypoints", "snapshots", "frames", "uncertainty")
    steps = ("actions", "rewards", "terminations", "truncations", "weights")
    there = {name: value for name in (*frames, *steps) if (value := getattr(trajectory, name)) is not None}
    return replace(
        trajectory,
        **{name: value[: kept + (name in frames)] for name, value in there.items()},
    )


def paper_end(lengths: np.ndarray) -> int:
    """The paper's rule: transitions that are kept, i - 1 of the k - 1 whose lengths (k-1,) are given."""
    similarity = -np.asarray(lengths, dtype=np.float64)
    candidates = range(2, len(similarity) + 1)
    if not candidates:
        return len(similarity)
    gaps = [abs(similarity[:i].mean() - similarity[i - 1 :].mean()) for i in candidates]
    return candidates[int(np.argmax(gaps))] - 1


def likelihood_end(lengths: np.ndarray) -> int:
    """Transitions that are kept of those whose lengths (k-1,) are given, in jitters.

    The lengths of still and of moving steps are taken as log-normal, equally wide: the log of their likelihood ratio
    is then linear in the log of the length, and zero at STILL, or at SHARE of the longest if that is less.
    """
    lengths = np.maximum(lengths, 1e-9)
    moving = np.clip(np.log(lengths / min(STILL, SHARE * lengths.max(initial=1e-9))), -WEIGHT, WEIGHT)
    tail = -np.cumsum(moving[::-1])[::-1]  # (k-1,) how much likelier all from here on are still
    if len(tail) < 2:
        return len(tail)
    kept = 1 + int(np.argmax(tail[1:]))
    return kept if tail[kept] > EVIDENCE else len(tail)


RULES: dict[Rule, Callable[[np.ndarray], int]] = {"likelihood": likelihood_end, "paper": paper_end}
"""Lengths of steps (k-1,) -> transitions that are kept."""


def step_lengths(trajectory: Trajectory, task: Task) -> np.ndarray:
    """(T,) how far successive states lie apart, in jitters: 1 is what a still frame is expected to show.

    Root mean square over the dimensions that keypoints tell, each in units of `reading_noise`. What never changes,
    what repeats the last decision ("previous_...") and what keypoints do not tell (velocities) is left out.
    """
    noise = reading_noise(trajectory, task)
    left_out = {*task.static, *task.hidden}
    used = [
        i
        for i, d in enumerate(task.state)
        if d.name not in left_out and not d.name.startswith("previous_") and noise[i] > 0
    ]
    if not used:
        return np.ones(len(trajectory))
    steps = np.diff(trajectory.states[:, used].astype(np.float64), axis=0) / (np.sqrt(2) * noise[used])
    return np.sqrt((steps**2).mean(axis=-1))


def reading_noise(trajectory: Trajectory, task: Task) -> np.ndarray:
    """(S,) deviation of each dimension where every keypoint is read JITTER pixels off, in the dimension's unit.

    Zero for what does not follow from the frame's keypoints. Nudged are three of the frames, to a few random sides.
    """
    keypoints = trajectory.keypoints[:: max(1, len(trajectory) // 2)][None].astype(np.float64)
    size = JITTER * task.camera.distance / task.camera.focal  # metres
    aside = size * np.random.default_rng(0).standard_normal((NUDGES, *keypoints.shape[1:]))
    starts = np.repeat(trajectory.states[:1], NUDGES, axis=0)
    moved = task.state_from_keypoints(keypoints + aside, starts) - task.state_from_keypoints(keypoints, starts[:1])
    return np.nan_to_num(np.sqrt((moved**2).mean(axis=(0, 1))))
