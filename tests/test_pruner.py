"""The pruner: the paper's rule, and whole trajectories left whole."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pixeltraj.pruner import prune, split_point
from pixeltraj.tasks import get_task
from pixeltraj.trajectory import Trajectory

TASK = get_task("push-v3")


def trajectory(steps: np.ndarray) -> Trajectory:
    """The hand moves along x by the given steps (T,), metres."""
    states = np.zeros((len(steps) + 1, TASK.state_size), dtype=np.float32)
    states[1:, 0] = np.cumsum(steps)
    t = len(steps)
    none = np.zeros(t, dtype=bool)
    keypoints = np.zeros((t + 1, len(TASK.keypoints), 3), dtype=np.float32)
    return Trajectory(states, np.zeros((t, 4), np.float32), np.zeros(t, np.float32), none, none, keypoints)


def test_split_point_is_the_largest_gap_between_prefix_and_suffix() -> None:
    distances = np.array([1.0, 1.0, 0.0, 0.0])
    by_hand = {
        2: abs(np.mean([1, 1]) - np.mean([1, 0, 0])),
        3: abs(np.mean([1, 1, 0]) - np.mean([0, 0])),
        4: abs(np.mean([1, 1, 0, 0]) - 0),
    }
    assert split_point(distances) == max(by_hand, key=lambda i: by_hand[i])
    assert split_point(np.array([1.0])) is None


@given(st.integers(2, 12), st.integers(2, 12), st.floats(0.0, 0.0005))
def test_a_tail_that_stands_still_is_cut(moving: int, still: int, noise: float) -> None:
    steps = np.r_[np.full(moving, 0.01), np.full(still, noise)]
    kept = len(prune(trajectory(steps), TASK))
    assert abs(kept - moving) <= 1


@given(st.lists(st.floats(0.005, 0.02), min_size=4, max_size=24))
def test_a_trajectory_without_a_tail_survives_whole(steps: list[float]) -> None:
    whole = trajectory(np.array(steps))
    assert prune(whole, TASK) is whole
