"""Gymnasium's Ant: a ball on four legs of two hinges each, free to move and to turn in space."""

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np

from pixeltraj.simulator import Simulator
from pixeltraj.task import Dimension, Keypoint, Task
from pixeltraj.tasks.ant_legs import ANKLES, LEGS, angle, axes, continued, orientation
from pixeltraj.tasks.cameras import named_camera
from pixeltraj.tasks.observation import checked_observation
from pixeltraj.tasks.trot import Trot

_FEET = ("left_ankle_geom", "right_ankle_geom", "third_ankle_geom", "fourth_ankle_geom")
# An ant in one colour looks the same after every quarter turn: legs 1 to 4 are painted apart.
_PAINT = ((0.2, 0.4, 1.0, 1.0), (0.1, 0.7, 0.2, 1.0), (1.0, 0.8, 0.1, 1.0), (0.8, 0.2, 0.9, 1.0))

PLACE = (Dimension("torso_x", "m"), Dimension("torso_y", "m"))
POSTURE = (
    Dimension("torso_z", "m"),
    *(Dimension(f"torso_q{part}", "1") for part in "wxyz"),
    *(Dimension(f"{joint}_{leg}", "rad") for leg in (1, 2, 3, 4) for joint in ("hip", "ankle")),
)
MOTION = (
    *(Dimension(f"torso_{axis}_velocity", "m/s") for axis in "xyz"),
    *(Dimension(f"torso_{axis}_turning", "rad/s") for axis in "xyz"),
    *(Dimension(f"{joint}_{leg}_velocity", "rad/s") for leg in (1, 2, 3, 4) for joint in ("hip", "ankle")),
)
KEYPOINTS = (
    Keypoint("torso", "body", "torso"),
    *(Keypoint(f"hip_{leg}", "body", f"aux_{leg}") for leg in (1, 2, 3, 4)),
    *(
        Keypoint(f"ankle_{leg}", "body", f"aux_{leg}", offset=(x, y, 0.0))
        for leg, x, y in ((1, 0.2, 0.2), (2, -0.2, 0.2), (3, -0.2, -0.2), (4, 0.2, -0.2))
    ),
    *(Keypoint(f"foot_{leg}", "geom", geom, offset=(0.0, 0.0, -0.2 * 2**0.5)) for leg, geom in enumerate(_FEET, 1)),
)


@dataclass(frozen=True, kw_only=True)
class AntTask(Task):
    """State (27,): height, orientation and joint angles, then velocities: Ant-v5's observation without its 78
    contact forces, which no frame shows.

    The orientation is the torso's unit quaternion (w, x, y, z). q and -q are the same orientation, and the sign is
    the simulator's, which never jumps within an episode: a window's states take the sign nearest to the start's.
    Velocities are metres and radians a second, the torso's turning about its own axes.
    """

    environment: str
    keypoints: tuple[Keypoint, ...] = KEYPOINTS
    state: tuple[Dimension, ...] = POSTURE + MOTION
    hidden: tuple[str, ...] = tuple(d.name for d in MOTION)
    pose: tuple[str, ...] = tuple(d.name for d in POSTURE)
    action_size: int = 8
    action_repeat: int = 1
    horizon: int = 1000
    reward: Any = "dense"

    def make(self) -> "AntSimulator":
        return AntSimulator(self)

    def state_from_keypoints(self, keypoints: np.ndarray, start: np.ndarray) -> np.ndarray:
        read = self._read(np.asarray(keypoints, dtype=np.float64), start)
        unknown = np.full(keypoints.shape[:-2], np.nan)
        return np.stack([read.get(d.name, unknown) for d in self.state], axis=-1)

    def _read(self, keypoints: np.ndarray, start: np.ndarray) -> dict[str, np.ndarray]:
        """What keypoints (B, K, N, 3) tell, each (B, K), by the dimension's name."""
        torso = keypoints[..., :5, :].mean(axis=-2)  # it is in the middle of its hips
        hips, ankles, feet = np.split(keypoints[..., 1:13, :], 3, axis=-2)
        near = start[:, self.indices(tuple(f"torso_q{part}" for part in "wxyz"))]
        quaternion = continued(orientation(hips - torso[..., None, :]), near)
        frame = axes(quaternion)
        thighs, shins = (ankles - hips) @ frame, (feet - ankles) @ frame  # (B, K, 4, 3) in the torso's frame
        hip = angle(thighs, LEGS, np.array([0.0, 0.0, 1.0]))
        # Turning back by the hip's angle leaves the ankle's turn alone.
        back = np.stack([np.cos(hip), -np.sin(hip)], axis=-1)
        x, y, z = np.moveaxis(shins, -1, 0)
        shins = np.stack([x * back[..., 0] - y * back[..., 1], x * back[..., 1] + y * back[..., 0], z], axis=-1)
        ankle = angle(shins, LEGS, ANKLES)
        return {
            **{f"torso_{axis}": torso[..., i] for i, axis in enumerate("xyz")},
            **{f"torso_q{part}": quaternion[..., i] for i, part in enumerate("wxyz")},
            **{f"hip_{leg + 1}": hip[..., leg] for leg in range(4)},
            **{f"ankle_{leg + 1}": ankle[..., leg] for leg in range(4)},
        }


class AntSimulator(Simulator):
    task: AntTask

    def __init__(self, task: AntTask) -> None:
        super().__init__(task)
        self.env = self._open()
        self.model, self.data = self.env.model, self.env.data
        self.snapshot_layout = {
            "integration": mujoco.mj_stateSize(self.model, mujoco.mjtState.mjSTATE_INTEGRATION),
            "contact_forces": self.data.cfrc_ext.size,
        }
        for leg, colour in enumerate(_PAINT, 1):
            first = self.model.geom(f"aux_{leg}_geom").id
            self.model.geom_rgba[first : first + 3] = colour

    def _open(self) -> Any:
        return gym.make(self.task.environment).unwrapped

    def _reset(self, seed: int) -> None:
        self.env.reset(seed=seed)

    def state(self) -> np.ndarray:
        return self._pose()[2:].astype(np.float32)

    def snapshot(self) -> np.ndarray:
        return np.concatenate([self._integration_state(), self.data.cfrc_ext.ravel()])

    def restore(self, snapshot: np.ndarray) -> None:
        part = self.split_snapshot(snapshot)
        self._restore_integration(part["integration"])
        self.data.cfrc_ext.ravel()[:] = part["contact_forces"]  # observed, and computed in a step alone

    def set_state(self, state: np.ndarray, near: np.ndarray) -> None:
        """Exact but for the torso's x and y, which the state lacks and `near` gives."""
        self.restore(near)
        self._place(np.concatenate([self.data.qpos[:2], state]))

    def scripted_action(self) -> np.ndarray:
        """A trot in the direction of x, for a return of about 1500."""
        return Trot().action(self.data, np.array([1.0, 0.0]))

    def observation(self) -> np.ndarray:
        """(105,) positions without x and y, velocities, contact forces."""
        return self.env._get_obs()

    def set_observation(self, observation: np.ndarray) -> None:
        """Exact but for the torso's x and y, which are lacking and set to 0.

        Takes the 105 numbers of Ant-v5, the 111 of older versions and D4RL, or the 27 of those without contact forces.
        """
        layout = "13 positions without x and y, 14 velocities, and contact forces (78, 84 or none)"
        values = checked_observation(observation, (27, 105, 111), self.task, layout)
        mujoco.mj_resetData(self.model, self.data)
        self._place(np.concatenate([np.zeros(2), values[:27]]))
        if forces := values.size - 27:
            self.data.cfrc_ext.ravel()[-forces:] = values[27:]

    def _pose(self) -> np.ndarray:
        """(29,) positions and velocities; the quaternion, which resets make longer or shorter, of length 1."""
        pose = np.concatenate([self.data.qpos, self.data.qvel])
        pose[3:7] /= np.linalg.norm(pose[3:7])
        return pose

    def _place(self, pose: np.ndarray) -> None:
        self.data.qpos[:], self.data.qvel[:] = np.split(np.asarray(pose, dtype=np.float64), [15])
        mujoco.mj_forward(self.model, self.data)


TASKS = (
    AntTask(
        name="Ant-v5",
        environment="Ant-v5",
        prompt="a four-legged ant runs to the right as fast as it can",
        camera=named_camera("Ant-v5"),
    ),
)
