"""--cluster: a Ray of two workers leaves what one process would leave, byte for byte, whoever is killed meanwhile."""

import shutil
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import tyro

from pixeltraj.cli import COMMANDS, find_command, main
from pixeltraj.cli.batch import Batch
from pixeltraj.cli.imagine import Config, imagine
from pixeltraj.cluster import ATTEMPTS, connected, over_shards
from pixeltraj.errors import PixeltrajError
from pixeltraj.keep import Tally
from pixeltraj.render.collect import CollectConfig, collect
from pixeltraj.render.drawing import ShardDrawer
from pixeltraj.render.render import RenderConfig, render
from pixeltraj.store import CHUNK, Store

PAGE = (Path(__file__).parents[2] / "docs" / "rendering.md").read_text()
FRAMES = 1001
"""Two shards, of chunks and of latents; the second has one chunk."""
Kill = Callable[[str], None]


@pytest.fixture(scope="module")
def kill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kill]:
    """A Ray of two workers, of which one kills itself when it next opens a file whose name begins so (up to @)."""
    pytest.importorskip("ray", reason="the extra `ray`")
    folder = tmp_path_factory.mktemp("kill")
    (folder / "sitecustomize.py").write_text(
        "import os, sys\n"
        "def trace(event, arguments):\n"
        "    if event == 'open':\n"
        "        name = os.path.basename(str(arguments[0]))\n"
        f"        for victim in os.listdir({str(folder / 'victims')!r}):\n"
        "            if name.startswith(victim.split('@')[0]):\n"
        f"                os.unlink(os.path.join({str(folder / 'victims')!r}, victim))\n"
        "                os.kill(os.getpid(), 9)\n"
        "sys.addaudithook(trace)\n"
    )
    (folder / "victims").mkdir()

    def kill(name: str) -> None:
        (folder / "victims" / name).touch()

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        with connected("local", cpus=2):
            yield kill
    assert not list((folder / "victims").iterdir()), "nobody was killed"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """HalfCheetah-v5, drawn by one process. Do not write into it."""
    path = tmp_path_factory.mktemp("drawn") / "store"
    collect(CollectConfig("HalfCheetah-v5", path, policy="random", episodes=1, max_steps=FRAMES - 1))
    render(RenderConfig(path, workers=1))
    return path


def files(folder: Path) -> dict[str, bytes]:
    """All but the locks."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != "claims")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_what_cannot_be_is_told_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["latents", "nowhere", "--workers", "2"]) == 2
    assert "--workers are those of a --cluster" in capsys.readouterr().err
    pytest.importorskip("ray", reason="the extra `ray`")
    with pytest.raises(PixeltrajError, match=r"no Ray answers at 127\.0\.0\.1:1 .*--cluster local"):
        next(over_shards("127.0.0.1:1", None, ShardDrawer, (), [0]))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(PixeltrajError, match=r"pip install 'pixeltraj\[ray\]'"):
        next(over_shards("local", None, ShardDrawer, (), [0]))


def test_the_commands_of_the_page_are_understood() -> None:
    block = PAGE.split("<!-- cluster -->")[1].split("```")[1].strip().splitlines()[1:]
    for line in block:
        name, words = find_command(line.split()[1:])
        config = tyro.cli(import_module(f"pixeltraj.cli.{COMMANDS[name].module}").Config, args=words)
        assert getattr(config, "cluster", "auto") == "auto"
    assert len(block) == 4


def test_frames_are_drawn_alike_and_a_shard_that_kills_its_workers_is_named(
    kill: Kill, drawn: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "store"
    shutil.copytree(drawn, copy, ignore=shutil.ignore_patterns("c.*.0.0.0", "drawn"))
    assert Store.open(copy).rendered == 0
    for number in range(ATTEMPTS):
        kill(f".c.16.0.0.0.partial@{number}")
    with pytest.raises(PixeltrajError, match=f"shard 1 cost {ATTEMPTS} workers"):
        render(RenderConfig(copy, workers=1, cluster="local"))
    assert Store.open(copy).missing_chunks() == [16]
    render(RenderConfig(copy, workers=1))
    assert files(copy) == files(drawn)


def test_latents_are_the_same(kill: Kill, drawn: Path, base_path: Path, tmp_path: Path) -> None:
    command = ["latents", "store", "--base", str(base_path)]
    for place, more in (("alone", []), ("cluster", ["--cluster", "local", "--workers", "1"])):
        shutil.copytree(drawn, tmp_path / place / "store")
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path / place)
            assert main([*command, *more]) == 0
    made = files(tmp_path / "cluster" / "store" / "latents")
    assert len(made) == 2 and made == files(tmp_path / "alone" / "store" / "latents")


def test_an_imagined_store_is_the_same_and_goes_on_from_one_that_was_interrupted(
    kill: Kill, store_path: Path, base_path: Path, decoder_path: Path, tmp_path: Path
) -> None:
    def ask(out: str, n: int, cluster: str | None = None) -> Store:
        parts = {"decoder": decoder_path, "base": str(base_path), "cluster": cluster}
        return imagine(Config(task="push-v3", source=store_path, out=tmp_path / out, n=n, **parts))[0]

    alone = ask("alone", 40)
    assert len(ask("cluster", 16)) == 16
    some_frames = f"c.{(alone.episodes[20]['step'] + int(Store.open(store_path).offsets[4])) // CHUNK}.0.0.0"
    kill(some_frames)
    assert len(ask("cluster", 40, "local")) == 40
    assert files(tmp_path / "cluster") == files(tmp_path / "alone")


def test_a_batch_arrives_as_it_was_sent(store_path: Path) -> None:
    kept = [Store.open(store_path).trajectory(i) for i in range(2)]
    kept[1].weights = np.linspace(0.5, 1, len(kept[1]), dtype=np.float32)
    sent = Batch(kept, Tally(imagined=20, kept=12), following=32)
    arrived = Batch.from_bytes(sent.to_bytes())
    assert (arrived.tally, arrived.following, len(arrived.kept)) == (sent.tally, 32, 2)
    for one, other in zip(kept, arrived.kept):
        assert vars(one).keys() == vars(other).keys()
        for name, value in vars(one).items():
            np.testing.assert_equal(getattr(other, name), value)
    assert Batch.from_bytes(Batch([], Tally(), 16).to_bytes()).kept == []
