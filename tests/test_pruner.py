"""The pruner: the paper's rule, the likelihood beside it, and whole trajectories left whole."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixeltraj.pruner import JITTER, RULES, STILL, likelihood_end, paper_end, prune, reading_noise, step_lengths
from pixeltraj.tasks import get_task
from pixeltraj.trajectory import Trajectory

TASK = get_task("push-v3")
PIXEL = TASK.camera.distance / TASK.camera.focal
"""Metres."""


def trajectory(steps: np.ndarray, jitter: float = 0.0, opening: float = 0.05) -> Trajectory:
    """The hand moves along x by the given steps (T,), metres; every keypoint is read with so many metres of jitter."""
    t = len(steps)
    keypoints = np.zeros((t + 1, len(TASK.keypoints), 3))
    keypoints[:, 1, 1], keypoints[:, 3:] = opening, [0.1, 0.7, 0.02]
    keypoints[1:, 0, 0] = np.cumsum(steps)
    keypoints += jitter * np.random.default_rng(0).standard_normal(keypoints.shape)
    states = TASK.state_from_keypoints(keypoints[None], np.zeros((1, TASK.state_size)))[0]
    none = np.zeros(t, dtype=bool)
    return Trajectory(
        states.astype(np.float32),
        np.zeros((t, 4), np.float32),
        np.zeros(t, np.float32),
        none,
        none.copy(),
        keypoints.astype(np.float32),
    )


def test_the_papers_rule_is_the_largest_gap_between_prefix_and_suffix() -> None:
    lengths = np.array([1.0, 1.0, 0.0, 0.0])
    by_hand = {
        2: abs(np.mean([1, 1]) - np.mean([1, 0, 0])),
        3: abs(np.mean([1, 1, 0]) - np.mean([0, 0])),
        4: abs(np.mean([1, 1, 0, 0]) - 0),
    }
    # s_i is the last state that is kept, so i - 1 transitions are.
    assert paper_end(lengths) == max(by_hand, key=lambda i: by_hand[i]) - 1
    assert paper_end(np.array([1.0])) == 1, "no i is allowed"


@given(st.lists(st.floats(0.0, 10.0), min_size=2, max_size=24))
def test_the_papers_rule_always_cuts(lengths: list[float]) -> None:
    assert 1 <= paper_end(np.array(lengths)) < len(lengths)


@given(st.integers(1, 12), st.integers(2, 12), st.floats(0.0, 0.2))
def test_a_tail_that_stands_still_is_cut(moving: int, still: int, noise: float) -> None:
    lengths = np.r_[np.full(moving, 8.0), np.full(still, noise)]
    assert likelihood_end(lengths) == moving
    assert abs(paper_end(lengths) - moving) <= 1


@given(st.lists(st.floats(3 * STILL, 30.0), min_size=1, max_size=24))
def test_a_trajectory_without_a_tail_survives_whole(lengths: list[float]) -> None:
    assert likelihood_end(np.array(lengths)) == len(lengths)


def test_one_slow_frame_is_no_tail_and_one_misread_frame_no_movement() -> None:
    moving, still = np.full(4, 8.0), np.full(6, 0.5)
    assert likelihood_end(np.r_[moving, 0.3, moving]) == 9, "a pause between movements"
    misread = still.copy()
    misread[3] = 5.0
    assert likelihood_end(np.r_[moving, misread]) == 4
    assert likelihood_end(np.r_[moving, 0.2]) == 4, "a tail of one frame"


def test_where_all_is_slow_slow_steps_are_no_end() -> None:
    slow = np.r_[np.full(5, 2.0), np.full(5, 1.2)]
    assert slow.max() < STILL
    assert likelihood_end(slow) == 10
    assert likelihood_end(np.r_[slow[:5], np.full(5, 0.2)]) == 5


def test_steps_are_measured_in_what_the_decoder_misreads() -> None:
    still = trajectory(np.zeros(24), jitter=JITTER * PIXEL)
    assert step_lengths(still, TASK).mean() == pytest.approx(1.0, abs=0.25)
    noise = reading_noise(still, TASK)
    told = {d.name: noise[i] for i, d in enumerate(TASK.state)}
    assert told["hand_x"] == pytest.approx(JITTER * PIXEL, rel=0.4)
    assert told["gripper"] == pytest.approx(np.sqrt(2) * JITTER * PIXEL / 0.1, rel=0.4), "the claws are 0.1 m apart"


def test_what_never_changes_and_what_repeats_the_last_decision_is_not_compared() -> None:
    moving = trajectory(np.full(6, 0.01))
    lengths = step_lengths(moving, TASK)
    for name in ("goal_x", "previous_object_y"):
        moving.states[:, TASK.indices((name,))[0]] += np.arange(7, dtype=np.float32)
    np.testing.assert_array_equal(step_lengths(moving, TASK), lengths)


@pytest.mark.parametrize("rule", RULES)
def test_every_row_is_cut_at_the_same_place(rule) -> None:
    whole = trajectory(np.r_[np.full(6, 3 * PIXEL), np.zeros(6)], jitter=0.3 * JITTER * PIXEL)
    whole.rewards[:] = np.arange(12)
    whole.frames = np.zeros((13, 84, 84, 3), np.uint8)
    whole.uncertainty = np.arange(13) / 1000
    cut = prune(whole, TASK, rule)
    cut.check(TASK)
    assert abs(len(cut) - 6) <= 1
    np.testing.assert_array_equal(cut.rewards, np.arange(len(cut)))
    assert cut.frames is not None and len(cut.frames) == len(cut) + 1
    assert cut.uncertainty is not None and cut.uncertainty[-1] == len(cut) / 1000
    assert len(whole) == 12, "the original is left as it was"


def test_an_end_that_was_read_is_believed() -> None:
    whole = trajectory(np.r_[np.full(6, 3 * PIXEL), np.zeros(2)])
    assert len(prune(whole, TASK)) == 6
    whole.terminations[-1] = True
    assert prune(whole, TASK) is whole
    assert len(prune(whole, TASK, "paper")) < 8, "the paper knows no terminations"
