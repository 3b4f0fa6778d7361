"""The code blocks of README and docs are run as they stand, but for sizes."""

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import tyro

from pixeltraj.cli import main
from pixeltraj.finetune.train import FinetuneConfig, finetune

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
RENDERING = (ROOT / "docs" / "rendering.md").read_text()

LAUNCH = "accelerate launch -m pixeltraj.finetune "
# What makes each command small enough for a test.
SMALL = {
    "pixeltraj collect": "--episodes 5 --max-steps 8",
    "pixeltraj render": "",
    "pixeltraj camera": "--episodes 1",
    "pixeltraj export": "",
    "pixeltraj import": "",
    LAUNCH: "--steps 2 --batch 2 --rank 2 --base {base}",
    "pixeltraj decode": "--steps 2 --head-steps 2 --batch 4 --copies 1 --windows 40 --scatter 2 --base {base}",
    "pixeltraj imagine": "--n 4 --base {base}",
    "pixeltraj audit": "",
    "pixeltraj report": "--base {base}",
    "pixeltraj eval": "--seeds 1 --steps 20 --offline-updates 2 --eval-episodes 1 --base {base}",
}


def block(text: str, name: str) -> str:
    found = re.search(rf"<!-- {name} -->\n```\w+\n(.*?)```", text, re.DOTALL)
    assert found, f"there is no block {name}"
    return found[1]


@pytest.fixture
def run_commands(base_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Runs a block's commands in tmp_path, all in this process; tests/cli/test_demo.py starts the launcher."""
    monkeypatch.chdir(tmp_path)

    def run(shell: str) -> None:
        for command in (line for line in shell.splitlines() if line and not line.startswith("#")):
            start = next(key for key in SMALL if command.startswith(key))
            words = shlex.split(f"{command} {SMALL[start].format(base=base_path)}")
            if start == LAUNCH:
                finetune(tyro.cli(FinetuneConfig, args=words[4:]))
            else:
                assert words[0] == "pixeltraj" and main(words[1:]) == 0, command

    return run


def test_every_stage_of_the_readme_runs(run_commands: Callable[[str], None], tmp_path: Path) -> None:
    run_commands(block(README, "stages"))
    runs = tmp_path / "runs"
    pictures, lora = ("imagined.png", "imagined.mp4"), "lora/pytorch_lora_weights.safetensors"
    for made in (lora, *pictures, "report/report.html", "eval/results.json"):
        assert (runs / made).stat().st_size > 0, made


def test_rendering_importing_and_exporting_run(run_commands: Callable[[str], None], tmp_path: Path) -> None:
    run_commands(block(RENDERING, "exchange"))
    assert len(list((tmp_path / "runs" / "images" / "train").glob("*.png"))) > 4


def test_the_python_blocks_run() -> None:
    names: dict[str, object] = {}
    exec(block(RENDERING, "gymnasium"), names)
    exec(block(README, "python"), names)
    assert names["batch"].states.shape == (128, 17)  # type: ignore[attr-defined]


@pytest.mark.parametrize("target", ["demo", "test"])
def test_the_make_targets_exist(target: str) -> None:
    assert f"make {target}" in README
    done = subprocess.run(["make", "-n", target], cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
