"""Sight: what draws simulator states as a store's frames were drawn."""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np

from pixeltraj.task import Task


class Sight(Protocol):
    """A renderer, for those who do not care which."""

    def frames(self, snapshots: Iterable[np.ndarray]) -> np.ndarray:
        """(T, 84, 84, 3) uint8, one per full simulator state (Q,)."""

    def close(self) -> None:
        """It is not needed any more."""


MakeSight = Callable[[Task, dict[str, Any]], Sight]
"""What makes a sight of a task whose frames can be mixed with a store's (`Store.renderer`), in the process that needs
it: a function at the top of a module. Raises PixeltrajError where that cannot be."""
