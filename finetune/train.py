"""LoRA fine-tuning of a base on the k-frame images of a store."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import StableDiffusionPipeline
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from pixeltraj.base import Base
from pixeltraj.checkpoint import Checkpoint
from pixeltraj.errors import PixeltrajError
from pixeltraj.files import provenance, read_json, write_json, write_whole
from pixeltraj.finetune.loss import diffusion_loss, draw_length, grids, learning_rate
from pixeltraj.generator import CONFIG_FILE, CONV_IN_FILE, LORA_FILE, Generator
from pixeltraj.grid import Grid
from pixeltraj.latents import store_latents
from pixeltraj.store import Store
from pixeltraj.windows import store_windows

TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2", "conv_shortcut", "time_emb_proj")
"""Attention, and the convolutions beside it: attention alone moves a small U-Net too little."""
CHECKPOINT_EVERY = 50
HELDOUT_WINDOWS = 64


@dataclass(frozen=True)
class FinetuneConfig:
    store: Path
    """A rendered store; every fifth episode is held out."""
    out: Path
    """Folder for the LoRA: a new one, or one that an interrupted run of the same command left."""
    base: str | None = None
    """A diffusers folder or hub id; the embedded base if not given."""
    k: tuple[int, ...] = (5,)
    """Frames in an image: 5, 10, 15, 20 or 25; of several, each step draws one, and one LoRA makes all of them."""
    steps: int = 600
    """Training steps."""
    batch: int = 8
    """Images of five frames a step and process; of longer ones as many fewer."""
    rank: int = 16
    """Rank of the LoRA; its alpha is the same."""
    lr: float = 1e-3
    """Peak learning rate; linear warm-up, cosine to zero."""
    no_prompt: float = 0.1
    """Share of images whose prompt is left empty, for classifier-free guidance."""
    seed: int = 0
    """Of the LoRA's weights, the batches and the noise."""

    def check(self) -> None:
        if min(self.steps, self.batch, self.rank) < 1 or self.lr <= 0:
            raise PixeltrajError("--steps, --batch and --rank must be at least 1 and --lr above 0")
        if not self.k:
            raise PixeltrajError("--k must name at least one length")
        for k in self.k:
            Grid(k)


def finetune(config: FinetuneConfig) -> dict[str, Any]:
    """Train, or go on training, and write what plain diffusers loads. Returns what CONFIG_FILE holds.

    Multi-process under `accelerate launch`: each process draws its own images, the first one writes.
    """
    config.check()
    settings = {key: str(value) for key, value in asdict(config).items() if key != "out"}
    if (config.out / CONFIG_FILE).exists():
        done = read_json(config.out / CONFIG_FILE, "fine-tuned LoRA")
        if done["config"] != settings:
            raise PixeltrajError(f"{config.out} holds a LoRA trained with other settings; give another --out")
        return done
    store = Store.open(config.store)
    store.require_frames()
    train, heldout = store.split()
    base = Base.load(config.base)
    generator = Generator(base, config.k[0], base.identity, config.k)
    accelerator = Accelerator()
    embeddings = base.embed([store.task.prompt, ""]).to(accelerator.device)  # a prompt that is too long is told here
    with accelerator.main_process_first():
        latents = store_latents(store, base)
    torch.manual_seed(config.seed)
    base.unet.add_adapter(LoraConfig(r=config.rank, lora_alpha=config.rank, target_modules=list(TARGETS)))
    if base.widened:  # the new channels start at zero and have to be learned
        base.unet.conv_in.requires_grad_(True)
    parameters = [p for p in base.unet.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=1e-2)
    checkpoint = Checkpoint(config.out / "checkpoint", settings)
    step, states = checkpoint.load()
    if states:
        restore_weights(base, states["lora"])
        optimizer.load_state_dict(states["optimizer"])
    check = Evaluation(latents, {k: store_windows(store, k, heldout) for k in config.k}, embeddings[:1], config.seed)
    before = states["heldout_loss_before"] if states else check.losses(generator)
    losses: list[float] = states.get("losses", [])
    base.unet, optimizer = accelerator.prepare(base.unet, optimizer)
    base.unet.train()
    windows = {k: store_windows(store, k, train) for k in config.k}
    bar = tqdm(
        range(step, config.steps),
        desc="finetune",
        initial=step,
        total=config.steps,
        unit="step",
        disable=not accelerator.is_main_process,
    )
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config.lr, step, config.steps)
        rng = np.random.default_rng([config.seed, step, accelerator.process_index])
        current = generator.at(draw_length(rng, config.k))
        drawn = rng.integers(len(windows[current.k]), size=grids(config.batch, current.k))
        tiles = latents[windows[current.k][drawn]].float().to(accelerator.device)
        embedding = embeddings[(rng.random(len(tiles)) < config.no_prompt).astype(int)]
        noise_rng = torch.Generator().manual_seed(int(rng.integers(2**62)))
        loss = diffusion_loss(current, current.grid.join(tiles), tiles[:, 0], embedding, noise_rng)
        optimizer.zero_grad()
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        losses.append(loss.item())
        if step % 10 == 0:
            bar.set_postfix(loss=f"{np.mean(losses[-50:]):.4f}", refresh=False)
        if (step + 1) % CHECKPOINT_EVERY == 0 and accelerator.is_main_process:
            checkpoint.save(
                step + 1,
                lora=trained_weights(base, accelerator),
                optimizer=optimizer.state_dict(),
                heldout_loss_before=before,
                losses=losses,
            )
    accelerator.wait_for_everyone()
    base.unet = accelerator.unwrap_model(base.unet).eval()
    after = check.losses(generator)
    result: dict[str, Any] = {
        "config": settings,
        "base": base.identity,
        "base_path": base.path,
        "k": list(config.k),
        "fingerprint": store.task.fingerprint(),
        "widened": base.widened,
        "steps": config.steps,
        "loss_before": float(np.mean(losses[:20])),
        "loss_after": float(np.mean(losses[-50:])),
        "heldout_loss_before": float(np.mean(before)),
        "heldout_loss_after": float(np.mean(after)),
        "heldout_loss_after_by_k": dict(zip(map(str, config.k), after)),
        "provenance": provenance(store=store.attributes["provenance"], renderer=store.renderer),
    }
    if accelerator.is_main_process:
        write_lora(base, config.out)
        write_json(config.out / CONFIG_FILE, result)
        checkpoint.remove()
    return result


class Evaluation:
    """The loss on fixed held-out windows with fixed noise, so that two figures can be compared."""

    def __init__(self, latents: Tensor, windows: dict[int, np.ndarray], embedding: Tensor, seed: int) -> None:
        """windows: (W, k) rows of the store for each k."""
        self.tiles, self.embedding = {}, embedding
        for k, rows in windows.items():
            rng = np.random.default_rng(seed)
            chosen = rng.choice(len(rows), size=min(grids(HELDOUT_WINDOWS, k), len(rows)), replace=False)
            self.tiles[k] = latents[rows[chosen]].float()

    def losses(self, generator: Generator) -> list[float]:
        """One for each k."""
        return [self._loss(generator.at(k), tiles) for k, tiles in self.tiles.items()]

    @torch.no_grad()
    def _loss(self, generator: Generator, all_tiles: Tensor) -> float:
        device = self.embedding.device
        parts = []
        for i, tiles in enumerate(all_tiles.to(device).split(8)):
            rng = torch.Generator().manual_seed(i)
            embedding = self.embedding.expand(len(tiles), -1, -1)
            loss = diffusion_loss(generator, generator.grid.join(tiles), tiles[:, 0], embedding, rng)
            parts.append(loss.item() * len(tiles))
        return sum(parts) / len(all_tiles)


def trained_weights(base: Base, accelerator: Accelerator) -> dict[str, Tensor]:
    unet = accelerator.unwrap_model(base.unet)
    weights = get_peft_model_state_dict(unet)
    if base.widened:
        weights |= {f"conv_in.{name}": value for name, value in unet.conv_in.state_dict().items()}
    return weights


def restore_weights(base: Base, weights: dict[str, Tensor]) -> None:
    conv_in = {n.removeprefix("conv_in."): v for n, v in weights.items() if n.startswith("conv_in.")}
    set_peft_model_state_dict(base.unet, {n: v for n, v in weights.items() if not n.startswith("conv_in.")})
    if base.widened:
        base.unet.conv_in.load_state_dict(conv_in)


def write_lora(base: Base, out: Path) -> None:
    """LORA_FILE as diffusers writes it; beside it the widened conv_in, where there is one, which diffusers'
    LoRA loader could not take."""
    if base.widened:
        tensors = {name: value.detach().contiguous() for name, value in base.unet.conv_in.state_dict().items()}
        write_whole(out / CONV_IN_FILE, lambda beside: save_file(tensors, beside))

    def save(beside: Path) -> None:
        layers = get_peft_model_state_dict(base.unet)
        StableDiffusionPipeline.save_lora_weights(beside.parent, unet_lora_layers=layers, weight_name=beside.name)

    write_whole(out / LORA_FILE, save)
