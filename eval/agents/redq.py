"""REDQ (Chen et al. 2021): SAC with ten critics, many updates a step, and targets from a few critics at a time.

A target is the minimum over a random subset of the critics; the policy is improved by their mean, and only once
for every `actor_every` updates, which the paper sets to the updates of one environment step.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pixeltraj.eval.agents.sac import SAC, SACConfig


@dataclass(frozen=True)
class REDQConfig(SACConfig):
    critics: int = 10
    """Size of the ensemble."""
    subset: int = 2
    """Critics drawn for each update's targets, which are their minimum."""
    actor_every: int = 20
    """Updates of the critics for each one of policy and temperature."""


class REDQ(SAC):
    """The agent."""

    config: REDQConfig

    def trusted(self, values: Tensor) -> Tensor:
        """(N, B) -> (B,), the least of a random few."""
        drawn = torch.randperm(len(values), generator=self.generator)[: self.config.subset]
        return values[drawn].amin(dim=0)

    def judged(self, values: Tensor) -> Tensor:
        """(N, B) -> (B,), the mean."""
        return values.mean(dim=0)
