"""FrankaKitchen: a Franka arm that opens, switches and moves things in a kitchen."""

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np

from pixeltraj.errors import PixeltrajError
from pixeltraj.simulator import Simulator
from pixeltraj.task import Dimension, Keypoint, Task
from pixeltraj.tasks import franka
from pixeltraj.tasks.cameras import named_camera
from pixeltraj.tasks.observation import checked_observation


@dataclass(frozen=True)
class Hinge:
    """A joint whose angle is that of one keypoint about a fixed pivot."""

    joint: str
    keypoint: Keypoint
    pivot: tuple[float, float, float]
    """In the world, metres."""
    rest: float
    """The keypoint's angle about the pivot where the joint is zero, radians from +x."""
    up: tuple[float, float, float] = (0.0, 1.0, 0.0)
    """The direction of +90 degrees."""


def _knob(number: int, x: float, z: float) -> Hinge:
    # The pointer on the knob's rim. The model turns knobs up by 1.57, not by a right angle.
    pointer = Keypoint(f"knob{number}", "body", f"knob {number}", offset=(0.0, 0.048, 0.037))
    return Hinge(f"knob{number}", pointer, (x, 0.6779, z), np.pi / 2, (0.0, np.cos(1.57), np.sin(1.57)))


def _angle(x: float, y: float, turned: float = 0.0) -> float:
    return float(np.arctan2(y, x)) + turned


HINGES = (
    _knob(1, -0.133, 2.2264),
    _knob(2, -0.256, 2.2264),
    _knob(3, -0.133, 2.3404),
    _knob(4, -0.256, 2.3404),
    Hinge("light_switch", Keypoint("light_switch", "site", "light_site"), (-0.4, 0.6907, 2.28), _angle(0.0315, -0.075)),
    Hinge(
        "left_hinge_cabinet",
        Keypoint("left_hinge_cabinet", "site", "hinge_site1"),
        (-0.984, 0.71, 2.6),
        _angle(0.302, -0.128),
    ),
    Hinge(
        "right_hinge_cabinet",
        Keypoint("right_hinge_cabinet", "site", "hinge_site2"),
        (-0.224, 0.71, 2.6),
        _angle(-0.302, -0.128),
    ),
    Hinge(
        "microwave",
        Keypoint("microwave", "site", "microhandle_site"),
        (-1.12758, 0.454906, 1.792),
        _angle(0.475, -0.108, turned=0.3),
    ),
)
_DRAWN_ALONG = {  # joints that the model couples to another one: name -> (the other, joint / other)
    **{f"burner{i}": (f"knob{i}", 1 / 174) for i in range(1, 5)},
    "light": ("light_switch", 1 / 14),
}
_SLIDE = Keypoint("slide_cabinet", "site", "slide_site")
_SLIDE_REST = -0.108  # x of that keypoint where the cabinet is shut, metres
_KETTLE = (
    Keypoint("kettle_base", "body", "kettleroot"),
    Keypoint("kettle_handle", "site", "kettle_site"),
    Keypoint("kettle_spout", "body", "kettleroot", offset=(-0.126, 0.0, 0.07)),
)
_KETTLE_POINTS = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.259], [-0.126, 0.0, 0.07]])
_KEYPOINTS = (*franka.KEYPOINTS, *(hinge.keypoint for hinge in HINGES), _SLIDE, *_KETTLE)

_OBJECTS = (
    *(name for i in range(1, 5) for name in (f"knob{i}", f"burner{i}")),
    *("light_switch", "light", "slide_cabinet", "left_hinge_cabinet", "right_hinge_cabinet", "microwave"),
)
_METRES = {"finger_left", "finger_right", "slide_cabinet", "light", *(f"burner{i}" for i in range(1, 5))}
_POSE = (*(f"kettle_{axis}" for axis in "xyz"), *(f"kettle_q{axis}" for axis in "wxyz"))
_TWIST = (*(f"kettle_{axis}" for axis in "xyz"), *(f"kettle_turn_{axis}" for axis in "xyz"))


def _unit(name: str) -> str:
    if name.startswith("kettle"):
        return "1" if name.startswith("kettle_q") else "rad" if "turn" in name else "m"
    return "m" if name in _METRES else "rad"


def _velocities(names: tuple[str, ...]) -> tuple[Dimension, ...]:
    return tuple(Dimension(f"{name}_velocity", f"{_unit(name)}/s") for name in names)


_STATE = (
    *(Dimension(name, _unit(name)) for name in franka.JOINTS),
    *_velocities(franka.JOINTS),
    *(Dimension(name, _unit(name)) for name in (*_OBJECTS, *_POSE)),
    *_velocities((*_OBJECTS, *_TWIST)),
)
_HIDDEN = tuple(dimension.name for dimension in _STATE if dimension.name.endswith("_velocity"))
_ROBOT, _ROBOT_SPEED, _THINGS, _THINGS_SPEED = slice(0, 9), slice(9, 18), slice(18, 39), slice(39, 59)
_START_NOISE = 0.001  # radians, metres


@dataclass(frozen=True, kw_only=True)
class KitchenTask(Task):
    """State (59,): the environment's `observation` without its noise: the robot's 9 joint values and their
    velocities, then the things' 21 (the kettle's are a position and a quaternion) and their 20 velocities.

    Reward as in relay policy learning and D4RL: how many subtasks were completed for the first time in this
    decision, so that returns run from 0 to 4. The episode ends with the last of them.
    """

    subtasks: tuple[str, ...]
    """As the environment calls them."""
    keypoints: tuple[Keypoint, ...] = _KEYPOINTS
    state: tuple[Dimension, ...] = _STATE
    hidden: tuple[str, ...] = _HIDDEN
    pose: tuple[str, ...] = (*franka.JOINTS, *_OBJECTS, *_POSE)
    action_size: int = 9
    action_repeat: int = 1
    horizon: int = 280
    reward: Any = "dense"

    def make(self) -> "KitchenSimulator":
        return KitchenSimulator(self)

    def state_from_keypoints(self, keypoints: np.ndarray, start: np.ndarray) -> np.ndarray:
        """The arm by inverse kinematics from the moment before, hinges by their angle, the kettle by the rigid
        motion that fits best. Burner plates and the lamp follow their knobs and switch, to which the model
        couples them softly."""
        keypoints = np.asarray(keypoints, dtype=np.float64)
        place = {keypoint.name: i for i, keypoint in enumerate(self.keypoints)}
        arm = [place[keypoint.name] for keypoint in franka.KEYPOINTS]
        posture, postures = start[:, _ROBOT], []
        for k in range(keypoints.shape[1]):
            posture = franka.arm_joints(keypoints[:, k, arm], posture)
            postures.append(posture)
        values = {name: np.stack(postures, axis=1)[..., i] for i, name in enumerate(franka.JOINTS)}
        for hinge in HINGES:
            away = keypoints[..., place[hinge.keypoint.name], :] - hinge.pivot
            angle = np.arctan2(away @ np.array(hinge.up), away[..., 0]) - hinge.rest
            values[hinge.joint] = (angle + np.pi) % (2 * np.pi) - np.pi
        for name, (other, ratio) in _DRAWN_ALONG.items():
            values[name] = ratio * values[other]
        values["slide_cabinet"] = keypoints[..., place["slide_cabinet"], 0] - _SLIDE_REST
        kettle = keypoints[..., [place[keypoint.name] for keypoint in _KETTLE], :]
        first = self.indices(_POSE)
        values |= zip(_POSE, np.moveaxis(_pose(kettle, start[:, first[3:]]), -1, 0))
        unknown = np.full(keypoints.shape[:2], np.nan)
        return np.stack([values.get(dimension.name, unknown) for dimension in self.state], axis=-1)


def _pose(points: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Points of the kettle (B, K, 3, 3) -> its position and quaternion (B, K, 7), by least squares (Kabsch).

    near: (B, 4) a quaternion; q and -q are one rotation, and the one nearer to the moment before is taken.
    """
    middle, own_middle = points.mean(axis=-2), _KETTLE_POINTS.mean(axis=0)
    u, _, v = np.linalg.svd(np.swapaxes(points - middle[..., None, :], -1, -2) @ (_KETTLE_POINTS - own_middle))
    flip = np.ones(u.shape[:-1])
    flip[..., 2] = np.linalg.det(u @ v)
    rotation = u * flip[..., None, :] @ v
    position = middle - rotation @ own_middle
    quaternion = np.empty((*rotation.shape[:2], 4))
    for index in np.ndindex(rotation.shape[:2]):
        mujoco.mju_mat2Quat(quaternion[index], rotation[index].ravel())
    before = np.concatenate([near[:, None], quaternion[:, :-1]], axis=1)
    turned = np.sum(quaternion * before, axis=-1, keepdims=True) < 0
    return np.concatenate([position, quaternion * np.cumprod(np.where(turned, -1.0, 1.0), axis=1)], axis=-1)


class KitchenSimulator(Simulator):
    """A FrankaKitchen without noise on its observations, (59,), which therefore are the state.

    The environment always starts from one posture and varies by that noise alone, which its controller feeds
    back into the motion. Here it goes into the start: each of the robot's joints begins up to 0.001 rad (m) off.
    """

    task: KitchenTask

    def __init__(self, task: KitchenTask) -> None:
        import gymnasium_robotics

        super().__init__(task)
        gym.register_envs(gymnasium_robotics)
        self.env = gym.make(
            "FrankaKitchen-v1",
            tasks_to_complete=list(task.subtasks),
            robot_noise_ratio=0.0,
            object_noise_ratio=0.0,
        ).unwrapped
        self.model, self.data = self.env.model, self.env.data
        self.snapshot_layout = {
            "integration": mujoco.mj_stateSize(self.model, mujoco.mjtState.mjSTATE_INTEGRATION),
            "completed": len(task.subtasks),
        }

    def _reset(self, seed: int) -> None:
        self.env.reset(seed=seed)
        start = self.data.qpos.copy()
        start[:9] += np.random.default_rng(seed).uniform(-_START_NOISE, _START_NOISE, 9)
        place = {name: 9 + i for i, name in enumerate(_OBJECTS)}
        for name, (other, ratio) in _DRAWN_ALONG.items():  # the environment has the lamp 0.3 mm off
            start[place[name]] = ratio * start[place[other]]
        self._place(start, np.zeros(self.model.nv))

    def _decide(self, action: np.ndarray) -> tuple[float, bool, dict[str, Any]]:
        total, terminated, info = super()._decide(action)
        return total, terminated, {"completed": list(info["episode_task_completions"]), "success": terminated}

    def state(self) -> np.ndarray:
        return self.observation().astype(np.float32)

    def observation(self) -> np.ndarray:
        qpos, qvel = self.data.qpos, self.data.qvel
        return np.concatenate([qpos[:9], qvel[:9], qpos[9:], qvel[9:]])

    def set_observation(self, observation: np.ndarray) -> None:
        """Exact, for an observation tells all positions and velocities; which subtasks were completed stays.

        Recorded observations carry the environment's noise: up to 0.001 on the robot's joint values and
        velocities by default, 0.01 in D4RL's recordings, 0.00005 on things.
        """
        if np.shape(observation) == (60,):
            raise PixeltrajError(
                "D4RL's kitchen observations of 60 numbers have no velocities; use Minari's D4RL/kitchen, which have 59"
            )
        layout = "the robot's positions and velocities, then the things'; no goal"
        observation = checked_observation(observation, (59,), self.task, layout)
        self._place(
            np.concatenate([observation[_ROBOT], observation[_THINGS]]),
            np.concatenate([observation[_ROBOT_SPEED], observation[_THINGS_SPEED]]),
        )

    def snapshot(self) -> np.ndarray:
        done = [name in self.env.episode_task_completions for name in self.task.subtasks]
        return np.concatenate([self._integration_state(), done])

    def restore(self, snapshot: np.ndarray) -> None:
        part = self.split_snapshot(snapshot)
        done = [name for name, flag in zip(self.task.subtasks, part["completed"]) if flag]
        self.env.episode_task_completions[:] = done
        self.env.tasks_to_complete = set(self.task.subtasks) - set(done)
        self._restore_integration(part["integration"])
        self.env.robot_env._last_robot_qpos = self.data.qpos[:9].copy()

    def set_state(self, state: np.ndarray, near: np.ndarray) -> None:
        """Exact; the subtasks completed are those of `near`."""
        self.restore(near)
        self.set_observation(state)

    def _place(self, qpos: np.ndarray, qvel: np.ndarray) -> None:
        mujoco.mj_normalizeQuat(self.model, qpos)  # the environment's own start is half a percent too long
        self.env.robot_env.set_state(qpos, qvel)
        self.env.robot_env._last_robot_qpos = qpos[:9].copy()  # its controller aims from here


def _task(name: str, prompt: str, *subtasks: str) -> KitchenTask:
    return KitchenTask(name=name, prompt=prompt, camera=named_camera("FrankaKitchen-v1"), subtasks=subtasks)


TASKS = (
    # D4RL's complete and partial sets
    _task(
        "FrankaKitchen-v1",
        "open the microwave, move the kettle to the back burner, switch on the light and slide the cabinet open",
        *("microwave", "kettle", "light switch", "slide cabinet"),
    ),
    # D4RL's mixed set
    _task(
        "FrankaKitchen-mixed-v1",
        "open the microwave, move the kettle to the back burner, turn on the bottom burner and switch on the light",
        *("microwave", "kettle", "bottom burner", "light switch"),
    ),
)
