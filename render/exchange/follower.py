"""Follower: the simulator, brought to every moment of a recording. What it shows there makes the trajectory.

States, keypoints and snapshots are read off the simulator, so that a dataset's episodes can be rendered and used
like collected ones. Actions, rewards and ends are the dataset's, with these rules:

- A decision of the task that lasts longer than a step of the dataset gets the mean of the actions, the sum of the
  rewards, and the states at its ends. What is left of a cut episode after its last whole decision is dropped.
- A sparse task is solved, for a reward of 1 which ends the episode, where the simulator says so when it takes the
  step itself, or where the dataset ends with a positive reward; its other rewards mean something else (a subtask, a
  distance). What follows becomes an episode of its own, unless it is solved at once.
- So does what follows a change of goal, or the task's horizon.
- Of a dense task, `reward="task"` takes rewards and ends from the simulator too.
- Exact positions and velocities are used where they agree with the observation. Positions that observations do not
  tell (a runner's x) go on from where the simulated step leads, and so does the last state of an episode where the
  dataset, as D4RL's do, lacks it. Velocities that they do not tell are how far positions came in the last step.

How far the simulated steps miss the dataset's next states, against how far the states move, is the trajectory's
`replay_error`: near 0 where the dataset is of this simulator, 1 where standing still foretells as much.
"""

from collections.abc import Iterator
from typing import Literal

import mujoco
import numpy as np

from pixeltraj.errors import PixeltrajError
from pixeltraj.render.exchange.recording import Recording
from pixeltraj.simulator import Simulator
from pixeltraj.trajectory import Trajectory

RewardSource = Literal["dataset", "task"]
LAYOUTS = (("observation",), ("observation", "desired_goal"), ("achieved_goal", "observation", "desired_goal"))
"""Ways to join a dataset's parts into the environment's own observation: see `Simulator.set_observation`."""


class Follower:
    """For one dataset: what its first recording has is expected of all.

    repeat: simulator steps an action of the dataset was held for. Raises PixeltrajError where a decision of the
    task is not a whole number of them, and where the first recording does not tell the simulator's state.
    """

    def __init__(self, simulator: Simulator, first: Recording, repeat: int, reward: RewardSource) -> None:
        task = simulator.task
        if task.action_repeat % repeat:
            raise PixeltrajError(
                f"the dataset holds an action for {repeat} simulator steps, {task.name} for {task.action_repeat}: "
                f"a decision must be a whole number of the dataset's"
            )
        self.simulator, self.reward = simulator, reward
        self.stride = task.action_repeat // repeat
        simulator.reset(seed=0)
        self._layout: tuple[str, ...] | None = None
        if first.snapshots is None:
            self._layout = self._find_layout(first)
        self._untold: list[int] = []
        self._unmoved: list[int] = []
        if self._layout:
            data = simulator.data
            self._observe(first, len(first.parts["observation"]) - 1, 0)
            positions, moving = data.qpos.copy(), data.qvel != 0
            self._observe(first, 0, 0)
            # What differs between two moments has been found by the simulator itself, as an arm that is settled.
            left, moving = data.qpos == positions, moving | (data.qvel != 0)
            self._untold = [i for i in self._find_untold(data.qpos) if left[i]]
            self._unmoved = [i for i in self._find_untold(data.qvel) if not moving[i]]
        self._exact = self._find_exact(first)

    def _find_layout(self, recording: Recording) -> tuple[str, ...] | None:
        reasons: list[PixeltrajError] = []
        for layout in LAYOUTS:
            if set(layout) <= set(recording.parts):
                observation = recording.observation(layout, 0, 0)
                assert observation is not None
                try:
                    self.simulator.set_observation(observation)
                    return layout
                except PixeltrajError as reason:
                    reasons.append(reason)
        if recording.positions is not None and set(self.simulator.snapshot_layout) == {"integration"}:
            return None  # nothing but positions and velocities is to be told
        raise reasons[0]

    def _find_untold(self, values: np.ndarray) -> list[int]:
        """values: qpos or qvel. Those that can change without a change of the observation."""
        simulator, untold = self.simulator, []
        before = simulator.snapshot()
        told = simulator.observation()
        for i in range(len(values)):
            values[i] += 0.1
            mujoco.mj_forward(simulator.model, simulator.data)
            if np.allclose(simulator.observation(), told, atol=1e-9):
                untold.append(i)
            simulator.restore(before)
        return untold

    def _find_exact(self, recording: Recording) -> bool:
        """Whether the dataset's positions mean the same in this model as in its own."""
        if recording.positions is None or recording.velocities is None:
            return False
        if self._layout is None:
            return True
        told = self._observe(recording, 0, 0)
        self._put(recording.positions[0], recording.velocities[0])
        task = self.simulator.task
        seen = [i for i in range(task.state_size) if i not in task.indices(task.hidden)]
        return told is not None and bool(np.allclose(self.simulator.state()[seen], told[seen], atol=0.02))

    def trajectories(self, recording: Recording) -> Iterator[Trajectory]:
        """One, or several where the task ends earlier than the recording; none where no decision is whole."""
        at = 0
        while at < len(recording):
            trajectory, at = self._follow(recording, at)
            if trajectory is not None:
                yield trajectory

    def _follow(self, recording: Recording, start: int) -> tuple[Trajectory | None, int]:
        """From a row on -> the trajectory, and the row to go on from."""
        task, simulator, goals = self.simulator.task, self.simulator, recording.parts.get("desired_goal")
        simulator.reset(seed=0)
        self._place(recording, start, start)
        rows = [self._look()]
        actions: list[np.ndarray] = []
        rewards: list[float] = []
        foretold: list[np.ndarray] = []
        terminated, at = False, start
        while at < len(recording) and not terminated and len(actions) < task.horizon:
            stop = min(at + self.stride, len(recording))
            if stop - at < self.stride and not recording.terminations[at:stop].any():
                at = len(recording)
                break
            action = np.clip(recording.actions[at:stop].mean(axis=0), -1.0, 1.0).astype(np.float32)
            before, clock = simulator.data.qpos.copy(), simulator.data.time
            foreseen, simulated, ends, _, _ = simulator.step(action)
            lasted = simulator.data.time - clock
            reward = float(recording.rewards[at:stop].sum())
            terminated = bool(recording.terminations[at:stop].any())
            if task.reward == "sparse":
                solved = simulated > 0 or (terminated and recording.rewards[stop - 1] > 0)
                reward, terminated = float(solved), terminated or solved
            elif self.reward == "task":
                reward, terminated = simulated, ends
            self._place(recording, stop, start)
            self._set_in_motion(before, lasted)
            rows.append(self._look())
            actions.append(action)
            rewards.append(reward)
            foretold.append(foreseen)
            at = stop
            if goals is not None and at < len(goals) and not np.array_equal(goals[at], goals[start]):
                break
        if not actions or (task.reward == "sparse" and len(actions) == 1 and terminated):
            return None, at
        last = np.arange(len(actions)) == len(actions) - 1
        states, keypoints, snapshots = (np.stack(column) for column in zip(*rows))
        trajectory = Trajectory(
            states=states,
            actions=np.stack(actions),
            rewards=np.array(rewards, dtype=np.float32),
            terminations=last & terminated,
            truncations=last & (not terminated),
            keypoints=keypoints,
            snapshots=snapshots,
            origin={**recording.origin, "row": start, "replay_error": self._replay_error(states, np.stack(foretold))},
        )
        return trajectory, at

    def _look(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.simulator.state(), self.simulator.keypoints(), self.simulator.snapshot()

    def _place(self, recording: Recording, row: int, start: int) -> None:
        """Bring the simulator, which stands where a step led, to the row; leave it there where there is none."""
        if recording.snapshots is not None:
            self.simulator.restore(recording.snapshots[row])
            return
        moved = self.simulator.data.qpos[self._untold].copy()
        seen = self._observe(recording, row, start)
        if self._exact and recording.positions is not None and row < len(recording.positions):
            assert recording.velocities is not None
            self._put(recording.positions[row], recording.velocities[row])
        elif seen is not None and row > start:
            self.simulator.data.qpos[self._untold] = moved
            mujoco.mj_forward(self.simulator.model, self.simulator.data)

    def _set_in_motion(self, before: np.ndarray, seconds: float) -> None:
        """Velocities that nothing has told, from the positions so long ago."""
        model, data = self.simulator.model, self.simulator.data
        unmoved = [i for i in self._unmoved if data.qvel[i] == 0]
        if unmoved and not self._exact:
            velocities = np.empty(model.nv)
            mujoco.mj_differentiatePos(model, velocities, seconds, before, data.qpos)
            data.qvel[unmoved] = velocities[unmoved]
            mujoco.mj_forward(model, data)

    def _observe(self, recording: Recording, row: int, start: int) -> np.ndarray | None:
        """Set the row's observation, with the goal of the start -> (S,); None where the dataset has none."""
        observation = recording.observation(self._layout, row, start) if self._layout else None
        if observation is None:
            return None
        self.simulator.set_observation(observation)
        return self.simulator.state()

    def _put(self, positions: np.ndarray, velocities: np.ndarray) -> None:
        self.simulator.data.qpos[:], self.simulator.data.qvel[:] = positions, velocities
        mujoco.mj_forward(self.simulator.model, self.simulator.data)

    def _replay_error(self, states: np.ndarray, foretold: np.ndarray) -> float:
        task = self.simulator.task
        moving = [i for i in range(task.state_size) if i not in task.indices(task.static)]
        missed = np.median(np.abs(foretold - states[1:])[:, moving], axis=0)
        moved = np.median(np.abs(np.diff(states, axis=0))[:, moving], axis=0)
        return float(np.median(missed / (moved + 1e-6)))
