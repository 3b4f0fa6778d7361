"""Statistics against values worked out by hand."""

import numpy as np
import pytest

from pixeltraj.eval.statistics import (
    Interval,
    improvement,
    interquartile_means,
    iqm,
    quartiles,
    resampled,
    steps_ratio,
    steps_to,
)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_interquartile_mean() -> None:
    scores = np.array([[1.0, 80.0], [3.0, 4.0], [5.0, 6.0], [-70.0, 8.0]])  # 4 runs, 2 tasks
    assert iqm(scores[None])[0] == pytest.approx((3 + 4 + 5 + 6) / 4)
    assert iqm(np.array([[[1.0], [2.0], [6.0]]]))[0] == pytest.approx(3.0)  # a quarter of three is none
    found = interquartile_means({"all alike": np.full((5, 2), 0.7), "spread": scores}, rng())
    assert found["all alike"] == Interval(pytest.approx(0.7), pytest.approx(0.7), pytest.approx(0.7))
    low, high = found["spread"].low, found["spread"].high
    assert low is not None and high is not None and low < 4.5 < high
    assert interquartile_means({"spread": scores}, rng()) == interquartile_means({"spread": scores}, rng())


def test_runs_are_resampled_within_their_task() -> None:
    drawn = resampled(np.array([[0.0, 10.0], [1.0, 11.0], [2.0, 12.0]]), rng())
    assert drawn.shape[1:] == (3, 2)
    assert set(np.unique(drawn[..., 0])) == {0.0, 1.0, 2.0} and set(np.unique(drawn[..., 1])) == {10.0, 11.0, 12.0}
    assert np.mean(drawn[..., 0] + 10 != drawn[..., 1]) > 0.5  # each task by itself


def test_probability_of_improvement() -> None:
    arm, baseline = np.array([[1.0], [3.0]]), np.array([[2.0], [1.0]])
    assert improvement(arm, baseline, rng()).value == pytest.approx((0 + 0.5 + 1 + 1) / 4)
    surely = improvement(np.full((5, 1), 2.0), np.arange(4.0)[:, None] / 4, rng())
    assert (surely.value, surely.low, surely.high) == (1.0, 1.0, 1.0)
    mixed = improvement(np.array([[9.0, 0.0]] * 3), np.array([[1.0, 1.0]] * 5), rng())
    assert mixed.value == pytest.approx(0.5)  # better on one task, worse on the other


def test_quartiles() -> None:
    assert quartiles([5.0, 1.0, 2.0, 3.0, 4.0]) == (2.0, 3.0, 4.0)


def curve(*scores: float) -> list[tuple[int, float]]:
    return [(100 * i, score) for i, score in enumerate(scores)]


def test_steps_to_the_threshold() -> None:
    assert steps_to(curve(0.0, 0.7, 0.8, 0.9, 0.9)) == 100  # .7, .8, .9: a mean of .8
    assert steps_to(curve(0.9, 0.9, 0.9, 0.1, 0.9, 0.9, 0.9)) == 400  # it has to stay there
    assert steps_to(curve(0.8, 0.8, 0.8)) == 0  # exactly .8 counts, whatever its binary form
    assert steps_to(curve(0.0, 0.2, 0.4, 0.6)) is None
    assert steps_to(curve(1.0, 1.0, 1.0, 0.0)) is None
    assert steps_to(curve(1.0, 1.0)) is None  # too few evaluations to tell
    assert steps_to(curve(0.0, 0.2, 0.4, 0.6), threshold=0.4) == 100


def test_ratio_of_steps() -> None:
    sooner = steps_ratio([100, 200, 300], [400, 400, 400], 500, rng())
    assert sooner.value == pytest.approx(0.5)
    assert (sooner.low, sooner.high) == (pytest.approx(0.25), pytest.approx(0.75))
    assert steps_ratio([0, 0, 0], [0, 0, 0], 500, rng()).value == 1.0


def test_censored_runs_widen_the_interval() -> None:
    # the baseline never gets there: the arm is at least so much sooner, how much cannot be told
    ahead = steps_ratio([100, 100, 100], [None, None, None], 400, rng())
    assert ahead.value is None and ahead.low == 0.0 and ahead.high == pytest.approx(0.25)
    # the arm never gets there: no upper end
    behind = steps_ratio([None, None, None], [100, 100, 100], 400, rng())
    assert behind.value is None and behind.low == pytest.approx(4.0) and behind.high == np.inf
    # some do: left out they would have made it .5 for sure
    some = steps_ratio([100, 100, 100, None, None], [200, 200, 200, 200, 200], 400, rng())
    assert some.value == pytest.approx(0.5) and some.high == np.inf
    neither = steps_ratio([None] * 3, [None] * 3, 400, rng())
    assert neither.value is None and neither.low == 0.0 and neither.high == np.inf
    assert steps_ratio([], [100], 400, rng()) == Interval(None, None, None)


def test_written() -> None:
    assert str(Interval(0.5, 0.25, float("inf"))) == "0.50 (0.25 to inf)"
    assert str(Interval(None, 0.0, 0.25)) == "? (0.00 to 0.25)"
    assert str(Interval(None, None, None)) == "not known"
