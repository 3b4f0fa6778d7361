"""The demo from end to end on a small base with random weights: every joint is real, only the sizes are not."""

import json
from functools import partial
from pathlib import Path

import pytest

from pixeltraj.cli import demo, main
from tests.conftest import QUICK


def test_demo_ends_with_a_report_and_is_not_redone(
    base_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fine-tuning is launched and agents learn in processes of their own, as ever."""
    config = demo.TrainConfig
    monkeypatch.setattr(demo, "TrainConfig", lambda *given, **named: config(*given, **named | QUICK))
    monkeypatch.setattr(demo, "EvalConfig", partial(demo.EvalConfig, offline_updates=2, eval_episodes=1))
    out = tmp_path / "demo"
    sizes = "--episodes 5 --finetune-steps 2 --imagined 4 --agent-steps 20 --seeds 1"
    command = ["demo", "--base", str(base_path), "--out", str(out), *sizes.split()]
    assert main(command) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["imagined"]["count"] == 4
    assert set(report["agent"]["arms"]) == {"without", "with"}
    assert {"collect", "render", "fine-tune", "decoder", "imagine", "audit", "agent"} <= set(report["seconds"])
    page = (out / "report.html").read_text()
    assert "data:image/webp;base64" in page
    assert "<script src" not in page
    lora = (out / "lora" / "pytorch_lora_weights.safetensors").stat().st_mtime_ns
    assert main(command) == 0
    assert (out / "lora" / "pytorch_lora_weights.safetensors").stat().st_mtime_ns == lora
