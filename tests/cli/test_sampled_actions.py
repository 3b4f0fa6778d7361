"""Sampled actions, which are the default: all but they is as it was read, and everything says so."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from pixeltraj.base import Base
from pixeltraj.cli import main
from pixeltraj.cli import report as report_command
from pixeltraj.cli.imagine import Config, imagine
from pixeltraj.cli.view import Config as ViewConfig
from pixeltraj.cli.view import find
from pixeltraj.decode.decoder import Actions, Decoder
from pixeltraj.decode.demonstrator import CONFIG
from pixeltraj.decode.own_reward import OwnRewardDecoder
from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.cases import Case
from pixeltraj.generator import Generator
from pixeltraj.latents import store_latents
from pixeltraj.store import Store
from pixeltraj.trajectory import Trajectory

Ask = Callable[..., Config]


@pytest.fixture
def ask(store_path: Path, base_path: Path, decoder_path: Path) -> Ask:
    def config(out: Path, actions: Actions) -> Config:
        return Config(
            task="push-v3", source=store_path, out=out, n=6, decoder=decoder_path, base=str(base_path), actions=actions
        )

    return config


@pytest.mark.parametrize("kind", [Decoder, OwnRewardDecoder])
def test_all_else_is_as_it_is_read(kind: type[Decoder], store: Store, base_path: Path, decoder_path: Path) -> None:
    generator = Generator.load(Base.load(str(base_path)))
    reads, samples = (kind.load(decoder_path, generator, None, a) for a in ("read", "sampled"))
    tiles = store_latents(store, generator.base)[:10].float().unflatten(0, (2, 5))
    grids, starts = generator.grid.join(tiles), store.read("states", 0, 10)[::5]

    def decoded(decoder: Decoder, seed: int | None = None) -> list[Trajectory]:
        rng = None if seed is None else torch.Generator().manual_seed(seed)
        return decoder.decode(grids, tiles[:, 0], [store.task.prompt] * 2, starts, rng=rng)

    first, again, other = decoded(samples, 0), decoded(samples, 0), decoded(samples, 1)
    for read, one, same, another in zip(decoded(reads), first, again, other, strict=True):
        for name in ("states", "keypoints", "terminations", "rewards"):
            np.testing.assert_array_equal(getattr(read, name), getattr(one, name))
        np.testing.assert_array_equal(one.actions, same.actions)
        assert (one.actions != read.actions).any() and (one.actions != another.actions).any()
        assert np.abs(one.actions).max() <= 1
        assert one.origin["actions"] == "sampled" and "actions" not in read.origin


def test_the_store_and_the_pages_say_whose_actions_they_show(
    ask: Ask, store_path: Path, base_path: Path, decoder_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part, path in (("demos", store_path), ("decoder", decoder_path)):
        (tmp_path / part).symlink_to(path)
    sampled, read = (imagine(ask(tmp_path / kind, kind))[0] for kind in ("sampled", "read"))
    assert sampled.attributes["provenance"]["actions"] == "sampled" and sampled.episodes[0]["actions"] == "sampled"
    assert "actions" not in read.attributes["provenance"] and "actions" not in read.episodes[0]
    for one, other in zip(sampled, read, strict=True):  # of the same pictures
        np.testing.assert_array_equal(one.states, other.states)
    assert (sampled.read("actions", 0, sampled.frame_count) != read.read("actions", 0, read.frame_count)).any()
    again, _ = imagine(ask(tmp_path / "again", "sampled"))
    np.testing.assert_array_equal(*(s.read("actions", 0, sampled.frame_count) for s in (sampled, again)))
    with pytest.raises(PixeltrajError, match="imagined in another way"):
        imagine(ask(tmp_path / "sampled", "read"))
    with pytest.raises(PixeltrajError, match="imagined in another way"):
        imagine(ask(tmp_path / "read", "sampled"))

    readers, read_real = [], report_command.read_real

    def seen(decoder: Decoder, cases: Sequence[Case]) -> list[Trajectory | None]:
        readers.append(decoder.demonstrator is not None)
        return read_real(decoder, cases)

    monkeypatch.setattr(report_command, "read_real", seen)
    for kind in ("sampled", "read"):
        asked = report_command.Config(tmp_path, imagined=tmp_path / kind, out=tmp_path / "page", base=str(base_path))
        report_command.report(asked)
    assert readers == [True, False]
    (shown,) = find(ViewConfig(tmp_path, base=str(base_path)))
    decoder = shown.whole_parts().read()[0].decoder
    assert isinstance(decoder, Decoder) and decoder.demonstrator


def test_a_decoder_that_cannot_is_named(
    store_path: Path, base_path: Path, decoder_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = shutil.copytree(decoder_path, tmp_path / "decoder")
    (old / CONFIG).unlink()
    command = ["imagine", "push-v3", "--from", str(store_path), "--out", str(tmp_path / "out"), "--decoder", str(old)]
    assert main([*command, "--base", str(base_path)]) == 2
    assert "cannot sample actions" in capsys.readouterr().err and not (tmp_path / "out").exists()
