"""Coverage: is all of the real data imagined, is it only copied, and how varied is it?

Density and coverage are those of Naeem et al. 2020, "Reliable Fidelity and Diversity Metrics for Generative Models":
around each real trajectory lies a ball that reaches to its fifth nearest real neighbour. Coverage is the share of these
balls in which something imagined lies, density how many of them an imagined trajectory lies in, over five. Two large
draws of the same data have a coverage of .97 and a density of 1.

Two trajectories of one episode, or one that set out from the other's, lie close for that reason alone. So only real
trajectories of other episodes count as neighbours, and an imagined one covers nothing of the episode it set out from.

Distances are root mean squares over frames and dimensions, in % of each dimension's range.
Shapes: n trajectories, K frames, S state.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pixeltraj.trajectory import Trajectory

NEIGHBOURS = 5
COPY_PERCENTILE = 5
"""Nearer to the training data than all but so many percent of held-out trajectories are: as good as copied."""


def padded(trajectories: list[Trajectory], frames: int) -> np.ndarray:
    """(n, K, S) states of the first K frames; the last one repeats where there are fewer."""
    rows = [np.minimum(np.arange(frames), len(t)) for t in trajectories]
    return np.stack([t.states[r] for t, r in zip(trajectories, rows)])


@dataclass
class Windows:
    """Trajectories of one length."""

    states: np.ndarray
    """(n, K, S)"""
    episodes: np.ndarray
    """(n,) the real episode each is of or set out from, -1 for none"""

    def __len__(self) -> int:
        return len(self.states)


def coverage(
    imagined: Windows, heldout: Windows, training: Windows, span: np.ndarray, rng: np.random.Generator
) -> dict[str, Any] | None:
    """The measures of `imagined` against real windows, held out and trained on, JSON-able.

    span (S,): ranges in the training data; dimensions without one are left out. Beside them stand, under `real`, what
    as many windows of the training data reach, and under `nothing_moves` the imagined starts alone, repeated.
    None where there are too few windows, or held-out ones of a single episode.
    """
    if min(len(imagined), len(training)) < 1 or len(np.unique(heldout.episodes)) < 2:
        return None
    made, real, seen = (_scaled(part.states, span) for part in (imagined, heldout, training))
    still = _scaled(np.repeat(imagined.states[:, :1], imagined.states.shape[1], axis=1), span)
    drawn = rng.permutation(len(seen))[: len(made)]
    apart = distances(real, real)
    elsewhere = np.where(_same(heldout.episodes, heldout.episodes), np.inf, apart)
    if np.isfinite(elsewhere).sum(axis=1).min() < NEIGHBOURS:
        return None
    radius = np.sort(elsewhere, axis=1)[:, NEIGHBOURS - 1]
    home = _same(imagined.episodes, heldout.episodes)
    near_made, near_real = (distances(part, seen).min(axis=1) for part in (made, real))
    copied = np.percentile(near_real, COPY_PERCENTILE)
    own, between = _mean_pair(distances(made, made)), _mean_pair(apart)
    return {
        "frames": int(imagined.states.shape[1]),
        "trajectories": {"imagined": len(made), "heldout": len(real), "training": len(seen)},
        **_density_and_coverage(distances(made, real), home, radius),
        "nearest_training": float(np.median(near_made)),
        "copied": float((near_made < copied).mean()),
        "diversity": None if own is None or not between else own / between,
        "real": {
            **_density_and_coverage(distances(seen[drawn], real), np.zeros((len(drawn), len(real)), bool), radius),
            "nearest_training": float(np.median(near_real)),
            "copied": float((near_real < copied).mean()),
            "diversity": 1.0,
        },
        "nothing_moves": _density_and_coverage(distances(still, real), home, radius),
    }


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, D) and (m, D) -> (n, m), Euclidean, float64."""
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * a @ b.T
    return np.sqrt(np.maximum(squares, 0.0))


def _scaled(states: np.ndarray, span: np.ndarray) -> np.ndarray:
    """(n, K, S) -> (n, D) in which Euclidean distances are root mean squares in % of the range."""
    moving = span > 0
    flat = (100 * states[..., moving].astype(np.float64) / span[moving]).reshape(len(states), -1)
    return flat / np.sqrt(flat.shape[1])


def _same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n,), (m,) episodes -> (n, m) bool."""
    return (a[:, None] == b[None]) & (a[:, None] >= 0)


def _density_and_coverage(apart: np.ndarray, home: np.ndarray, radius: np.ndarray) -> dict[str, float]:
    """apart (n, m) distances to real windows, home (n, m) bool: those that do not count, radius (m,)."""
    inside = (apart <= radius) & ~home
    return {"coverage": float(inside.any(axis=0).mean()), "density": float(inside.sum(axis=1).mean() / NEIGHBOURS)}


def _mean_pair(apart: np.ndarray) -> float | None:
    n = len(apart)
    return float(apart.sum() / (n * (n - 1))) if n > 1 else None
