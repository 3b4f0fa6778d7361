"""Experience: whole episodes of an agent, and a heap of their transitions by importance (ATraDiff, appendix A.1)."""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np

from pixeltraj.replay_buffer import Batch


@dataclass(frozen=True)
class Episode:
    """T transitions that the agent took one after the other, and what draws each of their states."""

    states: np.ndarray
    """(T+1, S) float32"""
    actions: np.ndarray
    """(T, A) float32"""
    rewards: np.ndarray
    """(T,) float32"""
    terminated: bool
    """Whether the task ended with the last transition."""
    constant: np.ndarray
    """(Q,) float64: the first snapshot; most of its numbers never change within an episode."""
    varying: np.ndarray
    """(V,) int64: which of them do."""
    values: np.ndarray
    """(T+1, V) float64: these, in every snapshot."""

    @classmethod
    def of(
        cls, states: np.ndarray, actions: np.ndarray, rewards: np.ndarray, terminated: bool, snapshots: np.ndarray
    ) -> "Episode":
        """snapshots (T+1, Q) float64."""
        varying = np.flatnonzero((snapshots != snapshots[0]).any(axis=0))
        values = np.ascontiguousarray(snapshots[:, varying])  # a file takes no other order
        return cls(states, actions, rewards, terminated, snapshots[0], varying, values)

    def __len__(self) -> int:
        return len(self.actions)

    def snapshots(self, start: int, stop: int) -> np.ndarray:
        """(stop - start, Q) float64, exactly as they were."""
        whole = np.repeat(self.constant[None], stop - start, axis=0)
        whole[:, self.varying] = self.values[start:stop]
        return whole

    def part(self, start: int, stop: int) -> "Episode":
        """From state `start` to the state before `stop`."""
        return replace(
            self,
            states=self.states[start:stop],
            actions=self.actions[start : stop - 1],
            rewards=self.rewards[start : stop - 1],
            terminated=self.terminated and stop == len(self.states),
            values=self.values[start:stop],
        )

    def batch(self, steps: np.ndarray) -> Batch:
        """The transitions of these steps (B,)."""
        ended = self.terminated & (steps == len(self) - 1)
        columns = self.states[steps], self.actions[steps], self.rewards[steps], self.states[steps + 1], ended
        return Batch(*columns, np.zeros(len(steps), bool))


class Sample(NamedTuple):
    """A transition in the heap; the least one is the first to go."""

    importance: float
    serial: int
    """Transitions that came before it: of two that are alike the older one goes first."""
    episode: int
    step: int


class Experience:
    """The `capacity` most important transitions so far, and the episodes they belong to, for as long as they do."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.appended = capacity, 0
        self.heap: list[Sample] = []
        self.episodes: dict[int, Episode] = {}
        self._held: Counter[int] = Counter()
        self._next = 0

    def __len__(self) -> int:
        return len(self.heap)

    def append(self, episode: Episode, importance: np.ndarray) -> None:
        """importance (T,) of its transitions; what exceeds the capacity goes, the least important first."""
        number, self._next = self._next, self._next + 1
        self.episodes[number], self._held[number] = episode, len(episode)
        for step, value in enumerate(importance.tolist()):
            heapq.heappush(self.heap, Sample(value, self.appended, number, step))
            self.appended += 1
            if len(self.heap) > self.capacity:
                self._release(heapq.heappop(self.heap))

    def best(self, count: int) -> list[Sample]:
        """The most important ones, the best first."""
        return heapq.nlargest(count, self.heap)

    def value(self, importance: Callable[[Batch], np.ndarray], batch: int = 1024) -> None:
        """Give every transition the importance (B,) that it has by now."""
        # In the order of arrival, so that neighbours come from one episode and nothing depends on the heap's order.
        samples, valued = sorted(self.heap, key=lambda sample: sample.serial), []
        for i in range(0, len(samples), batch):
            part = samples[i : i + batch]
            values = importance(self.batch(part)).tolist()
            valued += [sample._replace(importance=value) for sample, value in zip(part, values, strict=True)]
        heapq.heapify(valued)
        self.heap = valued

    def batch(self, samples: Sequence[Sample]) -> Batch:
        """Their transitions, in that order."""
        numbers = np.array([sample.episode for sample in samples])
        steps = np.array([sample.step for sample in samples])
        bounds = np.flatnonzero(np.diff(numbers)) + 1
        runs = zip(np.split(numbers, bounds), np.split(steps, bounds))
        parts = [self.episodes[int(run[0])].batch(at) for run, at in runs]
        return Batch(*(np.concatenate(column) for column in zip(*(part[:6] for part in parts))))

    def drop(self, samples: Iterable[Sample]) -> None:
        """Forget these."""
        gone = set(samples)
        for sample in gone:
            self._release(sample)
        self.heap = [sample for sample in self.heap if sample not in gone]
        heapq.heapify(self.heap)

    def _release(self, sample: Sample) -> None:
        self._held[sample.episode] -= 1
        if not self._held[sample.episode]:
            del self._held[sample.episode], self.episodes[sample.episode]

    # Saving

    def state_dict(self) -> dict[str, np.ndarray]:
        """All of it, as arrays."""
        columns = zip(*self.heap) if self.heap else ([] for _ in Sample._fields)
        saved = {
            f"heap.{name}": np.array(column, np.float64 if name == "importance" else np.int64)
            for name, column in zip(Sample._fields, columns)
        }
        saved |= {"appended": np.array(self.appended), "next": np.array(self._next)}
        for number, episode in self.episodes.items():
            saved |= {f"episodes.{number}.{name}": np.asarray(value) for name, value in vars(episode).items()}
        return saved

    def load_state_dict(self, saved: dict[str, np.ndarray]) -> None:
        """Inverse of `state_dict`, for one of the same capacity."""
        self.appended, self._next = int(saved["appended"]), int(saved["next"])
        self.heap = [Sample(*row) for row in zip(*(saved[f"heap.{name}"].tolist() for name in Sample._fields))]
        self._held = Counter(sample.episode for sample in self.heap)
        self.episodes = {}
        for number in sorted(self._held):
            parts: dict[str, Any] = {field.name: saved[f"episodes.{number}.{field.name}"] for field in fields(Episode)}
            self.episodes[number] = Episode(**parts | {"terminated": bool(parts["terminated"])})
