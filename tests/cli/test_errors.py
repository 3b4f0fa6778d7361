"""What the user gets wrong: one line that names the fix, status 2, no traceback, nothing half-written."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pixeltraj.cli import COMMANDS, main
from pixeltraj.store import Store
from pixeltraj.tasks import get_task


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: an empty store, one from the future, one of another camera, and a file."""
    monkeypatch.chdir(tmp_path)
    task = get_task("push-v3")
    moved = replace(task, camera=replace(task.camera, distance=0.9))
    for name, made in (("empty", task), ("future", task), ("camera", moved)):
        Store.create(tmp_path / name, made, {}, {"integration": 3})
    path = tmp_path / "future" / "zarr.json"
    content = json.loads(path.read_text())
    content["attributes"]["schema"] = 99
    path.write_text(json.dumps(content))
    (tmp_path / "file").write_text("not a folder")
    return tmp_path


BAD_INPUT = [
    ("colect push-v3 --out new", "did you mean `pixeltraj collect`?"),
    ("decode", "did you mean `pixeltraj decode train`?"),
    ("collect push-v33 --out new", "did you mean push-v3"),
    ("collect push-v3 --policy expert --out new", "use scripted, random or sb3:PATH"),
    ("collect push-v3 --policy sb3:missing.zip --out new", "missing.zip is not a stable-baselines3 checkpoint"),
    ("collect HalfCheetah-v5 --out new", "ships no scripted policy; use --policy random"),
    ("collect push-v3 --episodes 0 --out new", "--episodes must be at least 1"),
    ("collect push-v3 --noise -1 --out new", "--noise at least 0"),
    ("collect coffee-push-v3 --out empty", "holds push-v3, not coffee-push-v3"),
    ("collect push-v3 --out file", "file is not a store"),
    ("collect push-v3 --out camera", "made with another camera of push-v3; collect it again"),
    ("imagine push-v3 --from empty --decoder none --out new --show a.jpg", "must be a .png, .gif or .mp4"),
    ("render missing", "make one with `pixeltraj collect"),
    ("render empty", "is empty; fill it with `pixeltraj collect push-v3"),
    ("render future", "has schema 99, this pixeltraj reads 2: it is newer, update pixeltraj"),
    ("render camera", "made with another camera"),
]


@pytest.mark.parametrize(("line", "fix"), BAD_INPUT)
def test_bad_input(folder: Path, capsys: pytest.CaptureFixture[str], line: str, fix: str) -> None:
    before = snapshot(folder)
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    errors = err.strip().splitlines()
    assert len(errors) == 1 and errors[0].startswith("error: ") and not out
    assert fix in errors[0]
    assert snapshot(folder) == before


@pytest.mark.parametrize("line", ["collect push-v3", "collect push-v3 --out new --bogus 1", "render", "render a b"])
def test_wrong_usage(folder: Path, capsys: pytest.CaptureFixture[str], line: str) -> None:
    before = snapshot(folder)
    with pytest.raises(SystemExit) as ended:
        main(line.split())
    assert ended.value.code == 2
    assert f"pixeltraj {line.split()[0]} --help" in capsys.readouterr().err
    assert snapshot(folder) == before


def test_a_real_process_ends_with_one_line_and_status_2(folder: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "pixeltraj", "render", "missing"], capture_output=True, text=True)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.strip().count("\n") == 0 and done.stderr.startswith("error: missing is not a store")


def test_without_a_gl_library_there_is_a_line_and_no_traceback(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "no-such-gl")
    done = subprocess.run([sys.executable, "-m", "pixeltraj", "render", "empty"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.strip().count("\n") == 0
    assert "MUJOCO_GL=no-such-gl" in done.stderr and "`pixeltraj doctor`" in done.stderr


def test_help_lists_every_command_without_loading_one(capsys: pytest.CaptureFixture[str]) -> None:
    check = "import sys; from pixeltraj.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.returncode == 0
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)
    assert main([]) == 2


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*name.split(), "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: pixeltraj {name}" in text and COMMANDS[name].summary.split()[0] in text


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in sorted(folder.rglob("*"))}
