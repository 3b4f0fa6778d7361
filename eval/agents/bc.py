"""Behaviour cloning from states: a policy that does what the data's agent did, by regression.

Imagined rows count as data, like all others.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pixeltraj.eval.agents.learner import Learner, step
from pixeltraj.eval.agents.networks import Policy
from pixeltraj.replay_buffer import Batch


@dataclass(frozen=True)
class BCConfig:
    batch: int = 256
    """Transitions in an update."""
    hidden: int = 256
    """Width of the two hidden layers."""
    learning_rate: float = 3e-4
    """Of Adam."""
    deterministic: bool = True
    """Least squares; otherwise a Gaussian's likelihood, whose deviation is learned for each action dimension."""
    noise: float = 0.1
    """Deviation of exploring actions around the policy's, where it is deterministic."""
    bf16: bool = False
    """Compute the network in bfloat16."""


class BC(Learner):
    """The agent. It has no critic."""

    def __init__(
        self,
        config: BCConfig,
        offline: Batch,
        generator: torch.Generator,
        value_range: tuple[float, float] | None = None,
    ) -> None:
        """See `Learner`; it has no values that a range could bound."""
        super().__init__(offline, generator)
        self.config = config
        self.actor = Policy(self.state_size, self.action_size, config.hidden, generator, config.bf16)
        self.optimizer = self.optimize(config.learning_rate, self.actor.parameters())

    @torch.no_grad()
    def act(self, states: np.ndarray, explore: bool) -> np.ndarray:
        """states (..., S) -> actions (..., A): a sample of the policy, or its mean."""
        actions = self.actor(self.normalise(states))
        if explore:
            deviation = self.config.noise if self.config.deterministic else self.actor.deviation()
            actions = actions + deviation * torch.randn(actions.shape, generator=self.generator)
        return actions.clamp(-1.0, 1.0).numpy()

    def update(self, batch: Batch, cloned: np.ndarray | None = None) -> dict[str, Tensor]:
        """One step on all rows, whether cloned or not. -> losses, scalars."""
        states, actions, *_ = self.rows(batch)
        if self.config.deterministic:
            loss = (self.actor(states) - actions).square().mean()
        else:
            loss = -self.actor.log_probability(states, actions).mean()
        step(self.optimizer, loss)
        return {"actor_loss": loss.detach()}
