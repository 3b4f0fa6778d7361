"""Store: what goes in comes out, and what is wrong does not go unnoticed."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from pixeltraj import store as store_module
from pixeltraj.errors import PixeltrajError
from pixeltraj.store import HELDOUT_EVERY, Store
from pixeltraj.tasks import get_task
from pixeltraj.trajectory import Trajectory

TASK = get_task("push-v3")
LAYOUT = {"integration": 7, "variation": 2}


def trajectory(steps: int, seed: int = 0, frames: bool = False) -> Trajectory:
    rng = np.random.default_rng(seed)
    return Trajectory(
        states=rng.standard_normal((steps + 1, TASK.state_size)).astype(np.float32),
        actions=rng.uniform(-1, 1, (steps, TASK.action_size)).astype(np.float32),
        rewards=rng.random(steps).astype(np.float32),
        terminations=np.arange(steps) == steps - 1,
        truncations=np.zeros(steps, dtype=bool),
        keypoints=rng.standard_normal((steps + 1, len(TASK.keypoints), 3)).astype(np.float32),
        snapshots=rng.standard_normal((steps + 1, 9)),
        frames=rng.integers(0, 256, (steps + 1, 84, 84, 3), dtype=np.uint8) if frames else None,
        origin={"seed": seed},
    )


def create(path: Path, trajectories: list[Trajectory]) -> Store:
    store = Store.create(path, TASK, {"command": "test"}, LAYOUT)
    store.append(trajectories)
    return store


def assert_equal(one: Trajectory, two: Trajectory) -> None:
    for name in ("states", "actions", "rewards", "terminations", "truncations", "keypoints", "snapshots", "frames"):
        a, b = getattr(one, name), getattr(two, name)
        assert (a is None) == (b is None), name
        if a is not None:
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


@settings(max_examples=8, deadline=None)
@given(
    batches=st.lists(st.lists(st.integers(1, 70), min_size=1, max_size=3), min_size=1, max_size=3), frames=st.booleans()
)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, batches: list[list[int]], frames: bool) -> None:
    """Whatever the lengths, and however they straddle chunks and commits."""
    path = tmp_path_factory.mktemp("round") / "store"
    store = create(path, [])
    written = []
    for batch in batches:
        parts = [trajectory(steps, seed=len(written) + i, frames=frames) for i, steps in enumerate(batch)]
        store.append(parts)
        written += parts
    read = Store.open(path, TASK)
    assert len(read) == len(written)
    assert read.frame_count == sum(len(t.states) for t in written)
    for one, two in zip(written, read):
        assert_equal(one, two)
        assert two.origin["seed"] == one.origin["seed"]


def test_what_a_killed_run_left_past_the_commit_is_ignored_and_overwritten(tmp_path: Path) -> None:
    first, second = trajectory(50, 1), trajectory(65, 2)
    store = create(tmp_path / "store", [first])
    group = zarr.open_group(tmp_path / "store", mode="r+")
    for name in ("states", "actions", "snapshots"):  # some columns written, others not
        array = group[name]
        array.resize((200, *array.shape[1:]))
        array[51:] = np.full((149, *array.shape[1:]), 7, dtype=array.dtype)
    store = Store.open(tmp_path / "store", TASK)
    assert (len(store), store.frame_count) == (1, 51)
    assert_equal(store.trajectory(0), first)
    store.append([second])
    for reopened in (store, Store.open(tmp_path / "store", TASK)):
        assert_equal(reopened.trajectory(0), first)
        assert_equal(reopened.trajectory(1), second)


@pytest.mark.parametrize("name", ["states", "actions", "rewards", "keypoints", "snapshots"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_is_refused_and_nothing_is_written(tmp_path: Path, name: str, value: float) -> None:
    store = create(tmp_path / "store", [trajectory(5)])
    bad = trajectory(4)
    getattr(bad, name)[2] = value
    with pytest.raises(PixeltrajError, match=rf"{name} at step 2 .*collect it again"):
        store.append([trajectory(3), bad])
    assert len(store) == len(Store.open(tmp_path / "store")) == 1


def test_wrong_shapes_and_empty_trajectories_are_refused(tmp_path: Path) -> None:
    store = create(tmp_path / "store", [])
    good = trajectory(4)
    for bad in (replace(good, actions=good.actions[:, :2]), replace(good, states=good.states[:-1]), trajectory(0)):
        with pytest.raises(PixeltrajError, match="push-v3"):
            store.append([bad])
    assert len(store) == 0


def test_another_task_camera_or_schema_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "store"
    create(path, [trajectory(3)])
    with pytest.raises(PixeltrajError, match="holds push-v3, not coffee-push-v3"):
        Store.open(path, get_task("coffee-push-v3"))
    moved = replace(TASK, camera=replace(TASK.camera, distance=0.9))
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "get_task", lambda name: moved)
        with pytest.raises(PixeltrajError, match=r"another camera of push-v3; collect it again"):
            Store.open(path)
    content = json.loads((path / "zarr.json").read_text())
    content["attributes"]["schema"] += 1
    (path / "zarr.json").write_text(json.dumps(content))
    with pytest.raises(PixeltrajError, match="has schema 2, this pixeltraj reads 1"):
        Store.open(path)


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    for content in (None, "", "{", "[]", '{"zarr_format": 3, "node_type": "nonsense"}'):
        folder = tmp_path / "folder"
        folder.mkdir(exist_ok=True)
        if content is not None:
            (folder / "zarr.json").write_text(content)
        with pytest.raises(PixeltrajError, match="folder"):
            Store.open(folder)
    with pytest.raises(PixeltrajError, match="exists already"):
        Store.create(folder, TASK, {}, LAYOUT)


def test_a_store_is_made_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(zarr.Group, "create_array", fail)
        with pytest.raises(OSError, match="disk full"):
            create(tmp_path / "store", [])
    assert not (tmp_path / "store").exists()
    create(tmp_path / "store", [trajectory(2)])


@pytest.mark.parametrize("name", ["states", "frames", "snapshots"])
def test_a_flipped_bit_in_a_chunk_is_noticed(tmp_path: Path, name: str) -> None:
    path = tmp_path / "store"
    create(path, [trajectory(30, frames=True)])
    chunk = next(file for file in (path / name / "c").rglob("*") if file.is_file())
    whole = chunk.read_bytes()
    places = [0, 3, 5, 8, 20, *np.linspace(30, len(whole) - 1, 12).astype(int)]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        chunk.write_bytes(damaged)
        with pytest.raises(PixeltrajError, match=f"{name} is damaged"):
            Store.open(path).trajectory(0)
    chunk.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PixeltrajError, match=f"{name} is damaged"):
        Store.open(path).trajectory(0)


def test_every_fifth_episode_is_held_out(tmp_path: Path) -> None:
    store = create(tmp_path / "store", [trajectory(2, i) for i in range(4)])
    with pytest.raises(PixeltrajError, match="at least 5 are needed"):
        store.split()
    store.append([trajectory(2, i) for i in range(8)])
    train, heldout = store.split()
    assert heldout == [4, 9]
    assert sorted(train + heldout) == list(range(12))
    assert HELDOUT_EVERY == 5


def test_frames_come_in_order_and_only_from_one_renderer(tmp_path: Path) -> None:
    store = create(tmp_path / "store", [trajectory(5)])
    frames = np.random.default_rng(0).integers(0, 256, (6, 84, 84, 3), dtype=np.uint8)
    with pytest.raises(PixeltrajError, match="pixeltraj render"):
        store.require_frames()
    store.begin_rendering({"backend": "one"})
    store.append_frames(frames[:4])
    assert store.trajectory(0).frames is None
    with pytest.raises(PixeltrajError, match="start a new store"):
        store.begin_rendering({"backend": "two"})
    store = Store.open(tmp_path / "store")
    store.begin_rendering({"backend": "one"})
    store.append_frames(frames[4:])
    store.require_frames()
    np.testing.assert_array_equal(store.trajectory(0).frames, frames)
