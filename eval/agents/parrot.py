"""PARROT (Singh et al. 2021): SAC in the latent space of what the offline data's agents do.

A conditional RealNVP turns noise z into an action, given the state; it is trained by maximum likelihood on offline
actions (`pretrain`) and then kept. SAC's policy chooses z, so that exploring looks like behaviour from the first
step. The map is one-to-one, so the critics may judge actions instead of the z that stand for them: transitions of
others, imagined ones too, are then used as they are.

Shapes: B batch, S state, A action.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.agents.learner import step
from pixeltraj.eval.agents.networks import mlp
from pixeltraj.eval.agents.sac import SAC, SACConfig
from pixeltraj.replay_buffer import Batch
from pixeltraj.trajectory import Trajectory

LARGEST = 0.999  # an action of 1 would come from an infinite z


@dataclass(frozen=True)
class PARROTConfig(SACConfig):
    couplings: int = 6
    """Layers of the flow."""
    flow_hidden: int = 128
    """Width of the two hidden layers in each."""
    noise: float = 0.05
    """Deviation of noise on the flow's training actions: without it a deterministic demonstrator has no density."""
    limit: float = 2.5
    """The policy chooses z in [-limit, limit]; to the flow it is standard normal noise."""
    temperature: float = 0.01
    """Weight of the entropy at the start; it is tuned towards `target_entropy`. From SAC's 1 it falls so slowly that
    several thousand updates leave the policy at the prior's mode."""
    pretrain_steps: int = 3000
    """Of the flow, before the first update."""
    pretrain_learning_rate: float = 1e-3
    """Of Adam, for the flow; it falls to nothing (cosine)."""


class Flow(nn.Module):
    """z (..., A) <-> actions (..., A) in (-1, 1), given states: affine couplings, then a tanh."""

    def __init__(self, states: int, actions: int, config: PARROTConfig, generator: torch.Generator) -> None:
        super().__init__()
        sizes = actions + states, config.flow_hidden, config.flow_hidden, 2 * actions
        networks = [mlp(sizes, generator) for _ in range(config.couplings)]
        with torch.no_grad():
            for network in networks:
                for parameter in network[-1].parameters():
                    parameter.mul_(0.01)  # the flow begins as the identity
        self.networks = nn.ModuleList(networks)
        even = torch.arange(actions) % 2 == 0
        self.changed = [even if i % 2 == 0 else ~even for i in range(config.couplings)]

    def forward(self, z: Tensor, states: Tensor) -> Tensor:
        """-> actions"""
        for network, changed in zip(self.networks, self.changed):
            log_scale, shift = self._coupling(network, changed, z, states)
            z = z * log_scale.exp() + shift
        return z.tanh()

    def log_probability(self, actions: Tensor, states: Tensor) -> Tensor:
        """(...,), up to what the tanh adds, which nothing can change."""
        z, log_volume = actions.clamp(-LARGEST, LARGEST).atanh(), torch.zeros(actions.shape[:-1])
        for network, changed in reversed(list(zip(self.networks, self.changed))):
            log_scale, shift = self._coupling(network, changed, z, states)
            z = (z - shift) * (-log_scale).exp()
            log_volume = log_volume - log_scale.sum(dim=-1)
        return (-0.5 * z.square() - 0.5 * math.log(2 * math.pi)).sum(dim=-1) + log_volume

    def _coupling(self, network: nn.Module, changed: Tensor, x: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        """Scale (its logarithm) and shift of the dimensions to be changed; the others tell it."""
        log_scale, shift = network(torch.cat([x * ~changed, states], dim=-1)).chunk(2, dim=-1)
        return 2.0 * (0.5 * log_scale).tanh() * changed, shift * changed


class PARROT(SAC):
    """The agent."""

    config: PARROTConfig

    def __init__(
        self,
        config: PARROTConfig,
        offline: Batch,
        generator: torch.Generator,
        value_range: tuple[float, float] | None = None,
    ) -> None:
        """See `ValueLearner`."""
        super().__init__(config, offline, generator, value_range)
        self.flow = Flow(self.state_size, self.action_size, config, generator).requires_grad_(False)

    def pretrain(self, trajectories: Sequence[Trajectory], rng: np.random.Generator) -> list[float]:
        """Fit the flow. -> the loss of each step, nats an action. Raises PixeltrajError without trajectories."""
        if not trajectories:
            raise PixeltrajError("PARROT learns from offline trajectories first; give it some")
        data = Batch.of(trajectories)
        states, actions = self.normalise(data.states), torch.from_numpy(data.actions)
        self.flow.requires_grad_(True)
        steps = self.config.pretrain_steps
        optimizer = torch.optim.Adam(self.flow.parameters(), lr=self.config.pretrain_learning_rate, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        losses = []
        for _ in tqdm(range(steps), desc="PARROT's flow", unit="step"):
            rows = torch.from_numpy(rng.integers(len(states), size=self.config.batch))
            noise = torch.randn(len(rows), self.action_size, generator=self.generator)
            wanted = actions[rows] + self.config.noise * noise
            loss = -self.flow.log_probability(wanted, states[rows]).mean()
            step(optimizer, loss, gradient_norm=10.0)
            schedule.step()
            losses.append(float(loss.detach()))
        self.flow.requires_grad_(False)
        return losses

    def played(self, squashed: Tensor, states: Tensor) -> Tensor:
        """The policy's squashed Gaussian (..., A), stretched, is z; the flow makes actions of it."""
        return self.flow(self.config.limit * squashed, states)
