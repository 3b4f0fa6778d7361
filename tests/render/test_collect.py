"""Collection: deterministic, and indifferent to being killed."""

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
from pixeltraj.render.collect import COMMIT_EVERY, CollectConfig, collect
from pixeltraj.store import Store
from pixeltraj.tasks import get_task

COLUMNS = ("states", "keypoints", "snapshots", "actions", "rewards", "terminations", "truncations")


def assert_identical(one: Store, two: Store) -> None:
    assert one.episodes == two.episodes
    for name in COLUMNS:
        np.testing.assert_array_equal(one.read(name, 0, one.frame_count), two.read(name, 0, two.frame_count))


def test_a_collection_killed_in_the_middle_goes_on_to_the_same_store(tmp_path: Path) -> None:
    killed, whole = (CollectConfig("push-v3", tmp_path / name, episodes=30) for name in ("killed", "whole"))
    command = [sys.executable, "-m", "pixeltraj", "collect", "push-v3", "--episodes", "30", "--out", str(killed.out)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        attributes = killed.out / "zarr.json"
        deadline = time.monotonic() + 120
        while not (attributes.exists() and read_json(attributes, "store")["attributes"]["episodes"]):
            assert process.poll() is None and time.monotonic() < deadline, "nothing was committed"
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    left = len(Store.open(killed.out))
    assert COMMIT_EVERY <= left < 30, "the kill came too late to test anything"
    assert_identical(collect(killed), collect(whole))
    assert len(Store.open(killed.out)) == 30


def test_collecting_again_adds_nothing_and_more_episodes_continue(tmp_path: Path) -> None:
    few, many = (CollectConfig("Hopper-v5", tmp_path / "store", policy="random", episodes=n) for n in (3, 7))
    collect(few)
    assert len(collect(few)) == 3
    grown = collect(many)
    fresh = collect(CollectConfig("Hopper-v5", tmp_path / "fresh", policy="random", episodes=7))
    assert_identical(grown, fresh)


def test_a_store_is_not_continued_in_another_way(tmp_path: Path) -> None:
    collect(CollectConfig("Hopper-v5", tmp_path / "store", policy="random", episodes=1))
    for changed in ({"noise": 0.3}, {"seed": 5}, {"max_steps": 9}):
        with pytest.raises(PixeltrajError, match="give another --out"):
            collect(CollectConfig("Hopper-v5", tmp_path / "store", policy="random", episodes=2, **changed))
    with pytest.raises(PixeltrajError, match="holds Hopper-v5, not HalfCheetah-v5"):
        collect(CollectConfig("HalfCheetah-v5", tmp_path / "store", policy="random", episodes=2))


def test_what_is_stored_is_what_happened(tmp_path: Path) -> None:
    """Replayed from its first snapshot with its actions, an episode gives its own states and rewards."""
    store = collect(CollectConfig("coffee-push-v3", tmp_path / "store", episodes=2, max_steps=30))
    simulator = get_task("coffee-push-v3").make()
    for episode, t in enumerate(store):
        assert t.origin["seed"] == episode
        assert t.snapshots is not None
        simulator.reset(seed=99)
        simulator.restore(t.snapshots[0])
        for step, action in enumerate(t.actions):
            state, reward, terminated, _, _ = simulator.step(action)
            np.testing.assert_array_equal(state, t.states[step + 1])
            np.testing.assert_array_equal(simulator.snapshot(), t.snapshots[step + 1])
            assert (reward, terminated) == (t.rewards[step], t.terminations[step])
        assert t.terminations[-1] != t.truncations[-1]
        assert not t.terminations[:-1].any() and not t.truncations[:-1].any()


def test_a_store_says_how_it_was_made(tmp_path: Path) -> None:
    made = collect(CollectConfig("Hopper-v5", tmp_path / "store", policy="random", episodes=1, seed=4)).attributes
    assert made["schema"] == 2
    assert made["fingerprint"]["task"] == "Hopper-v5"
    assert made["provenance"]["policy"] == "random" and made["provenance"]["seed"] == 4
    assert {"mujoco", "pixeltraj", "numpy"} <= set(made["provenance"]["versions"])
