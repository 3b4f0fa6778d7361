"""Doctor: what it says is what is so, and what breaks becomes a line with a fix."""

import os
import subprocess
import sys
import types
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixeltraj import base
from pixeltraj.cli import doctor
from pixeltraj.files import read_json


def test_a_whole_examination(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pixeltraj", "doctor", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    findings = {finding["name"]: finding for finding in read_json(tmp_path / "doctor.json", "findings")}
    assert list(findings) == ["GL", "frame", "torch", "sdpa", "xformers", "base", "hub", "disk"]
    failed = [name for name, finding in findings.items() if finding["level"] == "fail"]
    embedded = (base.EMBEDDED / "model_index.json").is_file()
    assert failed == ([] if embedded else ["base"])
    assert done.returncode == (1 if failed else 0)
    assert all(f"{name} " in done.stdout for name in findings) and "Traceback" not in done.stderr
    assert all(finding["fix"] for finding in findings.values() if finding["level"] != "ok")
    frame = np.asarray(Image.open(tmp_path / "push-v3.png"))
    assert frame.shape == (84, 84, 3) and frame.std() > 10


def test_drawing_by_the_cpu_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def found(renderer: str, spread: float) -> list[tuple[str, str]]:
        result = {"renderer": renderer, "version": "4.5", "spread": spread, "speed": 100.0, "path": "x.png"}
        monkeypatch.setattr(doctor, "_draw", lambda out, backend: result)
        return [(finding.name, finding.level) for finding in doctor.check_drawing(tmp_path)]

    assert found("NVIDIA H100", 40.0) == [("GL", "ok"), ("frame", "ok")]
    assert found("llvmpipe (LLVM 15.0.6, 256 bits)", 40.0) == [("GL", "warn"), ("frame", "ok")]
    assert found("NVIDIA H100", 0.0) == [("GL", "ok"), ("frame", "fail")]


def test_a_gl_that_is_missing_is_a_line_that_names_one_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    working = os.environ.get("MUJOCO_GL")
    monkeypatch.setenv("MUJOCO_GL", "no-such-gl")
    (finding,) = doctor.check_drawing(tmp_path)
    assert (finding.name, finding.level) == ("GL", "fail")
    assert "no-such-gl" in finding.text and "\n" not in finding.text
    assert finding.fix == f"export MUJOCO_GL={working} (tried: it works)"


def test_where_no_gl_works_the_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_draw", lambda out, backend: {"error": "no GL"})
    (finding,) = doctor.check_drawing(tmp_path)
    assert "apt-get install libegl1" in finding.fix


@pytest.mark.parametrize(
    ("attention", "level"),
    [(lambda *a: a[0], "ok"), (lambda *a: (_ for _ in ()).throw(NotImplementedError("no")), "warn")],
)
def test_xformers_is_called_and_not_believed(monkeypatch: pytest.MonkeyPatch, attention: object, level: str) -> None:
    package, ops = types.ModuleType("xformers"), types.ModuleType("xformers.ops")
    ops.memory_efficient_attention = attention  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "xformers", package)
    monkeypatch.setitem(sys.modules, "xformers.ops", ops)
    sdpa, xformers = doctor.check_attention()
    assert sdpa.level == "ok"
    assert xformers.level == level
    assert ("pip uninstall xformers" in xformers.fix) == (level == "warn")


def test_a_missing_base_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "EMBEDDED", tmp_path / "nothing")
    (finding,) = doctor.check_base()
    assert finding.level == "fail" and "pixeltraj pretrain" in finding.fix


def test_a_full_disk_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage(10e9, 9.5e9, 0.5e9))
    (finding,) = doctor.check_disk(tmp_path)
    assert finding.level == "fail" and finding.fix.startswith("free 1.5 GB")


def test_a_check_that_breaks_is_a_finding_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ImportError("libtorch is gone")

    for name in ("check_drawing", "check_base", "check_attention"):
        monkeypatch.setattr(doctor, name, lambda *a: iter(()))
    monkeypatch.setattr(doctor, "check_torch", broken)
    assert doctor.run(doctor.Config(out=tmp_path)) == 1
    findings = read_json(tmp_path / "doctor.json", "findings")
    assert findings[0]["name"] == "torch" and findings[0]["level"] == "fail"
    assert "libtorch is gone" in findings[0]["text"]
