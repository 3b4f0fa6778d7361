"""Rendering: frames are pictures of their states, repeat byte for byte, and survive a kill."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import mujoco
import numpy as np
import pytest

from pixeltraj.errors import PixeltrajError
from pixeltraj.render.backends import open_renderer
from pixeltraj.render.collect import CollectConfig, collect
from pixeltraj.render.drawing import open_simulator
from pixeltraj.render.render import RenderConfig, render
from pixeltraj.store import CHUNK, Store
from pixeltraj.tasks import TASKS, get_task

SIZE = 901
"""Frames of the store that most tests here draw: 15 chunks and one frame."""


@pytest.fixture(scope="module")
def drawn_alone(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """HalfCheetah-v5, drawn by one process. Do not write into it."""
    path = tmp_path_factory.mktemp("alone") / "store"
    collect(CollectConfig("HalfCheetah-v5", path, policy="random", episodes=1, max_steps=SIZE - 1))
    return render(RenderConfig(path, workers=1))


@pytest.fixture
def undrawn(drawn_alone: Store, tmp_path: Path) -> Path:
    """The same store before it was drawn."""
    shutil.copytree(drawn_alone.path, tmp_path / "store")
    for file in (tmp_path / "store" / "frames").glob("[!z]*"):
        file.unlink()
    assert Store.open(tmp_path / "store").rendered == 0
    return tmp_path / "store"


def assert_same_frames(one: Store, two: Store) -> None:
    assert one.rendered == two.rendered == SIZE
    np.testing.assert_array_equal(one.read("frames", 0, SIZE), two.read("frames", 0, SIZE))


def start(path: Path, workers: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pixeltraj", "render", str(path), "--workers", str(workers)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)


def wait_until(true: Callable[[], bool], *processes: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert all(process.poll() is None for process in processes) and time.monotonic() < deadline
        time.sleep(0.005)


def test_a_rendering_killed_in_the_middle_goes_on_to_the_same_frames(undrawn: Path, drawn_alone: Store) -> None:
    store = Store.open(undrawn)
    with start(undrawn, workers=1) as process:
        wait_until(lambda: store.rendered >= CHUNK, process)
        process.kill()
    assert CHUNK <= store.rendered < SIZE, "the kill came too late to test anything"
    (undrawn / "frames" / ".c.14.0.0.0.partial").write_bytes(b"what a kill in the middle of a write leaves")
    written = {path: path.stat().st_mtime_ns for path in (undrawn / "frames").glob("c.*")}
    assert_same_frames(render(RenderConfig(undrawn)), drawn_alone)
    again = [path for path, when in written.items() if path.stat().st_mtime_ns != when]
    assert len(again) <= 1, "what was drawn is not drawn again, but for a chunk whose mark was not made"
    assert not list((undrawn / "frames").glob(".*"))


def test_a_worker_that_is_killed_is_replaced(undrawn: Path, drawn_alone: Store) -> None:
    store = Store.open(undrawn)
    with start(undrawn, workers=2) as parent:
        wait_until(lambda: store.rendered >= CHUNK, parent)
        os.kill(children(parent.pid)[0], signal.SIGKILL)
        assert parent.wait(timeout=120) == 0
    assert_same_frames(Store.open(undrawn), drawn_alone)


def test_two_commands_share_a_store_and_one_finishes_what_the_other_left(undrawn: Path, drawn_alone: Store) -> None:
    store = Store.open(undrawn)
    with start(undrawn, workers=1) as one, start(undrawn, workers=1) as two:
        wait_until(lambda: store.rendered > 0, one, two)
        one.kill()
        assert two.wait(timeout=120) == 0
    assert_same_frames(Store.open(undrawn), drawn_alone)


def test_a_state_that_kills_its_renderer_twice_is_named(
    undrawn: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Here a worker kills itself, as the system does when memory runs out, whenever it comes to chunk 3."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "def trace(event, arguments):\n"
        "    if event == 'open' and str(arguments[0]).endswith('.c.3.0.0.0.partial'):\n"
        "        os.kill(os.getpid(), 9)\n"
        "sys.addaudithook(trace)\n"
    )
    with pytest.raises(PixeltrajError, match=r"killed by SIGKILL at episode 0, step 239, the second one in that chunk"):
        render(RenderConfig(undrawn, workers=2))
    store = Store.open(undrawn)
    assert 0 < store.rendered < SIZE and 3 in store.missing_chunks()


@pytest.mark.parametrize(("workers", "value"), [(1, np.nan), (1, -np.inf), (2, 1e11)])
def test_an_impossible_state_is_named_and_the_rest_stays(undrawn: Path, workers: int, value: float) -> None:
    store = Store.open(undrawn)
    snapshots = store._columns["snapshots"]
    row = snapshots.read(130, 131)
    wrong = np.where(np.arange(row.size) == 5, value, row)
    snapshots.write(130, np.concatenate([wrong, snapshots.read(131, SIZE)]))
    with pytest.raises(PixeltrajError, match=r"state of episode 0, step 130 holds .* \(integration\)"):
        render(RenderConfig(undrawn, workers=workers))
    assert 2 in store.missing_chunks()
    snapshots.write(130, np.concatenate([row, snapshots.read(131, SIZE)]))
    assert render(RenderConfig(undrawn, workers=1)).rendered == SIZE


def test_a_full_disk_is_told_in_one_line_and_costs_only_what_was_not_drawn(undrawn: Path, drawn_alone: Store) -> None:
    limit = (20_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    for workers in (1, 2):
        with start(undrawn, workers) as process:
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, limit)
            assert process.wait(timeout=120) == 2
            assert process.stderr is not None
            told = process.stderr.read().decode().replace("\r", "\n").strip().splitlines()
        lines = [line for line in told if not line.startswith("render ")]
        assert len(lines) == 1 and "frames/c." in lines[0] and "cannot be written: File too large" in lines[0]
        assert Store.open(undrawn).rendered == 0
    assert_same_frames(render(RenderConfig(undrawn)), drawn_alone)


def test_a_corrupt_mesh_is_told(tmp_path: Path) -> None:
    (tmp_path / "part.stl").write_bytes(b"solid" + bytes(200))
    scene = (
        '<mujoco><asset><mesh file="part.stl"/></asset><worldbody><geom type="mesh" mesh="part"/></worldbody></mujoco>'
    )
    (tmp_path / "scene.xml").write_text(scene)

    class Broken(type(get_task("HalfCheetah-v5"))):  # type: ignore[misc]
        def make(self) -> object:
            return mujoco.MjModel.from_xml_path(str(tmp_path / "scene.xml"))

    task = Broken(**vars(get_task("HalfCheetah-v5")))
    with pytest.raises(PixeltrajError, match=r"the model of HalfCheetah-v5 cannot be loaded .*reinstall the package"):
        open_simulator(task)


def test_a_deleted_chunk_is_drawn_again(undrawn: Path, drawn_alone: Store) -> None:
    store = render(RenderConfig(undrawn))
    chunk = undrawn / "frames" / "c.2.0.0.0"
    chunk.unlink()
    with pytest.raises(PixeltrajError, match=r"c.2.0.0.0 is missing: delete it and `pixeltraj render"):
        store.read("frames", 0, SIZE)
    assert_same_frames(render(RenderConfig(undrawn)), drawn_alone)


def children(pid: int) -> list[int]:
    """Processes that draw for this one (multiprocessing starts another one that only cleans up)."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


@pytest.mark.parametrize("task", TASKS)
def test_frames_show_their_state(task: str) -> None:
    """Restored states give the frames drawn when they happened, whatever was drawn before; others differ."""
    simulator = get_task(task).make()
    with open_renderer(simulator) as renderer:
        frames, snapshots = [], []
        for seed in (0, 1):
            simulator.reset(seed=seed)
            for _ in range(4):
                simulator.step(np.full(simulator.task.action_size, 0.5))
            snapshots.append(simulator.snapshot())
            frames.append(renderer.frame())
            np.testing.assert_array_equal(simulator.snapshot(), snapshots[-1])  # looking changes nothing
        again = renderer.frames(snapshots)
    np.testing.assert_array_equal(again, frames)
    assert again.dtype == np.uint8 and again.shape == (2, 84, 84, 3)
    assert again.std(axis=(1, 2, 3)).min() > 10
    assert not np.array_equal(again[0], again[1])


def test_rendering_twice_draws_nothing_and_other_settings_are_refused(tmp_path: Path) -> None:
    collect(CollectConfig("Hopper-v5", tmp_path / "store", policy="random", episodes=1, max_steps=8))
    first = render(RenderConfig(tmp_path / "store")).read("frames", 0, 5)
    np.testing.assert_array_equal(render(RenderConfig(tmp_path / "store")).read("frames", 0, 5), first)
    with pytest.raises(PixeltrajError, match="start a new store"):
        render(RenderConfig(tmp_path / "store", renderer="ray"))
    with pytest.raises(PixeltrajError, match="--workers must be at least 1"):
        render(RenderConfig(tmp_path / "store", workers=0))


def test_an_empty_store_is_refused(tmp_path: Path) -> None:
    task = get_task("Hopper-v5")
    Store.create(tmp_path / "store", task, {}, task.make().snapshot_layout)
    with pytest.raises(PixeltrajError, match="is empty; fill it with `pixeltraj collect Hopper-v5"):
        render(RenderConfig(tmp_path / "store"))
    assert Store.open(tmp_path / "store").renderer is None
