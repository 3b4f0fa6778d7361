"""`pixeltraj audit` from the command line."""

import re
from pathlib import Path

import numpy as np
import pytest

from pixeltraj.cli import main
from pixeltraj.decode.audit import real_windows
from pixeltraj.render.collect import CollectConfig, collect
from pixeltraj.store import Store


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A collected store, and an imagined one with a jump in each trajectory."""
    folder = tmp_path_factory.mktemp("audit")
    config = CollectConfig("HalfCheetah-v5", folder / "real", policy="random", noise=0.0, episodes=10, max_steps=20)
    real = collect(config)
    store = Store.create(folder / "imagined", real.task, {"imagined": True}, {})
    pieces = real_windows(real, real.split()[1], 5, 12, np.random.default_rng(0))
    for piece in pieces:
        piece.snapshots = None
        piece.states[1:, 3] += 0.3
    store.append(pieces)
    return folder / "real", store.path


def test_the_table_shows_where_it_loses(
    stores: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real, imagined = stores
    assert main(f"audit {imagined} --real {real} --out {tmp_path / 'audit'}".split()) == 0
    lines = capsys.readouterr().out.splitlines()
    head = next(i for i, line in enumerate(lines) if line.split()[:2] == ["imagined", "real"])
    assert lines[head].split() == ["imagined", "real", "nothing", "moves"]
    cells = [re.split(r"\s{2,}", line.strip()) for line in lines[head + 1 :]]
    figures = {row[0]: row[1:] for row in cells if len(row) == 4}
    error = figures["one-step error, % of range"]
    assert float(error[0]) > 1 and float(error[1]) == 0 and float(error[2]) > 1
    worst = lines[head + 2].split()
    assert worst[0].startswith("bshin") or worst[0].startswith("bthigh"), "the joint that jumps, or what it pushes"
    ends = {len(line) for line in lines[head + 1 :] if line.startswith(("reward", "diverged", "refused"))}
    assert len(ends) == 1, "columns are aligned"
    assert {path.name for path in (tmp_path / "audit").iterdir()} == {"audit.json", "transitions.safetensors"}


def test_bad_input_is_one_line(stores: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    real, imagined = stores
    (tmp_path / "file").write_text("")
    for line, fix in (
        (f"audit {imagined} --real {real} --out {tmp_path / 'new'} --n 0", "--n must be at least 1"),
        (f"audit {real} --real {real} --out {tmp_path / 'new'}", "`pixeltraj imagine` wrote"),
        (f"audit {imagined} --real {imagined} --out {tmp_path / 'new'}", "give --real a collected store"),
        (f"audit {imagined} --real {real} --out {tmp_path / 'file'}", "give another --out"),
    ):
        assert main(line.split()) == 2
        errors = capsys.readouterr().err.strip().splitlines()
        assert len(errors) == 1 and fix in errors[0]
    assert not (tmp_path / "new").exists()
