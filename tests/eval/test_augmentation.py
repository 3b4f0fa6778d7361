"""S4RL: each kind changes what it says, by as much as it says, and nothing else; an arm passes it to its agent."""

from pathlib import Path

import numpy as np
import pytest

from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.agents.agent import no_data
from pixeltraj.eval.agents.rlpd import RLPDConfig
from pixeltraj.eval.arm import Arm
from pixeltraj.eval.augmentation import KINDS, Augmentation, Augmenter, Kind
from pixeltraj.eval.run import Course, Run
from pixeltraj.replay_buffer import Batch
from pixeltraj.store import Store

SIZE, ROWS = 4, 4000


@pytest.fixture
def batch() -> Batch:
    """States about (0, 10, 0, 5), which vary by 1, 2, 0.1 and not at all."""
    rng, flags = np.random.default_rng(0), np.arange(ROWS) % 3 == 0
    center, width = np.array([0, 10, 0, 5]), np.array([1, 2, 0.1, 0])
    states, following = ((center + width * rng.standard_normal((ROWS, SIZE))).astype(np.float32) for _ in range(2))
    actions = rng.uniform(-1, 1, (ROWS, 2)).astype(np.float32)
    return Batch(states, actions, actions[:, 0], following, flags, ~flags)


def augmenter(batch: Batch, kind: Kind, **options: float) -> Augmenter:
    return Augmentation(kind, **options).of(batch)


@pytest.mark.parametrize("kind", KINDS)
def test_only_states_change_by_draws_that_the_generator_decides(batch: Batch, kind: Kind) -> None:
    change = augmenter(batch, kind)
    before = [column.copy() for column in batch[:6]]
    after, again, other = (change(batch, np.random.default_rng(seed)) for seed in (0, 0, 1))
    for name in ("actions", "rewards", "terminations", "imagined"):
        assert getattr(after, name) is getattr(batch, name)
    for column, was in zip(batch[:6], before, strict=True):
        np.testing.assert_array_equal(column, was)
    np.testing.assert_array_equal(after.states, again.states)
    np.testing.assert_array_equal(after.next_states, again.next_states)
    assert not np.array_equal(after.states, other.states) and not np.array_equal(after.states, batch.states)
    assert after.states.dtype == after.next_states.dtype == np.float32
    assert np.array_equal(after.next_states, batch.next_states) == (kind == "mixup")


def test_noise_is_measured_by_how_each_dimension_varies(batch: Batch) -> None:
    deviation = batch.states.std(axis=0)
    noisy = augmenter(batch, "gaussian", sigma=0.1)(batch, np.random.default_rng(0))
    np.testing.assert_allclose((noisy.states - batch.states).std(axis=0), 0.1 * deviation, rtol=0.05, atol=1e-6)
    np.testing.assert_array_equal(noisy.states[:, 3], batch.states[:, 3])
    shift = augmenter(batch, "uniform", alpha=0.1)(batch, np.random.default_rng(0)).states - batch.states
    np.testing.assert_allclose(np.abs(shift).max(axis=0), 0.1 * deviation, rtol=0.02, atol=1e-5)
    np.testing.assert_allclose(shift.std(axis=0), 0.1 * deviation / np.sqrt(3), rtol=0.05, atol=1e-6)


def test_scaling_is_by_one_number_a_state_from_the_mean(batch: Batch) -> None:
    change = augmenter(batch, "scaling", low=0.5, high=2.0)
    scaled = change(batch, np.random.default_rng(0))
    factor = (scaled.states - change.mean)[:, :2] / (batch.states - change.mean)[:, :2]
    clear = (np.abs(batch.states - change.mean)[:, :2] > 0.1).all(axis=1)
    np.testing.assert_allclose(factor[clear, 0], factor[clear, 1], rtol=1e-3)
    assert factor[clear].min() > 0.499 and factor[clear].max() < 2.001 and np.ptp(factor[clear, 0]) > 1.4


def test_dropout_sets_one_dimension_to_its_mean(batch: Batch) -> None:
    change = augmenter(batch, "dropout")
    dropped = change(batch, np.random.default_rng(0)).states
    changed = dropped != batch.states
    assert changed.sum(axis=1).max() == 1
    np.testing.assert_array_equal(dropped[changed], np.broadcast_to(change.mean, dropped.shape)[changed])
    assert (np.abs(changed[:, :3].mean(axis=0) - 1 / SIZE) < 0.05).all()


def test_switch_exchanges_two_dimensions(batch: Batch) -> None:
    switched = augmenter(batch, "switch")(batch, np.random.default_rng(0)).states
    assert ((switched != batch.states).sum(axis=1) == 2).all()
    np.testing.assert_array_equal(np.sort(switched, axis=1), np.sort(batch.states, axis=1))


def test_mixup_lies_between_the_state_and_the_next(batch: Batch) -> None:
    mixed = augmenter(batch, "mixup")(batch, np.random.default_rng(0)).states
    share = (mixed - batch.next_states)[:, 1] / (batch.states - batch.next_states)[:, 1]
    clear = np.abs(batch.states - batch.next_states)[:, 1] > 0.1
    assert -0.01 < share[clear].min() < 0.05 and 0.95 < share[clear].max() < 1.01
    expected = share[:, None] * batch.states + (1 - share[:, None]) * batch.next_states
    np.testing.assert_allclose(mixed[clear], expected[clear], atol=1e-2)


def test_an_arm_shows_its_agent_changed_states_and_the_same_rows(
    store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Batch] = {}
    for name, augment in (("plain", None), ("noisy", Augmentation(sigma=0.1))):
        arm = Arm(name, config=RLPDConfig(hidden=8, batch=8), stores=(store_path,), augment=augment)
        run = Run(Course(), "push-v3", arm, 0, tmp_path / name)
        monkeypatch.setattr(run.agent, "update", lambda batch, cloned=None, name=name: seen.update({name: batch}))
        run._update(offline=True)
    plain, noisy = seen["plain"], seen["noisy"]
    np.testing.assert_array_equal(plain.actions, noisy.actions)
    rows = Store.open(store_path).read("states", 0, 10_000)
    assert all((rows == state).all(axis=1).any() for state in plain.states)
    assert not any((rows == state).all(axis=1).any() for state in noisy.states)
    assert np.abs(noisy.states - plain.states).max() < 0.1


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(PixeltrajError, match="choose of gaussian, uniform"):
        Arm("odd", augment=Augmentation("blur")).check()  # type: ignore[arg-type]
    with pytest.raises(PixeltrajError, match="0 < low <= high"):
        Augmentation("scaling", low=1.3).check()
    with pytest.raises(PixeltrajError, match="give it stores"):
        Arm("bare", augment=Augmentation()).check()
    with pytest.raises(PixeltrajError, match="give the arm stores"):
        Augmentation().of(no_data(3, 2))
