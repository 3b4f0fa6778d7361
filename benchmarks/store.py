"""The store's figures: `python -m benchmarks.store [--json FILE]`.

A few episodes of each task are collected and drawn; those of the first are written over and over, mirrored this way
and that, into new stores, each by a process of its own. Prints JSON:

    write_fps               frames a second that `append` writes, all columns, flushed to the disk (wall-clock)
    read_fps                frames a CPU-second in random windows of k frames, in the order of `windows.pooled`
    read_fps_scattered      the same in an order that is random over the whole store: each window costs a chunk
    read_fps_sequential     frames a CPU-second from the first to the last
    bytes_per_frame         compressed, on the first task
    bytes_per_frame_by_task
    rss_mb_20k, rss_mb_200k resident memory, at its highest, of the process that wrote so many frames and then read
                            windows of them
    open_s                  to open the largest store
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from tqdm import tqdm

from pixeltraj.files import write_json
from pixeltraj.render.collect import CollectConfig, collect
from pixeltraj.render.render import RenderConfig, render
from pixeltraj.store import CHUNK, Store
from pixeltraj.tasks import get_task
from pixeltraj.trajectory import Trajectory
from pixeltraj.windows import pooled, store_windows


@dataclass(frozen=True)
class Benchmark:
    tasks: tuple[str, ...] = ("HalfCheetah-v5", "sweep-into-v3")
    """Whose frames are written."""
    source_frames: int = 2000
    """Frames of each task that are collected and drawn."""
    sizes: tuple[int, ...] = (20_000, 200_000)
    """Frames of the stores that are written."""
    k: int = 5
    """Frames in a window."""
    seconds: float = 4.0
    """How long each way of reading is timed."""
    scratch: Path | None = None
    """Where the stores are written, and removed afterwards; the system's temporary folder if not given."""
    json: Path | None = None
    """Where to write the figures."""


def measure(config: Benchmark) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=config.scratch) as folder:
        sources = {task: drawn(task, Path(folder) / task, config.source_frames) for task in config.tasks}
        for size in config.sizes:
            path = Path(folder) / "store"
            arguments = [sources[config.tasks[0]].path, path, size, config.k, config.seconds]
            command = [sys.executable, "-m", "benchmarks.store", "--one", *map(str, arguments)]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
            one = json.loads(done.stdout)
            figures[f"rss_mb_{size // 1000}k"] = one.pop("rss_mb")
            figures |= one
            shutil.rmtree(path)
        by_task = {task: bytes_per_frame(store) for task, store in sources.items()}
    return {**figures, "bytes_per_frame": by_task[config.tasks[0]], "bytes_per_frame_by_task": by_task}


def drawn(task: str, path: Path, frames: int) -> Store:
    """A store of the task with about so many frames: scripted episodes where there are, else random ones."""
    scripted = get_task(task).make()
    scripted.reset(seed=0)
    policy = "random" if scripted.scripted_action() is None else "scripted"
    for episodes in range(2, 1000, 2):
        store = collect(CollectConfig(task, path, policy=policy, episodes=episodes, max_steps=500))
        if store.frame_count >= frames:
            break
    return render(RenderConfig(path))


def bytes_per_frame(store: Store) -> float:
    return sum(file.stat().st_size for file in (store.path / "frames").glob("c.*")) / store.frame_count


def measure_one(source: Path, path: Path, size: int, k: int, seconds: float) -> dict[str, Any]:
    """The figures of one size; leaves the store at `path`."""
    mother = Store.open(source)
    store = Store.create(path, mother.task, {}, mother.attributes["snapshot_layout"])
    spent = 0.0
    rng = np.random.default_rng(0)
    with tqdm(total=size, desc=f"write {size} frames", unit="frame") as bar:
        while store.frame_count < size:
            episode = mirrored(mother.trajectory(int(rng.integers(len(mother)))), rng)
            start = time.perf_counter()
            store.append([episode])
            spent += time.perf_counter() - start
            bar.update(len(episode.states))
    figures: dict[str, Any] = {"write_fps": store.frame_count / spent}
    start = time.perf_counter()
    store = Store.open(path)
    figures["open_s"] = time.perf_counter() - start
    rows = store_windows(store, k, list(range(len(store))))
    orders = {"read_fps": pooled(rows, rng), "read_fps_scattered": rng.permutation(len(rows))}
    for name, order in orders.items():
        figures[name] = read_windows(store, rows[order], seconds)
    start, read = time.process_time(), 0
    while time.process_time() < start + seconds:
        first = read % (store.frame_count - 4 * CHUNK) // CHUNK * CHUNK
        read += len(store.read("frames", first, first + 4 * CHUNK))
    figures["read_fps_sequential"] = read / (time.process_time() - start)
    # Not getrusage: what it tells begins with the peak of the process that started this one.
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return {**figures, "rss_mb": int(status["VmHWM"].split()[0]) / 1e3}


def mirrored(episode: Trajectory, rng: np.random.Generator) -> Trajectory:
    assert episode.frames is not None
    episode.frames = np.ascontiguousarray(episode.frames[:, :: rng.choice([-1, 1]), :: rng.choice([-1, 1])])
    return episode


def read_windows(store: Store, rows: np.ndarray, seconds: float, batch: int = 256) -> float:
    """Frames a CPU-second, in batches of windows, as training would draw them."""
    start, read, at = time.process_time(), 0, 0
    while time.process_time() < start + seconds:
        read += store.windows("frames", rows[at : at + batch])[..., 0, 0, 0].size
        at = (at + batch) % max(1, len(rows) - batch)
    return read / (time.process_time() - start)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        place, beside, frames, length, limit = sys.argv[2:]
        print(json.dumps(measure_one(Path(place), Path(beside), int(frames), int(length), float(limit))))
    else:
        benchmark = tyro.cli(Benchmark, prog="python -m benchmarks.store", description=__doc__)
        measured = measure(benchmark)
        print(json.dumps(measured, indent=2))
        if benchmark.json is not None:
            write_json(benchmark.json, measured)
