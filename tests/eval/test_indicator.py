"""Indicators: what is kept stays current, what is drawn is what matters, and nothing serves for ever."""

import numpy as np
import pytest
import torch

from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.agents.agent import no_data
from pixeltraj.eval.agents.catalogue import make_agent
from pixeltraj.eval.agents.rlpd import RLPD, RLPDConfig
from pixeltraj.eval.arm import Arm
from pixeltraj.eval.experience import Episode, Experience
from pixeltraj.eval.indicator import Indicator, RewardIndicator, TDErrorIndicator, UniformIndicator
from pixeltraj.replay_buffer import Batch, ReplayBufferConfig

STATES, ACTIONS, SNAPSHOT = 3, 2, 7


def episode(length: int, seed: int, terminated: bool = False, reward: float | None = None) -> Episode:
    rng = np.random.default_rng(seed)
    snapshots = np.repeat(rng.normal(size=(1, SNAPSHOT)), length + 1, axis=0)
    snapshots[:, [1, 4]] = rng.normal(size=(length + 1, 2))
    rewards = rng.normal(size=length) if reward is None else np.full(length, reward)
    return Episode.of(
        rng.normal(size=(length + 1, STATES)).astype(np.float32),
        rng.uniform(-1, 1, (length, ACTIONS)).astype(np.float32),
        rewards.astype(np.float32),
        terminated,
        snapshots,
    )


@pytest.fixture
def agent() -> RLPD:
    config = RLPDConfig(hidden=8, batch=8, critics=2)
    made = make_agent("rlpd", no_data(STATES, ACTIONS), torch.Generator().manual_seed(0), config)
    assert isinstance(made, RLPD)
    return made


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def steps(samples) -> list[tuple[int, int]]:
    return [(sample.episode, sample.step) for sample in samples]


def errors(agent: RLPD, episodes: list[Episode]) -> dict[tuple[int, int], float]:
    """Of all transitions at once: the policy's actions are drawn for a whole batch."""
    batch = Batch(*map(np.concatenate, zip(*(one.batch(np.arange(len(one)))[:6] for one in episodes))))
    keys = [(i, step) for i, one in enumerate(episodes) for step in range(len(one))]
    return dict(zip(keys, agent.td_error(batch).tolist(), strict=True))


def test_snapshots_are_kept_whole_though_only_what_varies_is_stored() -> None:
    snapshots = np.repeat(np.arange(7.0)[None], 5, axis=0)
    snapshots[3:, 2] = np.nextafter(2.0, 3)
    kept = Episode.of(np.zeros((5, 3)), np.zeros((4, 2)), np.zeros(4), True, snapshots)
    assert kept.values.shape == (5, 1)
    np.testing.assert_array_equal(kept.snapshots(0, 5), snapshots)
    part = kept.part(2, 5)
    np.testing.assert_array_equal(part.snapshots(0, 3), snapshots[2:5])
    assert len(part) == 2 and part.terminated and not kept.part(1, 4).terminated


def test_td_errors_are_those_of_the_critic_as_it_is_now(agent: RLPD) -> None:
    episodes = [episode(6, seed, terminated=seed == 1) for seed in range(3)]
    indicator = TDErrorIndicator(capacity=100, drawn=5, drop=0.0)
    for one in episodes:
        indicator.add(one, agent, rng())
    before = errors(agent, episodes)
    assert steps(indicator.draw(agent, rng())) == sorted(before, key=lambda key: -before[key])[:5]
    batch = episodes[0].batch(np.arange(6))
    for _ in range(200):  # the critic learns one episode by heart, so what was unlikely there is so no longer
        agent.update(batch, None)
    after = errors(agent, episodes)
    drawn = indicator.draw(agent, rng())
    assert steps(drawn) == sorted(after, key=lambda key: -after[key])[:5]
    assert [sample.importance for sample in drawn] == pytest.approx([after[key] for key in steps(drawn)])
    assert steps(drawn) != sorted(before, key=lambda key: -before[key])[:5], "the critic changed nothing"


def test_the_heap_keeps_the_most_important_and_only_their_episodes() -> None:
    experience = Experience(capacity=4)
    experience.append(episode(3, 0), np.array([0.1, 9.0, 0.2]))
    experience.append(episode(3, 1), np.array([1.0, 2.0, 3.0]))
    assert steps(experience.best(9)) == [(0, 1), (1, 2), (1, 1), (1, 0)]
    experience.append(episode(2, 2), np.array([1.0, 20.0]))
    assert steps(experience.best(9)) == [(2, 1), (0, 1), (1, 2), (1, 1)], "of equal ones the older goes"
    experience.append(episode(4, 3), np.array([30.0, 31.0, 32.0, 33.0]))
    assert list(experience.episodes) == [3] and len(experience) == 4 and experience.appended == 12


def test_rotation_drops_the_oldest_of_what_served_so_that_nothing_serves_for_ever(agent: RLPD) -> None:
    indicator = RewardIndicator(capacity=20, drop=0.0, rotate=0.2)
    for seed in range(5):
        indicator.add(episode(5, seed, reward=10.0 - seed), agent, rng())  # the first ones are the best
    assert {sample.episode for sample in indicator.draw(agent, rng())} == {0, 1, 2, 3}
    uses = 0
    while any(sample.episode == 0 for sample in indicator.draw(agent, rng())):
        indicator.served(indicator.draw(agent, rng()), rng())
        indicator.add(episode(4, 9, reward=1.0), agent, rng())
        uses += 1
        assert uses < 20
    assert uses == 2, "a fifth of twenty, the oldest first"
    kept = TDErrorIndicator(capacity=20, drawn=5, drop=0.0)
    kept.add(episode(5, 0), agent, rng())
    kept.served(kept.draw(agent, rng()), rng())
    assert len(kept.experience) == 5


def test_rewards_are_those_of_the_whole_episode(agent: RLPD) -> None:
    indicator = RewardIndicator()
    good, bad = episode(4, 0, reward=0.0), episode(4, 1, reward=0.0)
    good.rewards[-1] = 1.0
    indicator.add(bad, agent, rng())
    indicator.add(good, agent, rng())
    drawn = indicator.draw(agent, rng())
    assert [sample.importance for sample in drawn] == [1.0] * 4 + [0.0] * 4
    assert [sample.episode for sample in drawn] == [1] * 4 + [0] * 4


@pytest.mark.parametrize("make", [TDErrorIndicator, RewardIndicator, UniformIndicator])
def test_random_dropping_ignores_importance(make, agent: RLPD) -> None:
    rotated = {"rotate": 0.0} if make is RewardIndicator else {}
    indicator: Indicator = make(capacity=200, drop=0.25, **rotated)
    for seed in range(10):
        indicator.add(episode(20, seed), agent, rng())
    drawn = indicator.draw(agent, rng())
    indicator.served(drawn, rng())
    kept = set(steps(indicator.experience.heap))
    assert len(kept) == 150
    lost = [key not in kept for key in steps(drawn)]
    assert 10 < sum(lost[:100]) < 40, "of the better and of the worse half about as many"
    every = make(capacity=200, drop=0.0, **rotated)
    every.add(episode(20, 0), agent, rng())
    every.served(every.draw(agent, rng()), rng())
    assert len(every.experience) == 20


def test_uniform_draws_others_each_time(agent: RLPD) -> None:
    indicator, chance = UniformIndicator(capacity=100, drawn=10), rng()
    indicator.add(episode(100, 0), agent, chance)
    first, second = (set(steps(indicator.draw(agent, chance))) for _ in range(2))
    assert len(first) == len(second) == 10 and first != second


@pytest.mark.parametrize("make", [TDErrorIndicator, RewardIndicator, UniformIndicator])
def test_what_was_saved_goes_on_bit_for_bit(make, agent: RLPD) -> None:
    def live(indicator: Indicator, begin: int, end: int, chance: np.random.Generator) -> list:
        seen = []
        for seed in range(begin, end):
            indicator.add(episode(9, seed, terminated=seed % 2 == 0), agent, chance)
            agent.update(episode(8, seed).batch(np.arange(8)), None)
            drawn = indicator.draw(agent, chance)
            indicator.served(drawn, chance)
            seen.append(drawn)
        return seen

    one, chance = make(30), rng()
    live(one, 0, 5, chance)
    saved, tensors = one.experience.state_dict(), {k: v.clone() for k, v in agent.tensors().items()}
    state = chance.bit_generator.state
    whole = live(one, 5, 9, chance)
    other, again = make(30), rng()
    other.experience.load_state_dict({key: torch.tensor(value).numpy() for key, value in saved.items()})
    again.bit_generator.state = state
    agent.load_tensors(tensors)
    assert live(other, 5, 9, again) == whole
    a, b = one.experience.state_dict(), other.experience.state_dict()
    assert a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


def test_an_agent_without_a_critic_and_bad_numbers_are_refused() -> None:
    """Whoever adapts by TD errors, or draws transitions by them, has some."""
    with pytest.raises(PixeltrajError, match="arm it: bc has no critic"):
        Arm("it", agent="bc", buffer=ReplayBufferConfig(alpha=0.6)).check()
    bc = make_agent("bc", no_data(STATES, ACTIONS), torch.Generator().manual_seed(0))
    with pytest.raises(PixeltrajError, match="no critic"):
        TDErrorIndicator().add(episode(3, 0), bc, rng())
    RewardIndicator().add(episode(3, 0), bc, rng())
    for make in (lambda: TDErrorIndicator(0), lambda: TDErrorIndicator(drawn=0), lambda: RewardIndicator(drop=1.0)):
        with pytest.raises(PixeltrajError, match=r"give at least 1|below 1"):
            make()
