"""Franka: the Panda arm of FrankaKitchen, and its joints from points seen on it."""

from dataclasses import dataclass

import numpy as np

from pixeltraj.task import Keypoint


@dataclass(frozen=True)
class _Link:
    """Stands in its parent's frame at `offset`, tilted about x, then turned about z; its joint turns it about z."""

    offset: tuple[float, float, float]
    tilt: float = 0.0
    turn: float = 0.0


# As the model has them, in metres and radians: it writes 1.57 for some right angles, and that can be seen at 1e-4.
_RIGHT = np.pi / 2
_LINKS = (
    _Link((0.0, 0.0, 2.133), turn=1.57),
    _Link((0.0, 0.0, 0.0), tilt=-_RIGHT),
    _Link((0.0, -0.316, 0.0), tilt=_RIGHT),
    _Link((0.0825, 0.0, 0.0), tilt=_RIGHT),
    _Link((-0.0825, 0.384, 0.0), tilt=-_RIGHT),
    _Link((0.0, 0.0, 0.0), tilt=1.57, turn=1.57),
    _Link((0.088, 0.0, 0.0), tilt=1.57, turn=0.7854),
)
_ACROSS = (float(np.sqrt(0.5)), float(np.sqrt(0.5)), 0.0)
"""The way the left finger opens, in the last link's frame; the right one opens the other way."""
_TIP = 0.09  # from a finger's origin, which is 0.1654 m beyond the last link's, to the middle of its pad


@dataclass(frozen=True)
class _Mark:
    """A point on a link (counted from 0), metres in its frame; `finger` slides it along +_ACROSS or -_ACROSS."""

    link: int
    point: tuple[float, float, float] = (0.0, 0.0, 0.0)
    finger: float = 0.0


_MARKS = (
    _Mark(3),
    _Mark(5),
    _Mark(6),
    _Mark(6, (0.07, 0.07, 0.13)),
    _Mark(6, (-0.07, -0.07, 0.13)),
    _Mark(6, (0.0, 0.0, 0.1654 + _TIP), finger=1.0),
    _Mark(6, (0.0, 0.0, 0.1654 + _TIP), finger=-1.0),
)

KEYPOINTS = (
    Keypoint("elbow", "body", "panda0_link4"),
    Keypoint("wrist", "body", "panda0_link6"),
    Keypoint("flange", "body", "panda0_link7"),
    Keypoint("hand_left", "body", "panda0_link7", offset=_MARKS[3].point),
    Keypoint("hand_right", "body", "panda0_link7", offset=_MARKS[4].point),
    Keypoint("finger_left", "body", "panda0_leftfinger", offset=(0.0, 0.0, _TIP)),
    Keypoint("finger_right", "body", "panda0_rightfinger", offset=(0.0, 0.0, _TIP)),
)
"""What `arm_joints` wants to be given, in this order."""

JOINTS = (*(f"joint{i}" for i in range(1, 8)), "finger_left", "finger_right")
"""Seven hinges, radians, and how far each finger is open, metres."""

_DAMPING = 1e-6  # square metres per square radian: a millimetre of misfit weighs as much as a step of one radian
_LONGEST = 0.3  # radians (metres of a finger) of one step, which keeps wild points from throwing the arm about
_STEPS = 25


def arm_joints(points: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """Joint values (B, 9) whose keypoints come nearest to points (B, 7, 3), metres, by damped Gauss-Newton.

    guess (B, 9): where to begin; take the moment before, for the arm can reach some points in two postures.
    """
    joints = np.array(guess, dtype=np.float64)
    for _ in range(_STEPS):
        reached, slopes = _reach(joints)
        misfit = (points - reached).reshape(len(joints), -1, 1)
        normal = np.swapaxes(slopes, 1, 2) @ slopes + _DAMPING * np.eye(len(JOINTS))
        step = np.linalg.solve(normal, np.swapaxes(slopes, 1, 2) @ misfit)[..., 0]
        joints += np.clip(step, -_LONGEST, _LONGEST)
        if np.abs(step).max() < 1e-6:
            break
    return joints


def _reach(joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Joints (B, 9) -> keypoints (B, 7, 3) and their slopes (B, 21, 9)."""
    batch = len(joints)
    place, frame = np.zeros((batch, 3)), np.broadcast_to(np.eye(3), (batch, 3, 3))
    places, frames = [], []
    for i, link in enumerate(_LINKS):
        place = place + frame @ np.array(link.offset)
        frame = frame @ _about_x(link.tilt) @ _about_z(link.turn + joints[:, i])
        places.append(place)
        frames.append(frame)
    points = np.empty((batch, len(_MARKS), 3))
    slopes = np.zeros((batch, len(_MARKS), 3, len(JOINTS)))
    for n, mark in enumerate(_MARKS):
        along = frames[mark.link] @ np.array(_ACROSS) * mark.finger
        points[:, n] = places[mark.link] + frames[mark.link] @ np.array(mark.point)
        if mark.finger:
            finger = 7 if mark.finger > 0 else 8
            points[:, n] += along * joints[:, finger, None]
            slopes[:, n, :, finger] = along
        for i in range(mark.link + 1):
            slopes[:, n, :, i] = np.cross(frames[i][..., 2], points[:, n] - places[i])
    return points, slopes.reshape(batch, -1, len(JOINTS))


def _about_x(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])


def _about_z(angle: np.ndarray) -> np.ndarray:
    """(B,) -> (B, 3, 3)"""
    c, s, zero = np.cos(angle), np.sin(angle), np.zeros_like(angle)
    rows = [[c, -s, zero], [s, c, zero], [zero, zero, zero + 1.0]]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
