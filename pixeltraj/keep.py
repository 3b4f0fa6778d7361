"""Keep: which imagined transitions are worth keeping, by scores that tell how wrong they may be.

A score is low where a transition can be trusted. Errors accumulate along a trajectory, so each of its transitions
counts with the worst score up to it, and what is kept of a trajectory is always its beginning.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pixeltraj.errors import PixeltrajError
from pixeltraj.pruner import shortened
from pixeltraj.trajectory import Trajectory


@dataclass(frozen=True)
class Keep:
    """Shares, in (0, 1], of the transitions imagined together that are kept by each score; 1 leaves the score out.

    A transition is kept where all scores keep it. One that cannot be judged fails each score that needs the simulator:
    its state is NaN, far outside joint limits, or none that the simulator can be brought to.
    """

    uncertainty: float = 1.0
    """By how far the decoder expects to have misread it; costs nothing."""
    cycle: float = 1.0
    """By how little the decoded state, drawn again, looks like what was imagined; needs a renderer, no dynamics."""
    audit: float = 1.0
    """By how far the simulator ends up elsewhere with the same action."""
    weigh: bool = False
    """Drop only what fails; of the rest the worse is drawn less often from a replay buffer, the shares being the mean
    weights."""

    def __post_init__(self) -> None:
        for name, share in self._shares().items():
            if not 0.0 < share <= 1.0:
                raise PixeltrajError(f"keep.{name} is {share}; it must be above 0 and at most 1 (1 keeps all)")

    @property
    def wanted(self) -> dict[str, float]:
        """The scores that are asked for, with their shares; empty where all is kept."""
        return {name: share for name, share in self._shares().items() if share < 1.0}

    def _shares(self) -> dict[str, float]:
        return {"uncertainty": self.uncertainty, "cycle": self.cycle, "audit": self.audit}

    def judge(self, scores: Mapping[str, Sequence[np.ndarray]]) -> tuple[list[int], list[np.ndarray]]:
        """How many transitions are kept of each trajectory, from its start on, and the weights (T,) of them all.

        scores: for each of `wanted`, (T,) for each of the trajectories that were imagined together; infinite or NaN
        where a transition fails. What is kept by a score is its share of all transitions, rounded up.
        """
        first = next(iter(scores.values()))
        passed = np.ones(sum(map(len, first)), dtype=bool)
        weights = np.ones(len(passed), dtype=np.float32)
        for name, share in self.wanted.items():
            worst, place = ranked(scores[name])
            passed &= np.isfinite(worst)
            if self.weigh:
                weights *= (1 - (place + 0.5) / len(place)) ** (1 / share - 1)
            else:
                passed &= place < np.ceil(share * len(place) - 1e-9)
        ends = np.cumsum([len(score) for score in first])[:-1]
        counts = [int(np.logical_and.accumulate(good).sum()) for good in np.split(passed, ends)]
        return counts, np.split(weights, ends)

    def apply(self, trajectories: Sequence[Trajectory], scores: Mapping[str, Sequence[np.ndarray]]) -> list[Trajectory]:
        """What is left of trajectories that were imagined together (see `judge`): shortened ones, without those of
        which nothing is kept. With `weigh` they have `weights`."""
        if not trajectories or not self.wanted:
            return list(trajectories)
        kept = []
        for trajectory, count, weights in zip(trajectories, *self.judge(scores), strict=True):
            if count:
                part = shortened(trajectory, count)
                kept.append(replace(part, weights=weights[:count]) if self.weigh else part)
        return kept


ALL = Keep()


def ranked(scores: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """scores (T,) of each trajectory -> of all n transitions in order, (n,) and (n,): the worst score up to each, and
    its place among all, 0 the best; of equals the earlier in its trajectory comes first. NaN is as bad as infinite."""
    worst = np.concatenate([np.maximum.accumulate(np.nan_to_num(s, nan=np.inf, posinf=np.inf)) for s in scores])
    steps = np.concatenate([np.arange(len(s)) for s in scores])
    place = np.empty(len(worst), dtype=np.int64)
    place[np.lexsort((steps, worst))] = np.arange(len(worst))
    return worst, place


@dataclass
class Tally:
    """How much was kept of what was imagined."""

    imagined: int = 0
    """Transitions."""
    kept: int = 0
    """Transitions."""

    def add(self, imagined: Sequence[Trajectory], kept: Sequence[Trajectory]) -> None:
        self.imagined += sum(map(len, imagined))
        self.kept += sum(map(len, kept))

    def __str__(self) -> str:
        return f"kept {self.kept} of {self.imagined} transitions"
