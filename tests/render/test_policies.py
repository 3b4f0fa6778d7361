"""Policies: random ones repeat, and our reading of stable-baselines3 checkpoints agrees with its own."""

from pathlib import Path

import numpy as np
import pytest
import stable_baselines3 as sb3
import torch
from stable_baselines3.common.base_class import BaseAlgorithm

from pixeltraj.errors import PixeltrajError
from pixeltraj.render.policies import SB3Actor, make_policy
from pixeltraj.tasks import get_task


def test_random_actions_come_from_the_rng_that_is_passed_in() -> None:
    simulator = get_task("Hopper-v5").make()
    state, _ = simulator.reset(seed=0)
    policy = make_policy("random", simulator)
    one, two = (
        np.array([policy(simulator, state, rng) for _ in range(50)]) for rng in map(np.random.default_rng, (1, 1))
    )
    np.testing.assert_array_equal(one, two)
    assert one.shape == (50, 3) and np.abs(one).max() <= 1
    assert not np.array_equal(one[0], policy(simulator, state, np.random.default_rng(2)))


@pytest.mark.parametrize("algorithm", [sb3.SAC, sb3.PPO, sb3.TD3])
@pytest.mark.parametrize("activation", [None, torch.nn.ReLU, torch.nn.Tanh, torch.nn.ELU])
def test_sb3_checkpoints_act_as_in_sb3(
    tmp_path: Path, algorithm: type[BaseAlgorithm], activation: type[torch.nn.Module] | None
) -> None:
    simulator = get_task("Hopper-v5").make()
    keywords = {"net_arch": [16, 16]} | ({"activation_fn": activation} if activation else {})
    memory = {} if algorithm is sb3.PPO else {"buffer_size": 10}
    model = algorithm("MlpPolicy", simulator, policy_kwargs=keywords, seed=0, device="cpu", **memory)
    with torch.no_grad():  # fresh actors hardly act; these reach the bounds too
        for name, parameter in model.policy.named_parameters():
            parameter.mul_(300.0 if name.startswith("action_net") else 3.0)
    model.save(tmp_path / "model.zip")
    actor = SB3Actor.load(tmp_path / "model.zip")
    states = np.random.default_rng(0).standard_normal((100, simulator.task.state_size)).astype(np.float32)
    expected = model.predict(states, deterministic=True)[0]
    assert expected.std() > 0.1
    np.testing.assert_allclose([actor(state) for state in states], expected, atol=1e-4)


def test_observation_normalisation_is_read_from_beside_the_checkpoint(tmp_path: Path) -> None:
    simulator = get_task("Hopper-v5").make()
    sb3.PPO("MlpPolicy", simulator, policy_kwargs={"net_arch": [8]}, seed=0, device="cpu").save(tmp_path / "model.zip")
    plain = SB3Actor.load(tmp_path / "model.zip")
    mean, variance = np.arange(11.0), np.linspace(0.5, 2, 11)
    np.savez(tmp_path / "model_norm.npz", mean=mean, var=variance, epsilon=1e-8, clip=10.0)
    state = mean + np.linspace(-1, 1, 11)
    expected = plain((state - mean) / np.sqrt(variance + 1e-8))
    np.testing.assert_allclose(SB3Actor.load(tmp_path / "model.zip")(state), expected, atol=1e-6)


def test_policies_that_cannot_act_here_are_refused(tmp_path: Path) -> None:
    cheetah, hopper = (get_task(name).make() for name in ("HalfCheetah-v5", "Hopper-v5"))
    sb3.PPO("MlpPolicy", hopper, policy_kwargs={"net_arch": [8]}, device="cpu").save(tmp_path / "hopper.zip")
    (tmp_path / "text.zip").write_text("no archive")
    with pytest.raises(PixeltrajError, match="maps 11 numbers to 3, HalfCheetah-v5 has states of 17"):
        make_policy(f"sb3:{tmp_path / 'hopper.zip'}", cheetah)
    for name in ("text.zip", "missing.zip", "."):
        with pytest.raises(PixeltrajError, match="not a stable-baselines3 checkpoint"):
            make_policy(f"sb3:{tmp_path / name}", cheetah)
    with pytest.raises(PixeltrajError, match="ships no scripted policy"):
        make_policy("scripted", cheetah)
    with pytest.raises(PixeltrajError, match="unknown policy 'expert'"):
        make_policy("expert", cheetah)
