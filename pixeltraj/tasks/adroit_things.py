"""What the Adroit hand handles: a door, a hammer, a pen and a ball, each with its part of the state.

A thing is read from its keypoints, read from the simulator, put into the simulator, and found in the environment's
own observation. A reading (M,) is its dimensions in order, float64.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

from pixeltraj.task import Dimension, Keypoint
from pixeltraj.tasks.adroit_hand import GRASP, Hand, quaternion_rotation

Points = dict[str, np.ndarray]
"""Keypoints by name, (..., 3) each, metres."""


class Thing(ABC):
    """One of the four. Holds nothing: the simulator is passed in as the environment `env` of gymnasium-robotics."""

    keypoints: ClassVar[tuple[Keypoint, ...]]
    dimensions: ClassVar[tuple[Dimension, ...]]
    static: ClassVar[tuple[str, ...]]
    hidden: ClassVar[tuple[str, ...]] = ()
    edited: ClassVar[tuple[tuple[str, str], ...]]
    """Field of the model that resets change, and the body or site whose row of it."""
    observation_size: ClassVar[int]
    observation_layout: ClassVar[str]

    @abstractmethod
    def from_keypoints(self, points: Points) -> np.ndarray:
        """(..., M), NaN where hidden."""

    @abstractmethod
    def read(self, env: Any) -> np.ndarray:
        """(M,) of the simulator, whose positions are up to date."""

    @abstractmethod
    def place(self, env: Any, reading: np.ndarray) -> None:
        """Bring thing and goal to the reading (M,). What it leaves open stays as it is."""

    @abstractmethod
    def from_observation(self, observation: np.ndarray, hand: Hand) -> tuple[np.ndarray, np.ndarray]:
        """The environment's own observation (O,) -> the hand's joints (J,), the reading (M,)."""


def _metres(*names: str) -> tuple[Dimension, ...]:
    return tuple(Dimension(f"{name}_{axis}", "m") for name in names for axis in "xyz")


def _direction(*names: str) -> tuple[Dimension, ...]:
    return tuple(Dimension(f"{name}_{axis}", "unit vector") for name in names for axis in "xyz")


_TWIST = tuple(
    Dimension(f"{name}_velocity", "m/s" if "T" in name else "rad/s")
    for name in ("OBJTx", "OBJTy", "OBJTz", "OBJRx", "OBJRy", "OBJRz")
)


def _names(dimensions: tuple[Dimension, ...]) -> tuple[str, ...]:
    return tuple(d.name for d in dimensions)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.maximum(np.linalg.norm(vector, axis=-1, keepdims=True), 1e-9)


def _about(axis: str, angle: np.ndarray) -> np.ndarray:
    """(...) radians about y or z -> (..., 3, 3)."""
    c, s, o, i = np.cos(angle), np.sin(angle), np.zeros_like(angle), np.ones_like(angle)
    rows = {"y": (c, o, s, o, i, o, -s, o, c), "z": (c, -s, o, s, c, o, o, o, i)}[axis]
    return np.stack(rows, axis=-1).reshape(*np.shape(angle), 3, 3)


class Door(Thing):
    """Latch and hinge, radians; the handle; the door's frame, which stands elsewhere in every episode."""

    _HINGE = np.array([0.6, 0.0, 0.0])  # from the frame; the latch and its handle from the closed door's hinge:
    _LATCH, _HANDLE = np.array([-0.46, 0.0, -0.025]), np.array([0.15, -0.15, 0.0])
    _POST, _EDGE, _KNOB = (0.6, -0.05, -0.1), (-0.2, -0.05, -0.1), (0.0, -0.15, 0.0)

    keypoints = (
        Keypoint("frame", "body", "frame", offset=_POST),
        Keypoint("door", "body", "door", offset=_EDGE),
        Keypoint("latch", "body", "latch", offset=_KNOB),
        Keypoint("handle", "site", "S_handle"),
    )
    dimensions = (Dimension("latch", "rad"), Dimension("hinge", "rad"), *_metres("handle", "frame"))
    static = _names(_metres("frame"))
    edited = (("body_pos", "frame"),)
    observation_size = 39
    observation_layout = "27 joints without ARTz, latch, hinge, palm (3), handle (3), palm - handle (3), door open"

    def from_keypoints(self, points: Points) -> np.ndarray:
        frame = points["frame"] - self._POST
        edge = points["door"] - (frame + self._HINGE)
        rest = np.array([self._EDGE[0] - 0.31, self._EDGE[1]])
        hinge = np.arctan2(edge[..., 1], edge[..., 0]) - np.arctan2(rest[1], rest[0])
        hinge = (hinge + np.pi / 2) % (2 * np.pi) - np.pi / 2
        lever = points["handle"] - points["latch"]
        lever = np.squeeze(np.swapaxes(_about("z", hinge), -1, -2) @ lever[..., None], -1)
        latch = np.arctan2(-lever[..., 2], lever[..., 0])
        return np.concatenate([latch[..., None], hinge[..., None], points["handle"], frame], axis=-1)

    def read(self, env: Any) -> np.ndarray:
        handle = env.data.site("S_handle").xpos
        return np.concatenate([env.data.qpos[[-1, -2]], handle, env.model.body("frame").pos])

    def place(self, env: Any, reading: np.ndarray) -> None:
        env.data.qpos[[-1, -2]] = reading[:2]
        env.model.body("frame").pos[:] = reading[5:8]

    def from_observation(self, observation: np.ndarray, hand: Hand) -> tuple[np.ndarray, np.ndarray]:
        joints = np.concatenate([[0.0], observation[:27]])
        _, rotations = hand.forward(joints[None])
        away = observation[29:32] - hand.points(joints[None], [GRASP])[0, 0]
        joints[0] = away @ rotations[0, 0] @ np.array(hand.bones[0].axis)  # the arm slides along its own axis
        latch, hinge, handle = observation[27], observation[28], observation[32:35]
        reach = self._HINGE + _about("z", hinge) @ (self._LATCH + _about("y", latch) @ self._HANDLE)
        return joints, np.concatenate([[latch, hinge], handle, handle - reach])


class Hammer(Thing):
    """Nail, hammer and the nail's goal. The hammer lies along `handle` and strikes along `head`: unlike the Euler
    angles of the environment's observation these never jump. Its velocities are clipped to +-1, as they are there."""

    _BOARD = quaternion_rotation((0.583833, 0.583368, -0.399421, -0.399104))
    _DEPTH, _GOAL = 0.101, 0.01  # of the nail's head and of its goal, from the board along its normal, metres
    _REST = quaternion_rotation((0.707388, 0.706825, 0.0, 0.0))

    keypoints = (
        Keypoint("nail", "site", "S_target"),
        Keypoint("goal", "site", "nail_goal"),
        Keypoint("hammer", "body", "Object"),
        Keypoint("hammer_end", "body", "Object", offset=(0.06, 0.0, 0.0)),
        Keypoint("hammer_face", "body", "Object", offset=(-0.24, 0.0, -0.04)),
        Keypoint("hammer_back", "body", "Object", offset=(-0.24, 0.0, 0.04)),
    )
    dimensions = (
        Dimension("nail_depth", "m"),
        *_metres("nail", "hammer"),
        *_direction("handle", "head"),
        *_TWIST,
        *_metres("goal"),
    )
    static = _names(_metres("goal"))
    hidden = _names(_TWIST)
    edited = (("body_pos", "nail_board"),)
    observation_size = 46
    observation_layout = (
        "26 joints, nail, hammer's velocities (6), palm (3), hammer (3) and its Euler angles (3), nail (3), impact"
    )

    def from_keypoints(self, points: Points) -> np.ndarray:
        normal = self._BOARD[:, 2]
        depth = self._DEPTH - self._GOAL - (points["nail"] - points["goal"]) @ normal
        seen = np.stack([points[k.name] for k in self.keypoints[2:]], axis=-2)
        position, rotation = _rigid(seen, np.array([k.offset for k in self.keypoints[2:]]))
        turned = [rotation[..., :, 0], rotation[..., :, 2]]
        unknown = np.full((*depth.shape, 6), np.nan)
        return np.concatenate([depth[..., None], points["nail"], position, *turned, unknown, points["goal"]], axis=-1)

    def read(self, env: Any) -> np.ndarray:
        data, rotation = env.data, env.data.body("Object").xmat.reshape(3, 3)
        nail, goal = data.site("S_target").xpos, data.site("nail_goal").xpos
        twist = np.clip(data.qvel[-6:], -1.0, 1.0)
        hammer = data.body("Object").xpos
        return np.concatenate([data.qpos[-7:-6], nail, hammer, rotation[:, 0], rotation[:, 2], twist, goal])

    def place(self, env: Any, reading: np.ndarray) -> None:
        handle = _unit(reading[7:10])
        head = _unit(reading[10:13] - reading[10:13] @ handle * handle)
        rotation = np.stack([handle, np.cross(head, handle), head], axis=-1)
        start = env.model.body("Object").pos
        slide = self._REST.T @ (reading[4:7] - start)
        env.data.qpos[-7:] = np.concatenate([reading[:1], slide, _hinges(self._REST.T @ rotation, env.data.qpos[-3:])])
        env.data.qvel[-6:] = reading[13:19]
        env.model.body("nail_board").pos[:] = reading[19:22] - self._GOAL * self._BOARD[:, 2]

    def from_observation(self, observation: np.ndarray, hand: Hand) -> tuple[np.ndarray, np.ndarray]:
        from gymnasium_robotics.utils.rotations import euler2mat

        rotation = euler2mat(observation[39:42])
        depth, nail = observation[26:27], observation[42:45]
        goal = nail + (depth - self._DEPTH + self._GOAL) * self._BOARD[:, 2]
        turned = [rotation[:, 0], rotation[:, 2]]
        return observation[:26], np.concatenate([depth, nail, observation[36:39], *turned, observation[27:33], goal])


class Pen(Thing):
    """The pen's place and direction, and the direction it should have: that of the green pen beside the hand.

    How the pen is rolled about itself is in no observation, and only its clip, 1 cm wide, shows it.
    """

    _REST = quaternion_rotation((np.cos(1.57 / 2), 0.0, np.sin(1.57 / 2), 0.0))

    keypoints = (
        Keypoint("pen_top", "site", "object_top"),
        Keypoint("pen_bottom", "site", "object_bottom"),
        Keypoint("goal_top", "site", "target_top"),
        Keypoint("goal_bottom", "site", "target_bottom"),
    )
    dimensions = (*_metres("pen"), *_direction("pen_direction"), *_TWIST, *_direction("goal"))
    static = _names(_direction("goal"))
    hidden = _names(_TWIST)
    edited = (("body_quat", "target"),)
    observation_size = 45
    observation_layout = "24 joints, pen (3), velocities (6), direction (3), goal (3), and the differences (3, 3)"

    def from_keypoints(self, points: Points) -> np.ndarray:
        top, bottom = points["pen_top"], points["pen_bottom"]
        unknown = np.full((*top.shape[:-1], 6), np.nan)
        goal = _unit(points["goal_top"] - points["goal_bottom"])
        return np.concatenate([(top + bottom) / 2, _unit(top - bottom), unknown, goal], axis=-1)

    def read(self, env: Any) -> np.ndarray:
        pen, goal = (env.data.body(name) for name in ("Object", "target"))
        return np.concatenate([pen.xpos, pen.xmat[2::3], env.data.qvel[-6:], goal.xmat[2::3]])

    def place(self, env: Any, reading: np.ndarray) -> None:
        from gymnasium_robotics.utils.rotations import euler2quat

        slide = self._REST.T @ (reading[:3] - env.model.body("Object").pos)
        x, y, z = self._REST.T @ _unit(reading[3:6])
        now = env.data.qpos[-3:]
        turned = np.array([np.arctan2(-y, z), np.arcsin(np.clip(x, -1.0, 1.0)), now[2]])
        env.data.qpos[-6:] = np.concatenate([slide, _nearest(turned, now, free_roll=True)])
        env.data.qvel[-6:] = reading[6:12]
        x, y, z = _unit(reading[12:15])
        # Targets are turned about x, then y, by less than 1 radian each: the direction tells both.
        env.model.body("target").quat[:] = euler2quat(np.array([-np.arctan2(y, z), np.arctan2(x, np.hypot(y, z)), 0.0]))

    def from_observation(self, observation: np.ndarray, hand: Hand) -> tuple[np.ndarray, np.ndarray]:
        pen, twist, direction, goal = np.split(observation[24:39], [3, 9, 12])
        return observation[:24], np.concatenate([pen, direction, twist, goal])


class Ball(Thing):
    """The ball and its goal, the green sphere. How the ball is turned is in no observation."""

    keypoints = (Keypoint("ball", "body", "Object"), Keypoint("goal", "site", "target"))
    dimensions = _metres("ball", "goal")
    static = _names(_metres("goal"))
    edited = (("body_pos", "Object"), ("site_pos", "target"))
    observation_size = 39
    observation_layout = "30 joints, palm - ball (3), palm - goal (3), ball - goal (3)"

    def from_keypoints(self, points: Points) -> np.ndarray:
        return np.concatenate([points["ball"], points["goal"]], axis=-1)

    def read(self, env: Any) -> np.ndarray:
        return np.concatenate([env.data.body("Object").xpos, env.model.site("target").pos])

    def place(self, env: Any, reading: np.ndarray) -> None:
        env.data.qpos[-6:-3] = reading[:3] - env.model.body("Object").pos
        env.model.site("target").pos[:] = reading[3:6]

    def from_observation(self, observation: np.ndarray, hand: Hand) -> tuple[np.ndarray, np.ndarray]:
        palm = hand.points(observation[None, :30], [GRASP])[0, 0]
        return observation[:30], np.concatenate([palm - observation[30:33], palm - observation[33:36]])


def _rigid(points: np.ndarray, local: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where a body is whose points local (N, 3) are seen at (..., N, 3): position (..., 3), rotation (..., 3, 3).

    Least squares, by Kabsch's algorithm.
    """
    center, middle = points.mean(axis=-2), local.mean(axis=0)
    spread = np.swapaxes(points - center[..., None, :], -1, -2) @ (local - middle)
    u, _, vt = np.linalg.svd(spread)
    flip = np.ones((*spread.shape[:-2], 1, 3))
    flip[..., 0, 2] = np.linalg.det(u @ vt)
    rotation = (u * flip) @ vt
    return center - rotation @ middle, rotation


def _hinges(rotation: np.ndarray, now: np.ndarray) -> np.ndarray:
    """Angles (3,) of hinges about x, y and z, in this order, that make (3, 3), and are nearest to now (3,)."""
    y = np.arcsin(np.clip(rotation[0, 2], -1.0, 1.0))
    x, z = np.arctan2(-rotation[1, 2], rotation[2, 2]), np.arctan2(-rotation[0, 1], rotation[0, 0])
    return _nearest(np.array([x, y, z]), now)


def _nearest(hinges: np.ndarray, now: np.ndarray, free_roll: bool = False) -> np.ndarray:
    """Of all angles (3,) that turn to the same orientation those nearest to now (3,).

    free_roll: the third may have any value, and keeps the one given.
    """
    other = np.array([hinges[0] + np.pi, np.pi - hinges[1], hinges[2] + np.pi * (not free_roll)])
    turned = [now + (one - now + np.pi) % (2 * np.pi) - np.pi for one in (hinges, other)]
    return min(turned, key=lambda one: float(np.square(one - now).sum()))
