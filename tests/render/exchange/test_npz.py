"""NPZ: flat arrays that say what the store says, and make the same store again."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pixeltraj.cli import main
from pixeltraj.errors import PixeltrajError
from pixeltraj.render.collect import CollectConfig, collect
from pixeltraj.render.exchange.exporting import ExportConfig, export
from pixeltraj.render.exchange.importing import ImportConfig, import_dataset
from pixeltraj.render.exchange.npz import TRANSITIONS
from pixeltraj.store import Store


@pytest.fixture
def path(store: Store, tmp_path: Path) -> Path:
    export(ExportConfig(store.path, "npz", tmp_path / "push.npz"))
    return tmp_path / "push.npz"


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    columns = dict(np.load(path, allow_pickle=False))
    change(columns)
    np.savez(path.with_name("changed.npz"), **columns)
    return path.with_name("changed.npz")


def test_arrays_are_the_stores_transitions(store: Store, path: Path) -> None:
    arrays = np.load(path, allow_pickle=False)
    count = store.frame_count - len(store)
    assert {len(arrays[name]) for name in TRANSITIONS} == {count}
    for episode, t in enumerate(store):
        rows = arrays["episodes"] == episode
        np.testing.assert_array_equal(arrays["states"][rows], t.states[:-1])
        np.testing.assert_array_equal(arrays["next_states"][rows], t.states[1:])
        for name in ("actions", "rewards", "terminations", "truncations"):
            np.testing.assert_array_equal(arrays[name][rows], getattr(t, name))
    about = json.loads(str(arrays["about"]))
    assert about["task"] == "push-v3" and not about["imagined"] and about["store"]["seed"] == 0


def test_a_store_comes_back_as_it_was(store: Store, path: Path, tmp_path: Path) -> None:
    back = import_dataset(ImportConfig("push-v3", str(path), "npz", tmp_path / "store"))
    assert len(back) == len(store)
    for one, two in zip(back, store):
        for name in ("states", "keypoints", "snapshots", "actions", "rewards", "terminations", "truncations"):
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def test_states_alone_are_enough_where_they_are_the_environments_observations(tmp_path: Path) -> None:
    there = collect(CollectConfig("Hopper-v5", tmp_path / "there", policy="random", episodes=3))
    export(ExportConfig(there.path, "npz", tmp_path / "all.npz"))
    bare = changed(tmp_path / "all.npz", lambda c: [c.pop(name) for name in set(c) - set(TRANSITIONS)])
    here = import_dataset(ImportConfig("Hopper-v5", str(bare), "npz", tmp_path / "here"))
    for one, two in zip(here, there):
        np.testing.assert_allclose(one.states, two.states, atol=1e-6)
        np.testing.assert_array_equal(one.terminations, two.terminations)
        assert float(str(one.origin["replay_error"])) < 1e-2


def test_imagined_stores_can_be_exported(store: Store, tmp_path: Path) -> None:
    imagined = Store.create(tmp_path / "imagined", store.task, {"imagined": True}, {})
    imagined.append([replace(store.trajectory(0), snapshots=None)])
    export(ExportConfig(imagined.path, "npz", tmp_path / "imagined.npz"))
    arrays = np.load(tmp_path / "imagined.npz", allow_pickle=False)
    assert "snapshots" not in arrays and json.loads(str(arrays["about"]))["imagined"] is True


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("rewards"), "has no rewards"),
        (lambda c: c.update(task=np.array("coffee-push-v3")), "holds coffee-push-v3, not push-v3"),
        (lambda c: c.update(states=c["states"][:, :9]), r"its states are \(\d+, 9\), wanted \(\d+, 17\)"),
        (lambda c: c.update(rewards=c["rewards"][:-3]), "its rewards are"),
        (lambda c: c.update(action_repeat=np.array(3)), "holds an action for 3 simulator steps"),
        (lambda c: c.update(about=np.array([{}], dtype=object)), "cannot be read as NPZ without pickle"),
        (lambda c: c.pop("snapshots"), "push-v3 observes 39"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(
    path: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    with pytest.raises(PixeltrajError, match=message):
        import_dataset(ImportConfig("push-v3", str(changed(path, change)), "npz", tmp_path / "store"))
    assert not (tmp_path / "store").exists()


def test_the_commands(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = str(tmp_path / "push.npz"), str(tmp_path / "store")
    assert main(["export", str(store.path), "--format", "npz", "--out", file]) == 0
    assert f"5 episodes of push-v3, {store.frame_count - 5} transitions" in capsys.readouterr().out
    assert main(["export", str(store.path), "--format", "npz", "--out", file]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["import", "push-v3", "--from", file, "--format", "npz", "--out", out, "--episodes", "4"]) == 0
    assert f"4 episodes of push-v3, {store.offsets[4]} states" in capsys.readouterr().out
    assert len(Store.open(tmp_path / "store")) == 4
