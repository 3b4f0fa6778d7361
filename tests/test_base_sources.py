"""Where --base looks: folders first, then the hub, or what its cache has."""

import shutil
from pathlib import Path

import pytest

from benchmarks.random_bases import SHAPES, write_random_base
from pixeltraj.base import Base
from pixeltraj.base_sources import find
from pixeltraj.errors import PixeltrajError

COMMIT, OLD = "a" * 40, "b" * 40
NAME = "somebody/stable-diffusion"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache with two commits of a repository, as it lies on a machine without a network."""
    path = tmp_path / "hub" / f"models--{NAME.replace('/', '--')}"
    for commit, kind, name in ((COMMIT, "sd-1.5", "main"), (OLD, "sd-2.1", "v2")):
        write_random_base(SHAPES[kind].tiny(), path / "snapshots" / commit)
        (path / "refs").mkdir(exist_ok=True)
        (path / "refs" / name).write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return path


def test_a_hub_id_may_name_a_revision_and_is_remembered_by_its_commit(repository: Path) -> None:
    newest, older = Base.load(NAME), Base.load(f"{NAME}@v2")
    assert newest.path == f"{NAME}@{COMMIT}" and older.path == f"{NAME}@{OLD}"
    assert newest.noise_scheduler.config.prediction_type == "epsilon"
    assert older.noise_scheduler.config.prediction_type == "v_prediction"
    assert find(older.path).identity == older.identity != newest.identity
    assert find(str(repository / "snapshots" / OLD)).identity == older.identity


def test_a_revision_that_is_not_there_is_named(repository: Path) -> None:
    with pytest.raises(PixeltrajError, match=r"no base 'somebody/stable-diffusion@v3' that can be reached"):
        find(f"{NAME}@v3")


def test_configs_are_checked_before_weights_are_fetched(repository: Path) -> None:
    folder = repository / "snapshots" / COMMIT
    for path in folder.rglob("*.safetensors"):
        path.unlink()
    with pytest.raises(PixeltrajError, match="has no weights"):
        find(NAME)
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace('"safety_checker"', '"text_encoder_2"'))
    with pytest.raises(PixeltrajError, match="second text encoder, as Stable Diffusion XL has"):
        find(NAME)


def test_a_folder_goes_before_a_hub_id(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(repository / "snapshots" / OLD, tmp_path / NAME)
    assert Base.load(NAME).path == NAME


@pytest.mark.parametrize("path", ["nowhere", "./nowhere/at-all", "a/b/c"])
def test_what_is_nowhere_is_told(path: str) -> None:
    with pytest.raises(PixeltrajError, match=rf"no base at {path}: give a diffusers folder"):
        find(path)
