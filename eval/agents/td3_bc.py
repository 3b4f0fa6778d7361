"""TD3+BC (Fujimoto and Gu 2021): TD3 whose policy is held near the data's actions by least squares.

Policy loss: -alpha * Q(s, pi(s)) / mean|Q| + (pi(s) - a)²; the data's states are normalised.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pixeltraj.eval.agents.learner import ValueLearner, step
from pixeltraj.eval.agents.networks import Critics, Policy, follow, frozen
from pixeltraj.replay_buffer import Batch


@dataclass(frozen=True)
class TD3BCConfig:
    batch: int = 256
    """Transitions in an update."""
    hidden: int = 256
    """Width of the two hidden layers of every network."""
    learning_rate: float = 3e-4
    """Of Adam, for policy and critics."""
    discount: float = 0.99
    """Per decision."""
    tau: float = 0.005
    """Step of the target networks towards the networks."""
    alpha: float = 2.5
    """Weight of the value against the cloning term."""
    actor_every: int = 2
    """Updates of the critics for each one of policy and target networks."""
    target_noise: float = 0.2
    """Deviation of the noise on the target policy's actions."""
    target_noise_clip: float = 0.5
    """Its largest size."""
    noise: float = 0.1
    """Deviation of exploring actions around the policy's."""
    bf16: bool = False
    """Compute the networks in bfloat16."""


class TD3BC(ValueLearner):
    """The agent."""

    def __init__(
        self,
        config: TD3BCConfig,
        offline: Batch,
        generator: torch.Generator,
        value_range: tuple[float, float] | None = None,
    ) -> None:
        """See `ValueLearner`."""
        super().__init__(offline, generator, value_range)
        self.config = config
        policy = self.state_size, self.action_size, config.hidden, generator, config.bf16
        ensemble = 2, self.state_size + self.action_size, config.hidden, generator, False, config.bf16
        self.actor, self.target_actor = Policy(*policy), Policy(*policy)
        self.critics, self.target = Critics(*ensemble), Critics(*ensemble)
        for target, network in ((self.target_actor, self.actor), (self.target, self.critics)):
            target.load_state_dict(network.state_dict())
            target.requires_grad_(False)
        self.actor_optimizer = self.optimize(config.learning_rate, self.actor.network.parameters())
        self.critic_optimizer = self.optimize(config.learning_rate, self.critics.parameters())

    @torch.no_grad()
    def act(self, states: np.ndarray, explore: bool) -> np.ndarray:
        """states (..., S) -> actions (..., A): the policy's, with noise to explore."""
        actions = self.actor(self.normalise(states))
        if explore:
            actions = actions + self.config.noise * torch.randn(actions.shape, generator=self.generator)
        return actions.clamp(-1.0, 1.0).numpy()

    def update(self, batch: Batch, cloned: np.ndarray | None = None) -> dict[str, Tensor]:
        """One step of the critics and, every second time, of the policy, cloning all rows. -> losses, scalars."""
        config = self.config
        states, actions, rewards, next_states, terminations = self.rows(batch)
        values = self.critics(states, actions)  # (2, B)
        critic_loss = self.misjudged(values, self.targets(rewards, next_states, terminations), batch)
        step(self.critic_optimizer, critic_loss)
        self.updates += 1
        losses = {"critic_loss": critic_loss.detach(), "value": values.detach().mean()}
        if self.updates % config.actor_every == 0:
            chosen = self.actor(states)
            with frozen(self.critics):
                value = self.critics(states, chosen)[0]
            bc_loss = (chosen - actions).square().mean()
            actor_loss = -config.alpha * value.mean() / value.detach().abs().mean() + bc_loss
            step(self.actor_optimizer, actor_loss)
            follow(self.target, self.critics, config.tau)
            follow(self.target_actor, self.actor, config.tau)
            losses |= {"actor_loss": actor_loss.detach(), "bc_loss": bc_loss.detach()}
        return losses

    @torch.no_grad()
    def targets(self, rewards: Tensor, next_states: Tensor, terminations: Tensor) -> Tensor:
        """(B,) r + discount * min Q'(s', smoothed target policy), bounded. next_states are normalised."""
        actions = self.target_actor(next_states)
        noise = self.config.target_noise * torch.randn(actions.shape, generator=self.generator)
        clip = self.config.target_noise_clip
        actions = (actions + noise.clamp(-clip, clip)).clamp(-1.0, 1.0)
        values = self.target(next_states, actions).amin(dim=0)
        return self.bounded(rewards + self.config.discount * values * ~terminations)
