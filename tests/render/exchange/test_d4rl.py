"""D4RL: files of its layout become stores of the same episodes; files of anything else are refused."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pixeltraj.errors import PixeltrajError
from pixeltraj.files import read_json
from pixeltraj.render.exchange import importing
from pixeltraj.render.exchange.importing import ImportConfig, import_dataset
from pixeltraj.store import Store
from pixeltraj.tasks import get_task

Episode = dict[str, Any]
Record = Callable[..., list[Episode]]


def write(path: Path, episodes: list[Episode], leave_out: tuple[str, ...] = (), **more: np.ndarray) -> Path:
    """A file as D4RL publishes them: float32, all episodes one after another, each without its last state."""
    columns: dict[str, Any] = {
        "observations": [e["observation"][:-1] for e in episodes],
        "next_observations": [e["observation"][1:] for e in episodes],
        "infos/qpos": [e["qpos"][:-1] for e in episodes],
        "infos/qvel": [e["qvel"][:-1] for e in episodes],
        **{name: [e[name] for e in episodes] for name in ("actions", "rewards", "terminals", "timeouts")},
    }
    with h5py.File(path, "w") as file:
        for name, parts in columns.items():
            if name not in leave_out:
                value = np.concatenate(parts)
                file[name] = value if value.dtype == bool else value.astype(np.float32)
        for name, value in more.items():
            file[name.replace("__", "/")] = value
    return path


@pytest.fixture(scope="module")
def cheetah(record: Record) -> list[Episode]:
    return record("HalfCheetah-v5", 3, 60)


def read(path: Path, out: Path, task: str = "HalfCheetah-v5", **more: Any) -> Store:
    return import_dataset(ImportConfig(task, str(path), "d4rl", out, **more))


@pytest.mark.parametrize(
    ("leave_out", "root"),
    [
        ((), 1e-6),
        (("next_observations",), 1e-6),
        (("infos/qpos", "infos/qvel"), 1e-3),
        (("next_observations", "infos/qpos", "infos/qvel"), 1e-3),
    ],
)
def test_episodes_are_those_of_the_file(
    tmp_path: Path, cheetah: list[Episode], leave_out: tuple[str, ...], root: float
) -> None:
    store = read(write(tmp_path / "file.hdf5", cheetah, leave_out), tmp_path / "store")
    assert len(store) == 3
    for t, e in zip(store, cheetah):
        np.testing.assert_allclose(t.states, e["observation"], atol=1e-4)
        np.testing.assert_array_equal(t.actions, e["actions"])
        np.testing.assert_array_equal(t.rewards, e["rewards"].astype(np.float32))
        assert not t.terminations.any()
        np.testing.assert_array_equal(t.truncations, e["timeouts"])
        assert t.snapshots is not None
        x = t.snapshots[:, 1]  # after the time
        np.testing.assert_allclose(x - x[0], e["qpos"][:, 0] - e["qpos"][0, 0], atol=root)
        assert float(str(t.origin["replay_error"])) < 1e-3


def test_snapshots_show_and_go_on_as_the_file_says(tmp_path: Path, cheetah: list[Episode]) -> None:
    t = read(write(tmp_path / "file.hdf5", cheetah), tmp_path / "store").trajectory(1)
    simulator = get_task("HalfCheetah-v5").make()
    simulator.reset(seed=9)
    assert t.snapshots is not None
    for step in (0, 17, 42):
        simulator.restore(t.snapshots[step])
        np.testing.assert_array_equal(simulator.keypoints(), t.keypoints[step])
        np.testing.assert_allclose(simulator.data.qpos, cheetah[1]["qpos"][step], atol=1e-6)
        state, reward, *_ = simulator.step(t.actions[step])
        np.testing.assert_allclose(state, t.states[step + 1], atol=1e-3)
        assert reward == pytest.approx(t.rewards[step], abs=1e-3)


def test_falls_end_episodes_and_steps_are_joined_into_decisions(tmp_path: Path, record: Record) -> None:
    """Hopper decides every second step; with both actions equal nothing is lost by that."""
    falls = record("Hopper-v5", 4, 200, hold=2)
    store = read(write(tmp_path / "file.hdf5", falls, ("next_observations",)), tmp_path / "store", task="Hopper-v5")
    assert len(store) == 4
    for t, e in zip(store, falls):
        assert e["terminals"][-1] and t.terminations[-1] and not t.truncations.any()
        assert len(t) == -(-len(e["actions"]) // 2)
        np.testing.assert_allclose(t.states[:-1], e["observation"][:-1:2], atol=1e-4)
        np.testing.assert_allclose(t.states[-1], e["observation"][-1], atol=1e-3)
        np.testing.assert_array_equal(t.actions, e["actions"][::2])
        np.testing.assert_allclose(t.rewards.sum(), e["rewards"].sum(), rtol=1e-5)


def test_rewards_are_the_files_or_the_tasks(tmp_path: Path, cheetah: list[Episode]) -> None:
    paid = [{**e, "rewards": e["rewards"] * 0 + 7.0} for e in cheetah]
    path = write(tmp_path / "file.hdf5", paid)
    np.testing.assert_array_equal(read(path, tmp_path / "a").trajectory(0).rewards, 7.0)
    own = read(path, tmp_path / "b", reward="task").trajectory(0).rewards
    np.testing.assert_allclose(own, cheetah[0]["rewards"], atol=1e-3)


def test_an_episode_longer_than_the_horizon_goes_on_as_another(tmp_path: Path, record: Record) -> None:
    store = read(write(tmp_path / "file.hdf5", record("HalfCheetah-v5", 1, 1005)), tmp_path / "store")
    first, second = store
    assert (len(first), len(second)) == (1000, 5)
    assert first.truncations[-1] and second.truncations[-1]
    np.testing.assert_array_equal(first.states[-1], second.states[0])


def test_mazes_are_turned_to_where_they_lie_here(tmp_path: Path, record: Record) -> None:
    """Maze2d's x and y count rows and columns of the map; a goal that moves begins a new episode."""
    here = record("PointMaze_UMaze-v3", 1, 120, hold=5, continuing_task=True, reset_target=True)[0]
    x, y, x_speed, y_speed = here["observation"].T
    there = {
        **here,
        "observation": np.stack([2.5 - y - 0.7, x + 2.5 - 0.7, -y_speed, x_speed], axis=1),
        "actions": np.stack([-here["actions"][:, 1], here["actions"][:, 0]], axis=1),
    }
    goals = here["desired_goal"].copy()
    goals[60:] = (0.5, 1.0)
    file = write(
        tmp_path / "file.hdf5",
        [{**there, "qpos": there["observation"][:, :2], "qvel": there["observation"][:, 2:]}],
        infos__goal=np.stack([2.5 - goals[:-1, 1] - 0.7, goals[:-1, 0] + 2.5 - 0.7], axis=1).astype(np.float32),
    )
    store = read(file, tmp_path / "store", task="PointMaze_UMaze-v3")
    rows = [int(e["row"]) for e in store.episodes]
    assert 0 in rows and 60 in rows
    for row, t in zip(rows, store):
        stop = row + 5 * len(t)
        np.testing.assert_allclose(t.states[:-1, :4], here["observation"][row:stop:5], atol=1e-5)
        np.testing.assert_allclose(t.states[:, 4:], np.broadcast_to(goals[row], (len(t) + 1, 2)), atol=1e-5)
        np.testing.assert_allclose(t.actions, here["actions"][row:stop:5], atol=1e-6)
        assert float(str(t.origin["replay_error"])) < 1e-2


def test_an_interrupted_import_goes_on_to_the_same_store(tmp_path: Path, record: Record) -> None:
    path = write(tmp_path / "file.hdf5", record("HalfCheetah-v5", 24, 400))
    killed, whole = tmp_path / "killed", read(path, tmp_path / "whole")
    command = [sys.executable, "-m", "pixeltraj", "import", "HalfCheetah-v5", "--format", "d4rl", "--from", str(path)]
    with subprocess.Popen([*command, "--out", str(killed)], stderr=subprocess.DEVNULL) as process:
        attributes, deadline = killed / "zarr.json", time.monotonic() + 120
        while not (attributes.exists() and read_json(attributes, "store")["attributes"]["episodes"]):
            assert process.poll() is None and time.monotonic() < deadline, "nothing was committed"
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    assert 0 < len(Store.open(killed)) < 24, "the kill came too late to test anything"
    store = read(path, killed)
    assert store.episodes == whole.episodes
    for name in ("states", "snapshots", "actions", "rewards"):
        np.testing.assert_array_equal(store.read(name, 0, store.frame_count), whole.read(name, 0, whole.frame_count))


def test_more_episodes_continue_and_another_file_does_not(tmp_path: Path, cheetah: list[Episode]) -> None:
    one, other = write(tmp_path / "one.hdf5", cheetah), write(tmp_path / "other.hdf5", cheetah[:1])
    assert len(read(one, tmp_path / "store", episodes=2)) == 2
    assert len(read(one, tmp_path / "store")) == 3
    for changed in ({"path": other}, {"path": one, "reward": "task"}):
        with pytest.raises(PixeltrajError, match="give another --out"):
            read(out=tmp_path / "store", **changed)


def test_files_of_something_else_are_refused_and_nothing_is_written(
    tmp_path: Path, cheetah: list[Episode], record: Record
) -> None:
    text = tmp_path / "text.hdf5"
    text.write_text("not HDF5")
    plain = write(tmp_path / "plain.hdf5", cheetah)
    no_ends = write(tmp_path / "ends.hdf5", cheetah, ("timeouts",))
    walker = write(tmp_path / "walker.hdf5", record("Walker2d-v5", 3, 60), ("infos/qpos", "infos/qvel"))
    ant = [
        {**e, "observation": np.zeros((61, 29)), "qpos": np.zeros((61, 15)), "qvel": np.zeros((61, 14))}
        | {"actions": np.zeros((60, 8))}
        for e in cheetah
    ]
    maze = write(tmp_path / "maze.hdf5", ant, infos__goal=np.zeros((180, 2)))
    nothing = write(tmp_path / "nothing.hdf5", [{k: v[:0] for k, v in cheetah[0].items()}])
    bad = [
        (text, "HalfCheetah-v5", "is not an HDF5 file"),
        (tmp_path / "missing.hdf5", "HalfCheetah-v5", "there is no file"),
        (no_ends, "HalfCheetah-v5", "it has no timeouts"),
        (plain, "Hopper-v5", r"its actions are \(180, 6\), wanted \(180, 3\)"),
        (walker, "HalfCheetah-v5", "do not follow each other as in HalfCheetah-v5"),
        (maze, "AntMaze_UMaze-v5", "import the same dataset from Minari"),
        (nothing, "HalfCheetah-v5", "holds no episodes"),
    ]
    for path, task, message in bad:
        with pytest.raises(PixeltrajError, match=message):
            read(path, tmp_path / "store", task=task)
        assert not (tmp_path / "store").exists()
    spoiled = [{**e, "observation": np.where(np.arange(61)[:, None] == 40, np.nan, e["observation"])} for e in cheetah]
    with pytest.raises(PixeltrajError, match="nan"):
        read(write(tmp_path / "nan.hdf5", spoiled), tmp_path / "store")
    assert not (tmp_path / "store").exists()
    with pytest.raises(PixeltrajError, match="at least 1"):
        read(plain, tmp_path / "store", episodes=0)


def test_how_often_is_committed_changes_nothing(
    tmp_path: Path, cheetah: list[Episode], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "file.hdf5", cheetah)
    at_once = read(path, tmp_path / "at_once")
    monkeypatch.setattr(importing, "COMMIT_EVERY", 1)
    one_by_one = read(path, tmp_path / "one_by_one")
    np.testing.assert_array_equal(one_by_one.read("states", 0, 183), at_once.read("states", 0, 183))
