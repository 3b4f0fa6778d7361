"""LoRA steps a second, ours beside diffusers' own script: `python -m benchmarks.finetune --script FILE --json FILE`.

The script is examples/text_to_image/train_text_to_image_lora.py of diffusers, which whoever runs this has to get
himself. It wants `datasets` and `torchvision`: in another environment than this one, give its Python with --python.

Both train on the same base folder (the embedded one, its first convolution cut to the 4 channels that the script knows)
and the same grids of a store, as many in a step, with the same rank, layers and precision, in one process with one
thread. The script reads them as PNGs; its crop to a square is left out, so that it sees whole grids. Ours widens the
base again and trains its first convolution too. They take turns, and the median step counts, so that other work on the
machine bears on both alike. A second here is one of the processor; `wall` has those of the clock.

    ours_steps_s, diffusers_steps_s, ratio   steps in a CPU-second, once warm
    ours_default_steps_s                     ours as it is by default: the state told too, convolutions with a LoRA
    wall.*                                   the same in seconds of the clock
    startup_s.*                              CPU-seconds up to the first step; ours encodes all frames in them, once
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from tqdm import tqdm

from benchmarks import finetune_clock
from pixeltraj.base import Base
from pixeltraj.errors import PixeltrajError
from pixeltraj.files import file_hash, provenance, read_json, write_json
from pixeltraj.finetune.computing import Precision
from pixeltraj.finetune.pretrain import write_base
from pixeltraj.grid import TILE, Grid
from pixeltraj.render.collect import CollectConfig, collect
from pixeltraj.render.exchange.imagefolder import export_imagefolder
from pixeltraj.render.render import RenderConfig, render
from pixeltraj.store import Store

ATTENTION = ("to_k", "to_q", "to_v", "to_out.0")
"""Layers that the script trains."""


@dataclass(frozen=True)
class Config:
    script: Path
    """diffusers' train_text_to_image_lora.py."""
    python: Path = Path(sys.executable)
    """The Python that runs it."""
    json: Path | None = None
    """Where to write the figures."""
    out: Path = Path("runs/benchmarks/finetune")
    """Folder of base, store, images and what is trained."""
    steps: int = 15
    """Steps that are measured in a turn."""
    warmup: int = 3
    """Steps before them."""
    turns: int = 2
    """Turns of each."""
    k: int = 5
    """Frames in an image."""
    batch: int = 8
    """Images in a step."""
    rank: int = 16
    """Rank of the LoRA."""
    precision: Precision = "bf16"
    """Of both."""


def main(config: Config) -> None:
    if not config.script.is_file():
        raise PixeltrajError(f"no script at {config.script}: get train_text_to_image_lora.py from diffusers' examples")
    store, base, images = prepare(config)
    contenders = {
        "ours": ours(config, store, base, "--targets", *ATTENTION, "--no-states"),
        "ours_default": ours(config, store, base),
        "diffusers": diffusers(config, base, images),
    }
    measured: dict[str, list[np.ndarray]] = {name: [] for name in contenders}
    for turn in range(config.turns):
        for name, command in tqdm(contenders.items(), desc=f"turn {turn + 1}", unit="training"):
            measured[name].append(clocked(config.out, name, command))
    report = figures(measured, config.warmup)
    report["provenance"] = provenance(
        precision=config.precision,
        k=config.k,
        batch=config.batch,
        rank=config.rank,
        images=len(list((images / "train").glob("*.png"))),
        script=file_hash(config.script),
    )
    print({key: value for key, value in report.items() if key != "provenance"})
    if config.json:
        write_json(config.json, report)


def prepare(config: Config) -> tuple[Path, Path, Path]:
    """A rendered store, the base with 4 channels, and the store's grids as an imagefolder; made once."""
    store, base, images = (config.out / name for name in ("store", "base", f"images-{config.k}"))
    if not store.exists():
        collect(CollectConfig("push-v3", store, episodes=10))
    render(RenderConfig(store))
    if not base.exists():
        whole = Base.load(None)
        narrow(whole)
        write_base(base, whole.vae, whole.unet, whole.text_encoder, whole.tokenizer, whole.noise_scheduler)
    if not images.exists():
        export_imagefolder(Store.open(store), images, config.k, every=4)
    return store, base, images


def narrow(base: Base) -> None:
    """Cut the first convolution to the 4 channels of the noisy latents."""
    old = base.unet.conv_in
    new = torch.nn.Conv2d(4, old.out_channels, old.kernel_size, old.stride, old.padding)
    new.weight.data, new.bias.data = old.weight.data[:, :4].contiguous(), old.bias.data
    base.unet.conv_in = new
    base.unet.register_to_config(in_channels=4)


def ours(config: Config, store: Path, base: Path, *more: str) -> list[str]:
    values = {
        "store": store,
        "base": base,
        "k": config.k,
        "batch": config.batch * config.k // 5,
        "rank": config.rank,
        "lr": 1e-4,
    }
    values |= {"steps": config.warmup + config.steps, "precision": config.precision}
    command = [sys.executable, finetune_clock.__file__, "CLOCK", "-m", "pixeltraj.finetune", "--out", "TRAINED"]
    return [*command, *arguments(values), *more]


def diffusers(config: Config, base: Path, images: Path) -> list[str]:
    values = {"pretrained_model_name_or_path": base, "train_data_dir": images / "train", "caption_column": "text"}
    values |= {
        "image_column": "image",
        "resolution": Grid(config.k).rows * TILE,
        "rank": config.rank,
        "train_batch_size": config.batch,
    }
    values |= {"max_train_steps": config.warmup + config.steps, "learning_rate": 1e-4, "seed": 0}
    values |= {"mixed_precision": {"bf16": "bf16", "fp32": "no"}[config.precision], "output_dir": "TRAINED"}
    return [str(config.python), finetune_clock.__file__, "CLOCK", "--uncropped", str(config.script), *arguments(values)]


def arguments(values: dict[str, Any]) -> list[str]:
    return [word for key, value in values.items() for word in (f"--{key}", str(value))]


def clocked(out: Path, name: str, command: list[str]) -> np.ndarray:
    """(steps, 2): seconds by the clock and of the processor at which each step was done."""
    clock, trained, log = out / f"{name}.json", out / f"{name}-trained", out / f"{name}.log"
    shutil.rmtree(trained, ignore_errors=True)
    words = [{"CLOCK": str(clock), "TRAINED": str(trained)}.get(word, word) for word in command]
    quiet = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with log.open("wb") as file:
        done = subprocess.run(words, stdout=file, stderr=subprocess.STDOUT, env=os.environ | quiet, check=False)
    if done.returncode:
        lines = log.read_text(errors="replace").strip().splitlines() or ["it printed nothing"]
        raise PixeltrajError(f"{name} failed ({lines[-1]}); all that it printed is in {log}")
    return np.array(read_json(clock, "clock")["steps"])


def figures(measured: dict[str, list[np.ndarray]], warmup: int) -> dict[str, Any]:
    """measured: for each training, (steps, 2) of every turn."""
    spent = {
        name: np.concatenate([np.diff(turn[warmup - 1 :], axis=0) for turn in turns])
        for name, turns in measured.items()
    }
    wall, cpu = ({name: 1 / float(np.median(part[:, i])) for name, part in spent.items()} for i in range(2))
    report: dict[str, Any] = {f"{name}_steps_s": rate for name, rate in cpu.items()}
    report["ratio"] = cpu["ours"] / cpu["diffusers"]
    report["wall"] = {f"{name}_steps_s": rate for name, rate in wall.items()}
    report["wall"]["ratio"] = wall["ours"] / wall["diffusers"]
    report["startup_s"] = {name: float(turns[0][0, 1]) for name, turns in measured.items()}
    return report


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except PixeltrajError as error:
        sys.exit(f"error: {error}")
