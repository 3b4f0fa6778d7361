"""Starts: the states that `pixeltraj imagine` sets out from."""

from typing import Any, Protocol

import numpy as np

from pixeltraj.errors import PixeltrajError
from pixeltraj.imaginer import Start
from pixeltraj.render.backends import open_renderer
from pixeltraj.store import Store
from pixeltraj.task import Task

RESETS_FROM = 5_000_000
"""Seed of the first reset: far from those of collected episodes."""
Origin = dict[str, object]
"""Where a start is from, JSON-able."""


class Starts(Protocol):
    """An endless row of them, always the same for one seed."""

    renderer: dict[str, Any] | None
    """How their frames are drawn."""
    provenance: dict[str, Any]

    def __call__(self, first: int, count: int) -> tuple[list[Start], list[Origin]]:
        """So many of them, from the first on."""

    def snapshots(self, origins: list[Origin]) -> np.ndarray:
        """(B, Q) float64: the simulator's states at starts of these origins."""


class StoreStarts:
    """States of held-out episodes, each at most once while there are enough."""

    def __init__(self, store: Store, seed: int) -> None:
        """Raises PixeltrajError where the store has no frames or nothing is held out."""
        store.require_frames()
        self.store, self.renderer, self.provenance = store, store.renderer, store.attributes["provenance"]
        pairs = [(e, s) for e in store.split()[1] for s in range(store.episodes[e]["transitions"])]
        self._pairs, self._rng = pairs, np.random.default_rng(seed)
        self._order = np.empty(0, dtype=np.int64)

    def __call__(self, first: int, count: int) -> tuple[list[Start], list[Origin]]:
        starts: list[Start] = []
        origins: list[Origin] = []
        for episode, step in self.pairs(first + count)[first:]:
            row = int(self.store.offsets[episode]) + step
            state, frame = (self.store.read(name, row, row + 1)[0] for name in ("states", "frames"))
            starts.append(Start(state, frame, self.store.prompts(np.array([row]))[0]))
            origins.append({"episode": episode, "step": step})
        return starts, origins

    def snapshots(self, origins: list[Origin]) -> np.ndarray:
        """Raises PixeltrajError where the store holds no simulator states."""
        if not self.store.attributes["snapshot_layout"]:
            raise PixeltrajError(
                f"{self.store.path} holds no simulator states, near which imagined ones could be set: give --from a "
                f"collected store, or leave out --keep.cycle and --keep.audit"
            )
        rows = [int(self.store.offsets[int(str(o["episode"]))]) + int(str(o["step"])) for o in origins]
        return self.store.windows("snapshots", np.array(rows, dtype=np.int64)[:, None])[:, 0]

    def pairs(self, n: int) -> list[tuple[int, int]]:
        """The first n (episode, step) of them."""
        while len(self._order) < n:
            self._order = np.concatenate([self._order, self._rng.permutation(len(self._pairs))])
        return [self._pairs[i] for i in self._order[:n]]


class ResetStarts:
    """States that the environment begins episodes with, drawn as the decoder's training frames were."""

    def __init__(self, task: Task, seed: int, renderer: dict[str, Any] | None) -> None:
        """renderer: settings of those frames; None where they are not known. Raises PixeltrajError where frames cannot
        be drawn like that here."""
        self.simulator, self._first_seed = task.make(), RESETS_FROM + 1_000 * seed
        self._renderer = open_renderer(self.simulator, renderer["backend"] if renderer else "auto")
        self.renderer: dict[str, Any] | None = self._renderer.settings
        self.provenance: dict[str, Any] = {"reset": task.name, "seed": seed}
        if renderer and self.renderer != renderer:
            raise PixeltrajError(
                f"frames of {task.name} are drawn with {self.renderer} here, the decoder was trained on {renderer}; "
                f"render the store here and train the decoder again"
            )

    def __call__(self, first: int, count: int) -> tuple[list[Start], list[Origin]]:
        starts: list[Start] = []
        origins: list[Origin] = []
        for seed in range(self._first_seed + first, self._first_seed + first + count):
            state, _ = self.simulator.reset(seed=seed)
            snapshot = self.simulator.snapshot()
            frame = self._renderer.frames(snapshot[None])[0]
            starts.append(Start(state, frame, self.simulator.task.prompt_of(state, snapshot)))
            origins.append({"reset_seed": seed})
        return starts, origins

    def snapshots(self, origins: list[Origin]) -> np.ndarray:
        found = []
        for origin in origins:
            self.simulator.reset(seed=int(str(origin["reset_seed"])))
            found.append(self.simulator.snapshot())
        return np.stack(found)
