"""Store: trajectories and their frames on disk, as one zarr v3 group.

    STORE/  zarr.json          attributes: schema, task fingerprint, provenance, episodes, rendered, renderer
            states       (F, S) float32     F = all frames of all episodes, one after another
            keypoints    (F, N, 3) float32
            snapshots    (F, Q) float64     full simulator states (collected stores only)
            frames       (F, 84, 84, 3) uint8
            actions      (F, A) float32     row t leads from frame t to t + 1; the last row of an episode is 0
            rewards, terminations, truncations  (F,) likewise

The attributes are the commit: rows past what `episodes` and `rendered` count were left by an interrupted run
and are overwritten by the next one.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BytesCodec, ZstdCodec

from pixeltraj.camera import FRAME_SIZE
from pixeltraj.errors import PixeltrajError
from pixeltraj.task import Task
from pixeltraj.tasks import get_task
from pixeltraj.trajectory import Trajectory

SCHEMA = 1
CHUNK = 60
"""Frames in a chunk: small enough that a window costs little, large enough to compress well."""
HELDOUT_EVERY = 5
"""Every fifth episode is held out: nothing trains on it."""


class Store:
    """Open one with `Store.open`, make one with `Store.create`."""

    def __init__(self, path: Path, group: zarr.Group) -> None:
        self.path = path
        self._group = group
        self.task: Task = get_task(group.attrs["fingerprint"]["task"])
        self._refresh()

    @classmethod
    def create(cls, path: Path, task: Task, provenance: dict[str, Any], snapshot_layout: dict[str, int]) -> "Store":
        """A new, empty store. Raises PixeltrajError where something stands at `path` already."""
        if path.exists():
            raise PixeltrajError(f"{path} exists already; give another --out or remove it")
        beside = path.with_name(f".{path.name}.{os.getpid()}.partial")  # a store is there whole or not at all
        group = zarr.open_group(beside, mode="w", zarr_format=3)
        columns: dict[str, tuple[tuple[int, ...], str]] = {
            "states": ((task.state_size,), "float32"),
            "keypoints": ((len(task.keypoints), 3), "float32"),
            "actions": ((task.action_size,), "float32"),
            "rewards": ((), "float32"),
            "terminations": ((), "bool"),
            "truncations": ((), "bool"),
            "frames": ((FRAME_SIZE, FRAME_SIZE, 3), "uint8"),
        }
        if snapshot_layout:
            columns["snapshots"] = ((sum(snapshot_layout.values()),), "float64")
        for name, (shape, dtype) in columns.items():
            group.create_array(
                name,
                shape=(0, *shape),
                chunks=(CHUNK, *shape),
                dtype=dtype,
                serializer=BytesCodec(),
                compressors=ZstdCodec(level=3, checksum=True),
            )
        group.attrs.put(
            {
                "schema": SCHEMA,
                "fingerprint": task.fingerprint(),
                "snapshot_layout": snapshot_layout,
                "provenance": provenance,
                "episodes": [],
                "rendered": 0,
                "renderer": None,
            }
        )
        beside.rename(path)
        return cls(path, zarr.open_group(path, mode="r+"))

    @classmethod
    def open(cls, path: Path, task: Task | None = None) -> "Store":
        """An existing store. Raises PixeltrajError where it is none, is newer than this code, or does not
        fit the task as it is defined now."""
        if not (path / "zarr.json").is_file():
            raise PixeltrajError(f"{path} is not a store; make one with `pixeltraj collect TASK --out {path}`")
        try:
            group = zarr.open_group(path, mode="r+")
        except (ValueError, KeyError, TypeError) as error:  # zarr.json is not the JSON of a group
            raise PixeltrajError(f"{path}/zarr.json is damaged ({error}); make the store again") from error
        schema = group.attrs.get("schema")
        if schema != SCHEMA:
            raise PixeltrajError(f"{path} has schema {schema}, this pixeltraj reads {SCHEMA}; collect it again")
        store = cls(path, group)
        if task is not None and task.name != store.task.name:
            raise PixeltrajError(f"{path} holds {store.task.name}, not {task.name}")
        then, now = group.attrs["fingerprint"], _plain(store.task.fingerprint())
        if then != now:
            changed = [key for key in now if then.get(key) != now[key]]
            raise PixeltrajError(
                f"{path} was made with another {' and '.join(changed)} of {store.task.name}; collect it again"
            )
        return store

    def _refresh(self) -> None:
        self.episodes: list[dict[str, Any]] = list(self._group.attrs["episodes"])
        lengths = [episode["frames"] for episode in self.episodes]
        self.offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

    def __len__(self) -> int:
        """Episodes."""
        return len(self.episodes)

    @property
    def frame_count(self) -> int:
        return int(self.offsets[-1])

    @property
    def attributes(self) -> dict[str, Any]:
        return dict(self._group.attrs)

    def append(self, trajectories: list[Trajectory]) -> None:
        """Add episodes; they count once all of their rows are on disk. Raises PixeltrajError on a bad one."""
        for trajectory in trajectories:
            trajectory.check(self.task)
        if not trajectories:
            return
        columns: dict[str, list[np.ndarray]] = {}
        for t in trajectories:
            for name in ("states", "keypoints", "snapshots", "frames"):
                if (value := getattr(t, name)) is not None:
                    columns.setdefault(name, []).append(value)
            for name in ("actions", "rewards", "terminations", "truncations"):
                value = getattr(t, name)
                columns.setdefault(name, []).append(np.concatenate([value, np.zeros_like(value[:1])]))
        start = self.frame_count
        for name, parts in columns.items():
            self._write(name, start, np.concatenate(parts))
        attributes: dict[str, Any] = {
            "episodes": self.episodes
            + [{"frames": len(t.states), "transitions": len(t), **t.origin} for t in trajectories]
        }
        if "frames" in columns:
            attributes["rendered"] = start + sum(map(len, columns["frames"]))
        self._group.attrs.update(attributes)
        self._refresh()

    def _write(self, name: str, start: int, rows: np.ndarray) -> None:
        array = self._group[name]
        assert isinstance(array, zarr.Array)
        array.resize((start + len(rows), *array.shape[1:]))
        array[start:] = rows

    def trajectory(self, episode: int) -> Trajectory:
        """One episode, with frames where they are drawn."""
        a, b = int(self.offsets[episode]), int(self.offsets[episode + 1])
        names = ("states", "keypoints") + (("snapshots",) if "snapshots" in self._group else ())
        rows = {name: self.read(name, a, b) for name in names}
        steps = {n: self.read(n, a, b - 1) for n in ("actions", "rewards", "terminations", "truncations")}
        frames = self.read("frames", a, b) if self.rendered >= b else None
        return Trajectory(**rows, **steps, frames=frames, origin=dict(self.episodes[episode]))

    def __iter__(self) -> Iterator[Trajectory]:
        return (self.trajectory(i) for i in range(len(self)))

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows start:stop of a column. Raises PixeltrajError where the bytes on disk are damaged."""
        try:
            return np.asarray(self._group[name][start:stop])
        except (RuntimeError, ValueError) as error:
            raise PixeltrajError(
                f"{self.path}/{name} is damaged near row {start} ({error}); make the store again"
            ) from error

    def split(self) -> tuple[list[int], list[int]]:
        """Episodes to train on and episodes held out. Raises PixeltrajError where either would be empty."""
        heldout = list(range(HELDOUT_EVERY - 1, len(self), HELDOUT_EVERY))
        if not heldout:
            raise PixeltrajError(
                f"{self.path} has {len(self)} episodes; at least {HELDOUT_EVERY} are needed, one of them held out: "
                f"collect more with --episodes"
            )
        return [i for i in range(len(self)) if i not in heldout], heldout

    # Rendering

    @property
    def rendered(self) -> int:
        """Frames drawn so far, from the first on."""
        return min(int(self._group.attrs["rendered"]), self.frame_count)

    @property
    def renderer(self) -> dict[str, Any] | None:
        """Settings the frames were drawn with."""
        return self._group.attrs["renderer"]

    def begin_rendering(self, settings: dict[str, Any]) -> None:
        """State how frames are going to be drawn. Raises PixeltrajError where drawn ones differ in it."""
        if self.rendered and self.renderer != settings:
            raise PixeltrajError(
                f"{self.path} was rendered with {self.renderer}; this would be {settings}: start a new store"
            )
        self._group.attrs.update({"renderer": settings})

    def append_frames(self, frames: np.ndarray) -> None:
        """frames (n, 84, 84, 3) uint8: the next ones in order."""
        start = self.rendered
        self._write("frames", start, frames)
        self._group.attrs.update({"rendered": start + len(frames)})

    def require_episodes(self) -> None:
        """Raise PixeltrajError where there are none."""
        if not len(self):
            raise PixeltrajError(
                f"{self.path} is empty; fill it with `pixeltraj collect {self.task.name} --out {self.path}`"
            )

    def require_frames(self) -> None:
        """Raise PixeltrajError unless there are episodes and all of their frames are drawn."""
        self.require_episodes()
        if self.rendered < self.frame_count:
            raise PixeltrajError(
                f"{self.path} shows {self.rendered} of {self.frame_count} states: `pixeltraj render {self.path}`"
            )


def _plain(value: Any) -> Any:
    """As JSON gives it back: tuples become lists."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
