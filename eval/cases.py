"""Case: an imagined trajectory beside the simulator's replay of it; how far they are apart; which ones to look at."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pixeltraj.task import Task
from pixeltraj.trajectory import Trajectory


@dataclass
class Gap:
    """Between two trajectories, frame by frame, over the n frames that both have; frame 0 is the known start."""

    percent: np.ndarray
    """(n,) of the range of each dimension, mean over the dimensions that can change"""
    millimetres: np.ndarray
    """(n,) mean distance of the keypoints in 3D"""
    pixels: np.ndarray
    """(n,) mean distance of the keypoints in the frame"""
    dimensions: np.ndarray
    """(n, S) absolute, in each dimension's unit"""

    def __len__(self) -> int:
        return len(self.percent)

    @property
    def mean(self) -> float:
        """% of range over frames 1.. ; infinite where there is none of them."""
        return float(self.percent[1:].mean()) if len(self) > 1 else float("inf")


@dataclass
class Case:
    """What the page shows of one imagined trajectory."""

    episode: int
    """In the imagined store."""
    imagined: Trajectory
    replay: Trajectory
    """The simulator from the same start, fed the imagined actions; its frames are drawn for what is shown only."""
    real: Trajectory | None
    """What really followed; None where that is not known."""
    gap: Gap
    """Between imagined and replay."""
    checks: dict[str, np.ndarray] = field(default_factory=dict)
    """(T,) of an audit, each transition: one_step (% of range), action_residual, violation, diverged, reward_wrong."""


def gap(task: Task, a: Trajectory, b: Trajectory, span: np.ndarray) -> Gap:
    """span (S,): range of each dimension in the training data."""
    n = min(len(a.states), len(b.states))
    apart = np.abs(a.states[:n].astype(np.float64) - b.states[:n])
    moves = changing(task, span)
    points, others = a.keypoints[:n], b.keypoints[:n]
    drawn, drawn_others = (task.camera.project(p)[..., :2] for p in (points, others))
    return Gap(
        percent=100 * (apart[:, moves] / span[moves]).mean(axis=1),
        millimetres=1000 * np.linalg.norm(points - others, axis=-1).mean(axis=1),
        pixels=np.linalg.norm(drawn - drawn_others, axis=-1).mean(axis=1),
        dimensions=apart,
    )


def changing(task: Task, span: np.ndarray) -> np.ndarray:
    """Indices of the dimensions that can change and have a range."""
    fixed = set(task.indices(task.static))
    return np.array([i for i in range(task.state_size) if i not in fixed and span[i] > 0], dtype=np.int64)


def ranked(cases: Sequence[Case]) -> list[Case]:
    """From the best to the worst."""
    return sorted(cases, key=lambda case: (case.gap.mean, case.episode))


def chosen(order: Sequence[Case], most: int, most_frames: int) -> list[Case]:
    """Of cases from the best to the worst: the worst, the best, the median, and others evenly between, best first.

    At most `most` of them, whose imagined frames are at most `most_frames`, but for the first three.
    """
    count = min(len(order), most)
    while True:
        places = np.unique(np.linspace(0, len(order) - 1, count).round().astype(int))
        places = np.union1d(places, [(len(order) - 1) // 2]) if count > 2 else places
        frames = sum(len(order[i].imagined.states) for i in places)
        if count <= min(3, len(order)) or (frames <= most_frames and len(places) <= most):
            return [order[i] for i in places]
        count -= 1
