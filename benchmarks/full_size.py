"""Stable Diffusion of full size, all the way: `python -m benchmarks.full_size --kind sd-1.5 [--json FILE]`.

A base of the published shape with random weights is fine-tuned for two steps of one image, imagines one grid in one
denoising step, and plain diffusers generates with the same LoRA. On a CPU it takes minutes and some 10 GB of memory.
Each stage runs in a process of its own, of which it prints as JSON:

    stages.NAME.seconds, .cpu_seconds    all of it: imports, reading, hashing
    stages.NAME.peak_gb                  the most memory that it had, GiB
    stages.base.parameters               by part
    stages.finetune.step_seconds         the second step alone: forward, backward, optimizer
    stages.sample.sample_seconds         one denoising step; .decode_seconds the VAE's
    stages.diffusers.sample_seconds      the same by diffusers' own pipeline, its VAE included
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from torch.optim.optimizer import register_optimizer_step_post_hook

from benchmarks.jobs import Stage, remember, result, run_stage, run_stages
from benchmarks.random_bases import SHAPES, write_random_base
from pixeltraj.base import Base
from pixeltraj.cli import guarded
from pixeltraj.errors import PixeltrajError
from pixeltraj.files import provenance, read_json, write_json
from pixeltraj.finetune.train import FinetuneConfig, finetune
from pixeltraj.generator import Generator
from pixeltraj.grid import Grid
from pixeltraj.render.collect import CollectConfig, collect
from pixeltraj.render.render import RenderConfig, render
from pixeltraj.store import Store
from pixeltraj.windows import store_windows

MODULE = "benchmarks.full_size"
Kind = Literal["sd-1.5", "sd-1.5-inpainting", "instruct-pix2pix", "sd-2.1", "sd-2.1-base", "sd-2-inpainting"]


@dataclass(frozen=True)
class Config:
    kind: Kind = "sd-1.5"
    """Which of the published shapes."""
    k: int = 5
    """Frames in a grid."""
    tiny: bool = False
    """Small widths instead of the published ones: to see that it runs."""
    out: Path = Path("runs/benchmarks/full_size")
    """Folder of everything that is made: about 6 GB a kind; a subfolder for each kind and k."""
    json: Path | None = None
    """Where to write the figures."""


@dataclass(frozen=True)
class Run:
    config: Config
    at_once: int = 1

    @property
    def out(self) -> Path:
        return self.config.out / f"{self.config.kind}{'-tiny' if self.config.tiny else ''}-k{self.config.k}"

    @property
    def store(self) -> Store:
        return Store.open(self.out / "store")

    @property
    def base(self) -> str:
        return str(self.out / "base")

    @property
    def lora(self) -> Path:
        return self.out / "lora"


def make_base(run: Run) -> dict[str, Any]:
    shape = SHAPES[run.config.kind]
    write_random_base(shape.tiny() if run.config.tiny else shape, Path(run.base))
    base = Base.load(run.base)
    parts = {name: getattr(base, name) for name in ("unet", "vae", "text_encoder")}
    return {"parameters": {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}}


def make_store(run: Run) -> dict[str, Any]:
    """One episode of k frames: the VAE takes seconds for each."""
    store = collect(CollectConfig("push-v3", run.out / "store", episodes=1, max_steps=run.config.k - 1))
    render(RenderConfig(store.path))
    return {"frames": store.frame_count}


def tune(run: Run) -> dict[str, Any]:
    ended: list[float] = []
    hook = register_optimizer_step_post_hook(lambda *_: ended.append(time.perf_counter()))
    window = {run.config.k: store_windows(run.store, run.config.k, [0])[:1]}
    config = FinetuneConfig(
        run.store.path, run.lora, run.base, (run.config.k,), steps=2, batch=run.config.k // 5, rank=4, lr=1e-4
    )
    losses = finetune(config, window)
    hook.remove()
    return {
        "step_seconds": ended[1] - ended[0],
        "losses": [losses["chosen_loss_before"], losses["chosen_loss_after"]],
        "lora_mb": sum(path.stat().st_size for path in run.lora.glob("*.safetensors")) / 2**20,
    }


def sample(run: Run) -> dict[str, Any]:
    generator = Generator.load(Base.load(run.base), run.lora)
    base, store = generator.base, run.store
    first = base.encode(store.read("frames", 0, 1))
    state = torch.from_numpy(store.read("states", 0, 1))
    seconds, latents = timed(
        lambda: generator.sample(first, [store.task.prompt], torch.Generator().manual_seed(0), 1, state)
    )
    decode_seconds, image = timed(lambda: base.decode(latents))
    frames = Grid(run.config.k).to_frames(image)
    if frames.shape != (1, run.config.k, 84, 84, 3) or not latents.isfinite().all():
        raise PixeltrajError(f"{run.config.kind} made frames of shape {frames.shape}, or numbers that are none")
    return {"sample_seconds": seconds, "decode_seconds": decode_seconds}


def plain(run: Run) -> dict[str, Any]:
    """Diffusers' own pipeline with our LoRA, which has to change what it makes."""
    import diffusers

    shape, grid = SHAPES[run.config.kind], Grid(run.config.k)
    nothing: dict[str, Any] = dict.fromkeys(("safety_checker", "feature_extractor"))
    pipeline = getattr(diffusers, shape.pipeline).from_pretrained(run.base, requires_safety_checker=False, **nothing)
    picture = grid.to_image(np.repeat(run.store.read("frames", 0, 1)[:, None], run.config.k, axis=1)) / 2 + 0.5
    height, width = picture.shape[-2:]
    given: dict[str, Any] = {"height": height, "width": width}
    if shape.in_channels == 8:
        given = {"image": picture, "image_guidance_scale": 1.0}
    elif shape.in_channels == 9:
        given |= {"image": picture, "mask_image": torch.ones(1, 1, height, width), "strength": 1.0}

    def generate() -> np.ndarray:
        rng = torch.Generator().manual_seed(0)
        made = pipeline(
            run.store.task.prompt,
            num_inference_steps=1,
            guidance_scale=1.0,
            output_type="np",
            generator=rng,
            **given,
        )
        return made.images[0]

    _, without = timed(generate)
    pipeline.load_lora_weights(run.lora)
    seconds, image = timed(generate)
    changed = float(np.abs(image - without).max())
    if image.shape != (height, width, 3) or not changed > 0:
        raise PixeltrajError(f"diffusers made an image of shape {image.shape}, changed by {changed} by the LoRA")
    return {"sample_seconds": seconds, "changed_by_lora": changed}


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    with torch.no_grad():
        done = work()
    return time.perf_counter() - began, done


def measured(work: Callable[[Run], dict[str, Any]]) -> Callable[[Run], dict[str, Any]]:
    """And the most memory that the process had so far."""

    def with_memory(run: Run) -> dict[str, Any]:
        found = work(run)
        return found | {"peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}

    return with_memory


STAGES: list[Stage[Run]] = [
    Stage("base", measured(make_base)),
    Stage("store", measured(make_store)),
    Stage("finetune", measured(tune), after=("base", "store")),
    Stage("sample", measured(sample), after=("finetune",)),
    Stage("diffusers", measured(plain), after=("sample",)),
]


def main(config: Config) -> int:
    run = Run(config)
    remember(run.out, {"kind": config.kind, "k": config.k, "tiny": config.tiny, "out": str(config.out)})
    run_stages(run, STAGES, MODULE)
    report = {
        "kind": config.kind,
        "k": config.k,
        "tiny": config.tiny,
        "stages": {stage.name: result(run.out, stage.name) for stage in STAGES},
        "provenance": provenance(),
    }
    if config.json:
        write_json(config.json, report)
    print(json.dumps(report, indent=2))
    return 0


def one_stage(out: Path, name: str) -> int:
    """What `run_stages` starts."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    said = read_json(out / "config.json", "benchmark")
    config = Config(said["kind"], said["k"], said["tiny"], Path(said["out"]))
    run_stage(Run(config), next(stage for stage in STAGES if stage.name == name))
    return 0


if __name__ == "__main__":
    if len(sys.argv) == 3 and not sys.argv[1].startswith("-"):
        sys.exit(guarded(lambda: one_stage(Path(sys.argv[1]), sys.argv[2])))
    sys.exit(guarded(lambda: main(tyro.cli(Config, prog=f"python -m {MODULE}", description=__doc__))))
