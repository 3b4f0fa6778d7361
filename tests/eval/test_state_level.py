"""State level: what a row is, that trajectories hang together and begin where they are told to, and resume."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pixeltraj import diffuser as module
from pixeltraj.checkpoint import Checkpoint
from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.state_level import (
    CONFIG,
    WEIGHTS,
    StateLevel,
    StateLevelConfig,
    StateLevelImagine,
    row_parts,
    window_rows,
)
from pixeltraj.eval.synther import transitions, vectors
from pixeltraj.store import Store
from pixeltraj.task import Task
from pixeltraj.tasks import get_task
from pixeltraj.trajectory import Trajectory

SMALL = StateLevelConfig(k=4, condition=True, steps=20, width=16, depth=8, batch=16, num_inference_steps=4)
TASK = get_task("Hopper-v5")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def system(count: int, k: int = 4, task: Task = TASK, seed: int = 0) -> np.ndarray:
    """Rows of a world in which the next state is the last one plus the first action; dense rewards are its mean."""
    rng = np.random.default_rng(seed)
    states = rng.uniform(-1, 1, (count, 1, task.state_size))
    actions = rng.uniform(-1, 1, (count, k - 1, task.action_size))
    for t in range(k - 1):
        states = np.concatenate([states, states[:, -1:] + actions[:, t : t + 1, :1]], axis=1)
    rewards = states[:, 1:].mean(axis=2)[:, : row_parts(task, k)[2]]
    parts = states, actions, rewards, np.zeros((count, k - 1))
    flat = [part.reshape(count, int(np.prod(part.shape[1:]))) for part in parts]
    return np.concatenate(flat, axis=1, dtype=np.float32)


def same(one: list[Trajectory], other: list[Trajectory]) -> bool:
    return all(np.array_equal(a.states, b.states) and np.array_equal(a.actions, b.actions) for a, b in zip(one, other))


@pytest.fixture(scope="module")
def fitted() -> StateLevel:
    level = StateLevel(TASK, SMALL)
    level.fit(system(50))
    return level


def test_a_row_is_a_window_of_the_store_and_the_task_stays_over(store: Store) -> None:
    training, _ = store.split()
    k, size = 5, store.task.state_size
    rows = window_rows(store, k, training)
    assert len(rows) == sum(store.episodes[e]["transitions"] for e in training)
    states, actions, _, over = np.split(rows, np.cumsum(row_parts(store.task, k))[:-1], axis=1)
    episode = store.trajectory(training[0])
    last = len(episode) - 2  # two transitions before the end
    np.testing.assert_array_equal(states[last].reshape(k, size)[:3], episode.states[last:])
    np.testing.assert_array_equal(states[last].reshape(k, size)[3:], episode.states[[-1, -1]])
    np.testing.assert_array_equal(actions[last].reshape(k - 1, -1)[:2], episode.actions[last:])
    assert not actions[last].reshape(k - 1, -1)[2:].any()
    assert over[last].tolist() == [0, 1, 1, 1] and not over[0].any()


def test_of_two_frames_it_is_synthers_transition_but_for_the_order(store: Store) -> None:
    training, _ = store.split()
    rows, ours = vectors(transitions(store, training)), window_rows(store, 2, training)
    s, a = store.task.state_size, store.task.action_size
    np.testing.assert_array_equal(ours[:, :s], rows[:, :s])
    np.testing.assert_array_equal(ours[:, s : 2 * s], rows[:, s + a + 1 : -1])
    np.testing.assert_array_equal(ours[:, 2 * s : -1], rows[:, s : s + a])
    np.testing.assert_array_equal(ours[:, -1], rows[:, -1])


def test_it_learns_how_states_follow_each_other_from_a_start_that_is_kept() -> None:
    task = get_task("PointMaze_UMaze-v3")
    config = StateLevelConfig(
        k=3, condition=True, steps=500, width=128, depth=2, lr=3e-3, ema=0.99, num_inference_steps=12
    )
    level = StateLevel(task, config)
    level.fit(system(4000, 3, task))
    starts = system(100, 3, task, seed=1)[:, : task.state_size]
    trajectories = level.sample_from(starts, generator())
    states, actions = (np.stack([getattr(t, name) for t in trajectories]) for name in ("states", "actions"))
    np.testing.assert_array_equal(states[:, 0], starts)
    error = np.abs(states[:, 1:] - states[:, :-1] - actions[..., :1]).mean()
    still = np.abs(states[:, 1:] - states[:, :-1]).mean()
    assert error < 0.3 * still, (error, still)
    assert actions.std() > 0.4, "the actions of the data are uniform in [-1, 1]"
    assert not any(t.terminations.any() for t in trajectories)


@pytest.mark.parametrize("name", ["push-v3", "HalfCheetah-v5"])
def test_numbers_become_trajectories_that_end_with_the_task(name: str) -> None:
    task = get_task(name)
    level = StateLevel(task, StateLevelConfig(k=4, width=8, depth=2, num_inference_steps=2))
    values = np.zeros(sum(level.parts), np.float32)
    values[: level.parts[0]] = np.repeat(np.arange(4.0), task.state_size)
    values[level.parts[0] : sum(level.parts[:2])] = 1.7
    if task.reward == "dense":
        values[sum(level.parts[:2]) : -3] = 0.3
    values[-3:] = 0.2, 0.6, 0.4
    level.diffuser.step = 1
    level.diffuser.mean, level.diffuser.std = torch.from_numpy(values), torch.zeros(len(values))
    for trajectory in level.sample(2, generator()):
        trajectory.check(task)
        assert trajectory.states[:, 0].tolist() == [0, 1, 2] and (trajectory.actions == 1).all()
        assert trajectory.terminations.tolist() == [False, True] and not trajectory.truncations.any()
        paid = [0, 1] if task.reward == "sparse" else [0.3, 0.3]
        np.testing.assert_array_equal(trajectory.rewards, np.array(paid, np.float32))
    level.diffuser.mean[-2] = 0.4
    assert [len(t) for t in level.sample(2, generator())] == [3, 3]


def test_a_killed_fit_ends_like_an_unbroken_one(
    fitted: StateLevel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Checkpoint):
        def save(self, step: int, **states: object) -> None:
            super().save(step, **states)
            if step == 10:
                raise KeyboardInterrupt

    monkeypatch.setattr(module, "CHECKPOINT_EVERY", 5)
    with pytest.raises(KeyboardInterrupt):
        StateLevel(TASK, SMALL).fit(system(50), Killed(tmp_path / "fit", {}))
    resumed = StateLevel(TASK, SMALL)
    resumed.fit(system(50), Checkpoint(tmp_path / "fit", {}))
    fitted.save(tmp_path / "whole")
    resumed.save(tmp_path / "resumed")
    whole, again = (tmp_path / name / WEIGHTS for name in ("whole", "resumed"))
    assert whole.read_bytes() == again.read_bytes() and resumed.about == fitted.about


def test_what_is_saved_imagines_alike_inside_the_loop(fitted: StateLevel, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    starts = system(6)[:, : TASK.state_size]
    imagine = StateLevelImagine(tmp_path)(TASK)
    said = imagine(starts, np.empty((6, 0)), 7)
    assert same(said, fitted.sample_from(starts, generator(7)))
    assert not same(said, imagine(starts, np.empty((6, 0)), 8))
    assert [t.states[0].tolist() for t in said] == starts.tolist()


def test_what_cannot_be_is_refused(fitted: StateLevel, tmp_path: Path) -> None:
    with pytest.raises(PixeltrajError, match="takes 2 frames"):
        StateLevel(TASK, StateLevelConfig(k=1))
    with pytest.raises(PixeltrajError, match="no window of 4 frames"):
        fitted.fit(system(1)[:0])
    with pytest.raises(PixeltrajError, match="given states"):
        fitted.sample(1, generator())
    with pytest.raises(PixeltrajError, match="has states of 11"):
        fitted.sample_from(np.zeros((1, 3), np.float32), generator())
    free = StateLevel(TASK, StateLevelConfig(k=4, steps=1, width=4, depth=2, num_inference_steps=2))
    with pytest.raises(PixeltrajError, match="fit it first"):
        free.sample(1, generator())
    with pytest.raises(PixeltrajError, match="with --condition"):
        free.sample_from(np.zeros((1, 11), np.float32), generator())
    free.save(tmp_path)
    with pytest.raises(PixeltrajError, match="without --condition"):
        StateLevelImagine(tmp_path)(TASK)
    with pytest.raises(PixeltrajError, match="is of Hopper-v5, not push-v3"):
        StateLevelImagine(tmp_path)(get_task("push-v3"))
    assert (tmp_path / CONFIG).exists()
