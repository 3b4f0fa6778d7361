"""Oracle: the best that an imagination could be. The simulator goes on from s' with the suite's scripted policy.

No part of the method: the arm that shows what an agent could gain at all, and against which imagination is measured.
"""

from dataclasses import dataclass

import numpy as np

from pixeltraj.errors import PixeltrajError
from pixeltraj.task import Task
from pixeltraj.trajectory import Trajectory


@dataclass(frozen=True)
class Oracle:
    """Makes an imagination of a task (`pixeltraj.eval.arm.Arm.imagine`)."""

    length: int = 4
    """Decisions in a trajectory at most: it ends with the task."""
    noise: float = 0.1
    """Standard deviation of what is added to the scripted actions."""

    def __call__(self, task: Task) -> "SimulatedImagination":
        """Raises PixeltrajError where the suite ships no scripted policy for the task."""
        return SimulatedImagination(self, task)


class SimulatedImagination:
    """states and snapshots in, trajectories out: pixeltraj.replay_buffer.Imagine. It has a simulator of its own.

    Keypoints are zeros: to ask for them would move what a Meta-World state says of the decision before.
    """

    def __init__(self, config: Oracle, task: Task) -> None:
        if config.length < 1 or config.noise < 0:
            raise PixeltrajError(
                f"wanted of an oracle: length >= 1 and noise >= 0, not {config.length}, {config.noise}"
            )
        self.config, self.task, self.simulator = config, task, task.make()
        self.simulator.reset(seed=0)
        if self.simulator.scripted_action() is None:
            raise PixeltrajError(f"{task.name} ships no scripted policy, so there is no oracle; leave that arm out")

    def __call__(self, states: np.ndarray, snapshots: np.ndarray, seed: int) -> list[Trajectory]:
        rng = np.random.default_rng(seed)
        return [self._trajectory(state, snapshot, rng) for state, snapshot in zip(states, snapshots)]

    def _trajectory(self, start: np.ndarray, snapshot: np.ndarray, rng: np.random.Generator) -> Trajectory:
        simulator = self.simulator
        simulator.restore(snapshot)
        states, snapshots = [start], [snapshot]
        actions: list[np.ndarray] = []
        rewards: list[float] = []
        over = False
        while not over and len(actions) < self.config.length:
            scripted = simulator.scripted_action()
            assert scripted is not None
            noisy = scripted + self.config.noise * rng.standard_normal(self.task.action_size)
            actions.append(noisy.clip(-1.0, 1.0).astype(np.float32))
            state, reward, over, _, _ = simulator.step(actions[-1])
            states.append(state)
            snapshots.append(simulator.snapshot())
            rewards.append(reward)
        terminations = np.zeros(len(actions), dtype=bool)
        terminations[-1] = over
        return Trajectory(
            states=np.stack(states),
            actions=np.stack(actions),
            rewards=np.array(rewards, dtype=np.float32),
            terminations=terminations,
            truncations=np.zeros(len(actions), dtype=bool),  # when an episode's time is up is the agent's affair
            keypoints=np.zeros((len(states), len(self.task.keypoints), 3), dtype=np.float32),
            snapshots=np.stack(snapshots),
            origin={"oracle": True},
        )
