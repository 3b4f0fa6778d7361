"""Meta-World, all fifty tasks: each is seen, repeated, restored, read back, set from its observation, and solved."""

from dataclasses import dataclass

import numpy as np
import pytest

from pixeltraj.errors import PixeltrajError
from pixeltraj.tasks import get_task
from pixeltraj.tasks.metaworld import TASKS, MetaWorldSimulator

HELD_BACK = ("button-press-topdown-v3", "peg-insert-side-v3", "soccer-v3")
"""The arm presses on against what it cannot move, which pulls it off its mocap."""

SECOND_OBJECT = ("hammer-v3", "stick-push-v3", "stick-pull-v3")
"""They are solved by something that the state does not have."""
TILTED = ("reach-v3", "reach-wall-v3", "assembly-v3")
"""They are solved by a point that stands 2 mm elsewhere where hand or wrench tilts, which the state does not tell."""


@dataclass
class Episode:
    simulator: MetaWorldSimulator
    states: np.ndarray
    keypoints: np.ndarray
    observations: np.ndarray
    snapshots: np.ndarray
    solved: bool


def play(simulator: MetaWorldSimulator, seed: int) -> Episode:
    """The suite's demonstrator, with noise, to its first success."""
    rng = np.random.default_rng([seed, 1])
    states = [simulator.reset(seed=seed)[0]]
    rows = [(simulator.keypoints(), simulator.observation(), simulator.snapshot())]
    terminated = truncated = False
    while not terminated and not truncated:
        action = simulator.scripted_action() + 0.1 * rng.standard_normal(4)
        state, _, terminated, truncated, _ = simulator.step(action)
        states.append(state)
        rows.append((simulator.keypoints(), simulator.observation(), simulator.snapshot()))
    keypoints, observations, snapshots = (np.array(column) for column in zip(*rows))
    return Episode(simulator, np.array(states), keypoints, observations, snapshots, terminated)


@pytest.fixture(scope="module", params=TASKS, ids=lambda task: task.name)
def episode(request: pytest.FixtureRequest) -> Episode:
    """The first of a few that is solved; without one, the last."""
    simulator = request.param.make()
    for seed in range(4):
        one = play(simulator, seed)
        if one.solved:
            break
    return one


def test_the_demonstrator_solves_it(episode: Episode) -> None:
    assert episode.solved


def test_the_state_is_the_environments_own_observation_and_is_read_from_keypoints(episode: Episode) -> None:
    states, seen = episode.states, episode.observations
    np.testing.assert_allclose(states[:, :7], seen[:, :7], atol=1e-6)
    np.testing.assert_allclose(states[:, 14:], seen[:, 36:], atol=1e-6)
    read = episode.simulator.task.state_from_keypoints(episode.keypoints[None], states[None, 0])[0]
    np.testing.assert_allclose(read, states, atol=1e-5)
    np.testing.assert_array_equal(np.ptp(states[:, 14:], axis=0), 0)


def test_it_is_restored_exactly_after_another_episode_and_goes_on_alike(episode: Episode) -> None:
    simulator, middle = episode.simulator, len(episode.states) // 2
    action = np.array([0.3, -0.2, 0.1, 1.0])
    simulator.restore(episode.snapshots[middle])
    expected = simulator.step(action)[:3], simulator.snapshot()
    simulator.reset(seed=77)
    simulator.restore(episode.snapshots[middle])
    np.testing.assert_array_equal(simulator.state(), episode.states[middle])
    np.testing.assert_array_equal(simulator.keypoints(), episode.keypoints[middle])
    np.testing.assert_array_equal(simulator.observation(), episode.observations[middle])
    np.testing.assert_array_equal(simulator.snapshot(), episode.snapshots[middle])
    outcome = simulator.step(action)[:3], simulator.snapshot()
    np.testing.assert_array_equal(outcome[0][0], expected[0][0])
    assert outcome[0][1:] == expected[0][1:]
    np.testing.assert_array_equal(outcome[1], expected[1])


def test_it_is_set_from_its_observation(episode: Episode) -> None:
    simulator, hand = episode.simulator, []
    for wanted in episode.observations[:: max(1, len(episode.observations) // 5)]:
        simulator.reset(seed=78)
        simulator.set_observation(wanted)
        reached = simulator.observation()
        hand.append(np.linalg.norm(reached[:3] - wanted[:3]))
        assert abs(reached[3] - wanted[3]) < 0.01, "gripper"
        np.testing.assert_allclose(reached[4:18], wanted[4:18], atol=5e-4)
        np.testing.assert_allclose(reached[18:], wanted[18:], atol=1e-5)
    assert np.median(hand) < 0.001
    assert max(hand) < (0.025 if simulator.task.name in HELD_BACK else 0.007)


def test_its_state_tells_when_it_is_solved(episode: Episode) -> None:
    simulator, states = episode.simulator, episode.states
    outcome, name = simulator.task.outcome, simulator.task.name
    if outcome is None:
        assert name in SECOND_OBJECT
        return
    rewards, over = outcome(states[:-1], np.zeros((len(states) - 1, 4)), states[1:])
    np.testing.assert_array_equal(rewards, over)
    if name not in TILTED:
        np.testing.assert_array_equal(np.flatnonzero(over), [len(states) - 2])
        return
    assert not over[:-2].any()
    simulator.restore(episode.snapshots[-1])
    for _ in range(3):
        simulator.step(simulator.scripted_action())
    assert outcome(states[-1:], np.zeros((1, 4)), simulator.state()[None])[1]


def test_it_starts_anew_each_time_whatever_went_before(episode: Episode) -> None:
    simulator = episode.simulator
    simulator.reset(seed=5)
    first = simulator.state(), simulator.snapshot()
    simulator.reset(seed=6)
    assert not np.array_equal(simulator.state(), first[0])
    simulator.reset(seed=5)
    np.testing.assert_array_equal(simulator.state(), first[0])
    np.testing.assert_array_equal(simulator.snapshot(), first[1])


def test_there_are_fifty_of_one_camera_and_one_state_with_a_prompt_each() -> None:
    assert len({task.name for task in TASKS}) == len({task.prompt for task in TASKS}) == 50
    assert len({(task.camera, task.state) for task in TASKS}) == 1


def test_observations_that_tell_too_little_are_refused() -> None:
    simulator = get_task("push-v3").make()
    simulator.reset(seed=0)
    seen = simulator.observation()
    with pytest.raises(PixeltrajError, match="39 finite numbers"):
        simulator.set_observation(seen[:17])
    with pytest.raises(PixeltrajError, match="hidden"):
        simulator.set_observation(np.r_[seen[:36], 0.0, 0.0, 0.0])
    with pytest.raises(PixeltrajError, match="another's"):
        simulator.set_observation(np.r_[seen[:36], 0.1, 0.8, 0.9])
