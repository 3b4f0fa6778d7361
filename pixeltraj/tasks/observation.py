"""An environment's own observation, as a file gave it, before a simulator is set to it."""

import numpy as np

from pixeltraj.errors import PixeltrajError
from pixeltraj.task import Task


def checked_observation(observation: np.ndarray, sizes: tuple[int, ...], task: Task, layout: str) -> np.ndarray:
    """(O,) float64. Raises PixeltrajError, naming the layout, where O is no such size or a number is not finite."""
    values = np.asarray(observation, dtype=np.float64)
    if values.ndim != 1 or values.size not in sizes:
        wanted = " or ".join(str(size) for size in sizes)
        raise PixeltrajError(
            f"an observation of {task.name} has shape {values.shape}, wanted {wanted} numbers: {layout}"
        )
    if not np.isfinite(values).all():
        bad = int(np.argmin(np.isfinite(values)))
        raise PixeltrajError(
            f"number {bad} of an observation of {task.name} is {values[bad]}; drop the episode it comes from"
        )
    return values
