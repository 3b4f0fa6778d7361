"""Placing: brings Meta-World's objects and goal to where an observation has them, whatever joints carry them."""

from collections.abc import Callable, Iterable
from typing import Any

import mujoco
import numpy as np

from pixeltraj.errors import PixeltrajError

_FREE = mujoco.mjtJoint.mjJNT_FREE


class Placing:
    """Which joints are fingers and which the arm does not move, and how to set the latter.

    It reads the objects with the environment's own `_get_pos_objects` and `_get_quat_objects`.
    """

    def __init__(self, env: Any) -> None:
        self.env, self.model, self.data = env, env.model, env.data
        model = self.model
        self.fingers = [model.joint(name).id for name in ("r_close", "l_close")]
        held = [i for i in range(model.njnt) if not model.joint(i).name.startswith("right_j")]
        ends = [*model.jnt_qposadr[1:], model.nq], [*model.jnt_dofadr[1:], model.nv]
        self.held_positions = [q for i in held for q in range(model.jnt_qposadr[i], ends[0][i])]
        self.held_velocities = [v for i in held for v in range(model.jnt_dofadr[i], ends[1][i])]
        carriers = [i for i in held if i not in self.fingers]
        self._free = [i for i in carriers if model.jnt_type[i] == _FREE]
        self._scalar = [i for i in carriers if model.jnt_type[i] != _FREE]

    def put(self, objects: np.ndarray) -> None:
        """Move the object to (3,), or both objects to where Meta-World observes them (14,): position, quaternion."""
        objects = np.asarray(objects, dtype=np.float64)
        positions = objects if objects.size == 3 else np.concatenate([objects[:3], objects[7:10]])
        positions = positions[: self._positions().size]
        for joint in filter(self._carries, self._free):
            if objects.size > 3:
                self._turn(joint, objects[3:7])
            address = self.model.jnt_qposadr[joint]
            self.data.qpos[address : address + 3] += positions[:3] - self._positions()[:3]
        self._slide(positions)
        mujoco.mj_forward(self.model, self.data)

    def variation(self, goal: np.ndarray, begin: Callable[[np.ndarray], None]) -> np.ndarray:
        """The reset's random vector whose goal is (3,). Goals are affine in it, so one Newton step solves it.

        begin: sets up the episode of a vector. Raises PixeltrajError where no vector has that goal.
        """
        space = self.env._random_reset_space
        for start in _starts(space.low, space.high):
            try:
                target = self._goal(begin, start)
                steps = [self._goal(begin, start + 0.01 * unit) - target for unit in np.eye(start.size)]
                slope = np.stack(steps, axis=-1) / 0.01  # (3, size of the vector)
                solved = start + np.linalg.pinv(slope, rcond=1e-6) @ (goal - target)
                if np.allclose(self._goal(begin, solved), goal, atol=1e-6):
                    return solved
            except _Redrawn:
                continue
        raise PixeltrajError(f"no episode of this task has its goal at {np.round(goal, 3).tolist()}; is it another's?")

    def _goal(self, begin: Callable[[np.ndarray], None], variation: np.ndarray) -> np.ndarray:
        draw, drawn = self.env._get_state_rand_vec, 0

        def draw_once() -> np.ndarray:  # a reset that dislikes a frozen vector would ask for it forever
            nonlocal drawn
            drawn += 1
            if drawn > 2:
                raise _Redrawn
            return draw()

        self.env._get_state_rand_vec = draw_once
        try:
            begin(variation)
        finally:
            del self.env._get_state_rand_vec
        return np.array(self.env._target_pos)

    def _positions(self) -> np.ndarray:
        mujoco.mj_kinematics(self.model, self.data)
        return np.array(self.env._get_pos_objects())

    def _carries(self, joint: int) -> bool:
        """Whether an object moves with a joint."""
        address, here = self.model.jnt_qposadr[joint], self._positions()
        before = self.data.qpos[address]
        self.data.qpos[address] += 0.01
        moved = np.abs(self._positions() - here).max() > 1e-4
        self.data.qpos[address] = before
        return bool(moved)

    def _turn(self, joint: int, wanted: np.ndarray) -> None:
        """Turn a free joint until the object's quaternion reads (4,): some tasks give x first, others w."""
        address = self.model.jnt_qposadr[joint]
        here = self.data.qpos[address + 3 : address + 7].copy()
        best, least = here, np.inf
        for w_first in (lambda q: q, lambda q: np.roll(q, 1)):
            reading = np.array(self.env._get_quat_objects()[:4], dtype=np.float64)
            turned, inverse = here.copy(), np.empty(4)
            mujoco.mju_negQuat(inverse, w_first(reading))
            mujoco.mju_mulQuat(turned, w_first(wanted), inverse)
            mujoco.mju_mulQuat(turned, turned.copy(), here)
            self.data.qpos[address + 3 : address + 7] = turned
            mujoco.mj_kinematics(self.model, self.data)
            reading = np.array(self.env._get_quat_objects()[:4])
            miss = min(np.abs(reading - wanted).max(), np.abs(reading + wanted).max())
            if miss < least:
                best, least = turned, miss
            self.data.qpos[address + 3 : address + 7] = here
            mujoco.mj_kinematics(self.model, self.data)
        self.data.qpos[address + 3 : address + 7] = best

    def _slide(self, positions: np.ndarray) -> None:
        """Doors, drawers, plates, ...: the joint values that bring the objects nearest, one joint after the other."""
        for joint in filter(self._carries, self._scalar):
            address = int(self.model.jnt_qposadr[joint])
            low, high = self.model.jnt_range[joint]  # a soft limit: what is pressed hard enough goes past it
            low, high = low - (high - low), high + (high - low)

            def miss(value: float, address: int = address) -> float:
                self.data.qpos[address] = value
                return float(np.linalg.norm(self._positions()[: positions.size] - positions))

            for _ in range(4):
                best = min(np.linspace(low, high, 31), key=miss)
                width = (high - low) / 30
                low, high = max(low, best - width), min(high, best + width)
            self.data.qpos[address] = best


class _Redrawn(Exception):
    """A reset has refused its random vector."""


def _starts(low: np.ndarray, high: np.ndarray) -> Iterable[np.ndarray]:
    """Vectors to set out from, the middle first; a reset refuses those whose object lies too near its goal."""
    yield (low + high) / 2
    yield low
    yield high
    half = low.size // 2
    yield np.concatenate([low[:half], high[half:]])
    yield np.concatenate([high[:half], low[half:]])
