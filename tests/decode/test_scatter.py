"""Windows drawn anew: things are elsewhere and drift, and what is said of them is what is shown."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pixeltraj.checkpoint import Checkpoint
from pixeltraj.cli.sight import draw_alike
from pixeltraj.decode import train as training
from pixeltraj.decode.scatter import scatter
from pixeltraj.decode.train import TrainConfig
from pixeltraj.errors import PixeltrajError
from pixeltraj.store import Store
from pixeltraj.tasks import get_task
from pixeltraj.windows import store_windows


def test_things_are_elsewhere_and_drift(store: Store) -> None:
    task = store.task
    rows = store_windows(store, 5, [0])[[2, 20]]
    scene = scatter(store, rows, draw_alike, np.random.default_rng(0))
    assert scene.frames.shape == (2, 5, 84, 84, 3) and scene.frames.dtype == np.uint8
    real = store.windows("states", rows)
    for part in task.movable:
        now = scene.states[..., task.indices(part.names)]
        assert part.low - 0.02 <= now.min() and now.max() <= part.high + 0.02
    hand, thing, goal = (task.indices(tuple(f"{name}_{axis}" for axis in "xyz")) for name in ("hand", "object", "goal"))
    for index, least in ((hand, 0.02), (thing, 0.01)):
        away = np.linalg.norm(scene.states[:, 0][:, index] - real[:, 0][:, index], axis=-1)
        assert (away > least).all()
        other = np.diff(scene.states[..., index], axis=1) - np.diff(real[..., index], axis=1)  # the same in all frames
        assert np.abs(other.mean(axis=1)).max() > 2e-3
        np.testing.assert_allclose(other, np.broadcast_to(other.mean(axis=1, keepdims=True), other.shape), atol=5e-3)
    np.testing.assert_allclose(scene.states[..., goal], real[..., goal], atol=1e-5)
    said = task.state_from_keypoints(scene.keypoints, scene.states[:, 0])
    np.testing.assert_allclose(said[..., hand + thing], scene.states[..., hand + thing], atol=2e-3)
    shown = np.abs(scene.frames.astype(int) - store.windows("frames", rows)).mean(axis=(2, 3, 4))
    assert (shown > 2).all()
    again = scatter(store, rows, draw_alike, np.random.default_rng(0))
    np.testing.assert_array_equal(again.frames, scene.frames)


def test_frames_that_cannot_be_drawn_alike_are_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = dict(store.renderer or {}) | {"mujoco": "0.0"}
    monkeypatch.setattr(Store, "renderer", property(lambda _: elsewhere))
    with pytest.raises(PixeltrajError, match=r"were drawn with .*'0.0'.*or give --scatter 0"):
        scatter(store, store_windows(store, 3, [0])[:1], draw_alike, np.random.default_rng(0))


def test_who_can_be_scattered_says_it_in_its_own_words() -> None:
    task = get_task("push-v3")
    assert {name for part in task.movable for name in part.names} <= {one.name for one in task.state}
    assert not get_task("Hopper-v5").movable


def test_a_decoder_that_was_shown_them_goes_on_where_it_was(
    store_path: Path, base_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(name: str, scatter: int = 3) -> TrainConfig:
        quick = {"steps": 4, "head_steps": 4, "batch": 4, "copies": 1, "windows": 20}
        return TrainConfig(store_path, tmp_path / name, str(base_path), k=(5,), scatter=scatter, **quick)

    class Killed(BaseException):
        pass

    def save(self: Checkpoint, step: int, **states: object) -> None:
        kept(self, step, **states)
        if step == 6:
            raise Killed

    kept = Checkpoint.save
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 2)
    whole = training.train(ask("whole"), draw_alike).heads.state_dict()
    monkeypatch.setattr(Checkpoint, "save", save)
    with pytest.raises(Killed):
        training.train(ask("killed"), draw_alike)
    monkeypatch.undo()
    resumed = training.train(ask("killed"), draw_alike).heads.state_dict()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    without = training.train(ask("without", scatter=0), draw_alike).heads.state_dict()
    blind = training.train(ask("blind")).heads.state_dict()  # nothing draws
    assert all(torch.equal(value, blind[name]) for name, value in without.items())
    assert not torch.equal(whole["refine.out.weight"], without["refine.out.weight"])
