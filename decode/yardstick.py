"""Yardstick: what real data does in the pipeline of the audit, and thus what is held against imagined data.

Shapes: n transitions, S state.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pixeltraj.decode.examination import Examination
from pixeltraj.store import Store
from pixeltraj.task import Task

PERCENTILE = 99
"""Of the real transitions so many percent break no bound, by definition."""
_LEAST_EXCESS, _LEAST_DEPTH = 0.01, 0.001
_LEAST_MISSED = 0.1
_LEAST_NOISE = 0.001
_DENSE = 0.05
_WORLD = 10.0


@dataclass(frozen=True)
class Bounds:
    """Thresholds; each is what real transitions reach, but no less than a floor."""

    joint_excess: float
    """Part of a joint's range by which it may be beyond its limit: 99 % of the real ones, at least 0.01."""
    penetration_mm: float
    """Depth of a contact, mm: 99 % of the real ones, at least 1."""
    set_state: float
    """Part of a dimension's range by which the simulator may miss a state it is set to: twice the worst real one, at
    least 0.1. States that are missed by more are refused."""
    reward: float
    """Sparse: a half. Dense: 5 % of the range of the rewards in the training episodes."""


@dataclass(frozen=True)
class Yardstick:
    """Measured on a real store: ranges in its training episodes, bounds on its held-out transitions."""

    task: Task
    low: np.ndarray
    """(S,)"""
    high: np.ndarray
    """(S,)"""
    noise: np.ndarray
    """(S,) mean absolute one-step error of real transitions, at least 0.1 % of the range; infinite where static"""
    bounds: Bounds

    @property
    def span(self) -> np.ndarray:
        """(S,)"""
        return self.high - self.low

    @property
    def moving(self) -> np.ndarray:
        """(S,) bool: dimensions that change within an episode."""
        return is_moving(self.task, self.span)

    def judge(self, examined: Examination) -> None:
        """Refuse what is claimed far outside the world, or what the simulator could not be set to; call diverged where
        the simulator itself left the world. Rows of both become NaN."""
        missed = relative(examined.reached - examined.now, self.span)[:, self.moving]
        with np.errstate(invalid="ignore"):
            examined.refused |= (missed > self.bounds.set_state).any(axis=1)
        examined.refused |= self._is_outside(examined.now) | self._is_outside(examined.after)
        examined.diverged |= self._is_outside(examined.expected)
        examined.diverged &= ~examined.refused
        examined.drop(examined.refused | examined.diverged)

    def _is_outside(self, states: np.ndarray) -> np.ndarray:
        """states (n, S) -> (n,) bool: more than ten ranges away from anything real; NaN is not."""
        with np.errstate(invalid="ignore"):
            far = (states < self.low - _WORLD * self.span) | (states > self.high + _WORLD * self.span)
        return np.asarray(far[:, self.moving].any(axis=1))

    def violations(self, examined: Examination) -> tuple[np.ndarray, np.ndarray]:
        """((n,), (n,)) bool: joints beyond their limits, contacts too deep. Not told rows are False."""
        with np.errstate(invalid="ignore"):
            return examined.excess > self.bounds.joint_excess, 1000 * examined.depth > self.bounds.penetration_mm

    def reward_told(self, examined: Examination) -> np.ndarray:
        """(n,) bool: the simulator could be asked, and about the goal that the state has.

        Where another episode's snapshot had to serve, `set_state` may keep that one's goal.
        """
        fixed = self.task.indices(self.task.static)
        away = np.abs(examined.reached - examined.now)[:, fixed]
        return np.isfinite(examined.rewards).all(axis=1) & (away <= np.maximum(0.01 * self.span[fixed], 1e-3)).all(
            axis=1
        )

    def reward_wrong(self, examined: Examination) -> np.ndarray:
        """(n,) bool; False where it is not told."""
        apart = np.abs(examined.rewards[:, 0] - examined.rewards[:, 1])
        return self.reward_told(examined) & (np.nan_to_num(apart) > self.bounds.reward)

    def termination_wrong(self, examined: Examination) -> np.ndarray:
        """(n,) bool; False where it is not told."""
        return self.reward_told(examined) & (examined.terminations[:, 0] != examined.terminations[:, 1])

    def as_json(self) -> dict[str, Any]:
        return {
            **asdict(self.bounds),
            "noise": {
                d.name: float(s) if np.isfinite(s) else None for d, s in zip(self.task.state, self.noise.tolist())
            },
            "range": {d.name: float(s) for d, s in zip(self.task.state, self.span)},
        }


def ranges(real: Store) -> tuple[np.ndarray, np.ndarray]:
    """(S,), (S,) least and greatest value of each dimension in the training episodes, float64."""
    states = np.concatenate([_of_episode(real, "states", e) for e in real.split()[0]]).astype(np.float64)
    return states.min(axis=0), states.max(axis=0)


def span_of(real: Store) -> np.ndarray:
    """(S,) range of each dimension over the training episodes."""
    low, high = ranges(real)
    return high - low


def measure(real: Store, examined: Examination, low: np.ndarray, high: np.ndarray) -> Yardstick:
    """From real held-out transitions; what of them could not be examined is left out."""
    task, span = real.task, high - low
    moving = is_moving(task, span)
    noise = np.maximum(np.nanmean(np.abs(examined.error), axis=0), _LEAST_NOISE * span)
    missed = relative(examined.reached - examined.now, span)[:, moving]
    bounds = Bounds(
        joint_excess=max(_LEAST_EXCESS, float(np.nanpercentile(examined.excess, PERCENTILE))),
        penetration_mm=1000 * max(_LEAST_DEPTH, float(np.nanpercentile(examined.depth, PERCENTILE))),
        set_state=max(_LEAST_MISSED, 2 * float(np.nanmax(missed))),
        reward=0.5 if task.reward == "sparse" else max(1e-6, _DENSE * _reward_range(real)),
    )
    return Yardstick(task, low, high, np.where(moving, noise, np.inf), bounds)


def relative(errors: np.ndarray, span: np.ndarray) -> np.ndarray:
    """errors (n, S) -> |errors| as parts of the ranges; infinite or NaN where there is no range."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.abs(errors) / span


def is_moving(task: Task, span: np.ndarray) -> np.ndarray:
    """(S,) bool: dimensions with a range that are not static."""
    return (span > 0) & ~np.isin(np.arange(len(span)), task.indices(task.static))


def _reward_range(real: Store) -> float:
    return float(np.ptp(np.concatenate([_of_episode(real, "rewards", e)[:-1] for e in real.split()[0]])))


def _of_episode(real: Store, name: str, episode: int) -> np.ndarray:
    return real.read(name, int(real.offsets[episode]), int(real.offsets[episode + 1]))
