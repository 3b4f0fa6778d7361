"""Simulator: a Gymnasium environment whose every state can be stored, restored and looked at."""

from abc import abstractmethod
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np

from pixeltraj.errors import PixeltrajError
from pixeltraj.task import Task


class Simulator(gym.Env[np.ndarray, np.ndarray]):
    """One task's environment at the agent's decision rate.

    Gymnasium's interface (reset, step, spaces), with a seed that fixes the whole episode, and beside it:
    `snapshot` / `restore` for exact simulator states, `set_state` for decoded ones, `keypoints` for the
    decoder's targets. Observations are the task's state, float32 (S,).
    """

    task: Task
    env: Any
    """The suite's own environment."""
    model: mujoco.MjModel
    data: mujoco.MjData
    snapshot_layout: dict[str, int]
    """Parts of a snapshot, in order, and the length of each."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (task.state_size,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (task.action_size,), np.float32)
        self._decisions = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode. The seed decides all of its randomness; without one, `np_random` draws it."""
        super().reset(seed=seed)
        self.episode_seed = int(self.np_random.integers(2**31)) if seed is None else seed
        self._decisions = 0
        self._reset(self.episode_seed)
        return self.state(), {"seed": self.episode_seed}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One decision: `action_repeat` simulator steps. Actions are clipped to [-1, 1]."""
        reward, terminated, info = self._decide(np.clip(np.asarray(action, dtype=np.float64), -1.0, 1.0))
        self._decisions += 1
        truncated = not terminated and self._decisions >= self.task.horizon
        return self.state(), reward, terminated, truncated, info

    def keypoints(self) -> np.ndarray:
        """(N, 3) float32, metres from the camera's anchor."""
        mujoco.mj_kinematics(self.model, self.data)  # a step leaves the positions of before its integration
        frames = [(getattr(self.data, k.kind)(k.target), np.array(k.offset)) for k in self.task.keypoints]
        points = [frame.xpos + frame.xmat.reshape(3, 3) @ offset for frame, offset in frames]
        return (np.array(points) - self.anchor()).astype(np.float32)

    def anchor(self) -> np.ndarray:
        """(3,) where the camera stands in for the world's origin: see `Camera.track`."""
        track = self.task.camera.track
        return np.array([*self.data.body(track).xpos[:2], 0.0]) if track else np.zeros(3)

    def scripted_action(self) -> np.ndarray | None:
        """(A,) what the suite's own demonstrator would do now; None where it ships none."""
        return None

    def observation(self) -> np.ndarray:
        """(O,) float64, the environment's own observation, as D4RL and Minari keep it; a goal's comes last."""
        raise PixeltrajError(f"{self.task.name} has no observation of its own beside its state")

    def set_observation(self, observation: np.ndarray) -> None:
        """Bring the simulator to where the environment's own observation (O,) was made.

        Each suite says how exactly. Raises PixeltrajError where an observation does not tell.
        """
        raise PixeltrajError(
            f"the observations of {self.task.name} do not tell the simulator's state; collect trajectories instead"
        )

    def split_snapshot(self, snapshot: np.ndarray) -> dict[str, np.ndarray]:
        """The parts of a snapshot by name, as views."""
        ends = np.cumsum(list(self.snapshot_layout.values()))
        return dict(zip(self.snapshot_layout, np.split(snapshot, ends[:-1])))

    @abstractmethod
    def state(self) -> np.ndarray:
        """(S,) float32, the task's state."""

    @abstractmethod
    def snapshot(self) -> np.ndarray:
        """(Q,) float64, all that is needed to draw this moment again and to go on from it."""

    @abstractmethod
    def restore(self, snapshot: np.ndarray) -> None:
        """Return to a snapshot, bit for bit."""

    @abstractmethod
    def set_state(self, state: np.ndarray, near: np.ndarray) -> None:
        """Bring the simulator to a decoded state, as closely as the state tells.

        near: a snapshot of the same episode, for what the state leaves open (arm posture, goal).
        """

    @abstractmethod
    def _reset(self, seed: int) -> None: ...

    def _decide(self, action: np.ndarray) -> tuple[float, bool, dict[str, Any]]:
        """Apply the action (A,) for `action_repeat` steps of `env`, fewer where it ends -> reward, terminated, info.

        A sparse reward is paid for the info's `success`, a dense one is the sum of the environment's own.
        """
        total, sparse = 0.0, self.task.reward == "sparse"
        for _ in range(self.task.action_repeat):
            _, reward, terminated, _, info = self.env.step(action)
            ended = bool(info["success"]) if sparse else terminated
            total += float(ended) if sparse else float(reward)
            if ended:
                break
        return total, ended, {"success": ended} if sparse else info

    def _integration_state(self) -> np.ndarray:
        spec = mujoco.mjtState.mjSTATE_INTEGRATION
        buffer = np.empty(mujoco.mj_stateSize(self.model, spec))
        mujoco.mj_getState(self.model, self.data, buffer, spec)
        return buffer

    def _restore_integration(self, state: np.ndarray) -> None:
        mujoco.mj_setState(self.model, self.data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
        mujoco.mj_forward(self.model, self.data)
        # That moved the solver's warm start, which the next step begins from: put it back.
        mujoco.mj_setState(self.model, self.data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
