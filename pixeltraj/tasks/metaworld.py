"""Meta-World: a Sawyer arm on a table. One camera, one state layout and one set of keypoints for all fifty tasks."""

from dataclasses import dataclass, replace
from typing import Any

import mujoco
import numpy as np

from pixeltraj.camera import Camera
from pixeltraj.errors import PixeltrajError
from pixeltraj.simulator import Simulator
from pixeltraj.task import Dimension, Keypoint, Movable, Outcome, Task
from pixeltraj.tasks.cameras import named_camera
from pixeltraj.tasks.metaworld_placing import Placing
from pixeltraj.tasks.metaworld_success import SOLVED
from pixeltraj.tasks.metaworld_table import TABLE, Entry

# Every keypoint of the first six tasks stays in view, 3 pixels from the edge, over 150 noisy scripted episodes, and
# objects are as wide as that allows: 8 mm a pixel. Seen from above, so that x and y are read equally well.
CAMERA = named_camera("meta-world")

_NOW = ("hand_x", "hand_y", "hand_z", "gripper", "object_x", "object_y", "object_z")
_GOAL = ("goal_x", "goal_y", "goal_z")
_STATE = tuple(
    Dimension(name, "open" if "gripper" in name else "m")
    for name in (*_NOW, *(f"previous_{name}" for name in _NOW), *_GOAL)
)
_MOVABLE = tuple(
    Movable((name, f"previous_{name}"), *how)
    for name, how in {
        "hand_x": (0.08, 0.006),
        "hand_y": (0.08, 0.006),
        "hand_z": (0.08, 0.006, 0.04),  # above the table
        "gripper": (0.2, 0.02, 0.25, 1.0),
        "object_x": (0.06, 0.004),
        "object_y": (0.06, 0.004),
    }.items()
)
_LAG = 2.0  # decisions by which the hand follows its mocap
_GRIPPER_SPAN = 0.1  # metres between the claws that Meta-World calls fully open
_EDITED = ("body_pos", "body_quat", "site_pos", "geom_pos")  # model fields that resets change


@dataclass(frozen=True, kw_only=True)
class MetaWorldTask(Task):
    """State (17,): hand, gripper opening and object now, the same one decision ago, goal.

    All of Meta-World's observation that a picture can show: the object's quaternion is left out, and so is the
    second object of the three tasks that have one (the nail of hammer-v3, the thermos of stick-push-v3 and
    stick-pull-v3). The previous values stand for velocities, as in the original's frame stacking, but at the
    decision rate.
    """

    camera: Camera = CAMERA
    state: tuple[Dimension, ...] = _STATE
    static: tuple[str, ...] = _GOAL
    movable: tuple[Movable, ...] = _MOVABLE
    action_size: int = 4
    action_repeat: int = 2
    horizon: int = 75
    reward: Any = "sparse"

    def make(self) -> Simulator:
        return MetaWorldSimulator(self)

    @property
    def outcome(self) -> Outcome | None:
        """See `SOLVED`."""
        solved = SOLVED.get(self.name)
        if solved is None:
            return None

        def outcome(states: np.ndarray, actions: np.ndarray, following: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            over = solved(following[:, :3], following[:, 4:7], following[:, 14:17])
            return over.astype(np.float32), over

        return outcome

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
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS
        from metaworld.policies import ENV_POLICY_MAP

        super().__init__(task)
        self.env = ALL_V3_ENVIRONMENTS[task.name]()
        self.env._partially_observable = False  # the goal belongs to the state
        self.env.__dict__.pop("sawyer_observation_space", None)  # cached with the goal clipped to zero
        self.env._set_task_called = True
        self.model, self.data = self.env.model, self.env.data
        # MuJoCo takes a site that was compiled at the world's origin to stay there; resets move goals all the same.
        self.model.site_sameframe[self.model.site_bodyid == 0] = mujoco.mjtSameFrame.mjSAMEFRAME_NONE
        self._compiled = {field: getattr(self.model, field).copy() for field in _EDITED}
        self._policy = ENV_POLICY_MAP[task.name]()
        self._cache_hand()
        self._begun: np.ndarray | None = None  # the variation that the environment's own fields are of
        self._placing = Placing(self.env)
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
        self._raw_previous, self._previous = self._raw(), self._now()

    def _begin(self) -> None:
        """Meta-World's own reset, which runs `reset_model` twice: the second time finds the scene of the first."""
        for field, compiled in self._compiled.items():
            getattr(self.model, field)[:] = compiled  # some resets add to what the last one left
        self.env.curr_path_length = 0
        for _ in range(2):
            mujoco.mj_resetData(self.model, self.data)
            self.env.reset_model()
            self.env._freeze_rand_vec = True
        mujoco.mj_forward(self.model, self.data)
        self._begun = self.env._last_rand_vec.copy()

    def _raw(self) -> np.ndarray:
        return self.env._get_curr_obs_combined_no_goal()

    def _now(self) -> np.ndarray:
        return self._raw()[:7]

    def state(self) -> np.ndarray:
        return np.concatenate([self._now(), self._previous, self.env._target_pos]).astype(np.float32)

    def _decide(self, action: np.ndarray) -> tuple[float, bool, dict[str, Any]]:
        self._previous = self._now()
        success = False
        for _ in range(self.task.action_repeat):
            self._raw_previous = self._raw()
            success = bool(self.env.step(action)[-1]["success"])
            if success:
                break
        self.env.curr_path_length = 0  # the horizon is counted in decisions, by Simulator
        return float(success), success, {"success": success}

    def scripted_action(self) -> np.ndarray:
        return np.clip(self._policy.get_action(self.observation()), -1.0, 1.0)

    def snapshot(self) -> np.ndarray:
        edited = [getattr(self.model, field).ravel() for field in _EDITED]
        return np.concatenate(
            [self._integration_state(), *edited, self.env._last_rand_vec, self._raw_previous, self._previous]
        )

    def restore(self, snapshot: np.ndarray) -> None:
        part = self.split_snapshot(snapshot)
        if self._begun is None or not np.array_equal(self._begun, part["variation"]):
            self._vary(part["variation"])
        for field in _EDITED:
            getattr(self.model, field).ravel()[:] = part[field]
        self._restore_integration(part["integration"])
        self._raw_previous, self._previous = part["raw_previous"].copy(), part["previous"].copy()
        self.env._prev_obs = self._raw()

    def _vary(self, variation: np.ndarray) -> None:
        """Begin the episode of that variation; it sets the environment's own fields: target, object's start, ..."""
        self.env._freeze_rand_vec, self.env._last_rand_vec = True, variation.copy()
        self._begin()

    def observation(self) -> np.ndarray:
        """(39,): hand, gripper, objects with quaternions (18) now and one environment step ago, goal."""
        return np.concatenate([self._raw(), self._raw_previous, self.env._target_pos])

    def set_observation(self, observation: np.ndarray) -> None:
        """Set up the goal's episode, put the objects where the observation says, and settle the arm by its mocap.

        Measured over all fifty tasks (`pytest tests/tasks/test_metaworld.py`, noisy demonstrations): hand within
        0.1 mm in the median and 6 mm at worst, but 21 mm where the arm presses hard against what holds it back
        (button-press-topdown-v3, peg-insert-side-v3, soccer-v3); objects and their quaternions within 0.2 mm. What
        it does not tell: the machine of coffee-pull-v3, which is put where one of the task's goals may have it.
        The state's previous values, which reach one decision back, are drawn out from one environment step.
        Raises PixeltrajError where the goal is hidden (zeros) or is none that the task can have.
        """
        observation = np.asarray(observation, dtype=np.float64)
        if observation.shape != (39,) or not np.isfinite(observation).all():
            raise PixeltrajError(f"{self.task.name} observes 39 finite numbers, not {observation.shape}")
        now, before, goal = np.split(observation, [18, 36])
        if not goal.any():
            raise PixeltrajError("the goal of this observation is hidden; record with _partially_observable = False")
        self._vary(self._placing.variation(goal, self._vary))
        self._placing.put(now[4:])
        repeat = self.task.action_repeat
        self._previous = now[:7] - repeat * (now[:7] - before[:7])
        self._reach(now[:4], self._previous[:3])
        self._raw_previous = before

    def set_state(self, state: np.ndarray, near: np.ndarray) -> None:
        """Settle the arm by its mocap some way behind, then run up to the hand so that its speed is right.

        The object and the fingers are put where the state says and held there meanwhile. Measured
        over all fifty tasks on noisy demonstrations, with `near` up to four decisions away: hand within 0.1 mm in
        the median and 4 mm at worst, but 20 mm where the arm presses hard against what holds it back
        (button-press-topdown-v3, peg-insert-side-v3, soccer-v3); objects within 0.1 mm. The next state, with the
        true action: hand 4 mm, object 0 to 6 mm in the median.
        """
        self.restore(near)
        state = np.asarray(state, dtype=np.float64)
        self._placing.put(state[4:7])
        self._reach(state[:4], state[7:10])
        self._previous = state[7:14].copy()

    def _reach(self, hand: np.ndarray, previous: np.ndarray) -> None:
        """Bring hand and gripper (4,) to where they are, coming from where the hand was (3,) a decision before."""
        # The claws slide apart along their own axes: share the change of opening between them.
        claws = [self.data.body(name).xpos for name in ("rightclaw", "leftclaw")]
        apart = np.array([claws[0] - claws[1], claws[1] - claws[0]])
        outward = np.sign(np.sum(self.data.xaxis[self._placing.fingers] * apart, axis=-1))
        fingers = self.data.qpos[self.model.jnt_qposadr[self._placing.fingers]]
        fingers = fingers + outward * (hand[3] - self._now()[3]) * _GRIPPER_SPAN / 2
        # Come from where the hand lagged behind its mocap as it does at this speed, so that the next step fits too.
        lead = _LAG * (hand[:3] - previous)
        self._drag(hand[:3] - lead, fingers, settle=60)
        settled = self._integration_state()
        target = hand[:3] + lead
        for _ in range(4):  # and aim further by what is still missing
            mujoco.mj_setState(self.model, self.data, settled, mujoco.mjtState.mjSTATE_INTEGRATION)
            self._drag(target, fingers, settle=round(2 * _LAG * self.task.action_repeat))
            target = target + 1.5 * (hand[:3] - self.data.body("hand").xpos)
        self._raw_previous = self.env._prev_obs = self._raw()

    def _drag(self, target: np.ndarray, fingers: np.ndarray, settle: int) -> None:
        """Move the mocap to target (3,) and let the arm follow; all other joints stay where they are."""
        start = self.data.mocap_pos[0].copy()
        positions, velocities = self._placing.held_positions, self._placing.held_velocities
        self.data.qpos[self.model.jnt_qposadr[self._placing.fingers]] = fingers
        held = self.data.qpos[positions].copy()
        self.model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_CONTACT)
        for i in range(settle):
            fraction = min(1.0, (i + 1) / min(settle, 20))
            self.data.mocap_pos[0] = start + fraction * (target - start)
            for _ in range(self.env.frame_skip):
                mujoco.mj_step(self.model, self.data)
                self.data.qpos[positions], self.data.qvel[velocities] = held, 0.0
        self.model.opt.disableflags ^= int(mujoco.mjtDisableBit.mjDSBL_CONTACT)
        mujoco.mj_forward(self.model, self.data)


def _task(entry: Entry) -> MetaWorldTask:
    keypoints = (
        Keypoint("hand", "body", "hand"),
        Keypoint("right_claw", "body", "rightclaw"),
        Keypoint("left_claw", "body", "leftclaw"),
        replace(entry.thing, name="object"),
        replace(entry.goal, name="goal"),
    )
    return MetaWorldTask(name=entry.name, prompt=entry.prompt, keypoints=keypoints, horizon=entry.horizon)


TASKS = tuple(_task(entry) for entry in TABLE)
