"""ReplayBuffer: Algorithm 1 of ATraDiff. The agent's own transitions, and imagined ones in a fixed proportion."""

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from pixeltraj.errors import PixeltrajError
from pixeltraj.trajectory import Trajectory


class Batch(NamedTuple):
    """B transitions."""

    states: np.ndarray
    """(B, S) float32; for an agent that learns from frames (B, 2), the episode and the step that name them"""
    actions: np.ndarray
    """(B, A) float32 in [-1, 1]"""
    rewards: np.ndarray
    """(B,) float32"""
    next_states: np.ndarray
    """As `states`."""
    terminations: np.ndarray
    """(B,) bool: the next state has no value."""
    imagined: np.ndarray
    """(B,) bool"""

    @classmethod
    def of(cls, trajectories: Iterable[Trajectory], imagined: bool = False) -> "Batch":
        """All transitions of the trajectories, in order; at least one trajectory."""
        parts = [(t.states[:-1], t.actions, t.rewards, t.states[1:], t.terminations) for t in trajectories]
        states, actions, rewards, next_states, terminations = (np.concatenate(column) for column in zip(*parts))
        return cls(states, actions, rewards, next_states, terminations, np.full(len(states), imagined))


class Imagine(Protocol):
    """What the buffer asks for trajectories."""

    def __call__(self, states: np.ndarray, snapshots: np.ndarray, seed: int) -> list[Trajectory]:
        """Trajectories that begin in these states; fewer than asked for, or none, where imagination fails.

        states (B, S) float32; snapshots (B, Q) float64, the full simulator states, so that they can be drawn.
        The seed fixes the outcome.
        """


@dataclass(frozen=True)
class ReplayBufferConfig:
    rho: float = 0.5
    """Probability of sampling an imagined transition, in [0, 1)."""
    expected_length: float = 4.0
    """L of Algorithm 1: mean number of transitions in an imagined trajectory, from a preliminary run."""
    capacity: int = 200_000
    """Transitions of the agent's own that are kept; imagined ones in proportion. The oldest are dropped."""
    imagine_batch: int = 16
    """Start states that are gathered before imagination is asked: diffusion is far cheaper in batches."""

    @property
    def probability(self) -> float:
        """p = rho / ((1 - rho) L): trajectories to imagine for each transition that is stored."""
        return self.rho / ((1.0 - self.rho) * self.expected_length)

    def check(self) -> None:
        """Raise PixeltrajError where Algorithm 1 is not defined."""
        if not 0.0 <= self.rho < 1.0:
            raise PixeltrajError(f"rho is {self.rho}; it must be at least 0 and below 1 (0 = no imagination)")
        if not 0.0 < self.expected_length < np.inf:
            raise PixeltrajError(f"expected_length is {self.expected_length}; it must be above 0")
        if self.capacity < 1 or self.imagine_batch < 1:
            raise PixeltrajError("capacity and imagine_batch must be at least 1")


class ReplayBuffer:
    """D = D_o ∪ D_s: `store` feeds D_o and has D_s imagined, `sample` draws from both.

    The expected |D_s| : |D_o| is rho : (1 - rho). Nothing is imagined from a terminal state; what it would
    have been due is carried over to the next transition, as is what exceeds one trajectory (p > 1), so that
    the proportion holds all the same. The batching of requests delays it by `imagine_batch` at most.
    """

    def __init__(
        self,
        config: ReplayBufferConfig,
        state_size: int,
        action_size: int,
        rng: np.random.Generator,
        imagine: Imagine | None = None,
    ) -> None:
        """Without `imagine` (or with rho = 0) an ordinary replay buffer. Raises PixeltrajError on a bad config."""
        config.check()
        self.config = config
        self.imagine = imagine if config.rho > 0 else None
        self.own = Transitions(config.capacity, state_size, action_size)
        share = int(np.ceil(config.capacity * config.rho / (1.0 - config.rho)))
        self.imagined = Transitions(max(1, share), state_size, action_size)
        self.requested = 0
        """Trajectories asked for, the queued ones included."""
        self.received = 0
        """Trajectories that imagination gave."""
        self.seconds = 0.0
        """Wall-clock time spent imagining."""
        self._rng = rng
        self._due = 0.0
        self._queue: list[tuple[np.ndarray, np.ndarray]] = []

    def store(
        self,
        state: np.ndarray,
        action: np.ndarray,
        reward: float,
        next_state: np.ndarray,
        terminated: bool,
        snapshot: np.ndarray | None = None,
    ) -> None:
        """Take a transition into D_o, and with probability p have a trajectory imagined from its next state.

        state, next_state (S,); action (A,); snapshot (Q,) the full simulator state at `next_state`, wanted
        where imagination has to draw it. Raises PixeltrajError where imagination gives something unusable.
        """
        self.own.append(state[None], action[None], np.array([reward]), next_state[None], np.array([terminated]))
        if self.imagine is None:
            return
        self._due += self.config.probability
        if terminated:
            return
        wanted = int(self._due) + int(self._rng.random() < self._due % 1.0)
        self._due = 0.0
        self.requested += wanted
        self._queue += [(next_state, snapshot if snapshot is not None else np.empty(0))] * wanted
        while len(self._queue) >= self.config.imagine_batch:
            self.flush()

    def flush(self) -> None:
        """Have the queued trajectories imagined now, `imagine_batch` of them at most."""
        if self.imagine is None or not self._queue:
            return
        asked, self._queue = self._queue[: self.config.imagine_batch], self._queue[self.config.imagine_batch :]
        states, snapshots = (np.stack(column) for column in zip(*asked))
        began = time.perf_counter()
        trajectories = self.imagine(states, snapshots, int(self._rng.integers(2**31)))
        self.seconds += time.perf_counter() - began
        self.received += len(trajectories)
        if trajectories:
            self.imagined.append(*Batch.of(trajectories)[:5], weights=joined_weights(trajectories))

    def sample(self, size: int) -> Batch:
        """Each of `size` transitions is from D_s with probability rho, else from D_o; from D_o alone while D_s
        is empty. Imagined ones that have weights are drawn in proportion to them.

        Raises PixeltrajError while the buffer is empty.
        """
        if not len(self.own):
            raise PixeltrajError("the replay buffer is empty; store a transition before sampling")
        imagined = self._rng.random(size) < (self.config.rho if len(self.imagined) else 0.0)
        place = self._rng.random(size)
        rows_own = (place[~imagined] * len(self.own)).astype(np.int64)
        rows_imagined = self.imagined.rows_at(place[imagined])
        columns = {"imagined": imagined}
        for name, own in self.own.columns.items():
            columns[name] = drawn = np.empty((size, *own.shape[1:]), own.dtype)
            drawn[~imagined], drawn[imagined] = own[rows_own], self.imagined.columns[name][rows_imagined]
        return Batch(**columns)

    # Saving

    def state_dict(self) -> dict[str, np.ndarray]:
        """All that a run needs to go on exactly where it was, as arrays (for safetensors or npz)."""
        saved = {f"own.{name}": value for name, value in self.own.state_dict().items()}
        saved |= {f"imagined.{name}": value for name, value in self.imagined.state_dict().items()}
        if self._queue:
            saved["queue.states"], saved["queue.snapshots"] = (np.stack(c) for c in zip(*self._queue))
        facts = {
            "rng": self._rng.bit_generator.state,
            "due": self._due,
            "requested": self.requested,
            "received": self.received,
            "seconds": self.seconds,
        }
        saved["facts"] = np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8)
        return saved

    def load_state_dict(self, saved: dict[str, np.ndarray]) -> None:
        """Inverse of `state_dict`, for a buffer made with the same configuration."""
        for part, name in ((self.own, "own."), (self.imagined, "imagined.")):
            part.load_state_dict({k.removeprefix(name): v for k, v in saved.items() if k.startswith(name)})
        self._queue = list(zip(saved["queue.states"], saved["queue.snapshots"])) if "queue.states" in saved else []
        facts = json.loads(saved["facts"].tobytes())
        self._rng.bit_generator.state = facts["rng"]
        self._due, self.seconds = facts["due"], facts["seconds"]
        self.requested, self.received = facts["requested"], facts["received"]


class Transitions:
    """A ring of transitions in arrays: the newest `capacity` of those appended."""

    def __init__(self, capacity: int, state_size: int, action_size: int) -> None:
        self.capacity = capacity
        # Zeros, because the operating system hands them out only as they are written.
        self.columns = {
            "states": np.zeros((capacity, state_size), np.float32),
            "actions": np.zeros((capacity, action_size), np.float32),
            "rewards": np.zeros(capacity, np.float32),
            "next_states": np.zeros((capacity, state_size), np.float32),
            "terminations": np.zeros(capacity, bool),
        }
        self.appended = 0
        """Transitions so far, the dropped ones included."""
        self.weights: np.ndarray | None = None
        """(capacity,) float32; None until the first are appended, then 1 for those without."""
        self._summed: np.ndarray | None = None

    def __len__(self) -> int:
        return min(self.appended, self.capacity)

    def rows_at(self, places: np.ndarray) -> np.ndarray:
        """places (B,) in [0, 1) -> (B,) rows: uniform places give rows in proportion to their weights."""
        if self.weights is None:
            return (places * len(self)).astype(np.int64)
        if self._summed is None or len(self._summed) != len(self):
            self._summed = np.cumsum(self.weights[: len(self)], dtype=np.float64)
        rows = np.searchsorted(self._summed, places * self._summed[-1], side="right")
        return np.minimum(rows, len(self) - 1)

    def append(self, *rows: np.ndarray, weights: np.ndarray | None = None) -> None:
        """rows: states (n, S), actions (n, A), rewards (n,), next_states (n, S), terminations (n,); weights (n,).

        Raises PixeltrajError, and takes nothing, where shapes do not fit, numbers are not finite or weights not above
        0.
        """
        if weights is not None and not (
            weights.shape == (len(rows[0]),) and np.isfinite(weights).all() and (weights > 0).all()
        ):
            raise PixeltrajError(f"transitions have weights {weights.shape}; give each one above 0, or drop it")
        for (name, column), new in zip(self.columns.items(), rows, strict=True):
            if new.shape != (len(rows[0]), *column.shape[1:]):
                raise PixeltrajError(f"transitions have {name} {new.shape}, wanted (n, *{column.shape[1:]})")
            if not np.isfinite(new).all():
                raise PixeltrajError(f"transitions have NaN or infinite {name}; mend whatever made them")
        kept = slice(-self.capacity, None)
        count = len(rows[0])
        places = (self.appended + np.arange(count)[kept]) % self.capacity
        for column, new in zip(self.columns.values(), rows):
            column[places] = new[kept]
        if self.weights is None and weights is not None:
            self.weights = np.ones(self.capacity, np.float32)
        if self.weights is not None:
            self.weights[places] = 1.0 if weights is None else weights[kept]
        self._summed = None
        self.appended += count

    def state_dict(self) -> dict[str, np.ndarray]:
        filled = {name: column[: len(self)] for name, column in self.columns.items()}
        weighted = {} if self.weights is None else {"weights": self.weights[: len(self)]}
        return {**filled, **weighted, "appended": np.array(self.appended)}

    def load_state_dict(self, saved: dict[str, np.ndarray]) -> None:
        self.appended = int(saved["appended"])
        for name, column in self.columns.items():
            column[: len(self)] = saved[name]
        self.weights = self._summed = None
        if "weights" in saved:
            self.weights = np.ones(self.capacity, np.float32)
            self.weights[: len(self)] = saved["weights"]


def joined_weights(trajectories: list[Trajectory]) -> np.ndarray | None:
    """(n,) of all their transitions, 1 for those of trajectories without; None where none has any."""
    if all(t.weights is None for t in trajectories):
        return None
    return np.concatenate([np.ones(len(t), np.float32) if t.weights is None else t.weights for t in trajectories])
