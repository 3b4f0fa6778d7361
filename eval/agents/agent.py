"""Agent: what an experiment asks of every agent; and the batches that go in."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from pixeltraj.replay_buffer import Batch, Imagine
from pixeltraj.sight import Sight
from pixeltraj.simulator import Simulator
from pixeltraj.trajectory import Trajectory

COLUMNS = ("states", "actions", "rewards", "next_states", "terminations", "imagined")


class Playing(Protocol):
    """What is asked of a simulator: `pixeltraj.simulator.Simulator`, or what an agent makes of one."""

    def reset(self, *, seed: int | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """As gymnasium.Env."""

    def step(self, action: np.ndarray) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        """As gymnasium.Env. Where several decisions were played at once, `info["played"]` holds each as a `Played`."""

    def snapshot(self) -> np.ndarray:
        """(Q,) float64: the full simulator state."""


class Played(NamedTuple):
    """One decision in the simulator, and what came of it."""

    action: np.ndarray
    reward: float
    next_state: np.ndarray
    terminated: bool
    truncated: bool
    snapshot: np.ndarray
    """(Q,) the full simulator state after it"""


@runtime_checkable
class Agent(Protocol):
    """Made by `make_agent` (catalogue.py). Everything random in it comes from one generator that it was given."""

    config: Any
    """Its dataclass; `config.batch` is the size of the batches that it wants."""

    decision_size: int
    """Numbers of what it decides: those of an action, unless `acting` plays something else."""

    observation_size: int
    """Numbers of what it observes in a batch: those of a state, unless `transitions` says otherwise."""

    def acting(self, simulator: Simulator) -> Playing:
        """The simulator as it acts in it."""

    def imagining(self, imagine: Imagine) -> Imagine:
        """The imagination as it learns from it."""

    def transitions(self, trajectories: Sequence[Trajectory], imagined: bool = False) -> Batch:
        """What trajectories, at least one, hold of its decisions."""

    def act(self, states: np.ndarray, explore: bool) -> np.ndarray:
        """states (..., S) -> decisions (..., A) float32, actions in [-1, 1]: a sample of the policy, or its best
        guess."""

    def update(self, batch: Batch, cloned: np.ndarray | None = None) -> dict[str, Tensor]:
        """One step of training. -> losses and the like, scalars.

        cloned (B,) bool: rows whose actions an agent with a cloning term (`bc_weight`) is drawn to; the imagined
        ones where nothing is said.
        """

    def td_error(self, batch: Batch) -> np.ndarray | None:
        """(B,) how far the values are from their targets, absolute; None for an agent that has no critic.

        Leaves the agent as it was, its randomness included.
        """

    def tensors(self) -> dict[str, Tensor]:
        """All that training goes on from: a killed run that loads them ends like the unbroken one."""

    def load_tensors(self, saved: dict[str, Tensor]) -> None:
        """Inverse of `tensors`, for an agent made with the same configuration."""


@runtime_checkable
class Pretrained(Agent, Protocol):
    """An agent that learns what behaviour looks like before it learns what is worth doing."""

    def pretrain(self, trajectories: Sequence[Trajectory], rng: np.random.Generator) -> list[float]:
        """Learn from the actions alone. -> the loss of each step. `tensors` hold what was learned."""


@runtime_checkable
class Seeing(Agent, Protocol):
    """An agent that learns from frames, from data alone. Its batches name them, so that each is in memory once: states
    are (B, 2), the episode and the step."""

    def see(self, sight: Sight, episodes: Sequence[Trajectory]) -> None:
        """Told before all else: what draws the states that it acts in, and all that it learns from, with frames."""


def no_data(state_size: int, action_size: int) -> Batch:
    """Offline data of an agent that begins without any: states go into its networks as they are."""
    states, flags = np.zeros((0, state_size), np.float32), np.zeros(0, bool)
    return Batch(
        states=states,
        actions=np.zeros((0, action_size), np.float32),
        rewards=np.zeros(0, np.float32),
        next_states=states,
        terminations=flags,
        imagined=flags,
    )


def symmetric(offline: Batch, replay: Batch | None) -> tuple[Batch, np.ndarray]:
    """Offline and replay rows as one batch, and which of them are cloned (B,): the offline and the imagined ones."""
    if replay is None:
        return offline, np.ones(len(offline.states), bool)
    cloned = np.concatenate([np.ones(len(offline.states), bool), replay.imagined])
    columns = {name: np.concatenate([getattr(offline, name), getattr(replay, name)]) for name in COLUMNS}
    weights = None
    if replay.weights is not None:
        weights = np.concatenate([np.ones(len(offline.states), np.float32), replay.weights])
    return Batch(**columns, weights=weights), cloned
