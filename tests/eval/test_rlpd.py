"""The agent learns, clamps, clones, and goes on exactly where it was saved."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pixeltraj.eval.agents.agent import symmetric
from pixeltraj.eval.agents.rlpd import RLPD, RLPDConfig
from pixeltraj.replay_buffer import Batch

SMALL = RLPDConfig(hidden=32, batch=64, learning_rate=3e-3, tau=0.05, bc_weight=0.0)


def random_batch(size: int, rng: np.random.Generator, reward: float = 0.0) -> Batch:
    states, next_states = rng.normal(size=(2, size, 5)).astype(np.float32)
    actions = rng.uniform(-1, 1, (size, 2)).astype(np.float32)
    imagined, terminations = rng.random((2, size)) < 0.3
    return Batch(states, actions, np.full(size, reward, np.float32), next_states, terminations, imagined)


def two_steps(size: int, rng: np.random.Generator) -> Batch:
    """A positive action leads from state 0 to state 1, and from there to the reward; a negative one ends it."""
    first = rng.random((size, 1)) < 0.5
    actions = rng.uniform(-1, 1, (size, 1)).astype(np.float32)
    good = actions > 0
    states, next_states = np.where(first, 0, 1).astype(np.float32), np.ones((size, 1), np.float32)
    rewards = (~first & good)[:, 0].astype(np.float32)
    return Batch(states, actions, rewards, next_states, ~(first & good)[:, 0], np.zeros(size, bool))


def make(offline: Batch, config: RLPDConfig = SMALL, seed: int = 0, clamped: bool = True) -> RLPD:
    return RLPD(config, offline, torch.Generator().manual_seed(seed), (0.0, 1.0) if clamped else None)


def test_learns_the_values_of_a_two_step_problem() -> None:
    rng = np.random.default_rng(0)
    agent = make(two_steps(500, rng))
    for _ in range(300):
        agent.update(*symmetric(two_steps(32, rng), two_steps(32, rng)))
    states = agent.normalise(np.array([[0.0], [0.0], [1.0], [1.0]], np.float32))
    actions = torch.tensor([[0.7], [-0.7], [0.7], [-0.7]])
    with torch.no_grad():
        values = agent.critics(states, actions).mean(dim=0).numpy()
    np.testing.assert_allclose(values, [SMALL.discount, 0.0, 1.0, 0.0], atol=0.2)
    assert (agent.act(np.array([[0.0], [1.0]], np.float32), explore=False) > 0).all()


def test_targets_are_clamped_where_rewards_are_sparse() -> None:
    rng = np.random.default_rng(0)
    batch = random_batch(64, rng, reward=0.5)
    rewards, terminations = torch.from_numpy(batch.rewards), torch.from_numpy(batch.terminations)
    for bias, bound in ((50.0, 1.0), (-50.0, 0.0)):
        clamped, free = make(batch), make(batch, clamped=False)
        for agent in (clamped, free):
            with torch.no_grad():
                agent.target.biases[-1].fill_(bias)
        states = clamped.normalise(batch.next_states)
        targets = clamped.targets(rewards, states, terminations)
        assert (targets[~terminations] == bound).all()
        assert (targets[terminations] == 0.5).all()
        assert (free.targets(rewards, states, terminations)[~terminations].abs() > 10).all()


def test_clones_offline_and_imagined_actions_and_no_others() -> None:
    rng = np.random.default_rng(0)
    config = RLPDConfig(hidden=32, learning_rate=3e-3, bc_weight=100.0)
    states, flags = rng.normal(size=(40, 5)).astype(np.float32), np.zeros(40, bool)

    def batch(action: float, imagined: bool) -> Batch:
        actions = np.full((40, 1), action, np.float32)
        return Batch(states, actions, np.zeros(40, np.float32), states, flags, np.full(40, imagined))

    for imagined, expected, error in ((False, 0.8, 0.0), (True, 0.0, 0.64)):  # offline says 0.8, replay -0.8
        agent = make(batch(0.8, False), config)
        losses = [agent.update(*symmetric(batch(0.8, False), batch(-0.8, imagined)))["bc_loss"] for _ in range(150)]
        assert agent.act(states, explore=False).mean() == pytest.approx(expected, abs=0.15)
        assert losses[0] > error and losses[-1] == pytest.approx(error, abs=0.02)


def test_saved_and_resumed_equals_unbroken(tmp_path) -> None:
    def train(agent: RLPD, seeds: range) -> None:
        for seed in seeds:
            rng = np.random.default_rng(seed)
            agent.update(*symmetric(random_batch(16, rng), random_batch(16, rng)))

    offline = random_batch(100, np.random.default_rng(0))
    whole, first, resumed = make(offline), make(offline), make(offline, seed=1)
    train(whole, range(30))
    train(first, range(17))
    save_file(first.tensors(), tmp_path / "agent.safetensors")
    resumed.load_tensors(load_file(tmp_path / "agent.safetensors"))
    train(resumed, range(17, 30))
    saved, again = whole.tensors(), resumed.tensors()
    assert saved.keys() == again.keys()
    assert all(torch.equal(saved[name], again[name]) for name in saved)
    state = offline.states[0]
    np.testing.assert_array_equal(whole.act(state, explore=True), resumed.act(state, explore=True))


def test_states_are_normalised_by_the_offline_data() -> None:
    batch = random_batch(200, np.random.default_rng(0))
    batch.states[:, 0] = 3.0  # never varies
    agent = make(batch)
    normal = agent.normalise(batch.states)
    torch.testing.assert_close(normal[:, 1:].std(dim=0, correction=0), torch.ones(4), rtol=1e-4, atol=1e-4)
    far = np.full((1, 5), 99.0, np.float32)
    assert (normal[:, 0].abs() < 1e-3).all() and (agent.normalise(far) == 10.0).all()
