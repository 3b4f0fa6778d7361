"""An imagination that is right: the simulator itself, stepped with random actions. In a module of its own, because a
background process has to be able to import it."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixeltraj.errors import PixeltrajError
from pixeltraj.task import Task
from pixeltraj.trajectory import Trajectory


@dataclass(frozen=True)
class Oracle:
    """Makes an imagination of a task (pixeltraj.background.MakeImagine)."""

    length: int = 4
    """Transitions in a trajectory."""
    per_state: int = 1
    """Trajectories from each state; 0 = imagination gives nothing."""
    gate: Path | None = None
    """Nothing is imagined before this file is there."""
    failure: str = ""
    """Where given, making it fails with this; "crash" is no PixeltrajError."""

    def __call__(self, task: Task) -> "SimulatedImagination":
        if self.failure:
            raise RuntimeError if self.failure == "crash" else PixeltrajError(self.failure)
        return SimulatedImagination(self, task)


class SimulatedImagination:
    def __init__(self, config: Oracle, task: Task) -> None:
        self.config, self.simulator = config, task.make()
        self.simulator.reset(seed=0)

    def __call__(self, states: np.ndarray, snapshots: np.ndarray, seed: int) -> list[Trajectory]:
        while self.config.gate and not self.config.gate.exists():
            time.sleep(0.01)
        rng = np.random.default_rng(seed)
        starts = [(state, snapshot) for state, snapshot in zip(states, snapshots) for _ in range(self.config.per_state)]
        return [self.trajectory(state, snapshot, rng) for state, snapshot in starts]

    def trajectory(self, state: np.ndarray, snapshot: np.ndarray, rng: np.random.Generator) -> Trajectory:
        self.simulator.restore(snapshot)
        np.testing.assert_allclose(self.simulator.state(), state, atol=1e-5)
        count, task = self.config.length, self.simulator.task
        actions = rng.uniform(-1, 1, (count, task.action_size)).astype(np.float32)
        states, rewards, flags = [state], np.zeros(count, np.float32), np.zeros(count, bool)
        for i, action in enumerate(actions):
            next_state, rewards[i], *_ = self.simulator.step(action)
            states.append(next_state)
        points = np.zeros((count + 1, len(task.keypoints), 3), np.float32)
        return Trajectory(np.stack(states), actions, rewards, flags, flags, points)
