"""SPiRL and PARROT: what they learn before the first reward, and what becomes of it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.agents.agent import Pretrained, no_data
from pixeltraj.eval.agents.catalogue import make_agent
from pixeltraj.eval.agents.parrot import PARROTConfig
from pixeltraj.eval.agents.spirl import SkillSimulator, SPiRLConfig, divergence
from pixeltraj.replay_buffer import Batch
from pixeltraj.tasks import get_task
from pixeltraj.trajectory import Trajectory

SKILLS = SPiRLConfig(
    length=4,
    skill_size=2,
    batch=64,
    hidden=32,
    learning_rate=3e-3,
    divergence=2.0,
    compression=0.02,
    pretrain_steps=300,
    pretrain_learning_rate=3e-3,
)
PRIOR = PARROTConfig(
    batch=128,
    hidden=32,
    couplings=4,
    flow_hidden=32,
    learning_rate=3e-3,
    pretrain_steps=200,
    pretrain_learning_rate=3e-3,
)


def episodes(count: int, rng: np.random.Generator, size: int = 1, steps: int = 8) -> list[Trajectory]:
    """An action is kept up for the whole episode: about +0.8 or -0.8 in all dimensions where the state is 0, +0.8 alone
    where it is 1. It is its own reward."""
    made = []
    for _ in range(count):
        state = float(rng.integers(2))
        kept = 0.8 if state or rng.random() < 0.5 else -0.8
        actions = (kept + 0.05 * rng.normal(size=(steps, size))).astype(np.float32)
        flags = np.zeros(steps, bool)
        ends = np.arange(steps) == steps - 1
        states, points = np.full((steps + 1, 1), state, np.float32), np.zeros((steps + 1, 1, 3), np.float32)
        made.append(Trajectory(states, actions, actions[:, 0], ends, flags, points))
    return made


def make(config: SPiRLConfig | PARROTConfig, seed: int = 0) -> Any:
    name, size = ("spirl", 1) if isinstance(config, SPiRLConfig) else ("parrot", 2)
    return make_agent(name, no_data(1, size), torch.Generator().manual_seed(seed), config)


def test_skills_are_told_apart_and_the_prior_knows_where_they_occur() -> None:
    rng = np.random.default_rng(0)
    agent = make(SKILLS)
    assert isinstance(agent, Pretrained)
    data = episodes(200, rng)
    agent.pretrain(data, rng)
    batch = agent.skills(data[:20])
    actions = agent.actions(batch.actions)
    assert actions.shape == (100, 4, 1)
    wanted = np.stack([t.actions[i : i + 4] for t in data[:20] for i in range(5)])
    assert np.abs(actions - wanted).mean() < 0.1
    either, one = (agent.actions(agent.act(np.full((500, 1), s, np.float32), explore=True)) for s in (0.0, 1.0))
    assert 0.2 < (either > 0).mean() < 0.8 and (one > 0).mean() > 0.9


def test_transitions_of_skills_sum_rewards_and_end_where_the_episode_does() -> None:
    rng = np.random.default_rng(0)
    agent = make(SKILLS)
    episode = episodes(1, rng)[0]
    episode.states[:, 0] = np.arange(9)
    short = Trajectory(
        *(getattr(episode, n)[:3] for n in ("states", "actions", "rewards", "terminations")), *[None] * 2
    )
    batch = agent.skills([episode, replace(short, states=episode.states[:4])], imagined=True)
    np.testing.assert_array_equal(batch.states[:, 0], range(5))
    np.testing.assert_array_equal(batch.next_states[:, 0], range(4, 9))
    np.testing.assert_allclose(batch.rewards, [episode.rewards[i : i + 4].sum() for i in range(5)], rtol=1e-5)
    np.testing.assert_array_equal(batch.terminations, [False] * 4 + [True])
    assert batch.actions.shape == (5, 2) and batch.imagined.all()


def test_spirl_leaves_the_prior_for_what_pays_and_only_so_far() -> None:
    rng = np.random.default_rng(0)
    agent = make(SKILLS)
    data = episodes(200, rng)
    agent.pretrain(data, rng)
    batch = agent.skills(data)
    for _ in range(300):
        rows = rng.integers(len(batch.states), size=64)
        losses = agent.update(batch.at(rows))
    played = agent.actions(agent.act(np.zeros((200, 1), np.float32), explore=True))
    assert (played > 0).mean() > 0.9
    assert 0.2 < float(losses["divergence"]) < 2 * SKILLS.divergence


def test_divergence_is_that_of_torch() -> None:
    moments = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))
    one, other = (torch.distributions.Normal(moments[i], moments[i + 1].exp()) for i in (0, 2))
    expected = torch.distributions.kl_divergence(one, other).sum(dim=-1)
    torch.testing.assert_close(divergence(*moments), expected)


def test_a_skill_is_played_action_by_action() -> None:
    task = get_task("Hopper-v5")
    agent = make_agent("spirl", no_data(task.state_size, 3), torch.Generator().manual_seed(0), SKILLS)
    simulator, by_hand = SkillSimulator(task.make(), agent), task.make()
    state, _ = simulator.reset(seed=3)
    np.testing.assert_array_equal(state, by_hand.reset(seed=3)[0])
    skill, total = agent.act(state, explore=True), 0.0
    snapshots = []
    for action in agent.actions(skill):
        expected, reward, *_ = by_hand.step(action)
        snapshots.append(by_hand.snapshot())
        total += reward
    state, reward, terminated, truncated, info = simulator.step(skill)
    np.testing.assert_array_equal(state, expected)
    assert reward == pytest.approx(total) and not (terminated or truncated)
    np.testing.assert_array_equal([one.action for one in info["played"]], agent.actions(skill))
    np.testing.assert_array_equal([one.snapshot for one in info["played"]], snapshots)
    assert sum(one.reward for one in info["played"]) == pytest.approx(total)
    while not terminated:
        *_, terminated, truncated, info = simulator.step(np.full(2, 3.0, np.float32))
    assert 1 <= len(info["played"]) <= 4 and info["played"][-1].terminated


def test_the_flow_draws_what_the_data_holds_and_can_be_gone_back() -> None:
    rng = np.random.default_rng(0)
    agent = make(PRIOR)
    assert isinstance(agent, Pretrained)
    losses = agent.pretrain(episodes(200, rng, 2), rng)
    assert np.mean(losses[-20:]) < losses[0] - 0.5
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for state, low, high in ((0.0, 0.3, 0.7), (1.0, 0.9, 1.0)):
            drawn = agent.flow(torch.randn(1000, 2, generator=generator), torch.full((1000, 1), state))
            assert low <= float((drawn > 0).float().mean()) <= high
            assert float((drawn.abs() - 0.8).abs().median()) < 0.15
    two = make_agent("parrot", no_data(3, 2), generator, PRIOR)
    with torch.no_grad():
        for network in two.flow.networks:
            network[-1].weight.mul_(100.0)
    states, z = (torch.randn(50, n, generator=generator).double() for n in (3, 2))
    two.flow.double()

    def forth(z: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        return two.flow(z, state).atanh()

    volume = torch.stack([torch.autograd.functional.jacobian(lambda v, s=s: forth(v, s), x) for x, s in zip(z, states)])
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(dim=-1)
    told = two.flow.log_probability(two.flow(z, states), states)
    inside = (two.flow(z, states).abs() < 0.99).all(dim=-1)
    assert inside.sum() > 20
    torch.testing.assert_close(told[inside], (normal - volume.det().abs().log())[inside], rtol=1e-4, atol=1e-4)


def test_parrot_learns_through_the_flow_and_keeps_it() -> None:
    rng = np.random.default_rng(0)
    agent = make(PRIOR)
    data = episodes(200, rng, 2)
    agent.pretrain(data, rng)
    before = {key: value.clone() for key, value in agent.flow.state_dict().items()}
    assert 0.1 < (agent.act(np.zeros((500, 1), np.float32), explore=True) > 0).mean() < 0.9
    batch = Batch.of(data)
    for _ in range(100):
        rows = rng.integers(len(batch.states), size=64)
        agent.update(batch.at(rows))
    assert (agent.act(np.zeros((500, 1), np.float32), explore=False) > 0.5).all()
    assert all(torch.equal(before[key], value) for key, value in agent.flow.state_dict().items())


@pytest.mark.parametrize("config", [SKILLS, PRIOR])
def test_the_same_seed_learns_the_same_and_what_was_learned_is_saved(config) -> None:
    config = replace(config, pretrain_steps=5)
    one, other, third = make(config), make(config), make(config, seed=1)
    data = episodes(5, np.random.default_rng(0), one.action_size)
    assert one.pretrain(data, np.random.default_rng(1)) == other.pretrain(data, np.random.default_rng(1))
    third.load_tensors(one.tensors())
    for agent in (other, third):
        assert all(torch.equal(one.tensors()[key], value) for key, value in agent.tensors().items())


@pytest.mark.parametrize("config", [SKILLS, PRIOR])
def test_nothing_to_learn_from_is_said(config) -> None:
    with pytest.raises(PixeltrajError, match="trajector"):
        make(config).pretrain([], np.random.default_rng(0))
    if config is SKILLS:
        with pytest.raises(PixeltrajError, match="4 actions"):
            make(config).pretrain(episodes(3, np.random.default_rng(0), steps=3), np.random.default_rng(0))
