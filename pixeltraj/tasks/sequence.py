"""Sequence: Meta-World subtasks in a row. Each success sets up the next one's initial state and pays 1."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pixeltraj.errors import PixeltrajError
from pixeltraj.task import Dimension
from pixeltraj.tasks.metaworld import MetaWorldTask
from pixeltraj.tasks.multitask import BY_NAME, MultitaskSimulator, MultitaskTask

SUBTASKS = (
    *("sweep-v3", "sweep-into-v3", "coffee-push-v3", "box-close-v3"),
    *("push-wall-v3", "peg-insert-side-v3", "basketball-v3", "soccer-v3"),
)
"""The paper's eight, in its order (Table 3). Their stores are collected one by one, as for any other task."""


@dataclass(frozen=True, kw_only=True)
class SequenceTask(MultitaskTask):
    """State (17 + subtasks,): Meta-World's, then which subtask is to be done, one-hot.

    The one-hot cannot be seen, and changes only where a subtask ends: imagination, which never crosses that
    border, takes it from its start state, as it does the goal. What it needs of the subtask at hand, the prompt
    above all, is `subtask(state)`.
    """

    @property
    def returns(self) -> tuple[float, float] | None:
        return 0.0, float(len(self.subtasks))

    def make(self) -> "SequenceSimulator":
        return SequenceSimulator(self)

    def subtask(self, state: np.ndarray) -> MetaWorldTask:
        """The task that a state (S,) is in. Raises PixeltrajError where it has another shape."""
        if state.shape != (self.state_size,):
            raise PixeltrajError(f"{self.name} has states of {self.state_size}, not {state.shape}")
        return self.subtasks[int(np.argmax(state[-len(self.subtasks) :]))]

    @property
    def prompts(self) -> tuple[str, ...]:
        return tuple(task.prompt for task in self.subtasks)

    def prompt_of(self, state: np.ndarray, snapshot: np.ndarray | None = None) -> str:
        return self.subtask(state).prompt

    def state_from_keypoints(self, keypoints: np.ndarray, start: np.ndarray) -> np.ndarray:
        seen = super().state_from_keypoints(keypoints, start)
        told = np.repeat(start[:, None, -len(self.subtasks) :], seen.shape[1], axis=1)
        return np.concatenate([seen, told], axis=-1)


class SequenceSimulator(MultitaskSimulator):
    """Subtasks in a row; the episode ends with the last one's success. One seed fixes all of their starts.

    `reset` starts with the first, or with `options["task"]`; every info names the task at hand and counts the
    `completed`.
    """

    task: SequenceTask

    def _begin(self, index: int) -> None:
        self._choose(index)
        self.current.reset(seed=int(np.random.default_rng([self.episode_seed, index]).integers(2**31)))

    def _reset(self, seed: int) -> None:
        self._begin(0 if self._wanted is None else self.task.subtask_index(self._wanted))

    def _about(self) -> dict[str, Any]:
        return super()._about() | {"completed": self.index}

    def _decide(self, action: np.ndarray) -> tuple[float, bool, dict[str, Any]]:
        reward, solved, _ = self.current._decide(action)
        last = self.index == len(self.task.subtasks) - 1
        completed = self.index + solved
        if solved and not last:
            self._begin(self.index + 1)
        return reward, solved and last, {**self._about(), "success": solved and last, "completed": completed}

    def state(self) -> np.ndarray:
        return np.concatenate([super().state(), super()._about()["one_hot"]])

    @property
    def snapshot_layout(self) -> dict[str, int]:  # type: ignore[override]
        return super().snapshot_layout | {"seed": 1}

    def snapshot(self) -> np.ndarray:
        whole = super().snapshot()
        whole[-1] = self.episode_seed
        return whole

    def restore(self, snapshot: np.ndarray) -> None:
        self.episode_seed = int(snapshot[-1])
        super().restore(snapshot)

    def set_state(self, state: np.ndarray, near: np.ndarray) -> None:
        """As the state's subtask does it. Raises PixeltrajError where `near` is of another one."""
        if self.task.subtask(state) is not self.task.subtasks[int(near[0])]:
            raise PixeltrajError(f"the state is of {self.task.subtask(state).name}, the snapshot near it is not")
        super().set_state(state, near)


_PARTS = tuple(BY_NAME[name] for name in SUBTASKS)
_CURRENT = tuple(Dimension(f"is_{name}", "one-hot") for name in SUBTASKS)

TASKS = (
    SequenceTask(
        name="sequence-v0",
        prompt="solve eight tasks in a row with the arm",
        keypoints=_PARTS[0].keypoints,
        state=(*_PARTS[0].state, *_CURRENT),
        static=(*_PARTS[0].static, *(dimension.name for dimension in _CURRENT)),
        horizon=sum(task.horizon for task in _PARTS),
        subtasks=_PARTS,
    ),
)
