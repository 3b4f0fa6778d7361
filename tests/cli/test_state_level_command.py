"""`pixeltraj state-level`: a store of trajectories and the model that made them, whole or gone on with."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pixeltraj.cli import state_level as command
from pixeltraj.cli.state_level import Config, run, synthesize
from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.state_level import StateLevelImagine
from pixeltraj.store import Store

COLUMNS = ("states", "actions", "rewards", "terminations", "truncations")


@pytest.fixture
def config(store_path: Path, tmp_path: Path) -> Config:
    small = {"steps": 10, "width": 16, "depth": 8, "batch": 16, "num_inference_steps": 3}
    return Config(store=store_path, out=tmp_path / "sampled", n=12, k=4, **small)  # type: ignore[arg-type]


def contents(path: Path) -> dict[str, bytes]:
    store = Store.open(path)
    rows = {name: store.read(name, 0, store.frame_count).tobytes() for name in COLUMNS}
    return rows | {"episodes": repr(store.episodes).encode()}


def test_trajectories_on_condition_begin_in_the_states_they_name(config: Config, store: Store) -> None:
    conditioned = dataclasses.replace(config, condition=True, heldout=True, model=config.out.with_name("model"))
    sampled = synthesize(conditioned)
    assert len(sampled) == 12 and sampled.attributes["provenance"]["synthetic"] == "state-level"
    for trajectory in sampled:
        episode, step = trajectory.origin["episode"], trajectory.origin["step"]
        assert episode in store.split()[1]
        np.testing.assert_array_equal(trajectory.states[0], store.trajectory(episode).states[step])  # type: ignore[arg-type]
    assert sorted(path.name for path in config.out.parent.iterdir()) == ["model", "sampled"]
    imagine = StateLevelImagine(config.out.with_name("model"))(store.task)
    assert len(imagine(store.trajectory(0).states[:2], np.empty((2, 0)), 0)) == 2
    again = dataclasses.replace(conditioned, out=config.out.with_name("again"))
    synthesize(again)
    assert contents(again.out) == contents(config.out), "made by the model that was there"
    with pytest.raises(PixeltrajError, match="trained in another way"):
        synthesize(dataclasses.replace(again, out=config.out.with_name("other"), seed=1))


def test_a_run_that_was_killed_while_sampling_ends_like_an_unbroken_one(
    config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "COMMIT_EVERY", 5)
    whole = dataclasses.replace(config, out=config.out.with_name("whole"))
    run(whole)
    assert "12 trajectories of push-v3" in capsys.readouterr().out
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
    with pytest.raises(PixeltrajError, match=r"another way \(n\)"):
        synthesize(dataclasses.replace(config, n=13))


def test_what_cannot_be_is_refused(config: Config) -> None:
    with pytest.raises(PixeltrajError, match="--n must be at least 1"):
        synthesize(dataclasses.replace(config, n=0))
    with pytest.raises(PixeltrajError, match="give --condition too"):
        synthesize(dataclasses.replace(config, heldout=True))
