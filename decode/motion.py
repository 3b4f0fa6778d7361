"""Motion: how states go on, as a linear map with Gaussian errors, learned from real transitions.

Shapes: n transitions, S state.
"""

from dataclasses import dataclass

import numpy as np

RIDGE = 1.0
"""Weight, in transitions, of the belief that nothing changes."""
LEAST = 0.01
"""Metres, radians, or those a second: what varied by less in the data is not known well enough to foresee others."""
EXACT = 1e-3
"""In the same units: nothing is foreseen better."""


@dataclass(frozen=True)
class Motion:
    """s' = [s, 1] matrix + error. Actions are not known to it: what they do is part of the error."""

    matrix: np.ndarray
    """(S + 1, S) float64"""
    covariance: np.ndarray
    """(S, S) float64, of the error"""

    @classmethod
    def of(cls, before: np.ndarray, after: np.ndarray) -> "Motion":
        """before (n, S), after (n, S): states one decision apart. Ridge regression of the change on the state."""
        before, after = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
        mean, deviation = before.mean(axis=0), np.maximum(before.std(axis=0), LEAST)
        known = np.column_stack([(before - mean) / deviation, np.ones(len(before))])
        weight = RIDGE * np.eye(known.shape[1])
        weight[-1, -1] = 0.0  # the mean change is not held back
        square = known.T @ known
        change = np.linalg.solve(square + weight, known.T @ (after - before))
        error = after - before - known @ change
        free = len(known) - np.trace(np.linalg.solve(square + weight, square))
        covariance = error.T @ error / max(free, 1.0) + EXACT**2 * np.eye(len(mean))
        matrix = np.vstack([np.eye(len(mean)) + change[:-1] / deviation[:, None], change[-1:]])
        matrix[-1] -= mean @ (change[:-1] / deviation[:, None])
        return cls(matrix, covariance)
