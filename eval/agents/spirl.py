"""SPiRL (Pertsch et al. 2020): an agent that decides on skills, and leaves them only as far as it pays.

A skill z stands for H actions in a row. `pretrain` learns from offline trajectories what skills there are (a
variational autoencoder of action sequences) and which are likely in a state (the prior p(z|s)). The policy then
chooses skills by SAC, where the entropy is replaced by the divergence from the prior, held near `divergence`.

For this agent an action is a skill, and a transition takes H decisions: `skills` makes such transitions of
trajectories, `SkillSimulator` plays skills, and in both rewards are summed.

Shapes: B batch, S state, A action, Z skill, H actions of a skill, N critics.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.agents.agent import Played
from pixeltraj.eval.agents.learner import Learner, ValueLearner, step
from pixeltraj.eval.agents.networks import Actor, Critics, follow, frozen, mlp
from pixeltraj.replay_buffer import Batch, Imagine
from pixeltraj.simulator import Simulator
from pixeltraj.trajectory import Trajectory


@dataclass(frozen=True)
class SPiRLConfig:
    length: int = 10
    """H, actions of a skill. Episodes that are shorter teach nothing."""
    skill_size: int = 10
    """Z, numbers that make up a skill."""
    batch: int = 256
    """Transitions in an update."""
    hidden: int = 256
    """Width of the two hidden layers of every network."""
    critics: int = 2
    """Size of the ensemble; the target is its minimum."""
    learning_rate: float = 3e-4
    """Of Adam, for the policy, the critics and the divergence's weight."""
    discount: float = 0.99
    """Per skill."""
    tau: float = 0.005
    """Step of the target critics towards the critics."""
    temperature: float = 1.0
    """Weight of the divergence from the prior at the start; it is tuned towards `divergence`."""
    divergence: float = 1.0
    """Nats that the policy may be away from the prior; the paper takes 1 in mazes, 5 in the kitchen."""
    compression: float = 5e-4
    """Weight of the skills' divergence from a standard normal, against the actions' mean squared error."""
    pretrain_steps: int = 5000
    """Of skills and prior, before the first update."""
    pretrain_learning_rate: float = 1e-3
    """Of Adam, for skills and prior; it falls to nothing (cosine)."""
    bf16: bool = False
    """Compute policy and critics in bfloat16."""


class SPiRL(ValueLearner):
    """The agent."""

    log_temperature: Tensor

    def __init__(
        self,
        config: SPiRLConfig,
        offline: Batch,
        generator: torch.Generator,
        value_range: tuple[float, float] | None = None,
    ) -> None:
        """See `ValueLearner`; the offline data's transitions are ordinary ones."""
        super().__init__(offline, generator, value_range)
        self.config = config
        size, hidden, flat = config.skill_size, config.hidden, config.length * self.action_size
        self.encoder, self.decoder = Actor(flat, size, hidden, generator), mlp((size, hidden, hidden, flat), generator)
        self.prior, self.actor = (Actor(self.state_size, size, hidden, generator, config.bf16) for _ in range(2))
        ensemble = config.critics, self.state_size + size, hidden, generator, False, config.bf16
        self.critics, self.target = Critics(*ensemble), Critics(*ensemble)
        self.target.load_state_dict(self.critics.state_dict())
        self.actor.load_state_dict(self.prior.state_dict())
        for network in (self.encoder, self.decoder, self.prior, self.target):
            network.requires_grad_(False)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(config.temperature)))
        self.actor_optimizer = self.optimize(config.learning_rate, self.actor.parameters())
        self.critic_optimizer = self.optimize(config.learning_rate, self.critics.parameters())
        self.temperature_optimizer = self.optimize(config.learning_rate, [self.log_temperature])

    # Skills

    @property
    def decision_size(self) -> int:
        return self.config.skill_size

    def acting(self, simulator: Simulator) -> "SkillSimulator":
        return SkillSimulator(simulator, self)

    def imagining(self, imagine: Imagine) -> "SkillImagination":
        return SkillImagination(imagine, self)

    def transitions(self, trajectories: Sequence[Trajectory], imagined: bool = False) -> Batch:
        return self.skills(trajectories, imagined)

    def pretrain(self, trajectories: Sequence[Trajectory], rng: np.random.Generator) -> list[float]:
        """Learn skills and prior, and let the policy begin as the prior. -> the loss of each step.

        Raises PixeltrajError where no trajectory has as many actions as a skill.
        """
        data = [self._windows(trajectory) for trajectory in trajectories]
        columns = [torch.from_numpy(np.concatenate(column)) for column in zip(*data)]
        if not columns or not len(columns[0]):
            raise PixeltrajError(f"no trajectory has {self.config.length} actions, a skill's; give a shorter length")
        states, actions = self.normalise(columns[0]), columns[1]
        trained = nn.ModuleList([self.encoder, self.decoder, self.prior]).requires_grad_(True)
        steps = self.config.pretrain_steps
        optimizer = torch.optim.Adam(trained.parameters(), lr=self.config.pretrain_learning_rate, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        losses = []
        for _ in tqdm(range(steps), desc="SPiRL's skills", unit="step"):
            rows = torch.from_numpy(rng.integers(len(states), size=self.config.batch))
            mean, log_std = self.encoder(actions[rows].flatten(1))
            skills = mean + log_std.exp() * torch.randn(mean.shape, generator=self.generator)
            misread = (self.decoder(skills).tanh() - actions[rows].flatten(1)).square().mean()
            width = divergence(mean, log_std, torch.zeros_like(mean), torch.zeros_like(mean)).mean()
            unlikely = divergence(mean.detach(), log_std.detach(), *self.prior(states[rows])).mean()
            loss = misread + self.config.compression * width + unlikely
            step(optimizer, loss)
            schedule.step()
            losses.append(float(loss.detach()))
        trained.requires_grad_(False)
        self.actor.load_state_dict(self.prior.state_dict())
        return losses

    @torch.no_grad()
    def skills(self, trajectories: Iterable[Trajectory], imagined: bool = False) -> Batch:
        """All transitions over H decisions: states, skills (n, Z), rewards summed, states and terminations after.

        n may be 0, where all trajectories are shorter; there must be one at least.
        """
        length = self.config.length
        parts = []
        for trajectory in trajectories:
            states, actions = self._windows(trajectory)
            skills, _ = self.encoder(torch.from_numpy(actions).flatten(1))
            ends = np.arange(len(states)) + length
            sums = np.concatenate([[0.0], np.cumsum(trajectory.rewards, dtype=np.float64)])
            rewards = (sums[ends] - sums[ends - length]).astype(np.float32)
            parts.append((states, skills.numpy(), rewards, trajectory.states[ends], trajectory.terminations[ends - 1]))
        states, skills, rewards, after, ends = (np.concatenate(column) for column in zip(*parts))
        return Batch(states, skills, rewards, after, ends, np.full(len(states), imagined))

    @torch.no_grad()
    def actions(self, skills: np.ndarray) -> np.ndarray:
        """skills (..., Z) -> the actions (..., H, A) that they stand for."""
        flat = self.decoder(torch.from_numpy(skills)).tanh()
        return flat.unflatten(-1, (self.config.length, self.action_size)).numpy()

    def _windows(self, trajectory: Trajectory) -> tuple[np.ndarray, np.ndarray]:
        """-> states (n, S) in which H actions (n, H, A) begin; none where the trajectory is shorter."""
        length = self.config.length
        count = max(0, len(trajectory) - length + 1)
        rows = np.arange(count)[:, None] + np.arange(length)
        return trajectory.states[:count], trajectory.actions[rows]

    # Learning what they are worth

    td_error = Learner.td_error  # its critics value skills, not what is done in them

    @torch.no_grad()
    def act(self, states: np.ndarray, explore: bool) -> np.ndarray:
        """states (..., S) -> skills (..., Z): a sample of the policy, or its mean."""
        mean, log_std = self.actor(self.normalise(states))
        return (self._sample(mean, log_std) if explore else mean).numpy()

    def update(self, batch: Batch, cloned: np.ndarray | None = None) -> dict[str, Tensor]:
        """One step of critics, policy and the divergence's weight on transitions of `skills`. -> losses, scalars."""
        config = self.config
        states, skills, rewards, next_states, terminations = self.rows(batch)
        values = self.critics(states, skills)  # (N, B)
        critic_loss = self.misjudged(values, self.targets(rewards, next_states, terminations), batch)
        step(self.critic_optimizer, critic_loss)
        follow(self.target, self.critics, config.tau)

        moments = self.actor(states)
        with frozen(self.critics):
            value = self.critics(states, self._sample(*moments)).amin(dim=0)
        away = divergence(*moments, *self.prior(states)).mean()
        actor_loss = self.log_temperature.detach().exp() * away - value.mean()
        step(self.actor_optimizer, actor_loss)
        step(self.temperature_optimizer, self.log_temperature * (config.divergence - away.detach()))
        losses = {"critic_loss": critic_loss, "actor_loss": actor_loss, "divergence": away, "value": values.mean()}
        return {name: loss.detach() for name, loss in losses.items()}

    @torch.no_grad()
    def targets(self, rewards: Tensor, next_states: Tensor, terminations: Tensor) -> Tensor:
        """(B,) r + discount * (min Q'(s', z') - temperature * divergence), bounded. next_states are normalised."""
        moments = self.actor(next_states)
        values = self.target(next_states, self._sample(*moments)).amin(dim=0)
        values = values - self.log_temperature.exp() * divergence(*moments, *self.prior(next_states))
        return self.bounded(rewards + self.config.discount * values * ~terminations)

    def _sample(self, mean: Tensor, log_std: Tensor) -> Tensor:
        return mean + log_std.exp() * torch.randn(mean.shape, generator=self.generator)


class SkillSimulator:
    """A simulator in which one decision is a skill of the agent's."""

    def __init__(self, simulator: Simulator, agent: SPiRL) -> None:
        self.simulator, self.agent = simulator, agent

    def reset(self, *, seed: int | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        return self.simulator.reset(seed=seed)

    def step(self, skill: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Play the skill (Z,) to its end or the episode's. -> state, summed reward, terminated, truncated, and
        {"played": each decision}."""
        played: list[Played] = []
        for action in self.agent.actions(skill):
            state, reward, terminated, truncated, _ = self.simulator.step(action)
            played.append(Played(action, float(reward), state, terminated, truncated, self.snapshot()))
            if terminated or truncated:
                break
        total = sum(one.reward for one in played)
        return state, total, terminated, truncated, {"played": played}

    def snapshot(self) -> np.ndarray:
        return self.simulator.snapshot()


class SkillImagination:
    """Imagined trajectories as transitions over a skill: pixeltraj.replay_buffer.Imagine. Those that are shorter than a
    skill teach nothing."""

    def __init__(self, imagine: Imagine, agent: SPiRL) -> None:
        self.imagine, self.agent = imagine, agent

    def __call__(self, states: np.ndarray, snapshots: np.ndarray, seed: int) -> list[Trajectory]:
        """As many trajectories of one transition as skills are found."""
        imagined = self.imagine(states, snapshots, seed)
        batch = self.agent.skills(imagined) if imagined else None
        if batch is None:
            return []
        columns = zip(batch.states, batch.actions, batch.rewards, batch.next_states, batch.terminations)
        nothing, points = np.zeros(1, bool), np.zeros((2, imagined[0].keypoints.shape[1], 3), np.float32)
        return [
            Trajectory(np.stack([state, after]), skill[None], reward[None], end[None], nothing, points)
            for state, skill, reward, after, end in columns
        ]


def divergence(mean: Tensor, log_std: Tensor, other_mean: Tensor, other_log_std: Tensor) -> Tensor:
    """(...,) nats: Kullback-Leibler divergence of Gaussians with moments (..., Z) from others."""
    ratio = ((2 * log_std).exp() + (mean - other_mean).square()) * (-2 * other_log_std).exp()
    return (0.5 * (ratio - 1.0) + other_log_std - log_std).sum(dim=-1)
