"""Coverage: copies, a collapsed generator and one that misses a part are each seen in their own measure."""

from typing import Any

import numpy as np
import pytest

from pixeltraj.decode.coverage import Windows, coverage, distances, padded
from pixeltraj.trajectory import Trajectory

SPAN = np.array([1.0, 2.0, 0.0])


def windows(rng: np.random.Generator, count: int, episodes: int = 8) -> Windows:
    states = rng.uniform(0, 1, (count, 1, 3)) * [1.0, 2.0, 0.0] + np.linspace(0, 0.2, 4)[:, None]
    return Windows(states.astype(np.float32), np.arange(count) % episodes if episodes else np.full(count, -1))


def measured(imagined: Windows | None = None) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    heldout, training = windows(rng, 160), windows(rng, 400)
    made = windows(rng, 160, 0) if imagined is None else imagined
    found = coverage(made, heldout, training, SPAN, np.random.default_rng(1))
    assert found is not None
    return found


def test_the_same_distribution_covers_itself() -> None:
    found = measured()
    assert found["coverage"] > 0.9 and found["density"] == pytest.approx(1, abs=0.2)
    assert found["real"]["coverage"] > 0.9 and found["diversity"] == pytest.approx(1, abs=0.1)
    assert found["copied"] < 0.15


def test_copies_are_called_copies() -> None:
    rng = np.random.default_rng(0)
    windows(rng, 160)
    training = windows(rng, 400)
    found = measured(Windows(training.states[:100], np.full(100, -1)))
    assert found["copied"] == 1 and found["nearest_training"] == pytest.approx(0, abs=1e-4)


def test_a_collapsed_generator_lacks_diversity_and_coverage() -> None:
    found = measured(Windows(np.repeat(windows(np.random.default_rng(5), 1).states, 50, axis=0), np.full(50, -1)))
    assert found["diversity"] == pytest.approx(0, abs=1e-4) and found["coverage"] < 0.2


def test_far_away_is_covered_by_nothing() -> None:
    away = windows(np.random.default_rng(5), 50)
    found = measured(Windows(away.states + 5, away.episodes))
    assert found["coverage"] == found["density"] == 0 and found["nearest_training"] > 100


def test_nothing_of_its_own_episode_is_covered() -> None:
    rng = np.random.default_rng(0)
    heldout = windows(rng, 160)
    same = measured(Windows(heldout.states, np.arange(160) % 8))
    assert same["density"] < measured(Windows(heldout.states, np.full(160, -1)))["density"]
    assert coverage(heldout, Windows(heldout.states, np.zeros(160)), heldout, SPAN, rng) is None


def test_distances_are_in_percent_of_the_range() -> None:
    a, b = (np.array(x, dtype=np.float64).reshape(1, 1, 3) for x in ([0, 0, 0], [0.1, 0.2, 9]))
    from pixeltraj.decode.coverage import _scaled

    assert distances(_scaled(a, SPAN), _scaled(b, SPAN)) == pytest.approx(10)


def test_short_trajectories_stand_still_at_their_end() -> None:
    steps = 2
    trajectory = Trajectory(
        states=np.arange(3 * 2, dtype=np.float32).reshape(3, 2),
        actions=np.zeros((steps, 1), np.float32),
        rewards=np.zeros(steps, np.float32),
        terminations=np.zeros(steps, bool),
        truncations=np.zeros(steps, bool),
        keypoints=np.zeros((3, 1, 3), np.float32),
    )
    assert padded([trajectory], 5)[0, :, 0].tolist() == [0, 2, 4, 4, 4]
    assert padded([trajectory], 2)[0, :, 0].tolist() == [0, 2]
