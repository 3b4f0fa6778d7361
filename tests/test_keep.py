"""What is kept of imagined trajectories, against the definition of a share."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixeltraj.errors import PixeltrajError
from pixeltraj.keep import ALL, Keep, Tally, ranked
from pixeltraj.trajectory import Trajectory


def trajectory(steps: int, mark: int = 0) -> Trajectory:
    never = np.zeros(steps, bool)
    states = np.full((steps + 1, 2), mark, np.float32)
    zeros = np.zeros((steps, 1), np.float32)
    return Trajectory(states, zeros, never.astype(np.float32), never, never, np.zeros((steps + 1, 1, 3)))


@settings(max_examples=50, deadline=None)
@given(
    share=st.floats(0.01, 0.99), lengths=st.lists(st.integers(1, 6), min_size=1, max_size=8), seed=st.integers(0, 99)
)
def test_so_many_are_kept_and_of_each_trajectory_its_beginning(share: float, lengths: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = [rng.integers(0, 4, n).astype(float) for n in lengths]  # few values: many are equal
    counts, _ = Keep(cycle=share).judge({"cycle": scores})
    assert sum(counts) == int(np.ceil(share * sum(lengths) - 1e-9))
    kept = Keep(cycle=share).apply([trajectory(n, i) for i, n in enumerate(lengths)], {"cycle": scores})
    assert [(int(t.states[0, 0]), len(t)) for t in kept] == [(i, n) for i, n in enumerate(counts) if n]
    worst = [np.maximum.accumulate(s) for s in scores]
    least_dropped = min((w[n] for w, n in zip(worst, counts) if n < len(w)), default=np.inf)
    assert all(w[:n].max(initial=0) <= least_dropped for w, n in zip(worst, counts)), "the worst are dropped"


def test_what_fails_is_dropped_and_all_that_follows_it() -> None:
    scores = [np.array([0.1, np.inf, 0.1]), np.array([0.2, 0.3, 0.4]), np.array([np.nan, 0.0, 0.0])]
    for weigh in (False, True):
        kept = Keep(audit=0.99, weigh=weigh).apply([trajectory(3, i) for i in range(3)], {"audit": scores})
        assert [(int(t.states[0, 0]), len(t)) for t in kept] == [(0, 1), (1, 3)]


def test_every_score_has_to_keep_it() -> None:
    scores = {"uncertainty": [np.arange(4.0)], "cycle": [np.array([0.0, 0.0, 9.0, 0.0])]}
    assert Keep(uncertainty=0.75, cycle=0.5).judge(scores)[0] == [2]
    assert Keep(uncertainty=0.25, cycle=0.5).judge(scores)[0] == [1]
    assert Keep(uncertainty=0.75).judge(scores)[0] == [3], "a score that is not wanted is not asked"


def test_weights_fall_with_the_rank_and_have_the_share_as_their_mean() -> None:
    scores = [np.sort(np.random.default_rng(i).random(25)) for i in range(40)]
    for share in (0.3, 0.5, 0.8):
        kept = Keep(cycle=share, weigh=True).apply([trajectory(25) for _ in scores], {"cycle": scores})
        weights = np.concatenate([t.weights for t in kept if t.weights is not None])
        assert len(weights) == 1000 and weights.min() > 0
        assert weights.mean() == pytest.approx(share, abs=0.01)
        assert (np.diff(weights[np.argsort(np.concatenate(scores))]) <= 0).all()


def test_all_is_kept_untouched_where_nothing_is_asked() -> None:
    given_ = [trajectory(2), trajectory(3)]
    kept = ALL.apply(given_, {})
    assert all(a is b for a, b in zip(kept, given_)) and len(kept) == 2 and not ALL.wanted
    assert Keep(cycle=0.5).apply([], {"cycle": []}) == []
    tally = Tally()
    tally.add(given_, given_[1:])
    assert str(tally) == "kept 3 of 5 transitions"


def test_equal_scores_are_ranked_from_the_start_on() -> None:
    worst, place = ranked([np.array([1.0, 0.0, 0.0]), np.array([1.0, 1.0, 1.0])])
    np.testing.assert_array_equal(worst, 1.0)
    assert place.reshape(2, 3).tolist() == [[0, 2, 4], [1, 3, 5]]


@pytest.mark.parametrize("bad", [{"cycle": 0.0}, {"audit": 1.1}, {"uncertainty": float("nan")}, {"cycle": -0.5}])
def test_shares_that_are_none_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(PixeltrajError, match=f"keep.{next(iter(bad))} is .*at most 1"):
        Keep(**bad)  # type: ignore[arg-type]
