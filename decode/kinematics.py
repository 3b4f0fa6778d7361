"""Kinematics: poses of a task's model -> where its keypoints are, how they move with it, and what is in the floor.

Shapes: n poses, P coordinates of a pose (`Task.pose`), N keypoints that move, F feelers (whatever may touch the floor).
"""

from dataclasses import dataclass

import mujoco
import numpy as np

from pixeltraj.task import Task

_JOINT, _GEOM = mujoco.mjtJoint, mujoco.mjtGeom


@dataclass
class Placement:
    """Where a batch of poses puts the model."""

    points: np.ndarray
    """(n, N, 3) the keypoints that move, metres from the camera's anchor"""
    moving: np.ndarray
    """(n, N, 3, P) their derivative by each coordinate"""
    clearance: np.ndarray
    """(n, F) metres of each feeler above the floor; negative within it"""
    rising: np.ndarray
    """(n, F, P) its derivative"""


class Kinematics:
    """MuJoCo's forward kinematics of one task, batched, with derivatives; no dynamics."""

    def __init__(self, task: Task) -> None:
        model = task.make().model
        self.model, self.data = model, mujoco.MjData(model)
        mujoco.mj_kinematics(model, self.data)
        self.first = model.nq - len(task.pose)
        self.moved = self._moved()  # (bodies, P) bool
        keypoints = [self._attached(k.kind, k.target, np.array(k.offset)) for k in task.keypoints]
        self.told = [i for i, (body, _) in enumerate(keypoints) if self.moved[body].any()]
        """Which of the task's keypoints move with the pose."""
        feelers, radius = self._feelers()
        anchor = [(model.body(task.camera.track).id, np.zeros(3))] if task.camera.track else []
        attached = [*(keypoints[i] for i in self.told), *feelers, *anchor]
        self.body = np.array([body for body, _ in attached])
        self.local = np.array([local for _, local in attached])
        self.radius, self.tracks = radius, bool(anchor)
        self.low, self.high = self._limits()
        """(P,) each; infinite where there is no limit"""
        free = [j for j in range(model.njnt) if model.jnt_type[j] in (_JOINT.mjJNT_FREE, _JOINT.mjJNT_BALL)]
        ends = [model.jnt_qposadr[j] + (7 if model.jnt_type[j] == _JOINT.mjJNT_FREE else 4) - self.first for j in free]
        self.quaternions = [slice(end - 4, end) for end in ends if end >= 4]
        """Where they stand in a pose."""
        self.slides = np.zeros(len(task.pose), dtype=bool)
        self.turns = np.zeros(len(task.pose), dtype=bool)
        """Coordinates that are the angle of a hinge without limits: they may turn round and round."""
        for j in range(model.njnt):
            at, kind = model.jnt_qposadr[j] - self.first, model.jnt_type[j]
            if kind == _JOINT.mjJNT_FREE:
                self.slides[max(at, 0) : max(at + 3, 0)] = True
            elif at >= 0:
                self.slides[at] = kind == _JOINT.mjJNT_SLIDE
                self.turns[at] = kind == _JOINT.mjJNT_HINGE and not model.jnt_limited[j]

    def place(self, poses: np.ndarray) -> Placement:
        """poses (n, P), quaternions of length 1."""
        position, rotation, axis, pivot = self._frames(poses)
        points = position[:, self.body] + (rotation[:, self.body] @ self.local[..., None])[..., 0]
        moving = _cross(axis[:, None], points[..., None] - pivot[:, None])  # (n, N + F + anchor, 3, P)
        moving[..., self.slides] = axis[:, None, :, self.slides]
        moving *= self.moved[self.body][:, None]
        count, feelers = len(self.told), slice(len(self.told), len(self.told) + len(self.radius))
        clearance, rising = points[:, feelers, 2] - self.radius, moving[:, feelers, 2]
        points, moving, anchor = points[:, :count], moving[:, :count], (points[:, -1:], moving[:, -1:])
        if self.tracks:
            points[..., :2] -= anchor[0][..., :2]
            moving[..., :2, :] -= anchor[1][..., :2, :]
        return Placement(points, moving, clearance, rising)

    def _frames(self, poses: np.ndarray) -> tuple[np.ndarray, ...]:
        """Position (n, bodies, 3) and rotation (n, bodies, 3, 3) of all bodies; the axis along or about which each
        coordinate moves what it moves, and the pivot, both (n, 3, P) in the world."""
        model, data = self.model, self.data
        count, size = poses.shape
        position, rotation = np.empty((count, model.nbody, 3)), np.empty((count, model.nbody, 9))
        axes, anchors = np.empty((count, model.njnt, 3)), np.empty((count, model.njnt, 3))
        pose = data.qpos[self.first :]
        for i in range(count):
            pose[:] = poses[i]
            mujoco.mj_kinematics(model, data)
            position[i], rotation[i], axes[i], anchors[i] = data.xpos, data.xmat, data.xaxis, data.xanchor
        rotation = rotation.reshape(count, model.nbody, 3, 3)
        axis, pivot = np.zeros((count, 3, size)), np.zeros((count, 3, size))
        for j in range(model.njnt):
            at, body, kind = model.jnt_qposadr[j] - self.first, model.jnt_bodyid[j], model.jnt_type[j]
            if kind in (_JOINT.mjJNT_HINGE, _JOINT.mjJNT_SLIDE):
                if at >= 0:
                    axis[..., at], pivot[..., at] = axes[:, j], anchors[:, j]
                continue
            if kind == _JOINT.mjJNT_FREE:
                for i in range(3):
                    if at + i >= 0:
                        axis[:, i, at + i] = 1.0
                at += 3
            if at >= 0:
                turning = slice(at, at + 4)
                axis[..., turning] = rotation[:, body] @ _turning(poses[:, turning])
                pivot[..., turning] = anchors[:, j, :, None]
        return position, rotation, axis, pivot

    def _moved(self) -> np.ndarray:
        """(bodies, P) bool: which coordinates move which bodies."""
        model = self.model
        moved = np.zeros((model.nbody, model.nq), dtype=bool)
        for body in range(1, model.nbody):
            moved[body] = moved[model.body_parentid[body]]
            start, count = model.body_jntadr[body], model.body_jntnum[body]
            for j in range(start, start + count):
                end = model.jnt_qposadr[j + 1] if j + 1 < model.njnt else model.nq
                moved[body, model.jnt_qposadr[j] : end] = True
        return moved[:, self.first :]

    def _attached(self, kind: str, target: str | int, offset: np.ndarray) -> tuple[int, np.ndarray]:
        """A keypoint -> its body, and its place in that body's frame."""
        frame, data = getattr(self.data, kind)(target), self.data
        body = frame.id if kind == "body" else int(getattr(self.model, kind)(target).bodyid[0])
        point = frame.xpos + frame.xmat.reshape(3, 3) @ offset
        return body, data.xmat[body].reshape(3, 3).T @ (point - data.xpos[body])

    def _feelers(self) -> tuple[list[tuple[int, np.ndarray]], np.ndarray]:
        """The centres of spheres and of capsules' ends on bodies that move, and their radii, counted from the level
        plane that is the floor; none where there is no such floor."""
        model, data = self.model, self.data
        level = (model.geom_type == _GEOM.mjGEOM_PLANE) & (model.geom_bodyid == 0) & (data.geom_xmat[:, 8] > 0.999)
        feelers, radius = [], []
        for geom in np.flatnonzero(self.moved[model.geom_bodyid].any(axis=-1)) if level.any() else ():
            size = model.geom_size[geom]
            length = {_GEOM.mjGEOM_SPHERE: 0.0, _GEOM.mjGEOM_CAPSULE: size[1]}.get(model.geom_type[geom])
            if length is None or not model.geom_contype[geom] | model.geom_conaffinity[geom]:
                continue
            for end in (length, -length) if length else (0.0,):
                feelers.append(self._attached("geom", int(geom), np.array([0.0, 0.0, end])))
                radius.append(size[0] + data.geom_xpos[level, 2].max())
        return feelers, np.array(radius)

    def _limits(self) -> tuple[np.ndarray, np.ndarray]:
        model = self.model
        bounds = np.full((model.nq, 2), [-np.inf, np.inf])
        scalar = np.isin(model.jnt_type, (_JOINT.mjJNT_HINGE, _JOINT.mjJNT_SLIDE))
        limited = np.flatnonzero(model.jnt_limited.astype(bool) & scalar)
        bounds[model.jnt_qposadr[limited]] = model.jnt_range[limited]
        low, high = bounds[self.first :].T
        return low, high


def _turning(quaternions: np.ndarray) -> np.ndarray:
    """(n, 4) w, x, y, z -> (n, 3, 4): the turn in the body's own frame, radians, that a unit change of each part makes
    (the vector part of 2 q* dq)."""
    w, x, y, z = quaternions.T
    return 2 * np.moveaxis(np.array([[-x, w, z, -y], [-y, -z, w, x], [-z, y, -x, w]]), -1, 0)


def _cross(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Cross products along the last axis but one."""
    parts = [one[..., i - 2, :] * other[..., i - 1, :] - one[..., i - 1, :] * other[..., i - 2, :] for i in range(3)]
    return np.stack(parts, axis=-2)
