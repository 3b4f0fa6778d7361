"""Gymnasium's planar MuJoCo runners: a chain of links in the x-z plane, seen from the side."""

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np

from pixeltraj.simulator import Simulator
from pixeltraj.task import Dimension, Keypoint, Outcome, Task
from pixeltraj.tasks.cameras import named_camera
from pixeltraj.tasks.observation import checked_observation


@dataclass(frozen=True)
class Link:
    """A rigid link: the direction from `origin` to `tip` gives its angle."""

    joint: str
    """The hinge that turns it."""
    origin: str
    """Keypoint."""
    tip: str
    """Keypoint."""
    rest: tuple[float, float]
    """origin -> tip in x and z where every joint is zero, metres."""
    parent: int | None
    """Index of the link it hangs from; None for the root, which turns against the world."""
    sign: float = 1.0
    """+1 where the hinge turns about +y, -1 about -y."""


@dataclass(frozen=True, kw_only=True)
class LocomotionTask(Task):
    """State: the environment's own observation (root x left out), joint angles and heights, then velocities."""

    environment: str
    links: tuple[Link, ...]
    ground: float = 0.0
    """Height of the root keypoint where the root's slide joint is zero, metres."""
    effort: float
    """What a simulator step's reward loses for each squared unit of action."""
    upright: tuple[tuple[float, float], tuple[float, float]] | None = None
    """Least and greatest height (m) and pitch (rad) between which it is paid 1 a step, and outside which the episode
    ends; None where it never does."""
    late: float = 0.5
    """Share of the speed after a decision in the mean speed of its way. MuJoCo's semi-implicit Euler moves by the
    speed after each of n steps: (n + 1) / 2n."""
    action_repeat: int = 1
    horizon: int = 1000
    reward: Any = "dense"

    def make(self) -> "LocomotionSimulator":
        return LocomotionSimulator(self)

    @property
    def outcome(self) -> Outcome:
        return self._outcome

    def _outcome(self, states: np.ndarray, actions: np.ndarray, following: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """An approximation: the environment pays for the way that the root went, which the state lacks. It is taken
        to have moved at a mean of its speeds before and after. The end is exact. Of `action_repeat` steps the episode
        may have ended in any: the mean is paid."""
        at = self.indices(("rootx_velocity",))[0]
        speed = (1 - self.late) * states[:, at] + self.late * following[:, at]
        over = np.zeros(len(states), dtype=bool)
        if self.upright:
            for i, (least, greatest) in enumerate(self.upright):
                over |= (following[:, i] <= least) | (following[:, i] >= greatest)
        steps = np.where(over, (self.action_repeat + 1) / 2, self.action_repeat)
        pay = speed - self.effort * np.square(actions.clip(-1, 1)).sum(axis=-1)
        rewards = steps * pay + (steps - over if self.upright else 0.0)
        return rewards.astype(np.float32), over

    def state_from_keypoints(self, keypoints: np.ndarray, start: np.ndarray) -> np.ndarray:
        place = {k.name: i for i, k in enumerate(self.keypoints)}
        angles: list[np.ndarray] = []
        joints: dict[str, np.ndarray] = {"rootz": keypoints[..., place["root"], 2] - self.ground}
        for link in self.links:
            along = keypoints[..., place[link.tip], :] - keypoints[..., place[link.origin], :]
            # A turn by +angle about y takes +x towards -z.
            angle = np.arctan2(link.rest[1], link.rest[0]) - np.arctan2(along[..., 2], along[..., 0])
            angles.append(angle)
            against = 0.0 if link.parent is None else angles[link.parent]
            joints[link.joint] = link.sign * ((angle - against + np.pi) % (2 * np.pi) - np.pi)
        unknown = np.full(keypoints.shape[:-2], np.nan)
        return np.stack([joints.get(d.name, unknown) for d in self.state], axis=-1)


class LocomotionSimulator(Simulator):
    task: LocomotionTask

    def __init__(self, task: LocomotionTask) -> None:
        super().__init__(task)
        self.env = gym.make(task.environment).unwrapped
        self.model, self.data = self.env.model, self.env.data
        self.snapshot_layout = {"integration": mujoco.mj_stateSize(self.model, mujoco.mjtState.mjSTATE_INTEGRATION)}

    def _reset(self, seed: int) -> None:
        self.env.reset(seed=seed)

    def state(self) -> np.ndarray:
        return self.env._get_obs().astype(np.float32)

    def observation(self) -> np.ndarray:
        return self.env._get_obs()

    def set_observation(self, observation: np.ndarray) -> None:
        """Exact but for two things that are lacking: the root's x, which is set to 0, and, of Hopper and Walker2d,
        how much faster than 10 a velocity was that is clipped to 10 or -10 (m/s or rad/s)."""
        positions, velocities = self.model.nq - 1, self.model.nv
        layout = f"{positions} positions without the root's x, {velocities} velocities"
        values = checked_observation(observation, (positions + velocities,), self.task, layout)
        mujoco.mj_resetData(self.model, self.data)
        self.env.set_state(np.concatenate([[0.0], values[:positions]]), values[positions:])

    def snapshot(self) -> np.ndarray:
        return self._integration_state()

    def restore(self, snapshot: np.ndarray) -> None:
        self._restore_integration(snapshot)

    def set_state(self, state: np.ndarray, near: np.ndarray) -> None:
        """Exact but for the root's x, which the observation lacks and `near` gives."""
        self.restore(near)
        state = np.asarray(state, dtype=np.float64)
        positions = self.model.nq - 1
        self.env.set_state(np.r_[self.data.qpos[0], state[:positions]], state[positions:])


def _state(joints: tuple[str, ...]) -> tuple[Dimension, ...]:
    positions = [Dimension(j, "m" if j == "rootz" else "rad") for j in joints]
    velocities = [Dimension(f"{j}_velocity", "rad/s") for j in joints]
    velocities[0] = Dimension("rootz_velocity", "m/s")
    return (*positions, Dimension("rootx_velocity", "m/s"), *velocities)


def _task(joints: tuple[str, ...], **fields: Any) -> LocomotionTask:
    state = _state(joints)
    hidden = tuple(d.name for d in state if d.name.endswith("_velocity"))
    return LocomotionTask(state=state, hidden=hidden, pose=joints, **fields)


TASKS = (
    _task(
        ("rootz", "rooty", "bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot"),
        name="HalfCheetah-v5",
        environment="HalfCheetah-v5",
        prompt="a half cheetah runs forward as fast as it can",
        camera=named_camera("HalfCheetah-v5"),
        keypoints=(
            Keypoint("root", "body", "torso"),
            Keypoint("head", "geom", "head"),
            Keypoint("back_hip", "body", "bthigh"),
            Keypoint("back_knee", "body", "bshin"),
            Keypoint("back_ankle", "body", "bfoot"),
            Keypoint("back_toe", "body", "bfoot", offset=(0.055, 0.0, -0.188)),
            Keypoint("front_hip", "body", "fthigh"),
            Keypoint("front_knee", "body", "fshin"),
            Keypoint("front_ankle", "body", "ffoot"),
            Keypoint("front_toe", "body", "ffoot", offset=(0.0845, 0.0, -0.128)),
        ),
        links=(
            Link("rooty", "root", "head", (0.6, 0.1), None),
            Link("bthigh", "back_hip", "back_knee", (0.16, -0.25), 0),
            Link("bshin", "back_knee", "back_ankle", (-0.28, -0.14), 1),
            Link("bfoot", "back_ankle", "back_toe", (0.055, -0.188), 2),
            Link("fthigh", "front_hip", "front_knee", (-0.14, -0.24), 0),
            Link("fshin", "front_knee", "front_ankle", (0.13, -0.18), 4),
            Link("ffoot", "front_ankle", "front_toe", (0.0845, -0.128), 5),
        ),
        ground=0.7,
        effort=0.1,
        late=0.6,
        action_size=6,
    ),
    _task(
        ("rootz", "rooty", "thigh_joint", "leg_joint", "foot_joint"),
        name="Hopper-v5",
        environment="Hopper-v5",
        prompt="a one-legged hopper hops forward without falling",
        camera=named_camera("Hopper-v5"),
        keypoints=(
            Keypoint("root", "body", "torso"),
            Keypoint("hip", "body", "thigh"),
            Keypoint("knee", "body", "leg", offset=(0.0, 0.0, 0.25)),
            Keypoint("ankle", "body", "foot", offset=(-0.13, 0.0, 0.1)),
            Keypoint("toe", "body", "foot", offset=(0.13, 0.0, 0.1)),
        ),
        links=(
            Link("rooty", "root", "hip", (0.0, -0.2), None),
            Link("thigh_joint", "hip", "knee", (0.0, -0.45), 0, sign=-1.0),
            Link("leg_joint", "knee", "ankle", (0.0, -0.5), 1, sign=-1.0),
            Link("foot_joint", "ankle", "toe", (0.26, 0.0), 2, sign=-1.0),
        ),
        effort=1e-3,
        upright=((0.7, np.inf), (-0.2, 0.2)),
        action_size=3,
        action_repeat=2,
        horizon=500,
    ),
    _task(
        (
            "rootz",
            "rooty",
            *(f"{part}{side}_joint" for side in ("", "_left") for part in ("thigh", "leg", "foot")),
        ),
        name="Walker2d-v5",
        environment="Walker2d-v5",
        prompt="a two-legged walker walks forward without falling",
        camera=named_camera("Walker2d-v5"),
        keypoints=(
            Keypoint("root", "body", "torso"),
            Keypoint("hip", "body", "thigh"),
            Keypoint("knee", "body", "leg", offset=(0.0, 0.0, 0.25)),
            Keypoint("ankle", "body", "foot", offset=(-0.2, 0.0, 0.1)),
            Keypoint("toe", "body", "foot", offset=(0.0, 0.0, 0.1)),
            Keypoint("left_knee", "body", "leg_left", offset=(0.0, 0.0, 0.25)),
            Keypoint("left_ankle", "body", "foot_left", offset=(-0.2, 0.0, 0.1)),
            Keypoint("left_toe", "body", "foot_left", offset=(0.0, 0.0, 0.1)),
        ),
        links=(
            Link("rooty", "root", "hip", (0.0, -0.2), None),
            Link("thigh_joint", "hip", "knee", (0.0, -0.45), 0, sign=-1.0),
            Link("leg_joint", "knee", "ankle", (0.0, -0.5), 1, sign=-1.0),
            Link("foot_joint", "ankle", "toe", (0.2, 0.0), 2, sign=-1.0),
            Link("thigh_left_joint", "hip", "left_knee", (0.0, -0.45), 0, sign=-1.0),
            Link("leg_left_joint", "left_knee", "left_ankle", (0.0, -0.5), 4, sign=-1.0),
            Link("foot_left_joint", "left_ankle", "left_toe", (0.2, 0.0), 5, sign=-1.0),
        ),
        effort=1e-3,
        upright=((0.8, 2.0), (-1.0, 1.0)),
        action_size=6,
        action_repeat=2,
        horizon=500,
    ),
)
