"""Every agent learns a small problem, keeps to its seed, and goes on exactly where it was saved."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.agents.agent import Agent, no_data, symmetric
from pixeltraj.eval.agents.catalogue import AGENTS, OF_STATES, make_agent
from pixeltraj.replay_buffer import Batch

SMALL: dict[str, dict[str, Any]] = {
    "sac": {"tau": 0.05, "temperature": 0.01},
    "redq": {"tau": 0.05, "temperature": 0.01, "critics": 4, "actor_every": 3},
    "rlpd": {"tau": 0.05},
    "spirl": {"tau": 0.05, "skill_size": 2},
    "parrot": {"tau": 0.05, "temperature": 0.01, "couplings": 2, "flow_hidden": 16},
    "td3_bc": {"tau": 0.05},
    "iql": {"tau": 0.05, "expectile": 0.9, "beta": 10.0},
    "cql": {"tau": 0.05, "alpha": 0.1, "penalised": 2, "actor_learning_rate": 3e-3, "temperature": 0.01},
    "diffusion_ql": {"tau": 0.05, "policy_tau": 0.05, "candidates": 5, "learning_rate": 1e-2},
    "bc": {},
}
UPDATES = 150
CRITICS = [name for name in OF_STATES if name != "bc"]


def random_batch(size: int, rng: np.random.Generator) -> Batch:
    states, next_states = rng.normal(size=(2, size, 5)).astype(np.float32)
    actions = rng.uniform(-1, 1, (size, 2)).astype(np.float32)
    imagined, terminations = rng.random((2, size)) < 0.3
    rewards = rng.random(size).astype(np.float32)
    return Batch(states, actions, rewards, next_states, terminations, imagined)


def two_steps(size: int, rng: np.random.Generator) -> Batch:
    """A positive action leads from state 0 to state 1, and from there to the reward; a negative one ends it."""
    first = rng.random((size, 1)) < 0.5
    actions = rng.uniform(-1, 1, (size, 1)).astype(np.float32)
    good = actions > 0
    states, next_states = np.where(first, 0, 1).astype(np.float32), np.ones((size, 1), np.float32)
    rewards = (~first & good)[:, 0].astype(np.float32)
    return Batch(states, actions, rewards, next_states, ~(first & good)[:, 0], np.zeros(size, bool))


def make(name: str, offline: Batch, seed: int = 0, **more: Any) -> Any:
    settings = {"hidden": 24, "learning_rate": 3e-3} | SMALL[name] | more
    return make_agent(name, offline, torch.Generator().manual_seed(seed), replace(AGENTS[name][1](), **settings))


@pytest.mark.parametrize("name", [name for name in CRITICS if name != "spirl"])
def test_learns_values_and_policy_of_a_two_step_problem(name: str) -> None:
    rng = np.random.default_rng(0)
    agent = make(name, two_steps(500, rng))
    before = agent.td_error(two_steps(500, rng)).mean()
    for _ in range(UPDATES):
        agent.update(two_steps(48, rng))
    assert agent.td_error(two_steps(500, rng)).mean() < 0.5 * before
    states = agent.normalise(np.array([[0.0], [0.0], [1.0], [1.0]], np.float32))
    actions = torch.tensor([[0.7], [-0.7], [0.7], [-0.7]])
    with torch.no_grad():
        values = agent.critics(states, actions).mean(dim=0).numpy()
    np.testing.assert_allclose(values, [0.95, 0.0, 1.0, 0.0], atol=0.25)
    assert (agent.act(np.array([[0.0], [1.0]], np.float32), explore=False) > 0).all()


def test_diffusion_ql_clones_both_of_two_actions_without_value_and_candidates() -> None:
    rng = np.random.default_rng(0)
    batch = random_batch(2000, rng)
    batch = batch._replace(actions=np.repeat(rng.choice([-0.6, 0.6], (2000, 1)), 2, axis=1).astype(np.float32))
    agent = make("diffusion_ql", batch, eta=0.0, candidates=1, denoising=10)
    critics = [parameter.clone() for parameter in agent.critics.parameters()]
    for _ in range(400):
        losses = agent.update(batch)
    assert losses.keys() == {"actor_loss", "bc_loss"}
    assert all(torch.equal(one, other) for one, other in zip(critics, agent.critics.parameters()))
    actions = agent.act(batch.states, explore=False)
    assert 0.3 < (actions[:, 0] > 0).mean() < 0.7 and np.abs(np.abs(actions) - 0.6).mean() < 0.15


@pytest.mark.parametrize("deterministic", [True, False])
def test_clones_the_actions_of_the_data(deterministic: bool) -> None:
    rng = np.random.default_rng(0)
    batch = random_batch(2000, rng)
    wanted = np.stack([np.sin(batch.states[:, 0]), 0.5 * np.tanh(batch.states[:, 1])], axis=1) * 0.8
    noisy = (wanted + 0.1 * rng.normal(size=wanted.shape)).astype(np.float32)
    agent = make("bc", batch, deterministic=deterministic, learning_rate=1e-2)
    for _ in range(400):
        agent.update(batch._replace(actions=noisy))
    assert np.abs(agent.act(batch.states, explore=False) - wanted).mean() < 0.09
    spread = agent.act(np.repeat(batch.states[:1], 2000, axis=0), explore=True).std(axis=0)
    np.testing.assert_allclose(spread, 0.1, atol=0.04)
    assert agent.td_error(batch) is None


@pytest.mark.parametrize("name", OF_STATES)
def test_saved_and_resumed_equals_unbroken(name: str, tmp_path) -> None:
    def train(agent: Agent, seeds: range) -> None:
        for seed in seeds:
            batch = random_batch(16, np.random.default_rng(seed))
            agent.update(batch)
            agent.act(batch.states[0], explore=True)

    offline = random_batch(100, np.random.default_rng(0))
    whole, first, resumed, other = (make(name, offline, seed) for seed in (0, 0, 1, 1))
    assert isinstance(whole, Agent)
    train(whole, range(12))
    train(other, range(12))
    train(first, range(7))
    save_file(first.tensors(), tmp_path / "agent.safetensors")
    resumed.load_tensors(load_file(tmp_path / "agent.safetensors"))
    train(resumed, range(7, 12))
    saved, again = whole.tensors(), resumed.tensors()
    assert saved.keys() == again.keys()
    assert all(torch.equal(saved[key], again[key]) for key in saved)
    assert not all(torch.equal(saved[key], value) for key, value in other.tensors().items())
    state = offline.states[0]
    np.testing.assert_array_equal(whole.act(state, explore=True), resumed.act(state, explore=True))


@pytest.mark.parametrize("name", CRITICS)
def test_a_transition_that_ends_it_is_worth_its_reward(name: str) -> None:
    batch = random_batch(64, np.random.default_rng(0))
    agent = make(name, batch)
    bounded = make_agent(name, batch, torch.Generator().manual_seed(0), agent.config, (0.0, 0.5))
    for biased in (agent, bounded):
        for network in (biased.value if name == "iql" else biased.target,):
            with torch.no_grad():
                network.biases[-1].fill_(50.0)
    _, _, rewards, next_states, terminations = agent.rows(batch)
    targets = agent.targets(rewards, next_states, terminations)
    assert torch.equal(targets[terminations], rewards[terminations])
    assert (targets[~terminations] > 40.0).all()
    assert (bounded.targets(rewards, next_states, terminations)[~terminations] == 0.5).all()


@pytest.mark.parametrize("name", CRITICS)
def test_asking_for_the_error_changes_nothing(name: str) -> None:
    batch = random_batch(32, np.random.default_rng(0))
    agent = make(name, batch)
    if name == "spirl":  # its critics value skills, and a batch of decisions has none
        assert agent.td_error(batch) is None
        return
    before = {key: value.clone() for key, value in agent.tensors().items()}
    first, second = agent.td_error(batch), agent.td_error(batch)
    np.testing.assert_array_equal(first, second)
    assert first.shape == (32,) and (first >= 0).all()
    assert all(torch.equal(before[key], value) for key, value in agent.tensors().items())


@pytest.mark.parametrize("name", CRITICS)
def test_critics_learn_as_much_from_a_transition_as_it_weighs(name: str) -> None:
    """Nothing, where that is nothing: its reward changes no critic. (Policies learn from all of them.)"""
    batch = random_batch(64, np.random.default_rng(0))
    none = (np.arange(64) < 20).astype(np.float32)
    changed = batch._replace(rewards=np.where(none > 0, batch.rewards, 5.0).astype(np.float32))
    critics = []
    for one in (batch._replace(weights=none), changed._replace(weights=none), changed):
        agent = make(name, batch)
        agent.update(one)
        critics.append(agent.critics.state_dict())
    first, same, other = critics
    assert all(torch.equal(value, same[key]) for key, value in first.items())
    assert not all(torch.equal(value, other[key]) for key, value in first.items())


@pytest.mark.parametrize("name", OF_STATES)
def test_bfloat16_is_near(name: str) -> None:
    batch = random_batch(64, np.random.default_rng(0))
    exact, near = make(name, batch), make(name, batch, bf16=True)
    for _ in range(3):
        losses, others = exact.update(batch), near.update(batch)
    assert losses.keys() == others.keys()
    for key in losses:
        assert float(others[key]) == pytest.approx(float(losses[key]), rel=0.05, abs=0.05)
    assert all(value.dtype != torch.bfloat16 for value in near.tensors().values())
    assert any(not torch.equal(near.tensors()[key], value) for key, value in exact.tensors().items())


def test_without_offline_data_states_are_taken_as_they_are() -> None:
    agent = make("sac", no_data(5, 2))
    states = 20.0 * np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    np.testing.assert_array_equal(agent.normalise(states).numpy(), states)
    assert agent.act(states, explore=True).shape == (4, 2)
    assert agent.act(states.reshape(2, 2, 5), explore=False).shape == (2, 2, 2)


def test_clones_the_rows_that_it_is_told_to() -> None:
    batch = random_batch(64, np.random.default_rng(0))._replace(imagined=np.arange(64) < 8)
    half = np.arange(64) < 32
    actions = np.where(half[:, None], 0.8, -0.8).astype(np.float32).repeat(2, axis=1)
    batch = batch._replace(states=np.ones_like(batch.states), actions=actions)
    for cloned, expected in ((half, 0.8), (~half, -0.8), (None, 0.8)):
        agent = make("sac", no_data(5, 2), bc_weight=100.0, temperature=0.01)
        for _ in range(100):
            agent.update(batch, cloned)
        assert agent.act(batch.states[0], explore=False) == pytest.approx(expected, abs=0.2)


def test_diffusion_clones_no_other_rows_than_it_is_told_to() -> None:
    batch = random_batch(64, np.random.default_rng(0))
    half = np.arange(64) < 32
    other = batch._replace(actions=np.where(half[:, None], batch.actions, -batch.actions))
    agents = [make("diffusion_ql", batch, eta=0.0, candidates=1) for _ in range(3)]
    losses = [agent.update(b, c)["bc_loss"] for agent, b, c in zip(agents, (batch, other, other), (half, half, ~half))]
    assert losses[0] == losses[1] != losses[2]
    tensors = [agent.tensors() for agent in agents]
    assert all(torch.equal(value, tensors[1][key]) for key, value in tensors[0].items())


def test_offline_and_replay_rows_side_by_side() -> None:
    rng = np.random.default_rng(0)
    offline, replay = random_batch(6, rng), random_batch(9, rng)
    both, cloned = symmetric(offline, replay)
    np.testing.assert_array_equal(both.states, np.concatenate([offline.states, replay.states]))
    np.testing.assert_array_equal(cloned, [*[True] * 6, *replay.imagined])
    assert "bc_loss" in make("rlpd", offline).update(both, cloned)
    assert both.weights is None
    both, _ = symmetric(offline, replay._replace(weights=np.full(9, 0.25, np.float32)))
    np.testing.assert_array_equal(both.weights, [*[1.0] * 6, *[0.25] * 9])


def test_policy_waits_for_its_turn() -> None:
    batch = random_batch(16, np.random.default_rng(0))
    agent = make("redq", batch)
    assert ["actor_loss" in agent.update(batch) for _ in range(7)] == [False, False, True] * 2 + [False]


def test_wrong_names_and_configs_are_refused() -> None:
    with pytest.raises(PixeltrajError, match="no agent 'ppo'; choose one of sac, redq"):
        make_agent("ppo", no_data(5, 2), torch.Generator())
    with pytest.raises(PixeltrajError, match="iql takes a IQLConfig, not a SACConfig"):
        make_agent("iql", no_data(5, 2), torch.Generator(), AGENTS["sac"][1]())
