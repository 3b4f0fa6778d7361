"""SynthER: what it learns from, what it says, and that it says the same after a kill and on another day."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pixeltraj import diffuser as module
from pixeltraj.checkpoint import Checkpoint
from pixeltraj.diffuser import statistics
from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.synther import (
    CONFIG,
    WEIGHTS,
    Synther,
    SyntherConfig,
    digest,
    trajectories,
    transitions,
    vectors,
)
from pixeltraj.replay_buffer import Batch
from pixeltraj.store import Store
from pixeltraj.tasks import get_task

SMALL = SyntherConfig(steps=40, width=16, depth=2, batch=32, num_inference_steps=4)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def data(store: Store) -> Batch:
    return transitions(store, store.split()[0])


@pytest.fixture
def fitted(store: Store, data: Batch) -> Synther:
    synther = Synther(store.task, SMALL)
    synther.fit(data)
    return synther


def same(one: Batch, other: Batch) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_transitions_are_those_of_the_episodes_and_cross_none_of_their_ends(store: Store) -> None:
    training, _ = store.split()
    expected = Batch.of(store.trajectory(e) for e in training)
    assert same(transitions(store, training), expected)
    assert digest(transitions(store, training[:-1])) != digest(expected)


def test_whitening_inverts_and_leaves_the_terminal_and_what_never_changes(store: Store, data: Batch) -> None:
    rows = vectors(data)
    rows[:, 3] = 0.7  # never changes
    diffuser = Synther(store.task, SMALL).diffuser
    diffuser.mean, diffuser.std = statistics(rows)
    whitened = diffuser.whiten(rows)
    np.testing.assert_allclose(diffuser.unwhiten(whitened), rows, atol=1e-6)
    fixed = np.ptp(rows, axis=0) == 0
    assert fixed[3] and fixed.sum() < 6 and not whitened[:, fixed].any()
    changing = whitened[:, ~fixed][:, :-1].numpy()
    np.testing.assert_allclose(changing.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(changing.std(axis=0), 1, atol=1e-3)
    assert set(whitened[:, -1].tolist()) == {0.0, 1.0}
    np.testing.assert_allclose(diffuser.unwhiten(torch.randn(5, diffuser.size))[:, 3], 0.7, atol=1e-6)


def test_it_learns_means_deviations_and_what_goes_together(store: Store, data: Batch) -> None:
    synther = Synther(store.task, SyntherConfig(steps=500, width=128, depth=2, lr=1e-3, num_inference_steps=16))
    synther.fit(data)
    sampled = synther.sample(500, generator())
    real, said = (synther.diffuser.whiten(vectors(rows)) for rows in (data, sampled))
    moving = real.std(0) > 0
    moving[[21, -1]] = False  # reward and termination: rare
    assert float((said.mean(0) - real.mean(0)).abs().max()) < 0.3
    assert float(said.std(0)[moving].min()) > 0.6 and float(said.std(0)[moving].max()) < 1.4
    apart = np.abs(sampled.next_states[:, 7:14] - sampled.states[:, :7]).mean()  # the one is said to be the other
    shuffled = np.abs(sampled.next_states[::-1, 7:14] - sampled.states[:, :7]).mean()
    assert apart < 0.4 * shuffled


@pytest.mark.parametrize(("name", "reward", "terminal"), [("push-v3", 0.6, 0.0), ("HalfCheetah-v5", 0.4, 0.6)])
def test_numbers_become_transitions(name: str, reward: float, terminal: float) -> None:
    task = get_task(name)
    synther = Synther(task, SMALL)
    synther.diffuser.step = 1
    values = np.linspace(-3, 3, synther.size, dtype=np.float32)
    values[task.state_size : task.state_size + 2] = 1.7, -0.2
    values[task.state_size + task.action_size], values[-1] = reward, terminal
    synther.diffuser.mean, synther.diffuser.std = torch.from_numpy(values), torch.zeros(synther.size)
    batch = synther.sample(3, generator())
    assert (batch.actions[:, 0] == 1).all() and np.allclose(batch.actions[:, 1], -0.2)
    assert batch.terminations.all() and batch.imagined.all()
    np.testing.assert_array_equal(batch.rewards, np.full(3, 1.0 if task.reward == "sparse" else reward, np.float32))
    synther.diffuser.mean[[task.state_size + task.action_size, -1]] = 0.4
    assert not synther.sample(3, generator()).terminations.any()
    for trajectory in trajectories(batch, task):
        trajectory.check(task)
        assert len(trajectory) == 1 and not trajectory.truncations.any()


def test_a_killed_fit_ends_like_an_unbroken_one(
    store: Store, data: Batch, fitted: Synther, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Checkpoint):
        def save(self, step: int, **states: object) -> None:
            super().save(step, **states)
            if step == 20:
                raise KeyboardInterrupt

    monkeypatch.setattr(module, "CHECKPOINT_EVERY", 10)
    with pytest.raises(KeyboardInterrupt):
        Synther(store.task, SMALL).fit(data, Killed(tmp_path / "fit", {}))
    resumed = Synther(store.task, SMALL)
    resumed.fit(data, Checkpoint(tmp_path / "fit", {}))
    fitted.save(tmp_path / "whole")
    resumed.save(tmp_path / "resumed")
    whole, again = (tmp_path / name / WEIGHTS for name in ("whole", "resumed"))
    assert whole.read_bytes() == again.read_bytes()
    assert resumed.about == fitted.about


def test_what_is_saved_samples_alike_and_is_fitted_further_alike(fitted: Synther, data: Batch, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    loaded = Synther.load(tmp_path, get_task("push-v3"))
    before = fitted.sample(8, generator())
    assert same(before, loaded.sample(8, generator())) and loaded.about == fitted.about
    fitted.fit(data)
    loaded.fit(data)
    assert fitted.diffuser.step == loaded.diffuser.step == 80
    after = fitted.sample(8, generator())
    assert same(after, loaded.sample(8, generator())) and not same(before, after)


def test_what_cannot_be_is_refused(fitted: Synther, data: Batch, tmp_path: Path) -> None:
    with pytest.raises(PixeltrajError, match="no transitions to learn from"):
        fitted.fit(data.at(np.arange(0)))
    with pytest.raises(PixeltrajError, match="1 is the least"):
        fitted.sample(0, generator())
    with pytest.raises(PixeltrajError, match="fit it first"):
        Synther(fitted.task, SMALL).sample(1, generator())
    with pytest.raises(PixeltrajError, match="--steps and --batch"):
        Synther(fitted.task, SyntherConfig(steps=0))
    with pytest.raises(PixeltrajError, match="denoising steps are too few"):
        Synther(fitted.task, SyntherConfig(num_inference_steps=1))
    with pytest.raises(PixeltrajError, match="smaller --lr"):
        Synther(fitted.task, SyntherConfig(steps=20, width=16, depth=2, lr=1e30)).fit(data)
    with pytest.raises(PixeltrajError, match="no SynthER model"):
        Synther.load(tmp_path)
    fitted.save(tmp_path)
    with pytest.raises(PixeltrajError, match="is of push-v3, not Hopper-v5"):
        Synther.load(tmp_path, get_task("Hopper-v5"))
    (tmp_path / WEIGHTS).write_bytes(b"damaged")
    with pytest.raises(PixeltrajError, match="train it again"):
        Synther.load(tmp_path)
    assert (tmp_path / CONFIG).exists()
