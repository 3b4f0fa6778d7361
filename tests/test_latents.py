"""Latents: every frame as the VAE sees it, made once, whatever happened before."""

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pixeltraj import latents as latents_module
from pixeltraj.base import Base
from pixeltraj.errors import PixeltrajError
from pixeltraj.latents import Shards, store_latents
from pixeltraj.render.collect import CollectConfig, collect
from pixeltraj.store import CHUNK, Store

SMALL = CHUNK


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latents_module, "SHARD", SMALL)


@pytest.fixture
def own(store_path: Path, tmp_path: Path) -> Store:
    """A copy without latents."""
    shutil.copytree(store_path, tmp_path / "push", ignore=shutil.ignore_patterns("latents"))
    return Store.open(tmp_path / "push")


def encoded(store: Store, base: Base) -> Tensor:
    """All of them, without shards."""
    starts = range(0, store.frame_count, CHUNK)
    return torch.cat([base.encode(store.read("frames", start, start + CHUNK)) for start in starts]).half()


def bytes_of(shards: Shards) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in shards.folder.glob("*.safetensors")}


def made(shards: Shards) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in shards.folder.glob("*.safetensors")}


def test_any_rows_are_read_as_from_one_tensor(own: Store, base: Base) -> None:
    latents, whole = store_latents(own, base), encoded(own, base)
    shards = Shards(own, base.vae_identity)
    assert len(shards) == len(list(shards.folder.glob("*.safetensors"))) > 2
    assert len(latents) == own.frame_count > len(shards) * SMALL - SMALL
    rng = np.random.default_rng(0)
    windows = rng.integers(own.frame_count - 5, size=(40, 1)) + np.arange(5)
    for rows in (windows, windows[3], windows[3, 0], windows[:0], slice(110, 130), slice(None), slice(-3, None)):
        picked = latents[rows]
        assert picked.dtype == torch.float16 and torch.equal(picked, whole[rows])
    assert torch.equal(latents[torch.from_numpy(windows)], whole[windows])
    for wrong in (np.array([-1]), np.array([own.frame_count])):
        with pytest.raises(IndexError, match=f"of {own.frame_count}"):
            latents[wrong]


def test_only_what_is_missing_or_damaged_is_made_again(own: Store, base: Base) -> None:
    store_latents(own, base)
    shards = Shards(own, base.vae_identity)
    before, times = bytes_of(shards), made(shards)
    shards.path(0).unlink()
    shards.path(2).write_bytes(before["00002.safetensors"][:-9])
    left = shards.folder / ".00002.safetensors.7.partial.safetensors"
    left.write_bytes(b"by a process that was killed")
    assert shards.lacking() == [0, 2]
    store_latents(own, base)
    assert bytes_of(shards) == before and not left.exists()
    assert {name for name, when in made(shards).items() if when != times[name]} == {
        "00000.safetensors",
        "00002.safetensors",
    }


def test_a_store_that_has_grown_gets_new_shards_and_its_last_one_again(own: Store, base: Base) -> None:
    store_latents(own, base)
    before = made(Shards(own, base.vae_identity))
    last = own.frame_count // SMALL
    assert own.frame_count % SMALL
    own.append([own.trajectory(0), own.trajectory(1)])
    latents, shards = store_latents(own, base), Shards(own, base.vae_identity)
    assert torch.equal(latents[:], encoded(own, base))
    kept = {name for name, when in made(shards).items() if before.get(name) == when}
    assert kept == {f"{shard:05}.safetensors" for shard in range(last)}
    assert len(shards) > len(before)


def test_what_another_process_makes_is_left_to_it_until_it_dies(own: Store, base: Base) -> None:
    shards = Shards(own, base.vae_identity)
    shards.folder.mkdir(parents=True)
    hold = (
        "import pathlib, pixeltraj.claims\n"
        f"with pixeltraj.claims.Claims(pathlib.Path({str(shards.folder / 'claims')!r})).claim(1):\n"
        "    print(flush=True)\n"
        "    input()\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", hold], **pipes) as other:
        assert other.stdout is not None and other.stdout.readline()
        making = threading.Thread(target=shards.make, args=(base,))
        making.start()
        while len(shards.lacking()) > 1:
            assert making.is_alive()
            making.join(0.05)
        assert shards.lacking() == [1] and making.is_alive()
        other.kill()
        making.join()
    assert torch.equal(shards.open()[:], encoded(own, base))


def test_states_without_frames_have_none(base: Base, tmp_path: Path) -> None:
    collect(CollectConfig("PointMaze_UMaze-v3", tmp_path / "maze", episodes=1, policy="random", max_steps=3))
    with pytest.raises(PixeltrajError, match="pixeltraj render"):
        store_latents(Store.open(tmp_path / "maze"), base)
