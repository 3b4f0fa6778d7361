"""Length: the least preset that is enough, learned where it can be, refused where nothing tells."""

from pathlib import Path

import numpy as np
import pytest

from pixeltraj.errors import PixeltrajError
from pixeltraj.length import CONFIG, WEIGHTS, LengthConfig, LengthEstimator, examples, train_length
from pixeltraj.render.collect import CollectConfig, collect
from pixeltraj.store import Store
from pixeltraj.tasks import get_task


@pytest.fixture(scope="module")
def solved(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return collect(CollectConfig("push-v3", tmp_path_factory.mktemp("stores") / "push", episodes=15))


@pytest.fixture(scope="module")
def folder(solved: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("length") / "push"
    train_length(LengthConfig(solved.path, out, steps=200))
    return out


def test_examples_are_rounded_up_to_the_preset_with_room_for_what_is_left(solved: Store) -> None:
    states, presets, _ = examples(solved, [0], (5, 10, 25))
    transitions = solved.episodes[0]["transitions"]
    assert len(states) == transitions
    left = transitions - np.arange(transitions)
    expected = np.select([left <= 4, left <= 9], [0, 1], 2)
    np.testing.assert_array_equal(presets, expected)


def test_it_is_right_about_episodes_it_has_not_seen(folder: Path) -> None:
    metrics = LengthEstimator.load(folder).about["metrics"]
    assert metrics["states"] > 50
    assert metrics["right_preset"] > max(0.7, metrics["always_longest"] + 0.1)


def test_a_saved_estimator_says_the_same(folder: Path, solved: Store) -> None:
    states = solved.read("states", 0, 30)
    one, other = LengthEstimator.load(folder), LengthEstimator.load(folder, get_task("push-v3"))
    np.testing.assert_array_equal(one(states), other(states))
    assert set(one(states)) <= {5, 10, 15, 20, 25}
    np.testing.assert_allclose(one.probabilities(states).sum(axis=1), 1, atol=1e-5)


def test_episodes_that_ran_out_of_time_only_tell_that_the_longest_is_not_enough(tmp_path: Path) -> None:
    store = collect(CollectConfig("push-v3", tmp_path / "cut", policy="random", episodes=5, max_steps=30))
    states, presets, _ = examples(store, [0], (5, 10, 15))
    assert len(states) == 30 - 13 and set(presets) == {2}
    short = collect(CollectConfig("push-v3", tmp_path / "short", policy="random", episodes=5, max_steps=8))
    with pytest.raises(PixeltrajError, match="nothing tells how long push-v3 takes"):
        train_length(LengthConfig(short.path, tmp_path / "length", k=(10, 15)))


def test_what_does_not_fit_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(PixeltrajError, match="is of push-v3, not door-open-v3"):
        LengthEstimator.load(folder, get_task("door-open-v3"))
    with pytest.raises(PixeltrajError, match="states of 17"):
        LengthEstimator.load(folder)(np.zeros((2, 5), np.float32))
    with pytest.raises(PixeltrajError, match="no length estimator"):
        LengthEstimator.load(tmp_path)
    (tmp_path / CONFIG).write_bytes((folder / CONFIG).read_bytes())
    (tmp_path / WEIGHTS).write_bytes(b"nothing")
    with pytest.raises(PixeltrajError, match="cannot be read"):
        LengthEstimator.load(tmp_path)
