"""Task: everything the stages have to know about one environment."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pixeltraj.camera import Camera

if TYPE_CHECKING:
    from pixeltraj.simulator import Simulator


AXES = ("x", "y", "z")
Pair = tuple[tuple[int, ...], tuple[int, ...]]
"""Where the state tells two points, axis by axis."""
Outcome = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""states (n, S), actions (n, A) and next states (n, S) -> rewards (n,) float32 and terminations (n,) bool."""


@dataclass(frozen=True)
class Keypoint:
    """A point of the MuJoCo model that the decoder locates."""

    name: str
    kind: Literal["body", "site", "geom"]
    target: str | int
    """Name of that body, site or geom; its number where it has no name."""
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """In the frame of that body, site or geom, metres."""


@dataclass(frozen=True)
class Dimension:
    """One number of the state."""

    name: str
    unit: str


@dataclass(frozen=True)
class Movable:
    """Where a thing is along one axis, and that it can be elsewhere, and go another way."""

    names: tuple[str, ...]
    """Dimensions of the state that say so: now, and where there are more a decision before, two before, ..."""
    deviation: float
    """By how much it may be put elsewhere, in the dimensions' unit."""
    drift: float
    """By how much more it may move with every decision."""
    low: float = -math.inf
    high: float = math.inf
    """Where it stays between."""


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """An environment, how it is described, how it is seen and how its state is read back from what is seen.

    A suite of environments subclasses it once; a task is one instance in `pixeltraj.tasks`.
    """

    name: str
    prompt: str
    """What is to be done, in plain words; the text condition of the generator."""
    camera: Camera
    keypoints: tuple[Keypoint, ...]
    state: tuple[Dimension, ...]
    """What the agent observes, in order."""
    static: tuple[str, ...] = ()
    """Dimensions that never change within an episode: imagination takes them from the start state."""
    hidden: tuple[str, ...] = ()
    """Dimensions that keypoints do not tell (velocities): the decoder reads them from the window."""
    movable: tuple[Movable, ...] = ()
    """What can be put elsewhere. A decoder learns from it to read what no data shows."""
    pose: tuple[str, ...] = ()
    """Dimensions that are the last coordinates of the simulator's configuration (qpos), in its order: the decoder fits
    them to all keypoints at once. None where geometry alone is exact."""
    action_size: int
    action_repeat: int
    """Simulator steps per decision. Frames, states and actions are all taken at decisions."""
    horizon: int
    """Decisions after which an episode is truncated."""
    reward: Literal["sparse", "dense"]
    """sparse: 1 when the task is first solved, which ends the episode, else 0. dense: the environment's own."""

    @property
    def returns(self) -> tuple[float, float] | None:
        """Between what the returns of an episode lie; None where nothing bounds them."""
        return (0.0, 1.0) if self.reward == "sparse" else None

    @property
    def outcome(self) -> Outcome | None:
        """The task's own reward and end, as far as states and actions tell them; None where they do not."""
        return None

    @property
    def state_size(self) -> int:
        return len(self.state)

    def indices(self, names: tuple[str, ...]) -> list[int]:
        """Where the named dimensions stand in the state."""
        return [i for i, dimension in enumerate(self.state) if dimension.name in names]

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Any two of the points that the state tells, by their x, y and z in metres, as far as both have them."""
        points: dict[str, dict[str, int]] = {}
        for i, dimension in enumerate(self.state):
            name, _, axis = dimension.name.rpartition("_")
            if axis in AXES and dimension.unit == "m":
                points.setdefault(name, {})[axis] = i
        both = [(one, other, [a for a in one if a in other]) for one, other in combinations(points.values(), 2)]
        return tuple((tuple(one[a] for a in axes), tuple(other[a] for a in axes)) for one, other, axes in both if axes)

    @property
    def prompts(self) -> tuple[str, ...]:
        """All that it may ask for: more than its prompt where it is several tasks."""
        return (self.prompt,)

    def prompt_of(self, state: np.ndarray, snapshot: np.ndarray | None = None) -> str:
        """What is to be done in a state (S,), of which the simulator's own (Q,) may say more."""
        return self.prompt

    @abstractmethod
    def make(self) -> Simulator:
        """The environment, ready to be reset."""

    @abstractmethod
    def state_from_keypoints(self, keypoints: np.ndarray, start: np.ndarray) -> np.ndarray:
        """States of a window from its keypoints, by geometry alone.

        keypoints (B, K, N, 3) metres from the camera's anchor; start (B, S) the known state of frame 0.
        Returns (B, K, S); hidden dimensions are NaN. Row 0 is read from the keypoints like every other.
        """

    def fingerprint(self) -> dict[str, Any]:
        """What must agree between two files that are used together, JSON-able."""
        return {
            "task": self.name,
            "camera": asdict(self.camera),
            "keypoints": [k.name for k in self.keypoints],
            "state": [d.name for d in self.state],
            "action_size": self.action_size,
            "action_repeat": self.action_repeat,
        }
