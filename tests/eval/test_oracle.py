"""The oracle: its transitions are the simulator's, its actions the scripted policy's."""

import numpy as np
import pytest

from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.oracle import Oracle
from pixeltraj.store import Store
from pixeltraj.tasks import get_task


def test_its_transitions_are_the_simulators_from_the_given_state(store: Store) -> None:
    episode = store.trajectory(0)
    assert episode.snapshots is not None
    imagine = Oracle(length=3, noise=0.2)(store.task)
    at = [2, 9]
    trajectories = imagine(episode.states[at], episode.snapshots[at], 5)
    simulator = store.task.make()
    simulator.reset(seed=1)
    for trajectory, row in zip(trajectories, at, strict=True):
        trajectory.check(store.task)
        assert len(trajectory) == 3
        np.testing.assert_array_equal(trajectory.states[0], episode.states[row])
        simulator.restore(episode.snapshots[row])
        for t, action in enumerate(trajectory.actions):
            wanted = simulator.scripted_action()
            assert wanted is not None and 0 < np.abs(action - wanted).max() < 1.0
            state, reward, *_ = simulator.step(action)
            np.testing.assert_array_equal(state, trajectory.states[t + 1])
            assert reward == trajectory.rewards[t]
    again = imagine(episode.states[at], episode.snapshots[at], 5)
    np.testing.assert_array_equal(again[1].states, trajectories[1].states)


def test_without_noise_it_solves_the_task_and_ends_there(store: Store) -> None:
    episode = store.trajectory(0)
    assert episode.snapshots is not None and episode.terminations[-1]
    (trajectory,) = Oracle(length=50, noise=0.0)(store.task)(episode.states[-4:-3], episode.snapshots[-4:-3], 0)
    assert 1 <= len(trajectory) < 50
    assert trajectory.terminations.tolist() == [False] * (len(trajectory) - 1) + [True]
    assert trajectory.rewards.sum() == trajectory.rewards[-1] == 1


def test_where_there_is_no_scripted_policy_there_is_no_oracle() -> None:
    with pytest.raises(PixeltrajError, match="Hopper-v5 ships no scripted policy"):
        Oracle()(get_task("Hopper-v5"))
    with pytest.raises(PixeltrajError, match="length >= 1"):
        Oracle(length=0)(get_task("push-v3"))
