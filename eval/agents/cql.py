"""CQL(H) (Kumar et al. 2020): SAC whose critics are pushed down where the data says nothing.

Penalty: alpha * (log-sum-exp of Q(s, .) over random actions and the policy's own at s and s', corrected by their
densities, minus Q(s, a) of the data).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pixeltraj.eval.agents.networks import sample
from pixeltraj.eval.agents.sac import SAC, SACConfig
from pixeltraj.replay_buffer import Batch


@dataclass(frozen=True)
class CQLConfig(SACConfig):
    alpha: float = 5.0
    """Weight of the penalty."""
    penalised: int = 10
    """Actions of each of the three kinds for every state."""
    actor_learning_rate: float = 1e-4
    """Of Adam, for policy and temperature."""
    entropy_in_backup: bool = False
    """Whether the target value counts entropy."""


class CQL(SAC):
    """The agent."""

    config: CQLConfig

    def __init__(
        self,
        config: CQLConfig,
        offline: Batch,
        generator: torch.Generator,
        value_range: tuple[float, float] | None = None,
    ) -> None:
        """See `ValueLearner`."""
        super().__init__(config, offline, generator, value_range)
        for optimizer in (self.actor_optimizer, self.temperature_optimizer):
            optimizer.param_groups[0]["lr"] = config.actor_learning_rate

    def penalty(self, values: Tensor, states: Tensor, next_states: Tensor) -> Tensor:
        """values (N, B) of the batch's own actions; states and next_states are normalised."""
        count, size = self.config.penalised, self.action_size
        actions = 2.0 * torch.rand(count, len(states), size, generator=self.generator) - 1.0
        density = torch.full((count, len(states)), -size * math.log(2.0))
        with torch.no_grad():
            for places in (states, next_states):
                mean, log_std = (moment.expand(count, -1, -1) for moment in self.actor(places))
                own, own_density = sample(mean, log_std, self.generator)
                actions, density = torch.cat([actions, own]), torch.cat([density, own_density])
        repeated = states.expand(3 * count, -1, -1).flatten(0, 1)
        others = self.critics(repeated, actions.flatten(0, 1)).unflatten(1, (3 * count, -1))  # (N, 3 count, B)
        return self.config.alpha * ((others - density).logsumexp(dim=1) - values).mean(dim=1).sum()
