"""Statistics over runs: quartiles, interquartile mean, probability of improvement, steps to a threshold.

The interquartile mean and the probability of improvement, each with a stratified bootstrap interval, are those that
Agarwal et al. (2021) ask for; their package rliable needs an older pandas than this project runs beside. Runs that
never reach a threshold are censored, not left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

REPEATS = 2000
"""Bootstrap samples."""
CONFIDENCE = 0.95
SMOOTHED = 3
"""Evaluations whose mean has to reach a threshold: one alone is too noisy."""

Curve = Sequence[tuple[int, float]]
"""(decisions so far, score at that point), in order."""


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % bootstrap interval; None: cannot be told."""

    value: float | None
    low: float | None
    high: float | None

    def __str__(self) -> str:
        if self.value is None and self.low is None and self.high is None:
            return "not known"
        value, low, high = ("?" if x is None else f"{x:.2f}" for x in (self.value, self.low, self.high))
        return f"{value} ({low} to {high})"


def quartiles(scores: Sequence[float] | np.ndarray) -> tuple[float, float, float]:
    """25th percentile, median, 75th percentile of one number a seed."""
    low, median, high = np.percentile(np.asarray(scores, float), [25, 50, 75])
    return float(low), float(median), float(high)


def interquartile_means(scores: Mapping[str, np.ndarray], rng: np.random.Generator) -> dict[str, Interval]:
    """Of each arm the mean of the middle half of all its scores (runs, tasks); runs are resampled task by task."""
    return {arm: _interval(iqm(values[None])[0], iqm(resampled(values, rng))) for arm, values in scores.items()}


def iqm(scores: np.ndarray) -> np.ndarray:
    """(R, runs, tasks) -> (R,): a quarter of all scores is cut off at each end, rounded down, the rest averaged."""
    flat = np.sort(scores.reshape(len(scores), -1), axis=1)
    cut = flat.shape[1] // 4
    return flat[:, cut : flat.shape[1] - cut].mean(axis=1)


def improvement(arm: np.ndarray, baseline: np.ndarray, rng: np.random.Generator) -> Interval:
    """The probability that a run of the arm beats a run of the baseline on a task drawn at random; ties count half.

    arm (N, T), baseline (M, T): scores of runs on the same tasks.
    """
    point = beats(arm[None], baseline[None])[0]
    return _interval(point, beats(resampled(arm, rng), resampled(baseline, rng)))


def beats(arm: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """(R, N, T) and (R, M, T) -> (R,): the share of pairs of runs on one task that the arm wins."""
    own, other = arm[:, :, None], baseline[:, None]
    return np.mean((own > other) + 0.5 * (own == other), axis=(1, 2, 3))


def resampled(scores: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(runs, tasks) -> (REPEATS, runs, tasks): runs drawn with replacement, for each task by itself."""
    rows = rng.integers(len(scores), size=(REPEATS, *scores.shape))
    return np.take_along_axis(scores[None], rows, axis=1)


def steps_to(curve: Curve, threshold: float = 0.8) -> int | None:
    """Decisions up to the first evaluation from which the mean of three evaluations stays at the threshold or above,
    to the end of the curve; None where that never happens (a censored run)."""
    scores = np.array([score for _, score in curve], float)
    if len(scores) < SMOOTHED:
        return None
    means = np.convolve(scores, np.full(SMOOTHED, 1 / SMOOTHED), mode="valid")
    above = means >= threshold - 1e-12  # .8 thrice is .7999... in binary
    below = np.flatnonzero(~above)
    first = below[-1] + 1 if len(below) else 0
    return None if first == len(means) else int(curve[first][0])


def steps_ratio(
    arm: Sequence[int | None], baseline: Sequence[int | None], budget: int, rng: np.random.Generator
) -> Interval:
    """Median steps to the threshold of the arm over those of the baseline, seeds resampled: below 1 is sooner.

    None is a run that had not got there after `budget` steps. The interval is as wide as censoring makes it: its upper
    end takes censored runs of the arm as never and those of the baseline as just after the budget, its lower end the
    other way round (inf: no upper end can be given). The value is None where either median is censored.
    """
    if not len(arm) or not len(baseline):
        return Interval(None, None, None)
    known = [np.array([np.inf if s is None else s for s in steps], float) for steps in (arm, baseline)]
    drawn = [steps[rng.integers(len(steps), size=(REPEATS, len(steps)))] for steps in known]
    own, other = (np.median(sample, axis=1) for sample in drawn)
    tail = 100 * (1 - CONFIDENCE) / 2
    # order statistics, no interpolation: between a number and infinity there is nothing to interpolate
    high = float(np.percentile(_over(own, np.minimum(other, budget)), 100 - tail, method="inverted_cdf"))
    low = float(np.percentile(_over(np.minimum(own, budget), other), tail, method="inverted_cdf"))
    middle = [float(np.median(steps)) for steps in known]
    value = float(_over(*(np.array([m]) for m in middle))[0]) if np.isfinite(middle).all() else None
    return Interval(value, low, high)


def _over(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Quotients; 0 / 0 is 1: both were there from the start."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = above / below
    return np.where((above == 0) & (below == 0), 1.0, ratio)


def _interval(point: float, samples: np.ndarray) -> Interval:
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(samples, [tail, 100 - tail])
    return Interval(float(point), float(low), float(high))
