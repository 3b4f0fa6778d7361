"""Meta-World: a Sawyer arm on a table. One camera, one state layout and one set of keypoints for all tasks."""

from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.policies import ENV_POLICY_MAP

from pixeltraj.camera import Camera
from pixeltraj.simulator import Simulator
from pixeltraj.task import Dimension, Keypoint, Task

# Every keypoint of the six tasks stays in view, 3 pixels from the edge, over 150 noisy scripted episodes, and
# objects are as wide as that allows: 8 mm a pixel. Seen from above, so that x and y are read equally well.
CAMERA = Camera(lookat=(0.06, 0.613, 0.163), distance=0.734, azimuth=165.0, elevation=-45.0)

_NOW = ("hand_x", "hand_y", "hand_z", "gripper", "object_x", "object_y", "object_z")
_GOAL = ("goal_x", "goal_y", "goal_z")
_STATE = tuple(
    Dimension(name, "open" if "gripper" in name else "m")
    for name in (*_NOW, *(f"previous_{name}" for name in _NOW), *_GOAL)
)
_GRIPPER_SPAN = 0.1  # metres between the claws that Meta-World calls fully open
_EDITED = ("body_pos", "body_quat", "site_pos", "geom_pos")  # model fields that resets change


@dataclass(frozen=True, kw_only=True)
class MetaWorldTask(Task):
    """State (17,): hand, gripper opening and object now, the same one decision ago, goal.

    All of Meta-World's observation that a picture can show: the object's quaternion is left out. The previous
    values stand for velocities, as in the original's frame stacking, but at the decision rate.
    """

    camera: Camera = CAMERA
    state: tuple[Dimension, ...] = _STATE
    static: tuple[str, ...] = _GOAL
    action_size: int = 4
    action_repeat: int = 2
    horizon: int = 75
    reward: Any = "sparse"

    def make(self) -> "MetaWorldSimulator":
        return MetaWorldSimulator(self)

    def state_from_keypoints(self, keypoints: np.ndarray, start: np.ndarray) -> np.ndarray:
        hand, right, left, thing, goal = np.moveaxis(keypoints, -2, 0)  # each (B, K, 3)
        opening = np.linalg.norm(right - left, axis=-1, keepdims=True) / _GRIPPER_SPAN
        now = np.concatenate([hand, np.clip(opening, 0.0, 1.0), thing], axis=-1)
        previous = np.concatenate([start[:, None, 7:14], now[:, :-1]], axis=1)
        return np.concatenate([now, previous, goal], axis=-1)


class MetaWorldSimulator(Simulator):
    """A Meta-World v3 environment with reproducible resets and the sparse reward."""

    task: MetaWorldTask

    def __init__(self, task: MetaWorldTask) -> None:
        super().__init__(task)
        self.env = ALL_V3_ENVIRONMENTS[task.name]()
        self.env._partially_observable = False  # the goal belongs to the state
        self.env.__dict__.pop("sawyer_observation_space", None)  # cached with the goal clipped to zero
        self.env._set_task_called = True
        self.model, self.data = self.env.model, self.env.data
        self._policy = ENV_POLICY_MAP[task.name]()
        self._find_joints()
        self._cache_hand()
        self.snapshot_layout = {
            "integration": mujoco.mj_stateSize(self.model, mujoco.mjtState.mjSTATE_INTEGRATION),
            **{field: getattr(self.model, field).size for field in _EDITED},
            "variation": self.env._random_reset_space.low.size,
            "raw_previous": 18,
            "previous": 7,
        }

    def _cache_hand(self) -> None:
        # Settling the hand takes 50 simulator steps and ends the same way every time, so it is done once.
        mujoco.mj_resetData(self.model, self.data)
        self.env._reset_hand()
        settled, tcp = self._integration_state(), self.env.init_tcp.copy()

        def reset_hand(steps: int = 50) -> None:
            mujoco.mj_setState(self.model, self.data, settled, mujoco.mjtState.mjSTATE_INTEGRATION)
            mujoco.mj_forward(self.model, self.data)
            self.env.init_tcp = tcp.copy()

        self.env._reset_hand = reset_hand

    def _reset(self, seed: int) -> None:
        self.env._freeze_rand_vec, self.env.seeded_rand_vec = False, True
        self.env.np_random = np.random.default_rng(seed)
        self._begin()
        self._raw_previous = self.env._prev_obs = self.env._get_curr_obs_combined_no_goal()
        self._previous = self._now()

    def _begin(self) -> None:
        # What MujocoEnv.reset does, once: Meta-World's own reset runs reset_model a second time.
        self.env.curr_path_length = 0
        mujoco.mj_resetData(self.model, self.data)
        self.env.reset_model()
        mujoco.mj_forward(self.model, self.data)

    def _now(self) -> np.ndarray:
        return self.env._get_curr_obs_combined_no_goal()[:7]

    def state(self) -> np.ndarray:
        return np.concatenate([self._now(), self._previous, self.env._target_pos]).astype(np.float32)

    def _decide(self, action: np.ndarray) -> tuple[float, bool, dict[str, Any]]:
        self._previous = self._now()
        success = False
        for _ in range(self.task.action_repeat):
            success = bool(self.env.step(action)[-1]["success"])
            if success:
                break
        self.env.curr_path_length = 0  # the horizon is counted in decisions, by Simulator
        return float(success), success, {"success": success}

    def scripted_action(self) -> np.ndarray:
        raw = np.concatenate([self.env._get_curr_obs_combined_no_goal(), self.env._prev_obs, self.env._target_pos])
        return np.clip(self._policy.get_action(raw), -1.0, 1.0)

    def snapshot(self) -> np.ndarray:
        edited = [getattr(self.model, field).ravel() for field in _EDITED]
        return np.concatenate(
            [self._integration_state(), *edited, self.env._last_rand_vec, self.env._prev_obs, self._previous]
        )

    def restore(self, snapshot: np.ndarray) -> None:
        part = self.split_snapshot(snapshot)
        self.env._freeze_rand_vec, self.env._last_rand_vec = True, part["variation"].copy()
        self._begin()  # sets the environment's own fields: target, initial object position, ...
        for field in _EDITED:
            getattr(self.model, field).ravel()[:] = part[field]
        self._restore_integration(part["integration"])
        self.env._prev_obs = part["raw_previous"].copy()
        self._previous = part["previous"].copy()

    def set_state(self, state: np.ndarray, near: np.ndarray) -> None:
        """Settle the arm at the previous hand position, then run up to the hand so that its speed is right.

        The object and the fingers are put where the state says and held there meanwhile. Measured on noisy
        demonstrations with `near` up to four decisions away: hand within 4 mm in the median, 9 mm at worst
        (door-open-v3, whose door the arm leans on: 7 and 16 mm); object exact (the door's handle: 4 mm).
        """
        self.restore(near)
        state = np.asarray(state, dtype=np.float64)
        self._place_object(state[4:7])
        # The claws slide apart along their own axes: share the change of opening between them.
        claws = [self.data.body(name).xpos for name in ("rightclaw", "leftclaw")]
        apart = np.array([claws[0] - claws[1], claws[1] - claws[0]])
        outward = np.sign(np.sum(self.data.xaxis[self._finger_joints] * apart, axis=-1))
        fingers = self.data.qpos[self.model.jnt_qposadr[self._finger_joints]]
        fingers = fingers + outward * (state[3] - self._now()[3]) * _GRIPPER_SPAN / 2
        self._drag(state[7:10], fingers, settle=60)
        steps = self.task.action_repeat
        settled = self._integration_state()
        target = state[:3] + (state[:3] - state[7:10])
        for _ in range(6):  # the hand lags behind its mocap: aim further until it arrives
            mujoco.mj_setState(self.model, self.data, settled, mujoco.mjtState.mjSTATE_INTEGRATION)
            self._drag(target, fingers, settle=steps)
            target = target + (state[:3] - self.data.body("hand").xpos)
        self._previous = state[7:14].copy()
        self.env._prev_obs = self.env._get_curr_obs_combined_no_goal()

    def _drag(self, target: np.ndarray, fingers: np.ndarray, settle: int) -> None:
        """Move the mocap to target (3,) and let the arm follow; all other joints stay where they are."""
        start = self.data.mocap_pos[0].copy()
        self.data.qpos[self.model.jnt_qposadr[self._finger_joints]] = fingers
        held = self.data.qpos[self._held_positions].copy()
        self.model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_CONTACT)
        for i in range(settle):
            fraction = min(1.0, (i + 1) / min(settle, 20))
            self.data.mocap_pos[0] = start + fraction * (target - start)
            for _ in range(self.env.frame_skip):
                mujoco.mj_step(self.model, self.data)
                self.data.qpos[self._held_positions], self.data.qvel[self._held_velocities] = held, 0.0
        self.model.opt.disableflags ^= int(mujoco.mjtDisableBit.mjDSBL_CONTACT)
        mujoco.mj_forward(self.model, self.data)

    def _find_joints(self) -> None:
        """Which joints are fingers, which is the object's, and which the arm does not move."""
        model = self.model
        self._finger_joints = [model.joint(name).id for name in ("r_close", "l_close")]
        arm = [i for i in range(model.njnt) if model.joint(i).name.startswith("right_j")]
        held = [i for i in range(model.njnt) if i not in arm]
        ends = [*model.jnt_qposadr[1:], model.nq], [*model.jnt_dofadr[1:], model.nv]
        self._held_positions = [q for i in held for q in range(model.jnt_qposadr[i], ends[0][i])]
        self._held_velocities = [v for i in held for v in range(model.jnt_dofadr[i], ends[1][i])]
        thing = next(k for k in self.task.keypoints if k.name == "object")
        body = model.body(thing.target).id if thing.kind == "body" else int(model.geom(thing.target).bodyid[0])
        while model.body_jntnum[body] == 0:
            body = model.body_parentid[body]
        self._object_joint = int(model.body_jntadr[body])

    def _place_object(self, position: np.ndarray) -> None:
        index = next(i for i, k in enumerate(self.task.keypoints) if k.name == "object")
        joint = self.model.joint(self._object_joint)
        address = int(joint.qposadr[0])
        if joint.type[0] == mujoco.mjtJoint.mjJNT_FREE:
            self.data.qpos[address : address + 3] += position - self.keypoints()[index]
        else:  # a door or a drawer: the joint value that brings its handle nearest

            def miss(value: float) -> float:
                self.data.qpos[address] = value
                return float(np.linalg.norm(self.keypoints()[index] - position))

            low, high = joint.range
            for _ in range(3):
                best = min(np.linspace(low, high, 21), key=miss)
                width = (high - low) / 20
                low, high = max(low, best - width), min(high, best + width)
            self.data.qpos[address] = best
        mujoco.mj_forward(self.model, self.data)


def _task(name: str, prompt: str, thing: Keypoint, goal: str = "goal") -> MetaWorldTask:
    keypoints = (
        Keypoint("hand", "body", "hand"),
        Keypoint("right_claw", "body", "rightclaw"),
        Keypoint("left_claw", "body", "leftclaw"),
        thing,
        Keypoint("goal", "site", goal),
    )
    return MetaWorldTask(name=name, prompt=prompt, keypoints=keypoints)


_PUCK = Keypoint("object", "body", "obj")

TASKS = (
    _task("push-v3", "push the red puck to the goal on the table", _PUCK),
    _task("sweep-into-v3", "sweep the puck into the square hole in the table", _PUCK),
    _task("coffee-push-v3", "push the mug under the coffee machine", _PUCK, goal="mug_goal"),
    _task("push-wall-v3", "push the puck around the wall to the goal", Keypoint("object", "geom", "objGeom")),
    _task("door-open-v3", "open the door by its handle", Keypoint("object", "geom", "handle")),
    _task(
        "drawer-close-v3",
        "push the drawer shut",
        Keypoint("object", "body", "drawer_link", offset=(0.0, -0.16, 0.05)),
    ),
)
