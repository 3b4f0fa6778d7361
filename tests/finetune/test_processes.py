"""Several processes: they learn what one would learn with as many images, and what is killed goes on."""

import json
import os
import subprocess
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from pixeltraj import finetune as package
from pixeltraj.errors import PixeltrajError
from pixeltraj.finetune.computing import Computing
from pixeltraj.finetune.lora import Lora
from pixeltraj.finetune.train import FinetuneConfig, finetune
from pixeltraj.generator import CONFIG_FILE, CONV_IN_FILE, LORA_FILE, STATE_FILE
from tests.together import CHECKPOINT_EVERY, HOLDS, printed, together

CONFIGS = Path(package.__file__).parent / "configs"
STEPS = CHECKPOINT_EVERY + 1
OPTIONS = ("--precision", "fp32", "--accumulate", 2, "--alpha", 6, "--text-encoder", "--ema", 0.5)


def environment(name: str) -> dict[str, str]:
    """What the launcher tells the processes of a shipped configuration, by its own code."""
    arguments = launch_command_parser().parse_args(["--config_file", str(CONFIGS / f"{name}.yaml"), "-m", "nothing"])
    validated: Namespace = _validate_launch_command(arguments)[0]
    told = prepare_multi_gpu_env(validated)
    return {key: value for key, value in told.items() if key.startswith(("ACCELERATE_", "FSDP_"))}


def launch(config: FinetuneConfig) -> dict[str, Any]:
    """`accelerate launch` itself, with the shipped configuration for a CPU -> what it prints."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", CONFIGS / "cpu.yaml"]
    command += ["-m", "pixeltraj.finetune", "--store", config.store, "--base", config.base, "--out", config.out]
    command += ["--steps", config.steps, "--batch", config.batch, "--rank", config.rank, "--lr", config.lr, *OPTIONS]
    quiet = os.environ | {"OMP_NUM_THREADS": "1"}
    ran = subprocess.run(list(map(str, command)), env=quiet, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr[-2000:]
    (told,) = ran.stdout.splitlines()
    return json.loads(told)


@pytest.fixture(scope="module")
def alone(store_path: Path, plain_base_path: Path, tmp_path_factory: pytest.TempPathFactory) -> FinetuneConfig:
    """One process with two images a pass, on a base that is widened, with all that a checkpoint has to hold."""
    out = tmp_path_factory.mktemp("processes") / "alone"
    config = FinetuneConfig(store_path, out, str(plain_base_path), steps=STEPS, batch=2, rank=2, lr=1e-3)
    computing, lora = Computing("fp32", accumulate=2), Lora(alpha=6.0, text_encoder=True)
    config = replace(config, ema=0.5, lora=lora, computing=computing)
    assert together(config) == [0], printed(config)
    return config


@pytest.fixture(scope="module", params=["cpu", "8-gpus-fsdp"])
def two(request: pytest.FixtureRequest, alone: FinetuneConfig) -> tuple[FinetuneConfig, dict[str, str]]:
    """Two with one image each, by DDP and by FSDP2: what was trained, and what the launcher told."""
    config, told = replace(alone, out=alone.out.with_name(request.param), batch=1), environment(request.param)
    if request.param == "cpu":
        assert launch(config)["heldout_loss_after"] == result(config)["heldout_loss_after"]
    else:
        assert together(config, 2, told) == [0, 0], printed(config)
        assert printed(config).count(f"{HOLDS} 0.5") == 2
    return config, told


def result(config: FinetuneConfig) -> dict[str, Any]:
    return json.loads((config.out / CONFIG_FILE).read_text())


def tensors(config: FinetuneConfig) -> dict[str, torch.Tensor]:
    return {
        f"{file} {name}": tensor
        for file in (LORA_FILE, CONV_IN_FILE, STATE_FILE)
        for name, tensor in load_file(config.out / file).items()
    }


def test_two_processes_learn_what_one_does(alone: FinetuneConfig, two: tuple[FinetuneConfig, dict[str, str]]) -> None:
    config, _ = two
    one, other = result(alone), result(config)
    assert other["processes"] == 2
    for key in ("loss_before", "loss_after", "heldout_loss_before", "heldout_loss_after"):
        assert other[key] == pytest.approx(one[key], rel=1e-5), key
    assert {path.name for path in config.out.iterdir()} == {path.name for path in alone.out.iterdir()}
    mine, theirs = tensors(alone), tensors(config)
    assert mine.keys() == theirs.keys()
    assert all(torch.allclose(mine[name], theirs[name], atol=1e-3) for name in mine)


def test_plain_diffusers_loads_what_two_processes_wrote(
    alone: FinetuneConfig, two: tuple[FinetuneConfig, dict[str, str]]
) -> None:
    outputs = []
    for folder in (None, alone.out, two[0].out):
        pipeline = StableDiffusionPipeline.from_pretrained(alone.base, torch_dtype=torch.float32)
        if folder:
            pipeline.load_lora_weights(folder)
        words = torch.randn(1, 77, pipeline.unet.config.cross_attention_dim, generator=torch.Generator().manual_seed(0))
        noisy = torch.randn(1, 4, 12, 60, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            outputs.append(pipeline.unet(noisy, 400, words).sample)
    bare, one, other = outputs
    assert torch.allclose(one, other, atol=1e-4) and not torch.allclose(bare, other, atol=1e-3)


def test_two_killed_processes_go_on_and_end_like_unbroken_ones(two: tuple[FinetuneConfig, dict[str, str]]) -> None:
    unbroken, told = two
    config = replace(unbroken, out=unbroken.out.with_name(f"killed-{unbroken.out.name}"))
    assert all(together(config, 2, told, killed=True))
    assert (config.out / "checkpoint").exists() and not (config.out / LORA_FILE).exists()
    assert together(config, 2, told) == [0, 0], printed(config)
    assert not (config.out / "checkpoint").exists()
    one, other = tensors(unbroken), tensors(config)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert result(config)["loss_after"] == result(unbroken)["loss_after"]


def test_what_is_wrong_is_told_by_the_exit_status(base_path: Path, tmp_path: Path) -> None:
    config = FinetuneConfig(tmp_path / "no-store", tmp_path / "out", str(base_path))
    assert together(config, 2) == [2, 2]
    assert "no-store" in printed(config) and not config.out.exists()


@pytest.mark.parametrize(
    ("told", "computing", "words"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, {}, "DeepSpeed is not supported: launch with DDP or FSDP2"),
        ({"ACCELERATE_USE_MEGATRON_LM": "true"}, {}, "Megatron-LM"),
        ({"ACCELERATE_USE_FSDP": "true"}, {}, "fsdp_version: 2"),
        ({"FSDP_OFFLOAD_PARAMS": "true"}, {}, "fsdp_offload_params is not supported: set it to false"),
        ({"FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}, {}, "fsdp_cpu_ram_efficient_loading"),
        ({"FSDP_ACTIVATION_CHECKPOINTING": "true"}, {}, "fsdp_activation_checkpointing"),
        ({"FSDP_AUTO_WRAP_POLICY": "SIZE_BASED_WRAP"}, {}, "by their classes"),
        ({}, {"channels_last": True}, "--channels-last does not work with FSDP"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_read(
    told: dict[str, str], computing: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = FinetuneConfig(tmp_path / "no-store", tmp_path / "out", computing=Computing(**computing))
    with pytest.raises(PixeltrajError, match="no-store"):
        finetune(config)
    whole = not any(name.startswith("ACCELERATE_") for name in told)
    for name, value in ((environment("8-gpus-fsdp") if whole else {}) | told).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(PixeltrajError, match=words):
        finetune(config)


def test_a_configuration_for_one_gpu_for_eight_and_for_a_cpu() -> None:
    found = {path.stem: load_config_from_file(str(path)) for path in CONFIGS.glob("*.yaml")}
    counts = {"cpu": 2, "gpu": 1, "8-gpus": 8, "8-gpus-fsdp": 8}
    assert {name: config.num_processes for name, config in found.items()} == counts
    assert {name for name, config in found.items() if config.use_cpu} == {"cpu"}
    assert {config.mixed_precision for config in found.values()} == {"no"}
