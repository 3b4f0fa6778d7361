"""The demo from end to end on a small base with random weights: every joint is real, only the sizes are not."""

import json
import subprocess
import sys
from pathlib import Path


def demo(base: Path, out: Path) -> subprocess.CompletedProcess[str]:
    sizes = "--episodes 5 --finetune-steps 2 --decode-steps 2 --imagined 4 --agent-steps 20 --seeds 1"
    arguments = ["--base", str(base), "--out", str(out), *sizes.split()]
    return subprocess.run([sys.executable, "-m", "pixeltraj", "demo", *arguments], capture_output=True, text=True)


def test_demo_ends_with_a_report_and_is_not_redone(base_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    done = demo(base_path, out)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads((out / "report.json").read_text())
    assert report["imagined"]["count"] == 4
    assert set(report["agent"]["arms"]) == {"without", "with"}
    assert {"collect", "render", "fine-tune", "decoder", "imagine", "audit", "agent"} <= set(report["seconds"])
    page = (out / "report.html").read_text()
    assert "data:image/webp;base64" in page
    assert "<script src" not in page
    lora = (out / "lora" / "pytorch_lora_weights.safetensors").stat().st_mtime_ns
    assert demo(base_path, out).returncode == 0
    assert (out / "lora" / "pytorch_lora_weights.safetensors").stat().st_mtime_ns == lora
