"""RLPD (Ball et al. 2023) at a small update ratio: SAC with LayerNorm critics that learns from prior data.

Every batch is half offline data, half replay (`agent.symmetric`). One addition: the target value is clamped to the
range that returns can have (sparse rewards: [0, 1]). With a `bc_weight` the policy is drawn to offline and to imagined
actions, which is where imagination helps most in short runs.
"""

from dataclasses import dataclass

from torch import Tensor

from pixeltraj.eval.agents.sac import SAC, SACConfig


@dataclass(frozen=True)
class RLPDConfig(SACConfig):
    batch: int = 128
    """Transitions in an update, half of them offline."""
    layer_norm: bool = True
    """Normalise the critics' hidden layers: values of actions that no data holds stay moderate."""
    discount: float = 0.98
    """Per decision."""
    temperature: float = 0.01
    """Weight of the entropy at the start; it is tuned towards `target_entropy`."""
    entropy_in_backup: bool = False
    """Whether the target value counts entropy, as in plain SAC."""


class RLPD(SAC):
    """The agent."""

    def judged(self, values: Tensor) -> Tensor:
        """(N, B) -> (B,), the mean, as in REDQ."""
        return values.mean(dim=0)
