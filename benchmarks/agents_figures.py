"""What runs amount to: success, decisions to 80 %, and how an arm stands against the one that it is held against."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, overload

import numpy as np

from benchmarks.agents_contender import Contender
from pixeltraj.eval.d4rl_scores import normalised
from pixeltraj.eval.results import Result
from pixeltraj.eval.statistics import CONFIDENCE, REPEATS, Curve, Interval, beats, steps_ratio

THRESHOLD = 0.8
SEED = 0
"""Of the bootstraps."""


def reached(curve: Curve, threshold: float = THRESHOLD) -> int | None:
    """Decisions up to the first evaluation from which on the mean stays at the threshold or above: what is lost again
    was not reached. None where there is none; the last evaluation alone does not count."""
    scores = np.array([score for _, score in curve])
    for i, (step, _) in enumerate(curve[:-1]):
        rest = scores[i:]
        if rest[:2].mean() >= threshold - 1e-12 and rest.mean() >= threshold - 1e-12:  # .7 + .9 is not 1.6 in binary
            return step
    return None


def mean(values: Sequence[float] | np.ndarray) -> Interval:
    """The mean over seeds; its interval from seeds that are resampled, None of one seed alone."""
    known = np.asarray(values, float)
    if len(known) < 2:
        return Interval(float(known[0]) if len(known) else None, None, None)
    drawn = known[np.random.default_rng(SEED).integers(len(known), size=(REPEATS, len(known)))].mean(axis=1)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return Interval(float(known.mean()), float(low), float(high))


def paired(arm: Sequence[Result], other: Sequence[Result]) -> tuple[list[Result], list[Result]]:
    """The runs from seeds that both have."""
    seeds = {run.seed for run in arm} & {run.seed for run in other}
    own, others = ([run for run in runs if run.seed in seeds] for runs in (arm, other))
    return own, others


def better(arm: Sequence[Result], other: Sequence[Result]) -> Interval:
    """The share of seeds from which the arm scores higher; ties count half."""
    own, others = paired(arm, other)
    won = [float(beats(np.array([[[a.score]]]), np.array([[[b.score]]]))[0]) for a, b in zip(own, others)]
    return mean(won)


def median_steps(steps: Sequence[int | None]) -> float | None:
    """None where the median run never got there."""
    middle = float(np.median([np.inf if s is None else s for s in steps]))
    return middle if np.isfinite(middle) else None


def arm_figures(runs: list[Result], contender: Contender, by_arm: dict[str, list[Result]]) -> dict[str, Any]:
    """Of one arm on a sparse task. `offline`: nothing is done in the environment, so there are no decisions to
    count."""
    steps = [reached(run.curve) for run in runs]
    online, held = contender.side.online, by_arm.get(contender.against)
    ratio = None
    if held is not None and contender.against != contender.name and online:
        others = [reached(run.curve) for run in held]
        ratio = steps_ratio(steps, others, max(run.steps for run in runs), np.random.default_rng(SEED))
    return _shared(runs, contender, by_arm) | {
        "success": told(mean([run.score for run in runs])) | {"all": [run.score for run in runs]},
        "steps_to_80": {"median": median_steps(steps), "all": steps} if online else None,
        "steps_ratio": told(ratio),
        "curves": {run.seed: run.curve for run in runs},
    }


def runner_figures(runs: list[Result], contender: Contender, by_arm: dict[str, list[Result]]) -> dict[str, Any]:
    """Of one arm on a runner: D4RL-normalised scores, and `return` as it is; `gain`: score over that of the other arm
    from the same seed."""

    def score(value: float) -> float:
        known = normalised(contender.task, value)
        assert known is not None
        return known

    scores = [score(run.score) for run in runs]
    gain = None
    if contender.against in by_arm and contender.against != contender.name:
        pairs = zip(*paired(runs, by_arm[contender.against]))
        gain = mean([score(own.score) - score(other.score) for own, other in pairs])
    return _shared(runs, contender, by_arm) | {
        "score": told(mean(scores)) | {"all": scores},
        "return": float(np.mean([run.score for run in runs])),
        "gain": told(gain),
        "curves": {run.seed: [(step, score(value)) for step, value in run.curve] for run in runs},
    }


def _shared(runs: list[Result], contender: Contender, by_arm: dict[str, list[Result]]) -> dict[str, Any]:
    """What is told of any arm."""
    held = by_arm.get(contender.against) if contender.against != contender.name else None
    return {
        "seeds": [run.seed for run in runs],
        "budget": max(run.steps for run in runs),
        "offline": not contender.side.online,
        "against": contender.against if held else None,
        "better": told(better(runs, held)) if held else None,
        "seconds": float(np.mean([run.seconds for run in runs])),
        "seconds_imagining": float(np.mean([run.seconds_imagining for run in runs])),
        "imagined": float(np.mean([run.imagined for run in runs])),
    }


@overload
def told(interval: None) -> None: ...
@overload
def told(interval: Interval) -> dict[str, Any]: ...
def told(interval: Interval | None) -> dict[str, Any] | None:
    """JSON has no infinity: None stands for what is not known or has no end."""
    if interval is None:
        return None
    return {name: x if x is None or np.isfinite(x) else None for name, x in asdict(interval).items()}


def wallclock(runs: dict[str, dict[str, list[Result]]], arms: tuple[tuple[str, str], ...]) -> dict[str, Any] | None:
    """Seconds of runs with imagination over those without, from the same seeds of the same task: the median, and how
    much of the time goes into imagining. arms: pairs of with and without. None where there is no such pair."""
    ratios, shares = [], []
    for by_arm in runs.values():
        for with_it, without in arms:
            own, others = paired(by_arm.get(with_it, []), by_arm.get(without, []))
            ratios += [a.seconds / b.seconds for a, b in zip(own, others)]
            shares += [run.seconds_imagining / run.seconds for run in own]
    if not ratios:
        return None
    return {"ratio": float(np.median(ratios)), "imagining": float(np.median(shares)), "pairs": len(ratios)}
