"""ImaginedPart: Algorithm 1 for a replay buffer of another library, which keeps the agent's own transitions itself."""

import inspect
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from pixeltraj.background import BackgroundImagination, MakeImagine
from pixeltraj.errors import PixeltrajError
from pixeltraj.replay_buffer import Batch, Imagine, ReplayBuffer, ReplayBufferConfig
from pixeltraj.task import Task
from pixeltraj.tasks import get_task
from pixeltraj.trajectory import Trajectory


class ImaginedPart(ReplayBuffer):
    """D_s, and what is due to it. Of D_o it keeps the last transition only: `store` every one, and draw from D_o as
    many as `draw` leaves.

    imagination: an Imagine, or what makes one of a task (`MakeImagine`), which is called when it is first needed.
    Pickled, it keeps what makes an imagination, and a `BackgroundImagination`; any other has to be set again, as
    `imagination`.
    """

    def __init__(
        self,
        config: ReplayBufferConfig,
        state_size: int,
        action_size: int,
        rng: np.random.Generator,
        imagination: Imagine | MakeImagine | None,
        task: Task | str | None = None,
        snapshots: bool = True,
    ) -> None:
        """task: wanted where `imagination` has to be made, else it is only held against the sizes. snapshots: whether
        imagination has to draw the states that it sets out from.

        Raises PixeltrajError where the configuration or the sizes do not fit.
        """
        super().__init__(config, state_size, action_size, rng, self._ask if imagination is not None else None)
        self.own = type(self.own)(1, state_size, action_size)
        self.imagination, self.needs_snapshots = imagination, snapshots
        self.task = get_task(task) if isinstance(task, str) else task
        if self.task is None and isinstance(imagination, BackgroundImagination):
            self.task = imagination.task
        if self.task is None and _makes(imagination):
            raise PixeltrajError(f"{imagination} makes an imagination of a task; name it: task='push-v3'")
        sizes = (state_size, action_size)
        if self.task and sizes != (self.task.state_size, self.task.action_size):
            raise PixeltrajError(
                f"the environment has observations of {state_size} and actions of {action_size}, {self.task.name} has "
                f"{self.task.state_size} and {self.task.action_size}: use gymnasium.make('pixeltraj/{self.task.name}')"
            )
        self._made: Imagine | None = None
        self._warned = False
        self._elapsed, self._since = 0.0, time.perf_counter()

    def store(
        self,
        state: np.ndarray,
        action: np.ndarray,
        reward: float,
        next_state: np.ndarray,
        terminated: bool,
        snapshot: np.ndarray | None = None,
    ) -> None:
        """Have imagined what is due to this transition; see `ReplayBuffer.store`."""
        if self.imagine is not None and self.needs_snapshots and snapshot is None and not terminated:
            raise PixeltrajError(
                "the environment's infos have no `snapshot`, from which imagination draws its first frame: make it by "
                "gymnasium.make('pixeltraj/TASK'), or wrap a task's simulator in pixeltraj.environments.Snapshots"
            )
        super().store(state, action, reward, next_state, terminated, snapshot)

    def draw(self, size: int) -> Batch | None:
        """The imagined ones of `size` transitions, each of which is imagined with probability rho: the rest is to be
        drawn from D_o. None where it is all of them."""
        if not len(self.imagined):
            return None
        batch = self.sample(size)
        return batch.at(batch.imagined) if batch.imagined.any() else None

    def forget(self) -> None:
        """Let go of all transitions, and of the states that wait to be imagined from."""
        sizes = [column.shape[1] for column in (self.own.columns["states"], self.own.columns["actions"])]
        self.own, self.imagined = (type(part)(part.capacity, *sizes) for part in (self.own, self.imagined))
        self._queue, self._due = [], 0.0
        self._born.clear()

    def statistics(self) -> dict[str, float]:
        """Trajectories requested, queued here for the next batch, and received, and their mean `length`, which
        `expected_length` should be near; transitions held; seconds for which the agent waited for them, and `share`:
        what part of the wall-clock time since the buffer was made that is.
        Of background imagination all that it counts as well: see `BackgroundImagination.statistics`."""
        elapsed = self._elapsed + time.perf_counter() - self._since
        counted = self.imagination.statistics() if isinstance(self.imagination, BackgroundImagination) else {}
        return counted | {
            "requested": self.requested,
            "queued": len(self._queue),
            "received": self.received,
            "length": self.length or 0.0,
            "transitions": len(self.imagined),
            "seconds": self.seconds,
            "share": self.seconds / elapsed,
        }

    def _ask(self, states: np.ndarray, snapshots: np.ndarray, seed: int) -> list[Trajectory]:
        if self._made is None and self.imagination is not None:
            # Only called with a task where it makes something: see __init__.
            makes = _makes(self.imagination)
            self._made = self.imagination(self.task) if makes else self.imagination  # type: ignore
        trajectories = self._made(states, snapshots, seed) if self._made is not None else []
        for trajectory in trajectories:
            sizes = trajectory.states.shape[1:] + trajectory.actions.shape[1:]
            wanted = tuple(self.own.columns[name].shape[1] for name in ("states", "actions"))
            if sizes != wanted:
                raise PixeltrajError(
                    f"imagination gives states and actions of {sizes}, the environment's are {wanted}: imagine with a "
                    f"decoder of this environment's task"
                )
        # A background process brings nothing at first, and says by itself what is wrong with it.
        if not trajectories and not self._warned and not isinstance(self._made, BackgroundImagination):
            self._warned = True
            why = f"nothing came from {len(states)} states" if self._made else "a loaded buffer has none: set it again"
            warnings.warn(f"no imagination ({why}); the agent goes on with its own transitions", stacklevel=2)
        return trajectories

    # Saving

    def state_dict(self) -> dict[str, np.ndarray]:
        elapsed = self._elapsed + time.perf_counter() - self._since
        return super().state_dict() | {"elapsed": np.array(elapsed)}

    def load_state_dict(self, saved: dict[str, np.ndarray]) -> None:
        super().load_state_dict(saved)
        self._elapsed, self._since = float(saved["elapsed"]), time.perf_counter()

    def __getstate__(self) -> dict[str, Any]:
        again = _makes(self.imagination) or isinstance(self.imagination, BackgroundImagination)
        elapsed = self._elapsed + time.perf_counter() - self._since
        changes = {"_made": None, "_elapsed": elapsed, "imagination": self.imagination if again else None}
        return self.__dict__ | changes

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state | {"_since": time.perf_counter(), "_warned": False})


def _makes(imagination: Callable[..., Any] | None) -> bool:
    """Whether it is called with a task, not with states, snapshots and a seed."""
    return imagination is not None and len(inspect.signature(imagination).parameters) == 1
