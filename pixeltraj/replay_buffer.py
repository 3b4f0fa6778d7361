"""ReplayBuffer: Algorithm 1 of ATraDiff. The agent's own transitions, and imagined ones in a fixed proportion."""

import json
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from pixeltraj.errors import PixeltrajError
from pixeltraj.trajectory import Trajectory
from pixeltraj.transitions import Transitions


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
    rows: np.ndarray | None = None
    """(B,) int: where each lies in its part of the replay buffer that it was drawn from"""
    weights: np.ndarray | None = None
    """(B,) float32 in (0, 1]: what its TD error counts, where some are drawn more often than others"""

    @classmethod
    def of(cls, trajectories: Iterable[Trajectory], imagined: bool = False) -> "Batch":
        """All transitions of the trajectories, in order; at least one trajectory."""
        parts = [(t.states[:-1], t.actions, t.rewards, t.states[1:], t.terminations) for t in trajectories]
        states, actions, rewards, next_states, terminations = (np.concatenate(column) for column in zip(*parts))
        return cls(states, actions, rewards, next_states, terminations, np.full(len(states), imagined))

    def at(self, rows: np.ndarray) -> "Batch":
        """These of its rows: numbers (n,), or (B,) bool."""
        some = {name: column[rows] for name, column in self._asdict().items() if column is not None}
        return Batch(**some)


LEAST_ERROR = 1e-6
"""Added to TD errors, so that what is learned perfectly can still be drawn."""


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
    """Transitions of the agent's own that are kept. The oldest are dropped."""
    imagine_batch: int = 16
    """Start states that are gathered before imagination is asked: diffusion is far cheaper in batches."""
    imagined_capacity: int | None = None
    """Imagined transitions that are kept; in proportion, capacity * rho / (1 - rho), if not given."""
    max_age: int | None = None
    """Imagined transitions are not drawn any more once the agent has stored more than so many of its own since. They
    do not age if not given."""
    alpha: float = 0.0
    """Inside each part transitions are drawn in proportion to |TD error| ** alpha (Schaul et al. 2016, who take 0.6);
    at 0 all alike."""
    beta: float = 0.4
    """How far that is made up for by what their TD errors count: 0 not at all, 1 wholly."""

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
        for name in ("capacity", "imagined_capacity", "max_age", "imagine_batch"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise PixeltrajError(f"{name} is {value}; it must be at least 1")
        if self.alpha < 0 or not 0.0 <= self.beta <= 1.0:
            raise PixeltrajError(f"alpha is {self.alpha}, beta {self.beta}: wanted alpha >= 0 and beta from 0 to 1")


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
        self.imagined = Transitions(config.imagined_capacity or max(1, share), state_size, action_size)
        self.requested = 0
        """Trajectories asked for, the queued ones included."""
        self.received = 0
        """Trajectories that imagination gave."""
        self.gained = 0
        """Transitions that they had."""
        self.seconds = 0.0
        """Wall-clock time spent imagining."""
        self._rng = rng
        self._due = 0.0
        self._queue: list[tuple[np.ndarray, np.ndarray]] = []
        self._born: deque[tuple[int, int]] = deque()
        """How many own and imagined transitions there had been, after each time that some were imagined; where they
        age."""

    @property
    def length(self) -> float | None:
        """L as it has turned out: transitions in a trajectory that imagination gave; None before the first."""
        return self.gained / self.received if self.received else None

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
        self._age()
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
            self.gained += sum(map(len, trajectories))
            self.dream(Batch.of(trajectories), joined_weights(trajectories))

    def dream(self, batch: Batch, weights: np.ndarray | None = None) -> None:
        """Take transitions that were imagined into D_s. weights (B,): how often each is drawn beside others."""
        self.imagined.append(*batch[:5], weights=weights)
        if self.config.max_age is not None:
            self._born.append((self.own.appended, self.imagined.appended))

    def _age(self) -> None:
        """Let go of what was imagined too long ago."""
        while self._born and self.own.appended - self._born[0][0] > (self.config.max_age or 0):
            self.imagined.drop(self._born.popleft()[1])

    def sample(self, size: int) -> Batch:
        """Each of `size` transitions is from D_s with probability rho, else from D_o; from D_o alone while D_s
        is empty. Imagined ones that have weights are drawn in proportion to them; with an alpha all are also drawn by
        what `prioritise` was told of them, new ones like the most wanted of all.

        Raises PixeltrajError while the buffer is empty.
        """
        if not len(self.own):
            raise PixeltrajError("the replay buffer is empty; store a transition before sampling")
        imagined = self._rng.random(size) < (self.config.rho if len(self.imagined) else 0.0)
        place = self._rng.random(size)
        rows_own = self.own.rows_at(place[~imagined])
        rows_imagined = self.imagined.rows_at(place[imagined])
        parts = ((self.own, ~imagined, rows_own), (self.imagined, imagined, rows_imagined))
        columns = {"imagined": imagined}
        for name, own in self.own.columns.items():
            columns[name] = drawn = np.empty((size, *own.shape[1:]), own.dtype)
            for part, where, rows in parts:
                drawn[where] = part.columns[name][rows]
        if self.config.alpha == 0:
            return Batch(**columns)
        places, often = np.empty(size, np.int64), np.ones(size)
        for part, where, rows in parts:
            places[where], often[where] = rows, part.excess(rows)
        weights = often**-self.config.beta
        return Batch(**columns, rows=places, weights=(weights / weights.max(initial=1e-9)).astype(np.float32))

    def prioritise(self, batch: Batch, errors: np.ndarray) -> None:
        """Draw the transitions of a sampled batch by their TD errors (B,), absolute, from now on.

        Raises PixeltrajError where the buffer has no alpha, or errors are none for each of them.
        """
        if batch.rows is None:
            raise PixeltrajError("transitions were drawn all alike: give the replay buffer an alpha above 0")
        if errors.shape != batch.rows.shape or not np.isfinite(errors).all():
            raise PixeltrajError(f"wanted a finite TD error for each of {len(batch.rows)} transitions")
        priorities = (np.abs(errors) + LEAST_ERROR) ** self.config.alpha
        self.own.prioritise(batch.rows[~batch.imagined], priorities[~batch.imagined])
        self.imagined.prioritise(batch.rows[batch.imagined], priorities[batch.imagined])

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
            "gained": self.gained,
            "seconds": self.seconds,
            "born": list(self._born),
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
        self.gained = facts.get("gained", 0)  # what was saved before it was counted
        self._born = deque((own, imagined) for own, imagined in facts.get("born", []))


def joined_weights(trajectories: list[Trajectory]) -> np.ndarray | None:
    """(n,) of all their transitions, 1 for those of trajectories without; None where none has any."""
    if all(t.weights is None for t in trajectories):
        return None
    return np.concatenate([np.ones(len(t), np.float32) if t.weights is None else t.weights for t in trajectories])
