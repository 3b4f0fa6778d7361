"""Store: what goes in comes out, and what is wrong does not go unnoticed."""

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from pixeltraj import store as store_module
from pixeltraj.claims import Claims
from pixeltraj.column import CHUNK, Cache
from pixeltraj.errors import PixeltrajError
from pixeltraj.store import HELDOUT_EVERY, Store
from pixeltraj.tasks import get_task
from pixeltraj.trajectory import Trajectory
from pixeltraj.windows import padded_windows, pooled, store_windows

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
    for name in ("states", "actions", "snapshots"):  # some columns written, others not
        column = store._columns[name]
        column.write(51, np.full((149, *column.shape), 7, dtype=column.dtype))
        column.resize(200)
    store.drawn.mark_all(0, 200)
    (tmp_path / "store" / "lengths" / "origins.jsonl").open("ab").write(b'{"seed": 5, "cut sho')
    store = Store.open(tmp_path / "store", TASK)
    assert (len(store), store.frame_count) == (1, 51)
    assert store.rendered == 51
    store.drawn.path.unlink()
    assert_equal(store.trajectory(0), first)
    store.append([second])
    for reopened in (store, Store.open(tmp_path / "store", TASK)):
        assert_equal(reopened.trajectory(0), first)
        assert_equal(reopened.trajectory(1), second)
        assert (reopened.rendered, reopened.episodes[1]["seed"]) == (0, 2)


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
    for schema, fix in ((1, "it is older, collect it again"), (3, "it is newer, update pixeltraj")):
        content["attributes"]["schema"] = schema
        (path / "zarr.json").write_text(json.dumps(content))
        with pytest.raises(PixeltrajError, match=f"has schema {schema}, this pixeltraj reads 2: {fix}"):
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
    def fail(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "write_manifest", fail)
        with pytest.raises(OSError, match="disk full"):
            create(tmp_path / "store", [])
    assert list(tmp_path.iterdir()) == []
    create(tmp_path / "store", [trajectory(2)])


@contextmanager
def size_limit(bytes_: int) -> Iterator[None]:
    """No file may grow past this."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def files(path: Path) -> list[str]:
    """All that hold something."""
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file() and file.name != ".lock")


def test_it_is_a_plain_zarr_group(tmp_path: Path) -> None:
    parts = [trajectory(80, seed, frames=True) for seed in range(2)]
    create(tmp_path / "store", parts)
    group = zarr.open_group(tmp_path / "store", mode="r")
    for name in ("states", "keypoints", "snapshots", "frames"):
        array = group[name]
        np.testing.assert_array_equal(array[:], np.concatenate([getattr(part, name) for part in parts]))
        assert array.dtype == getattr(parts[0], name).dtype
    assert group["lengths"][:].tolist() == [81, 81]
    assert not group["terminations"][:].all() and group["terminations"][79]


def test_a_flipped_bit_is_noticed_wherever_it_is(tmp_path: Path) -> None:
    """Reading everything tells of it, or gives exactly what was written."""
    path, whole = tmp_path / "store", trajectory(70, frames=True)
    create(path, [whole])
    rng = np.random.default_rng(0)
    told = {name: 0 for name in files(path) if (path / name).stat().st_size}
    assert len(told) > 20
    for name in told:
        intact = (path / name).read_bytes()
        places = range(len(intact)) if name == "rewards/c.0" else rng.integers(len(intact), size=12)
        for place in {0, len(intact) - 1, *places}:
            damaged = bytearray(intact)
            damaged[place] ^= 1 << rng.integers(8)
            (path / name).write_bytes(damaged)
            try:
                store = Store.open(path)
                store.require_frames()
                assert_equal(store.trajectory(0), whole)
                assert (len(store), store.episodes[0]["seed"], store.attributes["provenance"]) == (
                    1,
                    0,
                    {"command": "test"},
                )
            except PixeltrajError as error:
                told[name] += str(path) in str(error)
        (path / name).write_bytes(intact)
    assert all(told.values()), told


@pytest.mark.parametrize("name", ["states", "frames", "lengths"])
def test_a_missing_or_shortened_file_is_noticed(tmp_path: Path, name: str) -> None:
    path, black = tmp_path / "store", trajectory(30, frames=True)
    black.frames = np.zeros_like(black.frames)  # zarr alone would not store these, nor miss them
    create(path, [black])
    chunk = next(file for file in (path / name).iterdir() if file.name.startswith("c."))
    whole = chunk.read_bytes()
    for left in (len(whole) // 2, 3, 0):
        chunk.write_bytes(whole[:left])
        with pytest.raises(PixeltrajError, match=f"{name} is damaged"):
            Store.open(path).trajectory(0)
    chunk.unlink()
    with pytest.raises(PixeltrajError, match=f"{name}/c.* is missing"):
        Store.open(path).trajectory(0)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 40), k=st.sampled_from([1, 5, 25]))
def test_windows_are_rows(tmp_path_factory: pytest.TempPathFactory, seed: int, count: int, k: int) -> None:
    path = tmp_path_factory.getbasetemp() / "windows"
    if not path.exists():
        create(path, [trajectory(steps, steps, frames=True) for steps in (130, 9, 60)])
    store, rng = Store.open(path), np.random.default_rng(seed)
    rows = store_windows(store, k, [0, 1, 2])
    rows = rows[rng.integers(len(rows), size=count)]
    for name in ("frames", "states", "rewards"):
        whole = store.read(name, 0, store.frame_count)
        np.testing.assert_array_equal(store.windows(name, rows), whole[rows])
    with pytest.raises(IndexError):
        store.windows("states", np.array([[store.frame_count]]))


def test_the_pooled_order_is_a_permutation_that_touches_few_chunks_at_a_time(tmp_path: Path) -> None:
    rows = padded_windows(60 * 400, 5)
    order = pooled(rows, np.random.default_rng(0))
    assert sorted(order) == list(range(len(rows)))
    batches = rows[order][:-320].reshape(-1, 160, 5) // CHUNK
    assert np.mean([len(np.unique(batch)) for batch in batches]) <= 40
    assert len({tuple(pooled(rows, np.random.default_rng(seed))[:50]) for seed in range(3)}) == 3
    first = rows[order][:1600, 0]  # not one place of the store, and not in order
    assert len(np.unique(first // (4 * CHUNK))) == 8 and abs(np.corrcoef(first, np.arange(1600))[0, 1]) < 0.2


def test_memory_does_not_grow_with_what_is_read(tmp_path: Path) -> None:
    store = create(tmp_path / "store", [])
    cache = Cache(limit=3 * 60 * 21168)
    store._columns["frames"]._cache = cache
    store.append([trajectory(420, frames=True)])
    store.windows("frames", padded_windows(421, 5))
    assert len(cache._blocks) == 3 and cache._bytes == 3 * 60 * 21168


def test_two_processes_do_not_add_to_one_store(tmp_path: Path) -> None:
    one = create(tmp_path / "store", [trajectory(5)])
    two = Store.open(tmp_path / "store")
    one.append([trajectory(6)])
    with pytest.raises(PixeltrajError, match="another process is adding episodes"):
        two.append([trajectory(7)])
    assert [episode["transitions"] for episode in Store.open(tmp_path / "store").episodes] == [5, 6]


@pytest.mark.parametrize("room", [0, 300, 600, 2000, 8000, 10**6])
def test_a_full_disk_loses_nothing(tmp_path: Path, room: int) -> None:
    """A file that may not grow any further is what a full disk is to the process that writes it."""
    path, before, more = tmp_path / "store", trajectory(40, 1, frames=True), trajectory(50, 2, frames=True)
    create(path, [before])
    with pytest.raises(OSError, match="too large") as full, size_limit(room):
        Store.open(path).append([more])
    assert full.value.filename and str(path) in str(full.value.filename)
    store = Store.open(path)
    assert len(store) == 1 and not [name for name in files(path) if "partial" in name]
    assert_equal(store.trajectory(0), before)
    store.append([more])
    assert_equal(Store.open(path).trajectory(1), more)


def test_every_fifth_episode_is_held_out(tmp_path: Path) -> None:
    store = create(tmp_path / "store", [trajectory(2, i) for i in range(4)])
    with pytest.raises(PixeltrajError, match="at least 5 are needed"):
        store.split()
    store.append([trajectory(2, i) for i in range(8)])
    train, heldout = store.split()
    assert heldout == [4, 9]
    assert sorted(train + heldout) == list(range(12))
    assert HELDOUT_EVERY == 5


def test_chunks_are_drawn_in_any_order_and_only_by_one_renderer(tmp_path: Path) -> None:
    path = tmp_path / "store"
    store = create(path, [trajectory(99)])
    frames = np.random.default_rng(0).integers(0, 256, (180, 84, 84, 3), dtype=np.uint8)
    store.begin_rendering({"backend": "none of it was drawn, so this may still change"})
    store.begin_rendering({"backend": "one"})
    assert store.missing_chunks() == [0, 1]
    store.write_frames(1, frames[60:100])
    assert (store.missing_chunks(), store.rendered, store.trajectory(0).frames) == ([0], 40, None)
    np.testing.assert_array_equal(store.read("frames", 60, 999), frames[60:100])
    for rows in (lambda: store.read("frames", 30, 70), lambda: store.windows("frames", np.array([[59, 60]]))):
        with pytest.raises(PixeltrajError, match="shows 40 of 100 states: `pixeltraj render"):
            rows()
    with pytest.raises(PixeltrajError, match="start a new store"):
        Store.open(path).begin_rendering({"backend": "two"})
    store = Store.open(path)
    store.begin_rendering({"backend": "one"})
    store.write_frames(0, frames[:60])
    store.require_frames()
    np.testing.assert_array_equal(store.trajectory(0).frames, frames[:100])
    store.append([trajectory(79)])  # the last chunk has grown
    assert (store.missing_chunks(), store.rendered) == ([1, 2], 100)
    store.write_frames(1, frames[60:120])
    store.write_frames(2, frames[120:])
    np.testing.assert_array_equal(store.read("frames", 0, 180), frames)


def test_a_process_that_draws_otherwise_meanwhile_is_noticed(tmp_path: Path) -> None:
    store = create(tmp_path / "store", [trajectory(9)])
    store.begin_rendering({"backend": "one"})
    Store.open(tmp_path / "store").begin_rendering({"backend": "two"})
    with pytest.raises(PixeltrajError, match=r"being rendered with .*two"):
        store.write_frames(0, np.zeros((10, 84, 84, 3), np.uint8))
    assert store.rendered == 0


def test_a_chunk_is_claimed_by_one_process_and_falls_free_when_that_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "claims"
    hold = (
        "import pathlib, pixeltraj.claims\n"
        f"with pixeltraj.claims.Claims(pathlib.Path({str(path)!r})).claim(7) as mine:\n"
        "    print(mine, flush=True)\n"
        "    input()\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", hold], **pipes) as other, Claims(path) as claims:
        assert other.stdout is not None and other.stdout.readline() == b"True\n"
        for chunk, free in ((6, True), (7, False), (8, True)):
            with claims.claim(chunk) as mine:
                assert mine == free
        other.kill()
        other.wait()
        with claims.claim(7) as mine:
            assert mine


def test_a_damaged_record_of_what_is_drawn_costs_no_more_than_drawing_it_again(tmp_path: Path) -> None:
    store = create(tmp_path / "store", [trajectory(99, frames=True)])
    intact = store.drawn.path.read_bytes()
    for chunk, rows in ((0, 60), (1, 40)):
        for bit in range(8):
            damaged = bytearray(intact)
            damaged[chunk] ^= 1 << bit
            store.drawn.path.write_bytes(damaged)
            assert (store.missing_chunks(), store.rendered) == ([chunk], 100 - rows)


def test_what_an_imagined_store_lacks_is_not_drawn(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "store", TASK, {}, {})
    store.append([replace(trajectory(9), snapshots=None)])
    with pytest.raises(PixeltrajError, match="holds no simulator states"):
        store.begin_rendering({"backend": "one"})
    with pytest.raises(PixeltrajError, match="has states without frames"):
        store.append([replace(trajectory(9, frames=True), snapshots=None)])
