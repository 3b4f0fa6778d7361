"""RLPD (Ball et al. 2023) at a small update ratio: SAC with LayerNorm critics that learns from prior data.

Every batch is half offline data, half replay. Two additions: the target value is clamped to the range that
returns can have (sparse rewards: [0, 1]), and a cloning term draws the policy to offline and to imagined
actions, which is where imagination helps most in short runs.

Shapes: B batch, S state, A action, H hidden, N critics.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixeltraj.replay_buffer import Batch

LOG_STD_RANGE = (-5.0, 2.0)
DEVIATION_FLOOR = 0.02  # states that hardly vary in the offline data must not blow up
STATE_CLIP = 10.0


@dataclass(frozen=True)
class RLPDConfig:
    batch: int = 128
    """Transitions in an update, half of them offline."""
    hidden: int = 256
    """Width of the two hidden layers of every network."""
    critics: int = 2
    """Size of the ensemble; the target is its minimum."""
    learning_rate: float = 3e-4
    """Of Adam, for the policy, the critics and the temperature."""
    discount: float = 0.98
    """Per decision."""
    tau: float = 0.005
    """Step of the target critics towards the critics."""
    temperature: float = 0.01
    """Weight of the entropy at the start; it is tuned towards `target_entropy`."""
    target_entropy: float = -1.0
    """Per action dimension, nats."""
    entropy_in_backup: bool = False
    """Whether the target value counts entropy, as in plain SAC."""
    bc_weight: float = 1.0
    """Weight of the cloning term; 0 leaves it out."""


class RLPD(nn.Module):
    """The agent. States go in raw; they are normalised by the offline data's mean and deviation."""

    mean: Tensor
    deviation: Tensor
    log_temperature: Tensor

    def __init__(
        self,
        config: RLPDConfig,
        offline: Batch,
        generator: torch.Generator,
        value_range: tuple[float, float] | None = None,
    ) -> None:
        """Sizes and normalisation come from the offline data; the generator gives all randomness.

        value_range: target values are clamped to it; (0, 1) where the reward is sparse, None for no bound.
        """
        super().__init__()
        self.config, self.generator, self.value_range = config, generator, value_range
        states, size = offline.states.shape[-1], offline.actions.shape[-1]
        self.actor = Actor(states, size, config.hidden, generator)
        self.critics = Critics(config.critics, states + size, config.hidden, generator)
        self.target = Critics(config.critics, states + size, config.hidden, generator)
        self.target.load_state_dict(self.critics.state_dict())
        self.target.requires_grad_(False)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(config.temperature)))
        deviation = np.maximum(offline.states.std(axis=0), DEVIATION_FLOOR)
        self.register_buffer("mean", torch.from_numpy(offline.states.mean(axis=0)))
        self.register_buffer("deviation", torch.from_numpy(deviation))
        self.optimizers = [
            torch.optim.Adam(parameters, lr=config.learning_rate, fused=True)
            for parameters in (self.actor.parameters(), self.critics.parameters(), [self.log_temperature])
        ]

    def normalise(self, states: np.ndarray | Tensor) -> Tensor:
        return ((torch.as_tensor(states) - self.mean) / self.deviation).clamp(-STATE_CLIP, STATE_CLIP)

    @torch.no_grad()
    def act(self, states: np.ndarray, explore: bool) -> np.ndarray:
        """states (..., S) -> actions (..., A): a sample of the policy, or its mode."""
        mean, log_std = self.actor(self.normalise(states))
        if explore:
            mean = mean + log_std.exp() * self._noise(mean)
        return mean.tanh().numpy()

    def update(self, offline: Batch, replay: Batch | None) -> dict[str, Tensor]:
        """One step of critics, policy and temperature on both batches together. -> losses, scalars."""
        config = self.config
        batches = [offline] if replay is None else [offline, replay]
        states, actions, rewards, next_states, terminations = (
            torch.from_numpy(np.concatenate(column)) for column in list(zip(*batches))[:5]
        )
        cloned = np.ones(len(offline.states), bool)
        cloned = cloned if replay is None else np.concatenate([cloned, replay.imagined])
        states, next_states = self.normalise(states), self.normalise(next_states)

        targets = self.targets(rewards, next_states, terminations)
        values = self.critics(states, actions)  # (N, B)
        critic_loss = (values - targets).square().mean(dim=1).sum()
        self._step(1, critic_loss)

        mean, log_std = self.actor(states)
        sampled, log_probability = self._sample(mean, log_std)
        for parameter in self.critics.parameters():  # gradients pass through, none are kept
            parameter.requires_grad_(False)
        value = self.critics(states, sampled).mean(dim=0)
        for parameter in self.critics.parameters():
            parameter.requires_grad_(True)
        temperature = self.log_temperature.detach().exp()
        mask = torch.from_numpy(cloned).float()
        # The sample's error, not the mode's: it narrows the policy too, or exploration would stay near random.
        errors = (sampled - actions).square().mean(dim=-1)
        bc_loss = (mask * errors).sum() / mask.sum().clamp(min=1.0)
        actor_loss = (temperature * log_probability - value).mean() + config.bc_weight * bc_loss
        self._step(0, actor_loss)

        entropy = -log_probability.detach().mean()
        self._step(2, self.log_temperature * (entropy - config.target_entropy * actions.shape[-1]))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.target.parameters()), list(self.critics.parameters()), config.tau)
        return {
            "critic_loss": critic_loss.detach(),
            "bc_loss": bc_loss.detach(),
            "value": value.detach().mean(),
            "entropy": entropy,
        }

    @torch.no_grad()
    def targets(self, rewards: Tensor, next_states: Tensor, terminations: Tensor) -> Tensor:
        """(B,) r + discount * V(s'), clamped. next_states are normalised."""
        actions, log_probability = self._sample(*self.actor(next_states))
        values = self.target(next_states, actions).amin(dim=0)
        if self.config.entropy_in_backup:
            values = values - self.log_temperature.exp() * log_probability
        targets = rewards + self.config.discount * values * ~terminations
        return targets if self.value_range is None else targets.clamp(*self.value_range)

    def _sample(self, mean: Tensor, log_std: Tensor) -> tuple[Tensor, Tensor]:
        """-> actions (B, A) in (-1, 1), and the logarithm (B,) of their density."""
        noise = self._noise(mean)
        raw = mean + log_std.exp() * noise
        density = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
        squash = 2.0 * (math.log(2.0) - raw - F.softplus(-2.0 * raw))  # log(1 - tanh²), stably
        return raw.tanh(), (density - squash).sum(dim=-1)

    def _noise(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self.generator)

    def _step(self, which: int, loss: Tensor) -> None:
        self.optimizers[which].zero_grad()
        loss.backward()
        self.optimizers[which].step()

    # Saving

    def tensors(self) -> dict[str, Tensor]:
        """Parameters, moments of the optimizers and the generator: all that training goes on from."""
        saved = {f"agent.{name}": value for name, value in self.state_dict().items()}
        for i, optimizer in enumerate(self.optimizers):
            for j, state in optimizer.state_dict()["state"].items():
                saved |= {f"optimizer.{i}.{j}.{name}": value for name, value in state.items()}
        return {**saved, "generator": self.generator.get_state()}

    def load_tensors(self, saved: dict[str, Tensor]) -> None:
        """Inverse of `tensors`, for an agent made with the same configuration."""
        self.load_state_dict({k.removeprefix("agent."): v for k, v in saved.items() if k.startswith("agent.")})
        for i, optimizer in enumerate(self.optimizers):
            state: dict[int, dict[str, Any]] = {}
            for key, value in saved.items():
                if key.startswith(f"optimizer.{i}."):
                    _, _, j, name = key.split(".")
                    state.setdefault(int(j), {})[name] = value
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        self.generator.set_state(saved["generator"])


class Actor(nn.Module):
    """A Gaussian over actions before their squashing."""

    def __init__(self, inputs: int, outputs: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 2 * outputs)
        )
        for layer in self.network:
            if isinstance(layer, nn.Linear):
                _initialise(layer.weight, layer.in_features, generator)
                nn.init.zeros_(layer.bias)

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """states (B, S) -> mean (B, A), log of the deviation (B, A)"""
        mean, log_std = self.network(states).chunk(2, dim=-1)
        low, high = LOG_STD_RANGE
        return mean, low + 0.5 * (high - low) * (log_std.tanh() + 1.0)


class Critics(nn.Module):
    """N value functions side by side: one batched product a layer."""

    def __init__(self, count: int, inputs: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        sizes = [(inputs, hidden), (hidden, hidden), (hidden, 1)]
        self.weights = nn.ParameterList(torch.empty(count, i, o) for i, o in sizes)
        self.biases = nn.ParameterList(torch.zeros(count, 1, o) for _, o in sizes)
        for weight in self.weights:
            _initialise(weight, weight.shape[1], generator)

    def forward(self, states: Tensor, actions: Tensor) -> Tensor:
        """states (B, S), actions (B, A) -> values (N, B)"""
        x = torch.cat([states, actions], dim=-1).expand(len(self.weights[0]), -1, -1)
        for weight, bias in list(zip(self.weights, self.biases))[:-1]:
            x = torch.baddbmm(bias, x, weight)
            x = F.relu(F.layer_norm(x, x.shape[-1:]))
        return torch.baddbmm(self.biases[-1], x, self.weights[-1]).squeeze(-1)


def _initialise(weight: Tensor, inputs: int, generator: torch.Generator) -> None:
    nn.init.uniform_(weight, -1 / math.sqrt(inputs), 1 / math.sqrt(inputs), generator=generator)
