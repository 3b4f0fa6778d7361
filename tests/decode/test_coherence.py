"""Coherence: what is bent, and what should stand still and does not."""

import numpy as np
import pytest

from pixeltraj.decode.coherence import coherence, static_drift, static_keypoints
from pixeltraj.store import Store
from pixeltraj.tasks import get_task
from pixeltraj.trajectory import Trajectory

TASK = get_task("push-v3")


def trajectory(keypoints: np.ndarray) -> Trajectory:
    steps = len(keypoints) - 1
    return Trajectory(
        states=np.zeros((steps + 1, TASK.state_size), np.float32),
        actions=np.zeros((steps, 4), np.float32),
        rewards=np.zeros(steps, np.float32),
        terminations=np.zeros(steps, bool),
        truncations=np.zeros(steps, bool),
        keypoints=keypoints.astype(np.float32),
    )


def test_uniform_motion_is_smooth_and_a_jump_is_not() -> None:
    points = np.zeros((5, 5, 3))
    points[:, 0, 0] = 0.1 * np.arange(5)
    even = coherence(TASK, [trajectory(points)])
    assert even is not None and even["mean"] == pytest.approx(0, abs=1e-3)
    points[2, 3] += [0.0, 0.006, 0.0]
    jump = coherence(TASK, [trajectory(points), trajectory(points[:2])])
    assert jump is not None and jump["keypoints"]["object"]["mean"] == pytest.approx((6 + 12 + 6) / 3, rel=1e-3)
    assert jump["keypoints"]["hand"]["mean"] == pytest.approx(0, abs=1e-3)


def test_nothing_is_said_where_nothing_can_be() -> None:
    assert coherence(TASK, [trajectory(np.ones((2, 5, 3)))]) is None, "two frames have no second difference"
    assert coherence(TASK, [trajectory(np.zeros((5, 5, 3)))]) is None, "nobody located these"


def test_drift_is_measured_from_the_first_frame(store: Store) -> None:
    still = static_keypoints(store, store.split()[0])
    assert [TASK.keypoints[i].name for i in still] == ["goal"]
    points = np.ones((5, 5, 3))
    points[1:, 4, 2] += 0.002 * np.arange(1, 5)
    moved = trajectory(points)
    moved.states[3:, 15] = 0.1
    drift = static_drift(TASK, [moved], still)
    assert drift is not None
    assert drift["keypoints_mm"]["goal"] == {"mean": pytest.approx(5, 1e-3), "max": pytest.approx(8, 1e-3)}
    assert drift["dimensions"]["goal_y"]["mean"] == pytest.approx(0.05) and drift["dimensions"]["goal_x"]["max"] == 0
