"""Inverse dynamics: the action that the simulator would have needed.

Around the action a that is claimed, the simulator's next state is linear in the action: f(a + d) = f(a) + J d, with J
from one more rollout a dimension. With the states' noise s (what real transitions miss by in the same pipeline) and
d of the order of 1, the likeliest correction is that of damped least squares,

    d = (J' J + 1)^-1 J' (s_{t+1} - f(a)),      rows of J and of the difference divided by s,

and (J' J + 1)^-1 says how surely it is known. A dimension whose deviation stays above a half is not told.
"""

import numpy as np

from pixeltraj.simulator import Simulator

STEP = 0.25
"""By how much an action is changed to see what it does: enough to be felt through a contact."""
SURE = 0.5
"""Standard deviation of a correction, of 1 before anything is seen, up to which it counts as told."""


def response(simulator: Simulator, here: np.ndarray, action: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """(S, A) change of the next state per unit of each action dimension, by A rollouts from the snapshot `here`.

    action (A,) in [-1, 1], expected (S,) what the simulator makes of it. Each dimension is moved towards zero, so that
    none is clipped.
    """
    columns = []
    for j, value in enumerate(action):
        change = -STEP if value > 0 else STEP
        other = action.copy()
        other[j] += change
        simulator.restore(here)
        columns.append((simulator.step(other)[0].astype(np.float64) - expected) / change)
    return np.stack(columns, axis=-1)


def action_residual(errors: np.ndarray, responses: np.ndarray, actions: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """(n, A) the action that was needed, in [-1, 1], minus the one claimed; NaN where it cannot be told.

    errors (n, S) simulator minus claimed next state, responses (n, S, A), actions (n, A) in [-1, 1], noise (S,): what
    an error of no meaning is in each dimension, infinite where a dimension tells nothing.
    """
    residual = np.full(actions.shape, np.nan)
    sound = np.isfinite(errors).all(axis=1) & np.isfinite(responses).all(axis=(1, 2)) & np.isfinite(actions).all(axis=1)
    slope = responses[sound] / noise[:, None]
    covariance = np.linalg.inv(slope.swapaxes(1, 2) @ slope + np.eye(actions.shape[1]))
    missing = np.einsum("nsa,ns->na", slope, -errors[sound] / noise)
    claimed = actions[sound].astype(np.float64)
    needed = np.clip(claimed + np.einsum("nab,nb->na", covariance, missing), -1.0, 1.0)
    told = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)) <= SURE
    residual[sound] = np.where(told, needed - claimed, np.nan)
    return residual
