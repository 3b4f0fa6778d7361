"""The legs of Gymnasium's Ant: where they stand on its torso, and what directions in space say about its pose."""

import numpy as np

LEGS = np.array([[1, 1, 0], [-1, 1, 0], [-1, -1, 0], [1, -1, 0]]) / np.sqrt(2)
"""(4, 3) where each leg points in the torso's frame; its hip turns about z."""
ANKLES = np.array([[-1, 1, 0], [1, 1, 0], [-1, 1, 0], [1, 1, 0]]) / np.sqrt(2)
"""(4, 3) the axis of each ankle where its hip is at zero."""


def orientation(hips: np.ndarray) -> np.ndarray:
    """(..., 4, 3) from the torso to each hip -> (..., 4) unit quaternions, of either sign.

    The rotation that brings the hips of a torso at rest nearest to the given ones, in least squares: the first
    eigenvector of Davenport's matrix.
    """
    moments = np.einsum("li,...lj->...ij", LEGS, hips)
    turn = np.stack([moments[..., i, j] - moments[..., j, i] for i, j in ((1, 2), (2, 0), (0, 1))], axis=-1)
    trace = np.trace(moments, axis1=-2, axis2=-1)
    matrix = np.empty((*hips.shape[:-2], 4, 4))
    matrix[..., 0, 0], matrix[..., 0, 1:], matrix[..., 1:, 0] = trace, turn, turn
    matrix[..., 1:, 1:] = moments + np.swapaxes(moments, -1, -2) - trace[..., None, None] * np.eye(3)
    return np.linalg.eigh(matrix)[1][..., -1]


def continued(quaternions: np.ndarray, start: np.ndarray) -> np.ndarray:
    """(B, K, 4) of either sign, start (B, 4) -> (B, K, 4), each of the sign nearest to the one before it."""
    before = np.concatenate([start[:, None], quaternions[:, :-1]], axis=1)
    flips = np.where(np.sum(before * quaternions, axis=-1) < 0, -1.0, 1.0)
    return quaternions * np.cumprod(flips, axis=1)[..., None]


def axes(quaternions: np.ndarray) -> np.ndarray:
    """(..., 4) -> (..., 3, 3): the torso's axes in the world, as columns."""
    w, v = quaternions[..., :1, None], quaternions[..., 1:, None]
    x, y, z = np.moveaxis(quaternions[..., 1:], -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*x.shape, 3, 3)
    return (w**2 - np.swapaxes(v, -1, -2) @ v) * np.eye(3) + 2 * (v @ np.swapaxes(v, -1, -2) + w * cross)


def angle(vectors: np.ndarray, rest: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """(..., 3) -> (...): the turn about the axis, radians, that brings `rest` into the vector's direction."""
    return np.arctan2(np.sum(vectors * np.cross(axis, rest), axis=-1), np.sum(vectors * rest, axis=-1))
