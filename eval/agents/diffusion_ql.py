"""Diffusion-QL (Wang et al. 2023): a diffusion model as policy, held to the data by its own loss and drawn to value.

Five denoising steps make an action from noise; gradients of the critics go through all of them. The critics learn
like those of TD3, from actions of a slowly moving copy of the policy. They have three smooth layers, as the
authors' do: with two of ReLU it learned next to nothing in as many updates (docs/experiments.md).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixeltraj.eval.agents.learner import ValueLearner, step
from pixeltraj.eval.agents.networks import Critics, follow, frozen, mlp
from pixeltraj.replay_buffer import Batch

EMBEDDING = 16


@dataclass(frozen=True)
class DiffusionQLConfig:
    batch: int = 256
    """Transitions in an update."""
    hidden: int = 256
    """Width of the hidden layers, three of the policy and of the critics."""
    denoising: int = 5
    """Steps from noise to an action."""
    learning_rate: float = 3e-4
    """Of Adam, for policy and critics."""
    gradient_norm: float = 9.0
    """Gradients are clipped to it."""
    discount: float = 0.99
    """Per decision."""
    tau: float = 0.005
    """Step of the target critics towards the critics."""
    policy_tau: float = 0.001
    """Step of the target policy towards the policy; the paper takes 0.005 every fifth update."""
    eta: float = 1.0
    """Weight of the value against the diffusion loss; the paper's range is 0.01 to 3.5. 0 clones, with 1 candidate."""
    candidates: int = 50
    """Actions proposed for a state; the critics choose among them."""
    bf16: bool = False
    """Compute the networks in bfloat16."""


class DiffusionPolicy(nn.Module):
    """A denoising diffusion model (DDPM, variance preserving) of actions, given the state."""

    def __init__(
        self, states: int, actions: int, hidden: int, steps: int, generator: torch.Generator, bf16: bool
    ) -> None:
        super().__init__()
        self.size, self.steps, self.bf16 = actions, steps, bf16
        sizes = actions + states + EMBEDDING, hidden, hidden, hidden, actions
        self.network = mlp(sizes, generator, nn.Mish)
        self.embedding = nn.Parameter(torch.randn(steps, EMBEDDING, generator=generator))
        t = torch.arange(1, steps + 1)
        betas = 1.0 - torch.exp(-0.1 / steps - 0.5 * (10.0 - 0.1) * (2 * t - 1) / steps**2)
        self.betas, self.kept = betas.tolist(), (1.0 - betas).cumprod(0)

    def loss(self, states: Tensor, actions: Tensor, generator: torch.Generator) -> Tensor:
        """How badly the noise on actions (B, A) is told, at random steps."""
        t = torch.randint(self.steps, (len(states),), generator=generator)
        noise = torch.randn(actions.shape, generator=generator)
        kept = self.kept[t, None]
        return (self._noise(states, kept.sqrt() * actions + (1 - kept).sqrt() * noise, t) - noise).square().mean()

    def sample(self, states: Tensor, generator: torch.Generator) -> Tensor:
        """states (..., S) -> actions (..., A) in [-1, 1]"""
        actions = torch.randn(*states.shape[:-1], self.size, generator=generator)
        for t in reversed(range(self.steps)):
            kept, before = float(self.kept[t]), float(self.kept[t - 1]) if t else 1.0
            noise = self._noise(states, actions, torch.full(states.shape[:-1], t))
            clean = ((actions - (1 - kept) ** 0.5 * noise) / kept**0.5).clamp(-1.0, 1.0)
            beta = self.betas[t]
            actions = (before**0.5 * beta * clean + (1 - beta) ** 0.5 * (1 - before) * actions) / (1 - kept)
            if t:
                deviation = (beta * (1 - before) / (1 - kept)) ** 0.5
                actions = actions + deviation * torch.randn(actions.shape, generator=generator)
        return actions.clamp(-1.0, 1.0)

    def _noise(self, states: Tensor, actions: Tensor, t: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            return self.network(torch.cat([actions, states, self.embedding[t]], dim=-1)).float()


class DiffusionQL(ValueLearner):
    """The agent."""

    def __init__(
        self,
        config: DiffusionQLConfig,
        offline: Batch,
        generator: torch.Generator,
        value_range: tuple[float, float] | None = None,
    ) -> None:
        """See `ValueLearner`."""
        super().__init__(offline, generator, value_range)
        self.config = config
        policy = self.state_size, self.action_size, config.hidden, config.denoising, generator, config.bf16
        ensemble = 2, self.state_size + self.action_size, config.hidden, generator, False, config.bf16, 3, F.mish
        self.actor, self.target_actor = DiffusionPolicy(*policy), DiffusionPolicy(*policy)
        self.critics, self.target = Critics(*ensemble), Critics(*ensemble)
        for target, network in ((self.target_actor, self.actor), (self.target, self.critics)):
            target.load_state_dict(network.state_dict())
            target.requires_grad_(False)
        self.actor_optimizer = self.optimize(config.learning_rate, self.actor.parameters())
        self.critic_optimizer = self.optimize(config.learning_rate, self.critics.parameters())

    @torch.no_grad()
    def act(self, states: np.ndarray, explore: bool) -> np.ndarray:
        """states (..., S) -> actions (..., A): the best of some candidates, or one drawn by value (softmax)."""
        normal = self.normalise(states)
        flat = normal.reshape(-1, self.state_size).repeat_interleave(self.config.candidates, dim=0)
        actions = self.actor.sample(flat, self.generator)
        values = self.target(flat, actions).amin(dim=0).view(-1, self.config.candidates)
        best = values.argmax(dim=1)
        if explore:
            best = torch.multinomial(values.softmax(dim=1), 1, generator=self.generator)[:, 0]
        chosen = actions.view(len(best), self.config.candidates, -1)[torch.arange(len(best)), best]
        return chosen.view(*normal.shape[:-1], self.action_size).numpy()

    def update(self, batch: Batch, cloned: np.ndarray | None = None) -> dict[str, Tensor]:
        """One step of policy and, if they have a say, critics. -> losses, scalars. The critics learn from all rows, the
        diffusion loss from cloned ones: all where nothing is said, as in the paper, which learns offline."""
        config = self.config
        states, actions, rewards, next_states, terminations = self.rows(batch)
        losses = {}
        if config.eta or config.candidates > 1:
            values = self.critics(states, actions)  # (2, B)
            critic_loss = self.misjudged(values, self.targets(rewards, next_states, terminations), batch)
            step(self.critic_optimizer, critic_loss, config.gradient_norm)
            losses = {"critic_loss": critic_loss, "value": values.mean()}

        rows = slice(None) if cloned is None else torch.from_numpy(cloned)
        bc_loss = self.actor.loss(states[rows], actions[rows], self.generator)
        pull = self._pull(states) if config.eta else torch.zeros(())
        actor_loss = bc_loss - config.eta * pull
        step(self.actor_optimizer, actor_loss, config.gradient_norm)

        follow(self.target, self.critics, config.tau)
        follow(self.target_actor, self.actor, config.policy_tau)
        losses |= {"actor_loss": actor_loss, "bc_loss": bc_loss}
        return {name: loss.detach() for name, loss in losses.items()}

    def _pull(self, states: Tensor) -> Tensor:
        """The value of the policy's own actions: one critic's, in units of what the other says."""
        with frozen(self.critics):
            own = self.critics(states, self.actor.sample(states, self.generator))  # (2, B)
        which = int(torch.randint(2, (), generator=self.generator))
        return own[which].mean() / own[1 - which].detach().abs().mean()

    @torch.no_grad()
    def targets(self, rewards: Tensor, next_states: Tensor, terminations: Tensor) -> Tensor:
        """(B,) r + discount * min Q'(s', a') with a' of the target policy, bounded. next_states are normalised."""
        values = self.target(next_states, self.target_actor.sample(next_states, self.generator)).amin(dim=0)
        return self.bounded(rewards + self.config.discount * values * ~terminations)
