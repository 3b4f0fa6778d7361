"""`pixeltraj synther`: a store of samples, whole or gone on with, never mixed."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pixeltraj.cli import synther as command
from pixeltraj.cli.synther import Config, run, synthesize
from pixeltraj.errors import PixeltrajError
from pixeltraj.store import Store

COLUMNS = ("states", "keypoints", "actions", "rewards", "terminations", "truncations")


@pytest.fixture
def config(store_path: Path, tmp_path: Path) -> Config:
    return Config(
        store=store_path, out=tmp_path / "sampled", n=12, steps=20, width=16, depth=2, batch=32, num_inference_steps=4
    )


def contents(path: Path) -> dict[str, bytes]:
    store = Store.open(path)
    rows = {name: store.read(name, 0, store.frame_count).tobytes() for name in COLUMNS}
    return rows | {"episodes": repr(store.episodes).encode()}


def test_the_store_holds_single_transitions_and_says_what_they_are(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    run(config)
    assert "12 transitions of push-v3" in capsys.readouterr().out
    store = Store.open(config.out)
    assert len(store) == 12 and all(len(trajectory) == 1 for trajectory in store)
    assert {row["synthetic"] for row in store.episodes} == {"synther"}
    said = store.attributes["provenance"]
    assert said["synthetic"] == "synther" and said["config"]["steps"] == 20 and said["from"]["policy"] == "scripted"
    actions = store.read("actions", 0, store.frame_count)
    assert np.abs(actions).max() <= 1
    assert [path.name for path in config.out.parent.iterdir()] == ["sampled"]


def test_a_finished_store_is_returned_and_other_settings_are_refused(config: Config) -> None:
    synthesize(config)
    before = (config.out / "zarr.json").stat().st_mtime_ns
    assert len(synthesize(config)) == 12
    assert (config.out / "zarr.json").stat().st_mtime_ns == before
    for change, name in (({"n": 13}, "n"), ({"lr": 1e-3}, "config"), ({"seed": 1}, "config")):
        with pytest.raises(PixeltrajError, match=rf"another way \({name}\)"):
            synthesize(dataclasses.replace(config, **change))


def test_a_run_that_was_killed_while_sampling_ends_like_an_unbroken_one(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "COMMIT_EVERY", 5)
    whole = dataclasses.replace(config, out=config.out.with_name("whole"))
    synthesize(whole)
    append, appended = Store.append, []

    def killed(store: Store, rows: list) -> None:  # type: ignore[type-arg]
        if appended:
            raise KeyboardInterrupt
        appended.append(append(store, rows))

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Store, "append", killed)
        synthesize(config)
    assert len(Store.open(config.out)) == 5
    synthesize(config)
    assert contents(config.out) == contents(whole.out)


def test_what_is_no_source_is_refused(config: Config, tmp_path: Path) -> None:
    with pytest.raises(PixeltrajError, match="--n must be at least 1"):
        synthesize(dataclasses.replace(config, n=0))
    synthesize(config)
    with pytest.raises(PixeltrajError, match="learns from a store of real transitions"):
        synthesize(dataclasses.replace(config, store=config.out, out=tmp_path / "again"))
    with pytest.raises(PixeltrajError, match="nowhere"):
        synthesize(dataclasses.replace(config, store=tmp_path / "nowhere"))
