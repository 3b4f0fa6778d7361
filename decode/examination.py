"""Examination: every transition of some trajectories, done again by the simulator.

Shapes: n transitions, S state, A action.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import mujoco
import numpy as np
from tqdm import tqdm

from pixeltraj.decode.inverse_dynamics import response
from pixeltraj.decode.violations import joint_excess, penetration
from pixeltraj.errors import PixeltrajError
from pixeltraj.simulator import Simulator
from pixeltraj.trajectory import Trajectory

Unsound = Literal["refused", "diverged"]
_WARNINGS = [int(getattr(mujoco.mjtWarning, f"mjWARN_{name}")) for name in ("BADQPOS", "BADQVEL", "BADQACC", "BADCTRL")]


@dataclass
class Examination:
    """What came of each transition; rows that are refused or diverged are NaN."""

    trajectory: np.ndarray
    """(n,) place in the list of trajectories"""
    step: np.ndarray
    """(n,) t"""
    now: np.ndarray
    """(n, S) s_t"""
    after: np.ndarray
    """(n, S) s_{t+1} as claimed"""
    actions: np.ndarray
    """(n, A) as claimed"""
    reached: np.ndarray
    """(n, S) the simulator's state right after it was set to s_t"""
    expected: np.ndarray
    """(n, S) its state after a_t"""
    responses: np.ndarray
    """(n, S, A) see `inverse_dynamics.response`"""
    rewards: np.ndarray
    """(n, 2) claimed and the simulator's; of sparse ones what the task's own function, where it has one, says of the
    claimed states: whether a thing is within a radius is lost with the arm's lag when the simulator is set to s_t"""
    terminations: np.ndarray
    """(n, 2) likewise, 0 or 1"""
    excess: np.ndarray
    """(n,) worst `joint_excess` of both ends of the transition"""
    depth: np.ndarray
    """(n,) worst `penetration` of both ends, metres"""
    refused: np.ndarray
    """(n,) bool: s_t, a_t or s_{t+1} is NaN or infinite, or the simulator cannot be set to s_t"""
    diverged: np.ndarray
    """(n,) bool: MuJoCo warned of a bad state, or the simulator's is not finite"""

    @property
    def error(self) -> np.ndarray:
        """(n, S) simulator minus claimed."""
        return self.expected - self.after

    @property
    def moved(self) -> np.ndarray:
        """(n, S) the error of a predictor for which nothing moves."""
        return self.now - self.after

    def drop(self, rows: np.ndarray) -> None:
        """Make NaN whatever the simulator said of rows (n,) bool."""
        for name in ("reached", "expected", "responses", "rewards", "terminations", "excess", "depth"):
            getattr(self, name)[rows] = np.nan


def examine(
    simulator: Simulator,
    trajectories: list[Trajectory],
    near: list[np.ndarray],
    title: str | None = "audit",
    responses: bool = True,
) -> Examination:
    """Set the simulator to each s_t, apply a_t, and try what other actions would have done: A + 1 rollouts.

    near: for each trajectory the snapshot (Q,) from which `Simulator.set_state` takes what states leave open. title: of
    the progress bar; None shows none. responses: without them the simulator is asked for a_t alone.
    """
    result = _claimed(trajectories)
    row = 0
    with tqdm(total=len(result.step), desc=title, unit="transition", disable=title is None) as bar, quiet():
        for trajectory, snapshot in zip(trajectories, near):
            steps = len(trajectory)
            bounds = np.full((steps + 1, 2), np.nan)
            for t in range(steps + 1):
                unsound = _visit(simulator, trajectory.states[t], snapshot, bounds[t])
                if t < steps:
                    result.refused[row + t] |= unsound == "refused"
                    result.diverged[row + t] |= unsound == "diverged"
                    if not result.refused[row + t] and not result.diverged[row + t]:
                        _step(simulator, result, row + t, responses)
            worst = np.fmax(bounds[:-1], bounds[1:])
            result.excess[row : row + steps], result.depth[row : row + steps] = worst.T
            row += steps
            bar.update(steps)
    if simulator.task.outcome and simulator.task.reward == "sparse":
        told = simulator.task.outcome(result.now, np.clip(result.actions, -1.0, 1.0), result.after)
        result.rewards[:, 1], result.terminations[:, 1] = told
    result.diverged &= ~result.refused
    result.drop(result.refused | result.diverged)
    return result


@contextmanager
def quiet() -> Iterator[None]:
    """MuJoCo's warnings are counted, not written to a log file in the working directory."""
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda text: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)


def _claimed(trajectories: list[Trajectory]) -> Examination:
    now = np.concatenate([t.states[:-1] for t in trajectories]).astype(np.float64)
    after = np.concatenate([t.states[1:] for t in trajectories]).astype(np.float64)
    actions = np.concatenate([t.actions for t in trajectories]).astype(np.float64)
    rewards = np.concatenate([t.rewards for t in trajectories]).astype(np.float64)
    terminations = np.concatenate([t.terminations for t in trajectories]).astype(np.float64)
    n, states = now.shape
    finite = [np.isfinite(a).reshape(n, -1).all(axis=1) for a in (now, after, actions, rewards)]
    return Examination(
        trajectory=np.repeat(np.arange(len(trajectories)), [len(t) for t in trajectories]),
        step=np.concatenate([np.arange(len(t)) for t in trajectories]),
        now=now,
        after=after,
        actions=actions,
        reached=np.full((n, states), np.nan),
        expected=np.full((n, states), np.nan),
        responses=np.full((n, states, actions.shape[1]), np.nan),
        rewards=np.stack([rewards, np.full(n, np.nan)], axis=1),
        terminations=np.stack([terminations, np.full(n, np.nan)], axis=1),
        excess=np.full(n, np.nan),
        depth=np.full(n, np.nan),
        refused=~np.all(finite, axis=0),
        diverged=np.zeros(n, dtype=bool),
    )


def _visit(simulator: Simulator, state: np.ndarray, near: np.ndarray, bounds: np.ndarray) -> Unsound | None:
    """Set the state, fill bounds (2,) with its excess and depth -> what was wrong with it."""
    unsound = visit(simulator, state, near)
    if unsound is None:
        simulator.restore(simulator.snapshot())  # contacts and limits of this very state, not of before the last step
        bounds[:] = joint_excess(simulator), penetration(simulator)
    return unsound


def visit(simulator: Simulator, state: np.ndarray, near: np.ndarray) -> Unsound | None:
    """Set the simulator to a state (S,), near a snapshot (Q,) of its episode -> what was wrong with it."""
    if not np.isfinite(state).all():
        return "refused"
    simulator.data.warning.number[:] = 0
    try:
        simulator.set_state(state, near)
    except (PixeltrajError, mujoco.FatalError):
        return "refused"
    return "diverged" if _is_lost(simulator) else None


def _step(simulator: Simulator, result: Examination, row: int, responses: bool) -> None:
    action = result.actions[row]
    here = simulator.snapshot()
    result.reached[row] = simulator.state()
    expected, reward, terminated, *_ = simulator.step(action)
    result.expected[row] = expected
    result.rewards[row, 1], result.terminations[row, 1] = reward, terminated
    result.diverged[row] = _is_lost(simulator)
    if responses and not result.diverged[row]:
        result.responses[row] = response(simulator, here, np.clip(action, -1.0, 1.0), result.expected[row])


def _is_lost(simulator: Simulator) -> bool:
    """Whether MuJoCo warned of a bad state since its warnings were last cleared, or its state is not finite."""
    data = simulator.data
    finite = np.isfinite(data.qpos).all() and np.isfinite(data.qvel).all() and np.isfinite(simulator.state()).all()
    return bool(not finite or np.asarray(data.warning.number)[_WARNINGS].any())
