"""The parts of `benchmarks.imagine` that can be right or wrong by themselves."""

import numpy as np
import pytest

from benchmarks.imagine_blobs import BlobReader
from benchmarks.imagine_diversity import nearest
from benchmarks.imagine_errors import compared, figures
from benchmarks.imagine_table import Row


def discs(centres: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Frames of a grey, noisy ground with a large blue disc anywhere, and a red one of radius 4 around each centre."""
    rows, columns = np.mgrid[:84, :84] + 0.5
    frames = rng.integers(90, 130, size=(len(centres), 84, 84, 1)).repeat(3, axis=-1)
    for frame, (column, row) in zip(frames, centres):
        blue = rng.uniform(10, 74, size=2)
        frame[np.hypot(columns - blue[0], rows - blue[1]) < 9] = (20, 30, 200)
        frame[np.hypot(columns - column, rows - row) < 4] = (210, 40, 30)
    return frames.astype(np.uint8)


def test_a_blob_is_read_to_a_fraction_of_a_pixel_and_a_constant_shift_is_learned() -> None:
    rng = np.random.default_rng(0)
    centres = rng.uniform(12, 72, size=(60, 2))
    frames, keypoints = discs(centres, rng), centres + (1.5, -0.5)  # a point beside the middle of what is seen
    reader = BlobReader.fit(frames[:40], keypoints[:40])
    missed = np.linalg.norm(reader.read(frames[40:]) - keypoints[40:], axis=-1)
    assert np.median(missed) < 0.3
    assert missed.max() < 1.0


def test_without_its_colours_a_blob_is_not_invented_at_the_border() -> None:
    rng = np.random.default_rng(1)
    centres = rng.uniform(12, 72, size=(40, 2))
    reader = BlobReader.fit(discs(centres, rng), centres)
    black = np.zeros((1, 84, 84, 3), np.uint8)
    assert np.abs(reader.read(black) - 42).max() < 2


def test_figures_are_medians_over_windows_of_the_best_and_of_the_mean_sample() -> None:
    hand = np.array([[1.0, 3.0], [2.0, 8.0], [5.0, 5.0]])
    goal = np.array([[0.5, 2.5], [2.0, 1.0], [9.0, 0.0]])
    assert figures(hand, 2 * hand, goal) == {
        "goal_ok": pytest.approx(4 / 6),
        "object_px": 8.0,
        "hand_px_best": 2.0,
        "hand_px_mean": 5.0,
    }


def test_excess_is_positive_where_the_one_diffuser_is_worse() -> None:
    rng = np.random.default_rng(0)
    alone = tuple(rng.uniform(0.5, 3.5, size=(40, 4)) for _ in range(3))
    worse = tuple(1.2 * errors for errors in alone)
    rows = compared(worse, alone, seed=0)  # type: ignore[arg-type]
    assert rows["object_px"]["excess_pct"] == pytest.approx(20)
    assert rows["goal_ok"]["excess_pct"] > 0
    assert all(row["low_pct"] <= row["excess_pct"] <= row["high_pct"] for row in rows.values())
    assert compared(alone, alone, seed=0)["hand_px_best"]["excess_pct"] == 0  # type: ignore[arg-type]


def test_the_nearest_training_window_of_a_copy_is_itself() -> None:
    rng = np.random.default_rng(0)
    training = rng.standard_normal((50, 5, 3))
    assert nearest(training[7:9], training) == pytest.approx([0, 0], abs=1e-6)
    assert nearest(training[7:8] + 0.01, training) == pytest.approx([0.01], rel=1e-3)


def test_a_row_says_whether_its_target_is_met() -> None:
    assert Row("a", 0.97, "{:.0%}", None, 0.98, at_least=True).verdict == "missed"
    assert Row("a", 0.9, "{:.2f} px", 0.5, 1.0).verdict == "met"
    assert str(Row("a", None, "{:.2f} px", None, 1.0)) == "| a | not measured |  | ≤ 1.00 px |  |"
