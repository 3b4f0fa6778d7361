"""Minari: its own functions open what is exported; recorded datasets become stores of the same episodes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import minari
import numpy as np
import pytest
from minari.data_collector import EpisodeBuffer

from pixeltraj.errors import PixeltrajError
from pixeltraj.render.collect import CollectConfig, collect
from pixeltraj.render.exchange.exporting import ExportConfig, export
from pixeltraj.render.exchange.importing import ImportConfig, import_dataset
from pixeltraj.store import Store
from pixeltraj.tasks import get_task

Episode = dict[str, Any]
Record = Callable[..., list[Episode]]
PARTS = ("observation", "achieved_goal", "desired_goal")


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


def publish(dataset_id: str, environment: str, episodes: list[Episode], exact: bool = True) -> None:
    """As a Minari dataset, the way its data collector would have made it."""
    buffers = [
        EpisodeBuffer(
            id=i,
            observations={p: e[p] for p in PARTS} if "desired_goal" in e else e["observation"],
            actions=e["actions"],
            rewards=e["rewards"],
            terminations=e["terminals"],
            truncations=e["timeouts"],
            infos={"qpos": e["qpos"], "qvel": e["qvel"]} if exact else None,
        )
        for i, e in enumerate(episodes)
    ]
    minari.create_dataset_from_buffers(dataset_id, buffers, env=environment)


def read(task: str, source: str, out: Path, **more: Any) -> Store:
    return import_dataset(ImportConfig(task, source, "minari", out, **more))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(
    ("task", "environment", "hold"),
    [
        ("HalfCheetah-v5", "HalfCheetah-v5", 1),
        ("PointMaze_UMaze-v3", "PointMaze_UMaze-v3", 5),
        ("AntMaze_UMaze-v5", "AntMaze_UMaze-v4", 1),
        ("FrankaKitchen-v1", "FrankaKitchen-v1", 1),
        ("AdroitHandDoor-v1", "AdroitHandDoor-v1", 1),
    ],
)
def test_recorded_datasets_become_stores(
    tmp_path: Path, record: Record, task: str, environment: str, hold: int, exact: bool
) -> None:
    repeat = get_task(task).action_repeat
    episodes = record(environment, 2, 12 * repeat, hold=max(hold, repeat))
    publish("test/recorded-v0", environment, episodes, exact)
    store = read(task, "test/recorded-v0", tmp_path / "store")
    assert len(store) == 2
    simulator = get_task(task).make()
    for t, e in zip(store, episodes):
        assert len(t) == len(e["actions"]) // repeat == 12
        np.testing.assert_allclose(t.actions, e["actions"][::repeat], atol=1e-6)
        np.testing.assert_array_equal(t.truncations, np.arange(12) == 11)
        assert t.snapshots is not None
        assert float(str(t.origin["replay_error"])) < 0.5
        simulator.reset(seed=5)
        for row, snapshot in enumerate(t.snapshots):
            simulator.restore(snapshot)
            told = simulator.data.qpos
            untold = 1 if task == "HalfCheetah-v5" and not exact else 0  # the root's x starts at 0
            np.testing.assert_allclose(told[untold:], e["qpos"][row * repeat][untold:], atol=0.02)
            if "desired_goal" in e and not isinstance(e["desired_goal"], dict):
                np.testing.assert_allclose(simulator.observation()[-2:], e["desired_goal"][0], atol=1e-6)


def test_an_exported_store_is_what_minari_loads(tmp_path: Path, store: Store) -> None:
    said = export(
        ExportConfig(store.path, "minari", Path("pixeltraj/push-v0"), author="me", code="https://example.org/1")
    )
    assert "minari.load_dataset('pixeltraj/push-v0')" in said
    assert "pixeltraj/push-v0" in minari.list_local_datasets()
    dataset = minari.load_dataset("pixeltraj/push-v0")
    assert (dataset.total_episodes, dataset.total_steps) == (5, store.frame_count - 5)
    assert len(dataset.sample_episodes(3)) == 3
    for episode, t in zip(dataset.iterate_episodes(), store):
        np.testing.assert_array_equal(episode.observations, t.states)
        for name in ("actions", "rewards", "terminations", "truncations"):
            np.testing.assert_array_equal(getattr(episode, name), getattr(t, name))
        assert all(dataset.observation_space.contains(observation) for observation in episode.observations)
        assert all(dataset.action_space.contains(action) for action in episode.actions)
    metadata = dataset.storage.metadata
    assert metadata["algorithm_name"] == "pixeltraj collect: policy scripted, Gaussian noise 0.1 on its actions"
    assert (metadata["author"], metadata["code_permalink"]) == ({"me"}, "https://example.org/1")
    assert not metadata["pixeltraj"]["imagined"] and metadata["pixeltraj"]["store"]["policy"] == "scripted"
    assert dataset.env_spec is None, "the task's states are not Meta-World's observations"
    files = [file.name for file in (tmp_path / "minari").rglob("*") if file.is_file()]
    assert not [name for name in files if "partial" in name]


def test_a_store_comes_back_from_minari_as_it_was(tmp_path: Path, store: Store) -> None:
    export(ExportConfig(store.path, "minari", Path("push-v0")))
    back = read("push-v3", "push-v0", tmp_path / "store")
    assert len(back) == len(store)
    for one, two in zip(back, store):
        for name in ("states", "keypoints", "snapshots", "actions", "rewards", "terminations", "truncations"):
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
        assert one.origin["replay_error"] == 0


def test_imagined_data_is_called_synthetic(tmp_path: Path, store: Store) -> None:
    imagined = Store.create(tmp_path / "imagined", store.task, {"imagined": True, "seed": 0}, {})
    imagined.append([replace(store.trajectory(0), snapshots=None)])
    export(ExportConfig(imagined.path, "minari", Path("imagined-v0")))
    dataset = minari.load_dataset("imagined-v0")
    assert dataset.storage.metadata["algorithm_name"].startswith("synthetic: imagined")
    assert dataset.storage.metadata["pixeltraj"]["imagined"] is True
    drawn = Store.create(tmp_path / "synther", store.task, {"synthetic": "synther", "from": {"policy": "scripted"}}, {})
    drawn.append([replace(store.trajectory(0), snapshots=None)])
    export(ExportConfig(drawn.path, "minari", Path("synther-v0")))
    metadata = minari.load_dataset("synther-v0").storage.metadata
    assert metadata["algorithm_name"].startswith("synthetic: transitions drawn by synther")
    assert metadata["pixeltraj"]["imagined"] is True
    np.testing.assert_array_equal(dataset[0].observations, store.trajectory(0).states)


def test_an_environment_that_fits_is_named(tmp_path: Path) -> None:
    collected = collect(CollectConfig("HalfCheetah-v5", tmp_path / "store", policy="random", episodes=1, max_steps=5))
    export(ExportConfig(collected.path, "minari", Path("cheetah-v0")))
    environment = minari.load_dataset("cheetah-v0").recover_environment()
    assert environment.spec is not None and environment.spec.id == "HalfCheetah-v5"
    assert isinstance(environment.unwrapped, gym.envs.mujoco.half_cheetah_v5.HalfCheetahEnv)


def test_what_does_not_fit_is_refused_and_nothing_is_written(
    tmp_path: Path, store: Store, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(ExportConfig(store.path, "minari", Path("push-v0")))
    for task, source, message in (
        ("push-v3", "nowhere-v0", "not a Minari dataset on this machine"),
        ("coffee-push-v3", "push-v0", "holds push-v3, not coffee-push-v3"),
        ("HalfCheetah-v5", "push-v0", "holds push-v3"),
    ):
        with pytest.raises(PixeltrajError, match=message):
            read(task, source, tmp_path / "store")
        assert not (tmp_path / "store").exists()
    for out, message in (("push-v0", "exists already"), ("no version", "no Minari id")):
        with pytest.raises(PixeltrajError, match=message):
            export(ExportConfig(store.path, "minari", Path(out)))
    before = sorted(root.rglob("*"))

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Store, "trajectory", fail)
    with pytest.raises(OSError, match="disk full"):
        export(ExportConfig(store.path, "minari", Path("push-v1")))
    assert sorted(root.rglob("*")) == before
