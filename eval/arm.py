"""Arm: one way to learn a task, which an experiment holds against others."""

from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from pixeltraj.background import MakeImagine
from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.agents.agent import Agent, Played
from pixeltraj.eval.agents.catalogue import AGENTS, sees
from pixeltraj.eval.agents.learner import Learner
from pixeltraj.eval.augmentation import Augmentation
from pixeltraj.replay_buffer import ReplayBufferConfig
from pixeltraj.settings import folder_hash
from pixeltraj.store import Store
from pixeltraj.task import Task


@runtime_checkable
class Adaptive(Protocol):
    """An imagination that learns on while it serves, from all that the agent lives through: its run tells it."""

    seconds: float
    """Wall-clock time for which the agent waited."""

    def open(self, folder: Path, seed: int) -> None:
        """Told before all else: where it may write, and what its randomness follows from."""

    def begin(self, state: np.ndarray, snapshot: np.ndarray) -> None:
        """An episode begins in the state (S,), with the full simulator state (Q,)."""

    def observe(self, played: Played, agent: Agent) -> None:
        """The next decision. Here it may learn."""

    def state_dict(self) -> dict[str, np.ndarray]:
        """All that it goes on from, between two episodes; beside it what lies in its folder."""

    def load_state_dict(self, saved: dict[str, np.ndarray]) -> None:
        """Inverse of `state_dict`, once it is open."""

    def close(self) -> None:
        """The run is over."""


@dataclass(frozen=True)
class Arm:
    name: str
    """How it is called in results."""
    agent: str = "rlpd"
    """One of `pixeltraj.eval.agents.catalogue.AGENTS`."""
    config: Any = None
    """Of the agent's own kind; its defaults if not given."""
    stores: tuple[Path, ...] = ()
    """Real data that is there from the start: of each store the training episodes."""
    synthetic: tuple[Path, ...] = ()
    """Stores of imagined data that is there from the start, all of their episodes; the buffer's imagined part."""
    imagine: MakeImagine | None = None
    """Imagination while the agent learns."""
    buffer: ReplayBufferConfig = field(default_factory=ReplayBufferConfig)
    """Its rho holds where anything is imagined; else it is 0."""
    symmetric: bool = True
    """Half of every batch is real data of before, half replay (RLPD); else real data lies in the replay buffer."""
    augment: Augmentation | None = None
    """How the states of every batch are changed (S4RL); not at all if not given."""
    online: bool = True
    """Whether it acts in the environment; if not, a step is one of learning from data alone."""

    def check(self) -> None:
        """Raise PixeltrajError where it cannot be run."""
        if self.agent not in AGENTS:
            raise PixeltrajError(f"arm {self.name}: there is no agent {self.agent!r}; choose of {', '.join(AGENTS)}")
        if self.config is not None and type(self.config) is not AGENTS[self.agent][1]:
            raise PixeltrajError(f"arm {self.name}: {self.agent} takes a {AGENTS[self.agent][1].__name__}")
        if getattr(self.imagine, "needs_critic", False) and AGENTS[self.agent][0].td_error is Learner.td_error:
            raise PixeltrajError(
                f"arm {self.name}: {self.agent} has no critic, so there are no TD errors to adapt by; take the "
                f"indicator 'reward', or another agent"
            )
        if self.buffer.alpha and AGENTS[self.agent][0].td_error is Learner.td_error:
            raise PixeltrajError(
                f"arm {self.name}: {self.agent} has no critic, so there are no TD errors to draw transitions by; give "
                f"a buffer with alpha=0, or another agent"
            )
        if sees(self.agent) and self.online:
            raise PixeltrajError(f"arm {self.name}: {self.agent} learns from frames of stores alone; give online=False")
        if sees(self.agent) and self.augment is not None:
            raise PixeltrajError(f"arm {self.name}: {self.agent} learns from no states that could be augmented")
        if self.settings.batch < 2:
            raise PixeltrajError(
                f"batch is {self.settings.batch}; half of it is offline data, so it must be at least 2"
            )
        self.buffer.check()
        if self.augment is not None:
            self.augment.check()
            if not self.stores:
                raise PixeltrajError(f"arm {self.name} augments states by how offline ones vary: give it stores")
        if self.imagines and self.buffer.rho == 0:
            raise PixeltrajError(f"rho is 0 in the arm {self.name}, which imagines; give it a rho above 0")
        if not self.online and not self.stores:
            raise PixeltrajError(f"arm {self.name} learns offline and has no data: give it stores")
        if not self.online and self.imagine is not None:
            raise PixeltrajError(f"arm {self.name} learns offline: give it imagined stores, not an imagination")

    @property
    def settings(self) -> Any:
        """The agent's config."""
        return self.config if self.config is not None else AGENTS[self.agent][1]()

    @property
    def imagines(self) -> bool:
        return self.imagine is not None or bool(self.synthetic)

    def open(self, task: Task) -> tuple[list[Store], list[Store]]:
        """Real and imagined stores. Raises PixeltrajError where one of them is not of the task, or has no frames for an
        agent that learns from them."""
        real, synthetic = ([Store.open(path, task) for path in paths] for paths in (self.stores, self.synthetic))
        if sees(self.agent):
            self._require_frames(real, synthetic)
        return real, synthetic

    def _require_frames(self, real: list[Store], synthetic: list[Store]) -> None:
        for store in real:
            store.require_frames()
            if store.renderer != real[0].renderer:
                raise PixeltrajError(
                    f"arm {self.name}: {store.path} was rendered with {store.renderer}, {real[0].path} with "
                    f"{real[0].renderer}; render them alike"
                )
        for store in synthetic:
            if store.rendered < store.frame_count:
                raise PixeltrajError(
                    f"arm {self.name}: {store.path} shows {store.rendered} of {store.frame_count} states, and "
                    f"{self.agent} learns from frames; give a store that `pixeltraj imagine {store.task.name}` filled"
                )
            starts = (store.renderer or {}).get("starts")
            if starts not in (None, real[0].renderer):
                raise PixeltrajError(
                    f"arm {self.name}: {store.path} goes on from frames drawn with {starts}, {real[0].path} was "
                    f"rendered with {real[0].renderer}; imagine from frames that are rendered alike"
                )


def described(value: Any) -> Any:
    """What a rerun has to agree with, JSON-able: dataclasses by their fields, folders of ours by what is in them."""
    if isinstance(value, Path):
        known = folder_hash(value)
        return {"path": str(value), "hash": known} if known else str(value)
    if is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        named = {} if kind.__module__.startswith("pixeltraj.") else {"kind": f"{kind.__module__}.{kind.__qualname__}"}
        return named | {part.name: described(getattr(value, part.name)) for part in fields(value)}
    if isinstance(value, tuple | list):
        return [described(item) for item in value]
    if callable(value):
        return f"{value.__module__}.{value.__qualname__}"
    return value
