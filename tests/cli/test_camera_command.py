"""`pixeltraj camera`: what it says, draws and writes; what it refuses leaves everything as it was."""

import json
from pathlib import Path

import pytest
from PIL import Image

from pixeltraj.cli import main
from pixeltraj.errors import PixeltrajError
from pixeltraj.store import Store
from pixeltraj.tasks import cameras, get_task


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: a copy of the shipped cameras, which the command writes to, and two stores of push-v3."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cameras.json").write_bytes(cameras.PATH.read_bytes())
    monkeypatch.setattr(cameras, "PATH", tmp_path / "cameras.json")
    task = get_task("push-v3")
    Store.create(tmp_path / "empty", task, {}, {"integration": 3})
    Store.create(tmp_path / "other", get_task("Hopper-v5"), {}, {"integration": 3})
    return tmp_path


BAD_INPUT = [
    ("camera", "name at least one task"),
    ("camera push-v33", "did you mean push-v3"),
    ("camera Hopper-v5 --episodes 0", "--episodes must be at least 1"),
    ("camera Hopper-v5 --margin 60 --write new", "--margin 60.0 is not between 0 and 41 pixels"),
    ("camera Hopper-v5 --margin -1", "is not between 0 and 41 pixels"),
    ("camera Hopper-v5 --policy expert", "use scripted, random or sb3:PATH"),
    ("camera Hopper-v5 --policy scripted", "ships no scripted policy"),
    ("camera Hopper-v5 --show picture.jpg", "picture.jpg must be a .png"),
    ("camera Hopper-v5 push-v3 --episodes 1 --write new", "one camera serves tasks of one fovy and track"),
    ("camera push-v3 --from missing", "missing is not a store"),
    ("camera push-v3 --from empty", "is empty; fill it with `pixeltraj collect push-v3"),
    ("camera push-v3 --from other", "other holds Hopper-v5, which is not among the tasks"),
]


@pytest.mark.parametrize(("line", "fix"), BAD_INPUT)
def test_bad_input(folder: Path, capsys: pytest.CaptureFixture[str], line: str, fix: str) -> None:
    before = contents(folder)
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    errors = [part for part in err.replace("\r", "\n").splitlines() if part.startswith("error: ")]
    assert len(errors) == 1 and fix in errors[0] and "Traceback" not in err and not out
    assert contents(folder) == before


def test_it_prints_draws_and_writes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = json.loads((folder / "cameras.json").read_text())
    assert main(["camera", "Hopper-v5", "--episodes", "1", "--write", "hop", "--show", "hop.png"]) == 0
    out = capsys.readouterr().out
    assert all(f"Hopper-v5 {keypoint.name} " in out for keypoint in get_task("Hopper-v5").keypoints)
    written = cameras.named_camera("hop")
    assert str(written) in out and written.track == "torso"
    assert written.distance < get_task("Hopper-v5").camera.distance
    after = json.loads((folder / "cameras.json").read_text())
    assert {name: camera for name, camera in after.items() if name != "hop"} == before
    with Image.open(folder / "hop.png") as picture:
        left, right = (picture.crop((x, 40, x + 330, 360)) for x in (0, picture.width // 2))
        assert picture.width > 2 * picture.height and left.tobytes() != right.tobytes()


def test_stores_are_looked_at_instead_of_playing(
    folder: Path, store_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["camera", "push-v3", "--from", str(store_path)]) == 0
    out, err = capsys.readouterr()
    assert "push-v3 goal" in out and "play" not in err


def test_unknown_and_damaged_cameras(folder: Path) -> None:
    with pytest.raises(PixeltrajError, match=r"no camera 'Hoper-v5' in cameras\.json, there are: Hopper-v5"):
        cameras.named_camera("Hoper-v5")
    for content, reason in (('{"a": {"lookat": [0, 0, 0]}}', r"'a' in .* is damaged"), ("{", "is not the JSON")):
        (folder / "cameras.json").write_text(content)
        with pytest.raises(PixeltrajError, match=reason):
            cameras.named_camera("a")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in sorted(folder.rglob("*"))}
