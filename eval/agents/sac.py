"""SAC (Haarnoja et al. 2018, with the tuned temperature), and what its relatives may change of it.

Actions are sampled from a squashed Gaussian; targets are r + discount * (min Q'(s', a') - temperature * log p(a'|s')).

Shapes: B batch, S state, A action, H hidden, N critics.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pixeltraj.eval.agents.learner import ValueLearner, step
from pixeltraj.eval.agents.networks import Actor, Critics, follow, frozen, sample
from pixeltraj.replay_buffer import Batch


@dataclass(frozen=True)
class SACConfig:
    batch: int = 256
    """Transitions in an update."""
    hidden: int = 256
    """Width of the two hidden layers of every network."""
    critics: int = 2
    """Size of the ensemble; the target is its minimum."""
    layer_norm: bool = False
    """Normalise the critics' hidden layers: values of actions that no data holds stay moderate."""
    learning_rate: float = 3e-4
    """Of Adam, for the policy, the critics and the temperature."""
    discount: float = 0.99
    """Per decision."""
    tau: float = 0.005
    """Step of the target critics towards the critics."""
    actor_every: int = 1
    """Updates of the critics for each one of policy and temperature."""
    temperature: float = 1.0
    """Weight of the entropy at the start; it is tuned towards `target_entropy`."""
    target_entropy: float = -1.0
    """Per action dimension, nats."""
    entropy_in_backup: bool = True
    """Whether the target value counts entropy."""
    bc_weight: float = 0.0
    """Weight of a cloning term on imagined and, where batches are symmetric, offline actions; 0 is the untouched
    algorithm."""
    bf16: bool = False
    """Compute the networks in bfloat16."""


class SAC(ValueLearner):
    """The agent."""

    log_temperature: Tensor

    def __init__(
        self,
        config: SACConfig,
        offline: Batch,
        generator: torch.Generator,
        value_range: tuple[float, float] | None = None,
    ) -> None:
        """See `ValueLearner`."""
        super().__init__(offline, generator, value_range)
        self.config = config
        inputs, size = self.state_size + self.action_size, self.action_size
        self.actor = Actor(self.state_size, size, config.hidden, generator, config.bf16)
        ensemble = config.critics, inputs, config.hidden, generator, config.layer_norm, config.bf16
        self.critics, self.target = Critics(*ensemble), Critics(*ensemble)
        self.target.load_state_dict(self.critics.state_dict())
        self.target.requires_grad_(False)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(config.temperature)))
        self.actor_optimizer = self.optimize(config.learning_rate, self.actor.parameters())
        self.critic_optimizer = self.optimize(config.learning_rate, self.critics.parameters())
        self.temperature_optimizer = self.optimize(config.learning_rate, [self.log_temperature])

    @torch.no_grad()
    def act(self, states: np.ndarray, explore: bool) -> np.ndarray:
        """states (..., S) -> actions (..., A): a sample of the policy, or its mode."""
        normal = self.normalise(states)
        mean, log_std = self.actor(normal)
        squashed = sample(mean, log_std, self.generator)[0] if explore else mean.tanh()
        return self.played(squashed, normal).numpy()

    def update(self, batch: Batch, cloned: np.ndarray | None = None) -> dict[str, Tensor]:
        """One step of critics, policy and temperature. -> losses, scalars."""
        states, actions, rewards, next_states, terminations = self.rows(batch)
        targets = self.targets(rewards, next_states, terminations)
        values = self.critics(states, actions)  # (N, B)
        critic_loss = self.misjudged(values, targets, batch) + self.penalty(values, states, next_states)
        step(self.critic_optimizer, critic_loss)
        follow(self.target, self.critics, self.config.tau)
        self.updates += 1
        losses = {"critic_loss": critic_loss.detach(), "value": values.detach().mean()}
        if self.updates % self.config.actor_every == 0:
            losses |= self.improve(states, actions, batch.imagined if cloned is None else cloned)
        return losses

    def improve(self, states: Tensor, actions: Tensor, cloned: np.ndarray) -> dict[str, Tensor]:
        """One step of policy and temperature."""
        sampled, log_probability = self.sample(states)
        with frozen(self.critics):
            value = self.judged(self.critics(states, sampled))
        mask = torch.from_numpy(cloned).float()
        # The sample's error, not the mode's: it narrows the policy too, or exploration would stay near random.
        errors = (sampled - actions).square().mean(dim=-1)
        bc_loss = (mask * errors).sum() / mask.sum().clamp(min=1.0)
        temperature = self.log_temperature.detach().exp()
        actor_loss = (temperature * log_probability - value).mean() + self.config.bc_weight * bc_loss
        step(self.actor_optimizer, actor_loss)
        entropy = -log_probability.detach().mean()
        wanted = self.config.target_entropy * self.action_size
        step(self.temperature_optimizer, self.log_temperature * (entropy - wanted))
        return {"actor_loss": actor_loss.detach(), "bc_loss": bc_loss.detach(), "entropy": entropy}

    @torch.no_grad()
    def targets(self, rewards: Tensor, next_states: Tensor, terminations: Tensor) -> Tensor:
        """(B,) r + discount * V(s'), bounded. next_states are normalised."""
        actions, log_probability = self.sample(next_states)
        values = self.trusted(self.target(next_states, actions))
        if self.config.entropy_in_backup:
            values = values - self.log_temperature.exp() * log_probability
        return self.bounded(rewards + self.config.discount * values * ~terminations)

    def sample(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """states (B, S), normalised -> actions (B, A), and the logarithm (B,) of the policy's density."""
        mean, log_std = self.actor(states)
        squashed, log_probability = sample(mean, log_std, self.generator)
        return self.played(squashed, states), log_probability

    # What relatives change

    def played(self, squashed: Tensor, states: Tensor) -> Tensor:
        """What the policy's squashed Gaussian (..., A) means as actions (..., A); states are normalised."""
        return squashed

    def trusted(self, values: Tensor) -> Tensor:
        """(N, B) -> (B,), the next state's value in a target."""
        return values.amin(dim=0)

    def judged(self, values: Tensor) -> Tensor:
        """(N, B) -> (B,), what the policy is improved by."""
        return values.amin(dim=0)

    def penalty(self, values: Tensor, states: Tensor, next_states: Tensor) -> Tensor | float:
        """Added to the critics' loss. values (N, B) of the batch's own actions; states are normalised."""
        return 0.0
