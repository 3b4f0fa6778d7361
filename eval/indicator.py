"""Indicators: which of an agent's own transitions a generator learns from (ATraDiff, section 4.3 and appendix A.1).

Whole episodes go in as they end. At each update of the generator an indicator draws transitions: windows of k frames
begin with their states. After it some are dropped, so that none serves for ever.
"""

import math
from typing import Literal, Protocol

import numpy as np

from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.agents.agent import Agent
from pixeltraj.eval.experience import Episode, Experience, Sample
from pixeltraj.replay_buffer import Batch

IndicatorKind = Literal["td-error", "reward", "uniform"]
"""uniform: no indicator at all, for comparison; any transition is as good as another."""


class Indicator(Protocol):
    """Randomness comes in with every call."""

    experience: Experience
    """What is kept."""

    def add(self, episode: Episode, agent: Agent, rng: np.random.Generator) -> None:
        """Take in an episode of the agent's own."""

    def draw(self, agent: Agent, rng: np.random.Generator) -> list[Sample]:
        """The transitions to learn from now, the most important first; their episodes are in `experience`."""

    def served(self, drawn: list[Sample], rng: np.random.Generator) -> None:
        """The generator has learned from these."""


class TDErrorIndicator:
    """Importance is |r + discount * Q(s', pi(s')) - Q(s, a)|, kept current: every draw values all that is kept anew.

    The paper's max over a' is, for an actor and a critic, the policy's action. A heap keeps `capacity` transitions,
    far more than are drawn, so that those that matter little now are there when they do; the `draw` most important
    ones are drawn.
    """

    def __init__(self, capacity: int = 50_000, drawn: int = 5_000, drop: float = 0.1) -> None:
        """drop: share of all that is kept that goes after each update, whatever its importance (section 4.3).

        Raises PixeltrajError on numbers that cannot be.
        """
        _check(capacity, drawn, drop)
        self.experience, self.drawn, self.dropped = Experience(capacity), drawn, drop

    def add(self, episode: Episode, agent: Agent, rng: np.random.Generator) -> None:
        self.experience.append(episode, self._errors(agent, episode.batch(np.arange(len(episode)))))

    def draw(self, agent: Agent, rng: np.random.Generator) -> list[Sample]:
        self.experience.value(lambda batch: self._errors(agent, batch))
        return self.experience.best(self.drawn)

    def served(self, drawn: list[Sample], rng: np.random.Generator) -> None:
        drop_any(self.experience, self.dropped, rng)

    def _errors(self, agent: Agent, batch: Batch) -> np.ndarray:
        errors = agent.td_error(batch)
        if errors is None:
            raise PixeltrajError("the agent has no critic, so there are no TD errors; take the indicator 'reward'")
        return errors


class RewardIndicator:
    """Importance is the total reward of the episode that a transition belongs to; it never changes.

    All of the `capacity` transitions that are kept are drawn. What is important would be drawn for ever, so after
    each update the older ones go (rotation), and some whatever their age and importance (figure 10).
    """

    def __init__(self, capacity: int = 5_000, drop: float = 0.1, rotate: float = 0.2) -> None:
        """rotate: share of what served in an update that goes after it, the oldest first: where as much comes in as
        goes, a transition serves 1 / rotate times. drop: share of the rest, drawn by chance.

        Raises PixeltrajError on numbers that cannot be.
        """
        _check(capacity, capacity, drop, rotate)
        self.experience, self.dropped, self.rotated = Experience(capacity), drop, rotate

    def add(self, episode: Episode, agent: Agent, rng: np.random.Generator) -> None:
        self.experience.append(episode, np.full(len(episode), float(episode.rewards.sum(dtype=np.float64))))

    def draw(self, agent: Agent, rng: np.random.Generator) -> list[Sample]:
        return self.experience.best(self.experience.capacity)

    def served(self, drawn: list[Sample], rng: np.random.Generator) -> None:
        oldest = sorted(drawn, key=lambda sample: sample.serial)
        self.experience.drop(oldest[: math.ceil(self.rotated * len(oldest))])
        drop_any(self.experience, self.dropped, rng)


class UniformIndicator:
    """Importance is a number drawn by chance, anew at every draw: as many transitions, of any kind."""

    def __init__(self, capacity: int = 50_000, drawn: int = 5_000, drop: float = 0.1) -> None:
        """See `TDErrorIndicator`."""
        _check(capacity, drawn, drop)
        self.experience, self.drawn, self.dropped = Experience(capacity), drawn, drop

    def add(self, episode: Episode, agent: Agent, rng: np.random.Generator) -> None:
        self.experience.append(episode, rng.random(len(episode)))

    def draw(self, agent: Agent, rng: np.random.Generator) -> list[Sample]:
        self.experience.value(lambda batch: rng.random(len(batch.states)))
        return self.experience.best(self.drawn)

    def served(self, drawn: list[Sample], rng: np.random.Generator) -> None:
        drop_any(self.experience, self.dropped, rng)


def drop_any(experience: Experience, share: float, rng: np.random.Generator) -> None:
    """Forget a share of all transitions, each one as likely as another."""
    kept = sorted(experience.heap, key=lambda sample: sample.serial)
    gone = rng.choice(len(kept), size=int(share * len(kept)), replace=False).tolist() if kept else []
    experience.drop([kept[i] for i in gone])


def _check(capacity: int, drawn: int, *shares: float) -> None:
    if capacity < 1 or drawn < 1:
        raise PixeltrajError(f"an indicator keeps {capacity} transitions and draws {drawn}; give at least 1 of each")
    if any(not 0 <= share < 1 for share in shares):
        raise PixeltrajError("the shares that an indicator drops and rotates must be at least 0 and below 1")
