"""One step: by how far the simulator ends up elsewhere than an imagined transition says, as a single number."""

from collections.abc import Sequence

import numpy as np

from pixeltraj.decode.cycle import BENT
from pixeltraj.decode.examination import Examination, examine
from pixeltraj.decode.yardstick import is_moving
from pixeltraj.simulator import Simulator
from pixeltraj.task import Task
from pixeltraj.trajectory import Trajectory


def one_step_errors(
    simulator: Simulator, trajectories: Sequence[Trajectory], near: Sequence[np.ndarray], scale: np.ndarray
) -> list[np.ndarray]:
    """For each trajectory (T,): |simulator(s_t, a_t) - s_{t+1}| in units of scale (S,), mean over dimensions.

    scale: what is much in each dimension, as its range or deviation in real data; dimensions where it is 0, and those
    that never change in the task, are left out. near: for each the snapshot (Q,) of its episode. Infinite where the
    simulator refuses or diverges, and where a joint is bent by more than BENT past its limit.
    """
    if not trajectories:
        return []
    examined = examine(simulator, list(trajectories), list(near), title=None, responses=False)
    errors = one_step_error(simulator.task, examined, scale)
    failing = ~np.isfinite(errors) | (examined.excess > BENT)
    return np.split(np.where(failing, np.inf, errors), np.cumsum([len(t) for t in trajectories])[:-1])


def one_step_error(task: Task, examined: Examination, scale: np.ndarray) -> np.ndarray:
    """(n,) the same of all transitions, bent or not; NaN where the simulator refuses or diverges."""
    moving = is_moving(task, scale)
    return (np.abs(examined.error[:, moving]) / scale[moving]).mean(axis=1)
