"""Doctor: what it says is what is so, and what breaks becomes a line with a fix."""

import sys
import types
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixeltraj import base_sources
from pixeltraj.cli import doctor, drawing, main
from pixeltraj.cli.finding import Finding
from pixeltraj.files import read_json


def test_a_whole_examination(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    status, said = main(["doctor", "--out", str(tmp_path)]), capfd.readouterr()
    findings = {finding["name"]: finding for finding in read_json(tmp_path / "doctor.json", "findings")}
    assert list(findings) == ["GL", "mujoco", "ray", "pyrender", "torch", "sdpa", "xformers", "base", "hub", "disk"]
    failed = [name for name, finding in findings.items() if finding["level"] == "fail"]
    embedded = (base_sources.EMBEDDED / "model_index.json").is_file()
    assert failed == ([] if embedded else ["base"])
    assert status == (1 if failed else 0)
    assert all(f"{name} " in said.out for name in findings) and "Traceback" not in said.err
    assert all(finding["fix"] for finding in findings.values() if finding["level"] != "ok")
    frame = np.asarray(Image.open(tmp_path / "push-v3-mujoco.png"))
    assert frame.shape == (84, 84, 3) and frame.std() > 10


def found(monkeypatch: pytest.MonkeyPatch, **mujoco: object) -> dict[str, Finding]:
    """What is said of drawing where the backends draw like this; all is well where nothing else is given."""
    well = {"words": "NVIDIA H100", "spread": 40.0, "psnr": 60.0, "speed": 100.0, "path": "x.png"}
    results = {"mujoco": well | mujoco, "ray": well, "pyrender": {"error": "no pyrender (No module named 'pyrender')"}}
    monkeypatch.setattr(drawing, "_draw", lambda out, backend, platform=None: results[backend])
    return {finding.name: finding for finding in drawing.check_drawing(Path())}


def test_what_is_drawn_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {name: f.level for name, f in found(monkeypatch).items()} == dict.fromkeys(
        ("GL", "mujoco", "ray", "pyrender"), "ok"
    )
    assert found(monkeypatch, words="llvmpipe (LLVM 15.0.6, 256 bits)")["GL"].level == "warn"
    assert found(monkeypatch, spread=0.0)["mujoco"].level == "fail"
    other = found(monkeypatch, psnr=17.0)["mujoco"]
    assert other.level == "warn" and "references/push-v3-mujoco.png" in other.text


def test_a_picture_that_is_not_the_reference_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = drawing.draw(tmp_path, "mujoco")
    assert own["psnr"] > drawing.ALIKE, "the machine these tests run on draws something else"
    upside_down = np.asarray(Image.open(own["path"]))[::-1]
    Image.fromarray(upside_down).save(tmp_path / "push-v3-mujoco.png")
    monkeypatch.setattr(drawing, "REFERENCES", tmp_path)
    (tmp_path / "now").mkdir()
    assert drawing.draw(tmp_path / "now", "mujoco")["psnr"] < drawing.ALIKE


def test_without_a_gl_frames_are_ray_traced_and_one_that_works_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    findings = {finding.name: finding for finding in drawing.check_drawing(tmp_path)}
    assert findings["GL"].level == "warn" and "disabled" in findings["GL"].text and "\n" not in findings["GL"].text
    assert findings["GL"].fix == "export MUJOCO_GL=egl (tried: it works)"
    assert findings["ray"].level == "ok" and "mujoco" not in findings


def test_where_nothing_draws_the_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "_draw", lambda out, backend, platform=None: {"error": "no GL"})
    findings = {finding.name: finding for finding in drawing.check_drawing(tmp_path)}
    assert "apt-get install libegl1" in findings["GL"].fix
    assert findings["ray"].level == "fail"


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
    monkeypatch.setattr(base_sources, "EMBEDDED", tmp_path / "nothing")
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
