"""gymnasium-robotics' Adroit: a hand of 24 joints opens a door, drives a nail, turns a pen and carries a ball."""

from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from pixeltraj.simulator import Simulator
from pixeltraj.task import Dimension, Task
from pixeltraj.tasks.adroit_hand import FOREARM, GRASP, KEYPOINTS, Bone, Hand, arm, bones
from pixeltraj.tasks.adroit_things import Ball, Door, Hammer, Pen, Thing
from pixeltraj.tasks.cameras import named_camera
from pixeltraj.tasks.observation import checked_observation

_PALM = tuple(Dimension(f"palm_{axis}", "m") for axis in "xyz")
_LAID_DOWN = (-1.57, 0.0, 3.14)  # the forearm's orientation, palm down; the pen's task holds it up
_PALM_UP = (-1.57, 0.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class AdroitTask(Task):
    """State: the joints of arm and hand, the palm, and what the hand handles with its goal (see `Thing`).

    All of the environment's observation that a picture can show, with places instead of differences of places.
    """

    environment: str
    """Class of gymnasium_robotics.envs.adroit_hand."""
    hand: Hand
    thing: Thing
    action_repeat: int = 1
    horizon: int = 200
    reward: Any = "sparse"

    def make(self) -> "AdroitSimulator":
        return AdroitSimulator(self)

    def state_from_keypoints(self, keypoints: np.ndarray, start: np.ndarray) -> np.ndarray:
        """The hand's joints by least squares (`Hand.fit`, about 1 ms a frame), the rest in closed form."""
        count = len(self.keypoints) - len(self.thing.keypoints)
        on_hand = keypoints[..., :count, :].reshape(-1, count, 3)
        joints = self.hand.fit(on_hand, self.keypoints[:count])
        palm = self.hand.points(joints, [GRASP])[:, 0]
        own = np.concatenate([joints, palm], axis=-1).reshape(*keypoints.shape[:2], joints.shape[-1] + 3)
        points = {k.name: keypoints[..., count + i, :] for i, k in enumerate(self.thing.keypoints)}
        return np.concatenate([own, self.thing.from_keypoints(points)], axis=-1)


class AdroitSimulator(Simulator):
    """An Adroit environment whose episode ends when the task is first solved, for a reward of 1.

    Solved: the door open by 1.35 rad; the nail's head within 1 cm of its goal; the pen within 7.5 cm of the place
    above the palm and within 18 degrees of the direction wanted (cosine 0.95); the ball within 10 cm of its goal.
    """

    task: AdroitTask

    def __init__(self, task: AdroitTask) -> None:
        super().__init__(task)
        from gymnasium_robotics.envs import adroit_hand

        self.env = getattr(adroit_hand, task.environment)()
        self.model, self.data = self.env.model, self.env.data
        if isinstance(task.thing, Ball):
            self.model.site("target").rgba[3] = 0.3  # the goal, which 0.125 leaves all but invisible
        self._rows = [self._row(field, name) for field, name in task.thing.edited]
        self.snapshot_layout = {
            "integration": mujoco.mj_stateSize(self.model, mujoco.mjtState.mjSTATE_INTEGRATION),
            **{f"{field} of {name}": row.size for (field, name), row in zip(task.thing.edited, self._rows)},
        }

    def _row(self, field: str, name: str) -> np.ndarray:
        """A view of one body's or site's row of a field of the model."""
        kind, _, attribute = field.partition("_")
        row: np.ndarray = getattr(getattr(self.model, kind)(name), attribute)
        return row

    def _reset(self, seed: int) -> None:
        self.env.reset(seed=seed)
        self._measure()

    def _measure(self) -> None:
        if isinstance(self.task.thing, Pen):  # measured anew at every reset, and of another last bit each time
            self.env.pen_length = self.env.tar_length = 0.13

    def state(self) -> np.ndarray:
        mujoco.mj_kinematics(self.model, self.data)  # a step leaves the positions of before its integration
        joints = self.data.qpos[: len(self.task.hand.bones)]
        palm = self.data.site("S_grasp").xpos
        return np.concatenate([joints, palm, self.task.thing.read(self.env)]).astype(np.float32)

    def snapshot(self) -> np.ndarray:
        return np.concatenate([self._integration_state(), *self._rows])

    def restore(self, snapshot: np.ndarray) -> None:
        integration, *rows = self.split_snapshot(snapshot).values()
        for row, stored in zip(self._rows, rows):
            row[:] = stored
        self._measure()
        self._restore_integration(integration)

    def set_state(self, state: np.ndarray, near: np.ndarray) -> None:
        """Exact in all positions and the goal; the hand's velocities, the door's and the ball's are those of `near`.

        So is the roll of pen and ball, which the state leaves open.
        """
        self.restore(near)
        count = len(self.task.hand.bones)
        self._place(np.asarray(state[:count]), np.asarray(state[count + len(_PALM) :], dtype=np.float64))

    def observation(self) -> np.ndarray:
        """(39,), (46,), (45,) or (39,) for door, hammer, pen and ball: the environment's own, of this very moment.

        What a step of the environment returns, and a dataset keeps, has the palm and the thing 2 ms (one simulator
        step) before its joints.
        """
        self._restore_integration(self._integration_state())  # brings all that is derived up to date
        return np.asarray(self.env._get_obs(), dtype=np.float64)

    def set_observation(self, observation: np.ndarray) -> None:
        """Exact in what is seen: joints, thing and goal, and thus the state; not in what follows.

        No observation has the hand's velocities, nor the door's or the ball's: they are zero. Those of hammer (within
        +-1) and pen are set. The roll of pen and ball is that of the start. Where the observation is one that a step
        returned (see `observation`), the thing is where it was 2 ms earlier: in violent random motion, which the hand
        of door and relocate moves at 1 to 3 m/s, off by 2 (door) to 6 mm (ball) in the median, 16 mm at worst.
        """
        thing = self.task.thing
        values = checked_observation(observation, (thing.observation_size,), self.task, thing.observation_layout)
        mujoco.mj_resetData(self.model, self.data)
        if isinstance(thing, Ball):
            self.model.body("Object").pos[:] = (0.0, 0.0, 0.035)  # its place is counted from anywhere
        self._measure()
        self._place(*thing.from_observation(values, self.task.hand))

    def _place(self, joints: np.ndarray, reading: np.ndarray) -> None:
        self.data.qpos[: len(joints)] = joints
        self.task.thing.place(self.env, reading)
        mujoco.mj_forward(self.model, self.data)


def _task(name: str, prompt: str, thing: Thing, carried: tuple[Bone, ...] = ()) -> AdroitTask:
    hand = Hand(bones(carried), _LAID_DOWN if carried else _PALM_UP)
    joints = tuple(Dimension(bone.joint, "m" if bone.slides else "rad") for bone in hand.bones)
    return AdroitTask(
        name=name,
        environment=name.replace("-v1", "Env"),
        prompt=prompt,
        camera=named_camera(name),
        hand=hand,
        thing=thing,
        keypoints=((FOREARM,) if carried else ()) + KEYPOINTS + thing.keypoints,
        state=(*joints, *_PALM, *thing.dimensions),
        static=thing.static,
        hidden=thing.hidden,
        action_size=len(hand.bones),
    )


_LIFT, _TILT, _SWING = (-0.3, 0.5), (-0.75, 0.75), (-0.75, 0.75)

TASKS = (
    _task(
        "AdroitHandDoor-v1",
        "a robot hand turns the latch and opens the door",
        Door(),
        arm(ARTz=_LIFT, ARRx=_TILT, ARRy=_SWING, ARRz=(-1.0, 2.0)),
    ),
    _task(
        "AdroitHandHammer-v1",
        "a robot hand picks up the hammer and drives the nail into the board",
        Hammer(),
        arm(ARRx=(-0.4, 0.25), ARRy=(-0.3, 0.3)),
    ),
    _task("AdroitHandPen-v1", "a robot hand turns the blue pen until it lies like the green pen", Pen()),
    _task(
        "AdroitHandRelocate-v1",
        "a robot hand picks up the blue ball and carries it to the green sphere",
        Ball(),
        arm(ARTx=(-0.25, 0.25), ARTy=(0.0, 0.2), ARTz=_LIFT, ARRx=_TILT, ARRy=_SWING, ARRz=(-0.75, 0.75)),
    ),
)
