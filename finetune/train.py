"""LoRA fine-tuning of a base on the k-frame images of a store."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from peft import LoraConfig
from torch import Tensor
from tqdm import tqdm

from pixeltraj.base import Base
from pixeltraj.checkpoint import Checkpoint
from pixeltraj.errors import PixeltrajError
from pixeltraj.files import provenance, read_json, write_json
from pixeltraj.finetune.conditions import Conditions
from pixeltraj.finetune.loss import diffusion_loss, draw_length, grids, learning_rate
from pixeltraj.finetune.weights import (
    read_weights,
    restore_weights,
    trainable_state_encoder,
    trained_parameters,
    trained_weights,
    write_lora,
)
from pixeltraj.generator import CONFIG_FILE, Generator
from pixeltraj.grid import Grid
from pixeltraj.latents import store_latents
from pixeltraj.prompt import PromptKind
from pixeltraj.store import Store
from pixeltraj.windows import require_windows, store_windows

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
    lr: float = 4e-3
    """Peak learning rate; linear warm-up, cosine to zero. For the embedded base: a Stable Diffusion of full size wants
    1e-4."""
    prompt: PromptKind = "language"
    """What the generator is told of the task: its words, a code that only tells tasks apart, or nothing."""
    states: bool = True
    """Tell the generator the current state, as tokens beside the prompt."""
    no_prompt: float = 0.1
    """Share of images whose prompt is left empty, for classifier-free guidance."""
    no_state: float = 0.1
    """Share of steps without the state's tokens, likewise."""
    no_frame: float = 0.05
    """Share of images whose first frame is withheld, likewise."""
    seed: int = 0
    """Of the LoRA's weights, the batches and the noise."""
    start: Path | None = None
    """A LoRA of the same base, rank and conditions to go on from; from nothing if not given."""

    def check(self) -> None:
        if min(self.steps, self.batch, self.rank) < 1 or self.lr <= 0:
            raise PixeltrajError("--steps, --batch and --rank must be at least 1 and --lr above 0")
        shares = (self.no_prompt, self.no_state, self.no_frame)
        if min(shares) < 0 or max(shares) > 1:
            raise PixeltrajError("--no-prompt, --no-state and --no-frame are shares: from 0 to 1")
        if not self.k:
            raise PixeltrajError("--k must name at least one length")
        for k in self.k:
            Grid(k)


def finetune(config: FinetuneConfig, windows: dict[int, np.ndarray] | None = None) -> dict[str, Any]:
    """Train, or go on training, and write what plain diffusers loads. Returns what CONFIG_FILE holds.

    windows: (W, k) rows of the store for each k, to be trained on and measured with instead of the store's own; a k
    that has none is not trained. Whoever chooses them shows how far things are: there is no bar.
    Multi-process under `accelerate launch`: each process draws its own images, the first one writes.
    """
    config.check()
    settings = {key: str(value) for key, value in asdict(config).items() if key != "out"}
    if config.start is None:  # as before there was a choice
        del settings["start"]
    if (config.out / CONFIG_FILE).exists():
        done = read_json(config.out / CONFIG_FILE, "fine-tuned LoRA")
        if done["config"] != settings:
            raise PixeltrajError(f"{config.out} holds a LoRA trained with other settings; give another --out")
        return done
    store = Store.open(config.store)
    store.require_frames()
    training, measured = _windows(store, config.k) if windows is None else (windows, windows)
    lengths = tuple(k for k in config.k if len(training[k]))
    base = Base.load(config.base)
    generator = Generator(base, config.k[0], base.identity, config.k, config.prompt)
    accelerator = Accelerator()
    generator.embed([store.task.prompt])  # a prompt that is too long is told here
    with accelerator.main_process_first():
        latents = store_latents(store, base)
    torch.manual_seed(config.seed)
    base.unet.add_adapter(LoraConfig(r=config.rank, lora_alpha=config.rank, target_modules=list(TARGETS)))
    if base.widened:  # the new channels start at zero and have to be learned
        base.unet.conv_in.requires_grad_(True)
    base.state_encoder = trainable_state_encoder(base) if config.states else None
    if config.start is not None:
        restore_weights(base, read_weights(base, config.start, config.prompt))
    parameters = trained_parameters(base)
    optimizer = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=1e-2)
    checkpoint = Checkpoint(config.out / "checkpoint", settings)
    step, states = checkpoint.load()
    if states:
        restore_weights(base, states["lora"])
        optimizer.load_state_dict(states["optimizer"])
    conditions = Conditions(store, generator)
    check = Evaluation(latents, {k: measured[k] for k in lengths}, conditions, config.seed)
    before = states["heldout_loss_before"] if states else check.losses(generator)
    losses: list[float] = states.get("losses", [])
    base.unet, optimizer = accelerator.prepare(base.unet, optimizer)
    if base.state_encoder is not None:
        base.state_encoder = accelerator.prepare(base.state_encoder)
    base.unet.train()
    bar = tqdm(
        range(step, config.steps),
        desc="finetune",
        initial=step,
        total=config.steps,
        unit="step",
        disable=windows is not None or not accelerator.is_main_process,
    )
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config.lr, step, config.steps)
        rng = np.random.default_rng([config.seed, step, accelerator.process_index])
        current = generator.at(draw_length(rng, lengths))
        drawn = rng.integers(len(training[current.k]), size=grids(config.batch, current.k))
        rows = training[current.k][drawn]
        tiles = latents[rows].float().to(accelerator.device)
        told = rng.random(len(rows)) >= config.no_prompt
        embedding = conditions.embed(current, rows[:, 0], told, stated=rng.random() >= config.no_state)
        noise_rng = torch.Generator().manual_seed(int(rng.integers(2**62)))
        loss = diffusion_loss(current, tiles, embedding, noise_rng, config.no_frame)
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
    if base.state_encoder is not None:
        base.state_encoder = accelerator.unwrap_model(base.state_encoder).eval()
    after = check.losses(generator)
    name = "heldout_loss" if windows is None else "chosen_loss"
    result: dict[str, Any] = {
        "config": settings,
        "base": base.identity,
        "base_path": base.path,
        "k": list(config.k),
        "prompt": config.prompt,
        "states": config.states,
        "fingerprint": store.task.fingerprint(),
        "widened": base.widened,
        "steps": config.steps,
        "loss_before": float(np.mean(losses[:20])),
        "loss_after": float(np.mean(losses[-50:])),
        f"{name}_before": float(np.mean(before)),
        f"{name}_after": float(np.mean(after)),
        f"{name}_after_by_k": dict(zip(map(str, lengths), after)),
        "provenance": provenance(store=store.attributes["provenance"], renderer=store.renderer),
    }
    if accelerator.is_main_process:
        write_lora(base, config.out)
        write_json(config.out / CONFIG_FILE, result)
        checkpoint.remove()
    return result


def _windows(store: Store, lengths: tuple[int, ...]) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """For each k (W, k) rows to train on, and held out ones to measure with. Raises PixeltrajError where there are
    none."""
    require_windows(store, lengths)
    train, heldout = ({k: store_windows(store, k, part) for k in lengths} for part in store.split())
    return train, heldout


class Evaluation:
    """The loss on fixed windows with fixed noise, so that two figures can be compared."""

    def __init__(self, latents: Tensor, windows: dict[int, np.ndarray], conditions: Conditions, seed: int) -> None:
        """windows: (W, k) rows of the store for each k."""
        self.latents, self.conditions, self.rows = latents, conditions, {}
        for k, rows in windows.items():
            rng = np.random.default_rng(seed)
            chosen = rng.choice(len(rows), size=min(grids(HELDOUT_WINDOWS, k), len(rows)), replace=False)
            self.rows[k] = rows[chosen]

    def losses(self, generator: Generator) -> list[float]:
        """One for each k."""
        return [self._loss(generator.at(k), rows) for k, rows in self.rows.items()]

    @torch.no_grad()
    def _loss(self, generator: Generator, all_rows: np.ndarray) -> float:
        total = 0.0
        for i in range(0, len(all_rows), 8):
            rows = all_rows[i : i + 8]
            tiles = self.latents[rows].float().to(generator.unet.device)
            embedding = self.conditions.embed(generator, rows[:, 0], np.ones(len(rows), dtype=bool), stated=True)
            loss = diffusion_loss(generator, tiles, embedding, torch.Generator().manual_seed(i))
            total += loss.item() * len(rows)
        return total / len(all_rows)
