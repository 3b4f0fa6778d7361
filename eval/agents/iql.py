"""IQL (Kostrikov et al. 2022): values of the data's better actions by expectile regression, none of other actions.

V(s) is an expectile of Q'(s, a) over the data's actions, Q(s, a) fits r + discount * V(s'), and the policy clones
actions weighted by exp(beta * (Q'(s, a) - V(s))).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pixeltraj.eval.agents.learner import ValueLearner, step
from pixeltraj.eval.agents.networks import Critics, Policy, follow
from pixeltraj.replay_buffer import Batch

WEIGHT_CLIP = 100.0


@dataclass(frozen=True)
class IQLConfig:
    batch: int = 256
    """Transitions in an update."""
    hidden: int = 256
    """Width of the two hidden layers of every network."""
    learning_rate: float = 3e-4
    """Of Adam."""
    discount: float = 0.99
    """Per decision."""
    tau: float = 0.005
    """Step of the target critics towards the critics."""
    expectile: float = 0.7
    """Of V; 0.5 is the mean, 1 the best. The paper takes 0.9 in mazes."""
    beta: float = 3.0
    """How strongly better actions are preferred. The paper takes 10 in mazes, 0.5 for the hand and the kitchen."""
    reward_scale: float = 1.0
    """Rewards are multiplied by it. The paper takes 1000 / (best - worst return of the data) on the runners."""
    bf16: bool = False
    """Compute the networks in bfloat16."""


class IQL(ValueLearner):
    """The agent."""

    def __init__(
        self,
        config: IQLConfig,
        offline: Batch,
        generator: torch.Generator,
        value_range: tuple[float, float] | None = None,
    ) -> None:
        """See `ValueLearner`."""
        super().__init__(offline, generator, value_range)
        self.config = config
        ensemble = 2, self.state_size + self.action_size, config.hidden, generator, False, config.bf16
        self.actor = Policy(self.state_size, self.action_size, config.hidden, generator, config.bf16)
        self.critics, self.target = Critics(*ensemble), Critics(*ensemble)
        self.target.load_state_dict(self.critics.state_dict())
        self.target.requires_grad_(False)
        self.value = Critics(1, self.state_size, config.hidden, generator, False, config.bf16)
        # Each loss touches one network only, so that one optimizer and one backward pass serve all three.
        trained = [*self.actor.parameters(), *self.critics.parameters(), *self.value.parameters()]
        self.optimizer = self.optimize(config.learning_rate, trained)

    @torch.no_grad()
    def act(self, states: np.ndarray, explore: bool) -> np.ndarray:
        """states (..., S) -> actions (..., A): a sample of the policy, or its mean."""
        actions = self.actor(self.normalise(states))
        if explore:
            actions = actions + self.actor.deviation() * torch.randn(actions.shape, generator=self.generator)
        return actions.clamp(-1.0, 1.0).numpy()

    def update(self, batch: Batch, cloned: np.ndarray | None = None) -> dict[str, Tensor]:
        """One step of V, Q and policy on all rows, whether cloned or not. -> losses, scalars."""
        config = self.config
        states, actions, rewards, next_states, terminations = self.rows(batch)
        with torch.no_grad():
            best = self.target(states, actions).amin(dim=0)
        value = self._value(states)
        advantage = best - value
        value_loss = ((advantage < 0).float() - config.expectile).abs().mul(advantage.square()).mean()
        values = self.critics(states, actions)  # (2, B)
        critic_loss = self.misjudged(values, self.targets(rewards, next_states, terminations), batch)
        weight = (config.beta * advantage.detach()).exp().clamp(max=WEIGHT_CLIP)
        actor_loss = -(weight * self.actor.log_probability(states, actions)).mean()
        step(self.optimizer, value_loss + critic_loss + actor_loss)
        follow(self.target, self.critics, config.tau)
        return {
            "value_loss": value_loss.detach(),
            "critic_loss": critic_loss.detach(),
            "actor_loss": actor_loss.detach(),
            "value": values.detach().mean(),
        }

    @torch.no_grad()
    def targets(self, rewards: Tensor, next_states: Tensor, terminations: Tensor) -> Tensor:
        """(B,) r + discount * V(s'), bounded. next_states are normalised."""
        values = self._value(next_states) * ~terminations
        return self.bounded(self.config.reward_scale * rewards + self.config.discount * values)

    def _value(self, states: Tensor) -> Tensor:
        """states (B, S), normalised -> (B,)"""
        return self.value(states, states[:, :0])[0]
