"""What a run has to share with the one that it goes on from: settings, and folders wherever they are."""

import shutil
from pathlib import Path

import pytest

from pixeltraj.checkpoint import Checkpoint
from pixeltraj.errors import PixeltrajError
from pixeltraj.files import write_json
from pixeltraj.settings import alike, changed, recorded


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_json(tmp_path / "here" / "zarr.json", {"episodes": 3})
    return tmp_path / "here"


def test_a_folder_that_was_moved_is_the_same(folder: Path, tmp_path: Path) -> None:
    before = recorded({"store": folder, "rank": 4})
    moved = Path(shutil.move(folder, tmp_path / "there"))
    assert changed(before, recorded({"store": moved, "rank": 4})) == []
    assert changed(before, recorded({"store": moved, "rank": 8})) == ["rank"]


def test_so_is_one_that_was_made_again_in_its_place_and_no_other(folder: Path, tmp_path: Path) -> None:
    before = recorded({"store": folder})
    write_json(folder / "zarr.json", {"episodes": 4})
    write_json(tmp_path / "other" / "zarr.json", {"episodes": 5})
    assert changed(before, recorded({"store": folder})) == []
    assert changed(before, recorded({"store": tmp_path / "other"})) == ["store"]


def test_records_without_what_is_in_folders_are_told_by_their_paths(folder: Path, tmp_path: Path) -> None:
    """Those of runs of before."""
    assert changed({"store": str(folder)}, recorded({"store": folder})) == []
    assert changed({"store": str(tmp_path / "other")}, recorded({"store": folder})) == ["store"]


def test_what_only_one_of_them_says_differs() -> None:
    assert changed({"rank": "4", "ema": "0.9"}, {"rank": "4"}) == ["ema"]
    assert changed({"rank": "4"}, {"rank": "4", "ema": "0.9"}) == ["ema"]


def test_descriptions_differ_by_what_is_in_a_folder(folder: Path) -> None:
    here, there = ({"stores": [{"path": path, "hash": "a"}], "rho": 0.5} for path in ("here", "there"))
    assert alike(here, there)
    assert not alike(here, here | {"stores": [{"path": "here", "hash": "b"}]})
    assert not alike(here, here | {"rho": 0.25}) and not alike(here, here | {"stores": []})


def test_a_checkpoint_says_which_settings_are_another(folder: Path, tmp_path: Path) -> None:
    Checkpoint(tmp_path / "checkpoint", {"store": folder, "lr": 1e-3}).save(3)
    moved = Path(shutil.move(folder, tmp_path / "there"))
    assert Checkpoint(tmp_path / "checkpoint", {"store": moved, "lr": 1e-3}).load() == (3, {})
    with pytest.raises(PixeltrajError, match="another lr; give"):
        Checkpoint(tmp_path / "checkpoint", {"store": moved, "lr": 1e-2}).load()
