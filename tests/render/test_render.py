"""Rendering: frames are pictures of their states, repeat byte for byte, and survive a kill."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pixeltraj.errors import PixeltrajError
from pixeltraj.files import read_json
from pixeltraj.render.backends import open_renderer
from pixeltraj.render.collect import CollectConfig, collect
from pixeltraj.render.render import RenderConfig, render
from pixeltraj.store import CHUNK, Store
from pixeltraj.tasks import TASKS, get_task


def test_a_rendering_killed_in_the_middle_goes_on_to_the_same_frames(tmp_path: Path) -> None:
    for name in ("killed", "whole"):
        collect(CollectConfig("HalfCheetah-v5", tmp_path / name, policy="random", episodes=1, max_steps=900))
    path = tmp_path / "killed"
    command = [sys.executable, "-m", "pixeltraj", "render", str(path)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while read_json(path / "zarr.json", "store")["attributes"]["rendered"] < CHUNK:
            assert process.poll() is None and time.monotonic() < deadline, "nothing was drawn"
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    left = Store.open(path)
    assert CHUNK <= left.rendered < left.frame_count, "the kill came too late to test anything"
    resumed, whole = render(RenderConfig(path)), render(RenderConfig(tmp_path / "whole"))
    assert resumed.rendered == whole.rendered == 901
    np.testing.assert_array_equal(resumed.read("frames", 0, 901), whole.read("frames", 0, 901))


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
        render(RenderConfig(tmp_path / "store", samples=0))


def test_an_empty_store_is_refused(tmp_path: Path) -> None:
    task = get_task("Hopper-v5")
    Store.create(tmp_path / "store", task, {}, task.make().snapshot_layout)
    with pytest.raises(PixeltrajError, match="is empty; fill it with `pixeltraj collect Hopper-v5"):
        render(RenderConfig(tmp_path / "store"))
    assert Store.open(tmp_path / "store").renderer is None
