"""Fit: the motion within a model's means that explains decoded keypoints best.

Geometry alone reads each joint from its own two keypoints. Here limbs are rigid, joints have limits, feet do not sink
into the floor, the start is known to the last velocity, and states follow each other as real ones do (`Motion`): all
frames of a window at once, by least squares. It is a Kalman smoother whose measurements are keypoints, repeated where
the model bends (an iterated Gauss-Newton smoother, Bell 1994), with Levenberg's damping and Cauchy's loss.

Shapes: B windows, K frames, T = K - 1 of them unknown, N keypoints, S state, P pose, V = P + hidden dimensions.
"""

from dataclasses import dataclass

import numpy as np

from pixeltraj.decode.kinematics import Kinematics
from pixeltraj.decode.motion import Motion
from pixeltraj.task import Task

STEPS = 6
"""At most; most windows need two."""
ENOUGH = 0.1
"""A window is done when a step gains less, in squared deviations."""
MILD, FIRM = 1e-4, 0.1
"""Levenberg's damping at first, and at least after a step that gained nothing."""
UNDERSTATED = 1.25
"""Keypoints are off by more than is stated of them: 0.9 to 2.3 times on held-out frames."""
LEAST = 1e-4
"""Metres. No keypoint is believed to be known better."""
FAR = 3.0
"""Deviations beyond which a keypoint counts less and less: it was not understood."""
LIMIT = 0.05
"""Radians or metres by which a joint may well be beyond its limit: MuJoCo's give way."""
SUNK, SINKING = 0.02, 0.01
"""Metres. Real feet are in the floor by up to the first, seldom by the second more."""


@dataclass
class _System:
    """Normal equations of each window: blocks for every frame, and the value of what is minimised."""

    diagonal: np.ndarray
    """(B, T, V, V)"""
    right: np.ndarray
    """(B, T, V)"""
    cost: np.ndarray
    """(B,)"""

    def where(self, better: np.ndarray, other: "_System") -> "_System":
        """These equations in those rows (B,) bool, the other's elsewhere."""
        diagonal = np.where(better[:, None, None, None], self.diagonal, other.diagonal)
        right = np.where(better[:, None, None], self.right, other.right)
        return _System(diagonal, right, np.where(better, self.cost, other.cost))

    def rows(self, rows: np.ndarray) -> "_System":
        """Of some windows only."""
        return _System(self.diagonal[rows], self.right[rows], self.cost[rows])


class Fit:
    """Poses of one task, fitted to keypoints. A task without `Task.pose` keeps its states as they are."""

    def __init__(self, task: Task, motion: Motion) -> None:
        self.task = task
        self.pose = [[d.name for d in task.state].index(name) for name in task.pose]
        if not self.pose:
            return
        self.kinematics = Kinematics(task)
        self.dims = [*self.pose, *(i for i in task.indices(task.hidden) if i not in self.pose)]
        self.rest = [i for i in range(task.state_size) if i not in self.dims]
        self.onward = motion.matrix[np.ix_(self.dims, self.dims)].T  # (V, V): s' = onward s + ...
        self.drift = motion.matrix[np.ix_([*self.rest, -1], self.dims)]
        self.precision = np.linalg.inv(motion.covariance[np.ix_(self.dims, self.dims)])

    def __call__(self, states: np.ndarray, keypoints: np.ndarray, spread: np.ndarray) -> np.ndarray:
        """states (B, K, S) by geometry, row 0 of each window known; keypoints (B, K, N, 3) metres from the camera's
        anchor; spread (B, K, N) metres by which they are expected to be misread -> states (B, K, S) float32 whose pose
        is fitted in frames 1..; all else is as it was. A window that cannot be fitted keeps its states.
        """
        fitted = np.array(states, dtype=np.float32)
        if not self.pose or states.shape[1] < 2:
            return fitted
        sound = np.isfinite(keypoints).all(axis=(1, 2, 3)) & np.isfinite(states[..., self.pose]).all(axis=(1, 2))
        sound &= np.isfinite(states[:, 0]).all(axis=1) & np.isfinite(spread).all(axis=(1, 2))
        if sound.any():
            poses = self._fit(states[sound].astype(np.float64), keypoints[sound][:, 1:], spread[sound][:, 1:])
            rows = fitted[sound]
            rows[:, 1:, self.pose] = poses
            fitted[sound] = rows
        return fitted

    def _fit(self, states: np.ndarray, keypoints: np.ndarray, spread: np.ndarray) -> np.ndarray:
        """Sound windows -> poses (B, T, P)."""
        told = self.kinematics.told
        target = keypoints[:, :, told].astype(np.float64)
        weight = 1 / np.maximum(UNDERSTATED * spread[..., told].astype(np.float64), LEAST)
        constant = np.append(states[:, 0, self.rest], np.ones((len(states), 1)), axis=1) @ self.drift  # (B, V)
        start, best = states[:, 0, self.dims], self._guess(states, constant)
        going, damping = np.arange(len(best)), np.full(len(best), MILD)
        system = self._system(best, start, constant, target, weight)
        for _ in range(STEPS):
            tried = best[going] + self._step(system, damping)
            for part in self.kinematics.quaternions:
                tried[..., part] /= np.linalg.norm(tried[..., part], axis=-1, keepdims=True)
            outcome = self._system(tried, start[going], constant[going], target[going], weight[going])
            gain = system.cost - outcome.cost
            better = gain > 0  # NaN is not
            best[going[better]] = tried[better]
            left = ~better | (gain > ENOUGH)
            damping = np.where(better, damping / 10, np.maximum(100 * damping, FIRM))[left]
            going, system = going[left], outcome.where(better, system).rows(left)
            if not len(going):
                break
        return best[..., : len(self.pose)]

    def _guess(self, states: np.ndarray, constant: np.ndarray) -> np.ndarray:
        """(B, T, V): the poses by geometry, within limits and without leaps; the rest as motion foresees it."""
        model, size = self.kinematics, len(self.pose)
        poses = states[..., self.pose]
        poses[..., model.turns] = np.unwrap(poses[..., model.turns], axis=1)
        guess, before = np.empty((len(states), states.shape[1] - 1, len(self.dims))), states[:, 0, self.dims]
        guess[..., :size] = np.clip(poses[:, 1:], model.low, model.high)
        for t in range(guess.shape[1]):
            guess[:, t, size:] = (before @ self.onward.T + constant)[:, size:]
            before = guess[:, t]
        return guess

    def _system(
        self, path: np.ndarray, start: np.ndarray, constant: np.ndarray, target: np.ndarray, weight: np.ndarray
    ) -> _System:
        """path (B, T, V), start (B, V), constant (B, V), target (B, T, N, 3), weight (B, T, N)."""
        batch, steps, _ = path.shape
        size = len(self.pose)
        poses = path[..., :size]
        placed = self.kinematics.place(poses.reshape(-1, size))
        moving = placed.moving.reshape(batch, steps, -1, 3, size)
        missed = (target - placed.points.reshape(target.shape)) * weight[..., None]  # in deviations
        square = np.square(missed).sum(axis=-1) / (3 * FAR**2)
        trust = 1 / np.sqrt(1 + square)[..., None]
        rows = (moving * (trust * weight[..., None])[..., None]).reshape(batch, steps, -1, size)
        errors = (trust * missed).reshape(batch, steps, -1)
        beyond = poses - np.clip(poses, self.kinematics.low, self.kinematics.high)
        sunk = np.minimum(placed.clearance + SUNK, 0).reshape(batch, steps, -1)
        rising = placed.rising.reshape(batch, steps, -1, size) * (sunk < 0)[..., None] / SINKING

        error = path - np.concatenate([start[:, None], path[:, :-1]], axis=1) @ self.onward.T - constant[:, None]
        pushed = error @ self.precision
        right = -pushed
        right[:, :-1] += pushed[:, 1:] @ self.onward
        right[..., :size] += (errors[..., None] * rows).sum(axis=-2) - beyond / LIMIT**2
        right[..., :size] -= (sunk[..., None] / SINKING * rising).sum(axis=-2)
        diagonal = np.tile(self.precision, (batch, steps, 1, 1))
        diagonal[:, :-1] += self.onward.T @ self.precision @ self.onward
        diagonal[..., :size, :size] += rows.swapaxes(-1, -2) @ rows + rising.swapaxes(-1, -2) @ rising
        index = np.arange(size)
        diagonal[..., index, index] += (beyond != 0) / LIMIT**2
        cost = 3 * FAR**2 * np.log1p(square).sum(axis=(1, 2)) + (pushed * error).sum(axis=(1, 2))
        cost += np.square(beyond / LIMIT).sum(axis=(1, 2)) + np.square(sunk / SINKING).sum(axis=(1, 2))
        return _System(diagonal, right, cost)

    def _step(self, system: _System, damping: np.ndarray) -> np.ndarray:
        """(B, T, V): the solution of the block tridiagonal equations, forward and backward through the frames."""
        below = -self.precision @ self.onward
        diagonal, right = system.diagonal.copy(), system.right.copy()
        index = np.arange(diagonal.shape[-1])
        diagonal[..., index, index] *= 1 + damping[:, None, None]
        for t in range(1, right.shape[1]):
            # What is left of frame t-1 once frame t is known: both in one solution.
            both = np.concatenate([np.broadcast_to(below.T, diagonal[:, 0].shape), right[:, t - 1, :, None]], axis=-1)
            solved = np.linalg.solve(diagonal[:, t - 1], both)
            diagonal[:, t] -= below @ solved[..., :-1]
            right[:, t] -= (below @ solved[..., -1:])[..., 0]
        step = np.empty_like(right)
        step[:, -1] = np.linalg.solve(diagonal[:, -1], right[:, -1, :, None])[..., 0]
        for t in range(right.shape[1] - 2, -1, -1):
            step[:, t] = np.linalg.solve(diagonal[:, t], (right[:, t] - step[:, t + 1] @ below)[..., None])[..., 0]
        return step
