"""Learner: what all agents have in common: normalised states, optimizers, how they are saved; errors of values."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pixeltraj.eval.agents.agent import Playing
from pixeltraj.replay_buffer import Batch, Imagine
from pixeltraj.simulator import Simulator
from pixeltraj.trajectory import Trajectory

DEVIATION_FLOOR = 0.02  # states that hardly vary in the offline data must not blow up
STATE_CLIP = 10.0


class Learner(nn.Module):
    """States go in raw; they are normalised by the offline data's mean and deviation."""

    mean: Tensor
    deviation: Tensor
    updates: Tensor

    def __init__(self, offline: Batch, generator: torch.Generator) -> None:
        """Sizes and normalisation come from the offline data; the generator gives all randomness.

        offline: may have no rows (`agent.no_data`); then states are taken as they are.
        """
        super().__init__()
        self.generator = generator
        self.known = len(offline.states) > 0
        self.state_size, self.action_size = offline.states.shape[-1], offline.actions.shape[-1]
        mean, deviation = np.zeros(self.state_size, np.float32), np.ones(self.state_size, np.float32)
        if self.known:
            mean = offline.states.mean(axis=0)
            deviation = np.maximum(offline.states.std(axis=0), DEVIATION_FLOOR)
        self.register_buffer("mean", torch.from_numpy(mean))
        self.register_buffer("deviation", torch.from_numpy(deviation))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.optimizers: list[torch.optim.Optimizer] = []

    def optimize(self, learning_rate: float, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """An Adam that is saved with the agent."""
        self.optimizers.append(torch.optim.Adam(parameters, lr=learning_rate, fused=True))
        return self.optimizers[-1]

    def normalise(self, states: np.ndarray | Tensor) -> Tensor:
        normal = (torch.as_tensor(states) - self.mean) / self.deviation
        return normal.clamp(-STATE_CLIP, STATE_CLIP) if self.known else normal

    def rows(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """-> states (normalised), actions, rewards, next states (normalised), terminations."""
        states, actions, rewards, next_states, terminations = (torch.from_numpy(column) for column in batch[:5])
        return self.normalise(states), actions, rewards, self.normalise(next_states), terminations

    # A decision is an action, an observation a state, unless an agent says otherwise

    @property
    def decision_size(self) -> int:
        return self.action_size

    @property
    def observation_size(self) -> int:
        return self.state_size

    def acting(self, simulator: Simulator) -> Playing:
        return simulator

    def imagining(self, imagine: Imagine) -> Imagine:
        return imagine

    def transitions(self, trajectories: Sequence[Trajectory], imagined: bool = False) -> Batch:
        return Batch.of(trajectories, imagined)

    def td_error(self, batch: Batch) -> np.ndarray | None:
        """None: an agent without critics has no errors."""
        return None

    # Saving

    def tensors(self) -> dict[str, Tensor]:
        """Parameters, moments of the optimizers and the generator: all that training goes on from."""
        saved = {f"agent.{name}": value for name, value in self.state_dict().items()}
        for i, optimizer in enumerate(self.optimizers):
            for j, state in optimizer.state_dict()["state"].items():
                saved |= {f"optimizer.{i}.{j}.{name}": value for name, value in state.items()}
        return {**saved, "generator": self.generator.get_state()}

    def load_tensors(self, saved: dict[str, Tensor]) -> None:
        """Inverse of `tensors`, for an agent made with the same configuration."""
        self.load_state_dict({k.removeprefix("agent."): v for k, v in saved.items() if k.startswith("agent.")})
        for i, optimizer in enumerate(self.optimizers):
            state: dict[int, dict[str, Any]] = {}
            for key, value in saved.items():
                if key.startswith(f"optimizer.{i}."):
                    _, _, j, name = key.split(".")
                    state.setdefault(int(j), {})[name] = value
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        self.generator.set_state(saved["generator"])


class ValueLearner(Learner):
    """A learner with critics."""

    critics: nn.Module
    """Values (N, B) of states (B, S), normalised, and actions (B, A)."""

    def __init__(
        self, offline: Batch, generator: torch.Generator, value_range: tuple[float, float] | None = None
    ) -> None:
        """See `Learner`. value_range: target values are clamped to it; (0, 1) where the reward is sparse, None for no
        bound."""
        super().__init__(offline, generator)
        self.value_range = value_range

    @abstractmethod
    def targets(self, rewards: Tensor, next_states: Tensor, terminations: Tensor) -> Tensor:
        """(B,) r + discount * V(s'), bounded; r alone where it ends there. next_states are normalised."""

    def bounded(self, targets: Tensor) -> Tensor:
        return targets if self.value_range is None else targets.clamp(*self.value_range)

    def misjudged(self, values: Tensor, targets: Tensor, batch: Batch) -> Tensor:
        """The critics' loss, a scalar, of values (N, B) and targets (B,): squared, by the batch's weights, the mean of
        its rows, the sum of the critics."""
        errors = (values - targets).square()
        if batch.weights is not None:
            errors = errors * torch.from_numpy(batch.weights)
        return errors.mean(dim=1).sum()

    @torch.no_grad()
    def td_error(self, batch: Batch) -> np.ndarray | None:
        """(B,) |mean of the critics - target|. The generator is left where it was."""
        before = self.generator.get_state()
        states, actions, rewards, next_states, terminations = self.rows(batch)
        errors = self.critics(states, actions).mean(dim=0) - self.targets(rewards, next_states, terminations)
        self.generator.set_state(before)
        return errors.abs().numpy()


def step(optimizer: torch.optim.Optimizer, loss: Tensor, gradient_norm: float | None = None) -> None:
    """Descend; gradients are clipped to a norm where one is given."""
    optimizer.zero_grad()
    loss.backward()
    if gradient_norm is not None:
        torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], gradient_norm)
    optimizer.step()
