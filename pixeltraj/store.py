"""Store: trajectories and their frames on disk, as one zarr v3 group.

    STORE/  zarr.json          attributes: schema, task fingerprint, provenance, episodes (how many), renderer
            lengths      (E,) int64         frames of each episode; origins.jsonl beside it: how each came about
            states       (F, S) float32     F = all frames of all episodes, one after another
            keypoints    (F, N, 3) float32
            snapshots    (F, Q) float64     full simulator states (collected stores only)
            frames       (F, 84, 84, 3) uint8; `drawn` beside it: one byte a chunk, see drawn.py
            actions      (F, A) float32     row t leads from frame t to t + 1; the last row of an episode is 0
            rewards, terminations, truncations  (F,) likewise

zarr.json is the commit: rows past its count of episodes were left by an interrupted run and are overwritten by
the next one. Every file is flushed to the disk before the commit that counts it: neither a kill nor a power cut
loses a committed episode, and a full disk costs only what was being added. A kill costs a drawing process the chunk
it is at; after a power cut, a drawn chunk whose file did not reach the disk is noticed and drawn again. Everything
has a checksum. One process appends at a time; any number of them may draw.
"""

import json
import os
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pixeltraj.camera import FRAME_SIZE
from pixeltraj.claims import Claims
from pixeltraj.column import CHUNK, Cache, Column
from pixeltraj.drawn import Drawn
from pixeltraj.errors import PixeltrajError
from pixeltraj.manifest import SCHEMA, locked, read_manifest, write_manifest
from pixeltraj.task import Task
from pixeltraj.tasks import get_task
from pixeltraj.trajectory import Trajectory

__all__ = ["CHUNK", "HELDOUT_EVERY", "SCHEMA", "Store"]

HELDOUT_EVERY = 5
"""Every fifth episode is held out: nothing trains on it."""
_STEPS = ("actions", "rewards", "terminations", "truncations")


class Store:
    """Open one with `Store.open`, make one with `Store.create`."""

    def __init__(self, path: Path, task: Task, attributes: dict[str, Any]) -> None:
        self.path, self.task, self._attributes = path, task, attributes
        self._columns = _columns(path, task, attributes["snapshot_layout"])
        self._origins = path / "lengths" / "origins.jsonl"
        self.drawn = Drawn(path / "frames" / "drawn")
        self._settings: dict[str, Any] | None = None
        self.episodes: list[dict[str, Any]] = []
        """For each: frames, transitions, and the trajectory's `origin`."""
        self.offsets = np.zeros(1, dtype=np.int64)
        """(E + 1,) the row where each episode starts, and where the last one ends."""

    @classmethod
    def create(cls, path: Path, task: Task, provenance: dict[str, Any], snapshot_layout: dict[str, int]) -> "Store":
        """A new, empty store. Raises PixeltrajError where something stands at `path` already."""
        if path.exists():
            raise PixeltrajError(f"{path} exists already; give another --out or remove it")
        beside = path.with_name(f".{path.name}.{os.getpid()}.partial")  # a store is there whole or not at all
        try:
            beside.mkdir(parents=True)
            for column in _columns(beside, task, snapshot_layout).values():
                column.create()
            attributes = {
                "schema": SCHEMA,
                "fingerprint": task.fingerprint(),
                "snapshot_layout": snapshot_layout,
                "provenance": provenance,
                "episodes": 0,
                "origins": {"bytes": 0, "crc32": 0},
                "renderer": None,
            }
            write_manifest(beside, attributes)
            beside.rename(path)
        except OSError:
            shutil.rmtree(beside, ignore_errors=True)
            raise
        return cls(path, task, read_manifest(path))

    @classmethod
    def open(cls, path: Path, task: Task | None = None) -> "Store":
        """An existing store. Raises PixeltrajError where it is none, is newer than this code, is damaged, or
        does not fit the task as it is defined now."""
        attributes = read_manifest(path)
        name = attributes["fingerprint"]["task"]
        if task is not None and task.name != name:
            raise PixeltrajError(f"{path} holds {name}, not {task.name}")
        task = get_task(name)
        then, now = attributes["fingerprint"], json.loads(json.dumps(task.fingerprint()))
        if then != now:
            changed = [key for key in now if then.get(key) != now[key]]
            raise PixeltrajError(f"{path} was made with another {' and '.join(changed)} of {name}; collect it again")
        store = cls(path, task, attributes)
        store._read_episodes()
        for column in store._columns.values():
            column.check(len(store) if column.folder.name == "lengths" else store.frame_count)
        return store

    def _read_episodes(self) -> None:
        count, origins = self._attributes["episodes"], self._attributes["origins"]
        lengths = self._columns["lengths"].read(0, count)
        text = self._origins.read_bytes()[: origins["bytes"]] if count else b""
        if zlib.crc32(text) != origins["crc32"] or text.count(b"\n") != count:
            raise PixeltrajError(f"{self._origins} is damaged; make the store again")
        rows = json.loads(b"[" + text.rstrip().replace(b"\n", b",") + b"]")
        self.episodes = [_episode(int(frames), origin) for frames, origin in zip(lengths, rows)]
        self.offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

    def __len__(self) -> int:
        """Episodes."""
        return len(self.episodes)

    @property
    def frame_count(self) -> int:
        return int(self.offsets[-1])

    @property
    def attributes(self) -> dict[str, Any]:
        return dict(self._attributes)

    def append(self, trajectories: list[Trajectory]) -> None:
        """Add episodes; they count once all of their rows are on disk. Raises PixeltrajError on a bad one."""
        if not trajectories:
            return
        self._check(trajectories)
        with self._locked():
            if self._attributes["episodes"] != len(self):
                raise PixeltrajError(f"another process is adding episodes to {self.path}; let one of them do it")
            start, count = self.frame_count, len(self)
            lengths = np.array([len(t.states) for t in trajectories])
            stop = start + int(lengths.sum())
            self.drawn.forget(start)
            for name, column in self._columns.items():
                first, rows = (count, lengths) if name == "lengths" else (start, _rows(name, trajectories))
                if rows is not None:
                    column.write(first, rows)
                column.resize(count + len(lengths) if name == "lengths" else stop)
            if trajectories[0].frames is not None:
                self.drawn.mark_all(start, stop)
            told = [{k: v for k, v in t.origin.items() if k not in ("frames", "transitions")} for t in trajectories]
            self._commit({"episodes": count + len(lengths), "origins": self._append_origins(told)})
        self.episodes += [_episode(int(n), origin) for n, origin in zip(lengths, json.loads(json.dumps(told)))]
        self.offsets = np.concatenate([self.offsets, start + np.cumsum(lengths)])

    def _check(self, trajectories: list[Trajectory]) -> None:
        size = sum(self._attributes["snapshot_layout"].values())
        frames = (FRAME_SIZE, FRAME_SIZE, 3) if trajectories[0].frames is not None else None
        if frames and self.rendered < self.frame_count:
            raise PixeltrajError(f"{self.path} has states without frames; `pixeltraj render {self.path}` first")
        for trajectory in trajectories:
            trajectory.check(self.task)
            for name, row in (("snapshots", (size,) if size else None), ("frames", frames)):
                value = getattr(trajectory, name)
                shape, wanted = None if value is None else value.shape, row and (len(trajectory.states), *row)
                if shape != wanted:
                    raise PixeltrajError(f"a trajectory of {self.task.name} has {name} {shape}, wanted {wanted}")

    def _commit(self, changes: dict[str, Any]) -> None:
        attributes = self._attributes | changes
        write_manifest(self.path, attributes)
        self._attributes = attributes

    def _append_origins(self, origins: list[dict[str, Any]]) -> dict[str, int]:
        before = self._attributes["origins"]
        lines = b"".join(json.dumps(origin).encode() + b"\n" for origin in origins)
        with self._origins.open("ab") as file:
            file.truncate(before["bytes"])
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
        return {"bytes": before["bytes"] + len(lines), "crc32": zlib.crc32(lines, before["crc32"])}

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Nobody else changes the manifest meanwhile; `_attributes` are what it says now."""
        with locked(self.path):
            self._attributes = read_manifest(self.path)
            yield

    def trajectory(self, episode: int) -> Trajectory:
        """One episode, with frames where they are drawn, and weights where imagination gave it some."""
        a, b = int(self.offsets[episode]), int(self.offsets[episode + 1])
        names = ("states", "keypoints") + (("snapshots",) if "snapshots" in self._columns else ())
        rows = {name: self.read(name, a, b) for name in names}
        steps = {name: self.read(name, a, b - 1) for name in _STEPS}
        frames = self.read("frames", a, b) if self._is_drawn(np.array([a, b - 1])) else None
        origin = dict(self.episodes[episode])
        weights = np.array(origin["weights"], np.float32) if "weights" in origin else None
        return Trajectory(**rows, **steps, frames=frames, origin=origin, weights=weights)

    def __iter__(self) -> Iterator[Trajectory]:
        return (self.trajectory(i) for i in range(len(self)))

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows start:stop of a column, as far as there are any. Raises PixeltrajError where a file is missing or
        damaged, or frames are not drawn yet."""
        stop = max(start, min(stop, self.frame_count))
        if name == "frames":
            self._require_drawn(np.arange(start, stop))
        return self._columns[name].read(start, stop)

    def windows(self, name: str, rows: np.ndarray) -> np.ndarray:
        """rows (W, K) of a column -> (W, K, ...). Each chunk that is touched is decoded once, so many windows
        at a time, or windows near each other (`windows.pooled`), cost least. Raises as `read` does."""
        if rows.size and not (rows.min() >= 0 and rows.max() < self.frame_count):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {self.frame_count}")
        if name == "frames":
            self._require_drawn(rows)
        return self._columns[name].gather(rows)

    def prompts(self, rows: np.ndarray) -> list[str]:
        """What is to be done in each of the rows (n,)."""
        if len(self.task.prompts) == 1:
            return [self.task.prompt] * len(rows)
        states = self.windows("states", rows[:, None])[:, 0]
        if "snapshots" not in self._columns:
            return [self.task.prompt_of(state) for state in states]
        return list(map(self.task.prompt_of, states, self.windows("snapshots", rows[:, None])[:, 0]))

    def split(self) -> tuple[list[int], list[int]]:
        """Episodes to train on and episodes held out. Raises PixeltrajError where either would be empty."""
        heldout = list(range(HELDOUT_EVERY - 1, len(self), HELDOUT_EVERY))
        if not heldout:
            raise PixeltrajError(
                f"{self.path} has {len(self)} episodes; at least {HELDOUT_EVERY} are needed, one of them held out: "
                f"collect more with --episodes"
            )
        return [i for i in range(len(self)) if (i + 1) % HELDOUT_EVERY], heldout

    # Rendering

    @property
    def rendered(self) -> int:
        """Frames drawn so far."""
        return int(self.drawn.rows(self.frame_count).sum())

    @property
    def renderer(self) -> dict[str, Any] | None:
        """Settings the frames were drawn with."""
        return self._attributes["renderer"]

    def begin_rendering(self, settings: dict[str, Any]) -> None:
        """State how frames are going to be drawn. Raises PixeltrajError where drawn ones differ in it."""
        if not self._attributes["snapshot_layout"] and self.rendered < self.frame_count:
            raise PixeltrajError(f"{self.path} holds no simulator states, so nothing in it can be drawn")
        with self._locked():
            if self.rendered and self.renderer != settings:
                raise PixeltrajError(
                    f"{self.path} was rendered with {self.renderer}; this would be {settings}: start a new store"
                )
            if self.renderer != settings:
                self._commit({"renderer": settings})
        self._settings = settings

    def claims(self) -> Claims:
        """What tells apart the chunks that different processes are drawing."""
        return Claims(self.drawn.path.with_name("claims"))

    def missing_chunks(self) -> list[int]:
        """Chunks of frames that are not drawn, or not to the end, or whose file is gone."""
        there = {path.name for path in self.drawn.path.parent.iterdir()}
        lacking = self.drawn.rows(self.frame_count) < self._rows_of_chunks()
        path = self._columns["frames"].path
        return [chunk for chunk, lacks in enumerate(lacking) if lacks or path(chunk).name not in there]

    def is_missing(self, chunk: int) -> bool:
        """Whether the chunk is one of `missing_chunks`."""
        rows = self.drawn.rows(self.frame_count)[chunk]
        return bool(rows < self._rows_of_chunks()[chunk]) or not self._columns["frames"].path(chunk).exists()

    def _rows_of_chunks(self) -> np.ndarray:
        return np.minimum(CHUNK, self.frame_count - np.arange(0, self.frame_count, CHUNK))

    def write_frames(self, chunk: int, frames: np.ndarray) -> None:
        """frames (n, 84, 84, 3) uint8: the first ones of a chunk, which count once they are on disk.

        Raises PixeltrajError where another process has begun to draw with other settings meanwhile.
        """
        self._columns["frames"].write_chunk(chunk, frames)
        with self._locked():
            if self.renderer != self._settings:
                raise PixeltrajError(f"{self.path} is being rendered with {self.renderer} by another process")
            self.drawn.mark(chunk, len(frames))

    def place(self, row: int) -> tuple[int, int]:
        """The episode and the step of a row."""
        episode = int(np.searchsorted(self.offsets, row, side="right")) - 1
        return episode, row - int(self.offsets[episode])

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

    def _is_drawn(self, rows: np.ndarray) -> bool:
        return bool((self.drawn.rows(self.frame_count)[rows // CHUNK] > rows % CHUNK).all())

    def _require_drawn(self, rows: np.ndarray) -> None:
        if not self._is_drawn(rows):
            self.require_frames()


def _columns(path: Path, task: Task, snapshot_layout: dict[str, int]) -> dict[str, Column]:
    shapes: dict[str, tuple[tuple[int, ...], str]] = {
        "lengths": ((), "int64"),
        "states": ((task.state_size,), "float32"),
        "keypoints": ((len(task.keypoints), 3), "float32"),
        "actions": ((task.action_size,), "float32"),
        "rewards": ((), "float32"),
        "terminations": ((), "bool"),
        "truncations": ((), "bool"),
        "frames": ((FRAME_SIZE, FRAME_SIZE, 3), "uint8"),
    }
    again = "make the store again"
    repairs = {}
    if snapshot_layout:
        shapes["snapshots"] = ((sum(snapshot_layout.values()),), "float64")
        repairs["frames"] = f"delete it and `pixeltraj render {path}` draws it again"
    cache = Cache()
    return {
        name: Column(path / name, shape, dtype, cache, repairs.get(name, again))
        for name, (shape, dtype) in shapes.items()
    }


def _rows(name: str, trajectories: list[Trajectory]) -> np.ndarray | None:
    """A column's rows for these episodes; steps get a last row of zeros."""
    parts = [getattr(t, name) for t in trajectories]
    if parts[0] is None:
        return None
    if name in _STEPS:
        parts = [np.concatenate([part, np.zeros_like(part[:1])]) for part in parts]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _episode(frames: int, origin: dict[str, Any]) -> dict[str, Any]:
    return {"frames": frames, "transitions": frames - 1, **origin}
