"""Several processes: they learn what one would learn with as many images, and what is killed goes on."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from pixeltraj import finetune as package
from pixeltraj.finetune.computing import Computing
from pixeltraj.finetune.train import CHECKPOINT_EVERY, FinetuneConfig, finetune
from pixeltraj.generator import CONFIG_FILE, LORA_FILE

CONFIGS = Path(package.__file__).parent / "configs"
STEPS = CHECKPOINT_EVERY + 10


def launch(store: Path, base: Path, out: Path) -> subprocess.Popen[bytes]:
    """Two processes, a batch of one image each, as the shipped configuration for a CPU has it."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", CONFIGS / "cpu.yaml"]
    arguments = ["--store", store, "--base", base, "--out", out, "--steps", STEPS, "--batch", 1, "--rank", 2]
    command += ["-m", "pixeltraj.finetune", *arguments, "--precision", "fp32", "--lr", 1e-3]
    quiet = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(list(map(str, command)), env=quiet, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def ended(process: subprocess.Popen[bytes]) -> str:
    printed, _ = process.communicate(timeout=600)
    assert process.returncode == 0, printed.decode(errors="replace")[-2000:]
    return printed.decode(errors="replace")


def test_two_processes_learn_what_one_does_and_go_on_when_killed(
    store_path: Path, base_path: Path, tmp_path: Path
) -> None:
    one, two, killed = (tmp_path / name for name in ("one", "two", "killed"))
    config = FinetuneConfig(store_path, one, str(base_path), steps=STEPS, batch=2, rank=2, lr=1e-3)
    alone = finetune(FinetuneConfig(**vars(config) | {"computing": Computing("fp32")}))
    ended(launch(store_path, base_path, two))
    together = json.loads((two / CONFIG_FILE).read_text())
    assert together["processes"] == 2
    for key in ("loss_before", "loss_after", "heldout_loss_before", "heldout_loss_after"):
        assert together[key] == pytest.approx(alone[key], rel=1e-4), key
    assert {path.name for path in two.iterdir()} == {path.name for path in one.iterdir()}

    process = launch(store_path, base_path, killed)
    deadline = time.monotonic() + 300
    while not (killed / "checkpoint").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    subprocess.run(["pkill", "-KILL", "-f", str(killed)], check=True)
    process.communicate()
    assert process.returncode != 0
    assert (killed / "checkpoint").exists() and not (killed / LORA_FILE).exists()
    ended(launch(store_path, base_path, killed))
    assert not (killed / "checkpoint").exists()
    a, b = load_file(two / LORA_FILE), load_file(killed / LORA_FILE)
    assert a.keys() == b.keys() and all((a[name] == b[name]).all() for name in a)


def test_what_is_wrong_is_told_by_the_exit_status(base_path: Path, tmp_path: Path) -> None:
    process = launch(tmp_path / "no-store", base_path, tmp_path / "out")
    printed, _ = process.communicate(timeout=300)
    assert process.returncode != 0
    assert b"no-store" in printed and not (tmp_path / "out").exists()


def test_a_configuration_for_one_gpu_for_eight_and_for_a_cpu() -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    found = {path.stem: load_config_from_file(str(path)) for path in CONFIGS.glob("*.yaml")}
    assert {name: config.num_processes for name, config in found.items()} == {"cpu": 2, "gpu": 1, "8-gpus": 8}
    assert [found[name].use_cpu for name in ("cpu", "gpu", "8-gpus")] == [True, False, False]
    assert {config.mixed_precision for config in found.values()} == {"no"}
