"""LoRA fine-tuning of a base on the k-frame images of a store."""

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from diffusers.training_utils import EMAModel
from tqdm import tqdm

from pixeltraj.base import Base
from pixeltraj.checkpoint import Checkpoint
from pixeltraj.errors import PixeltrajError
from pixeltraj.files import provenance, read_json, write_json
from pixeltraj.finetune.card import write_card
from pixeltraj.finetune.computing import Computing
from pixeltraj.finetune.conditions import Conditions
from pixeltraj.finetune.evaluation import Course, Evaluation
from pixeltraj.finetune.images import Batch, Images, Prior, Windows, split_windows
from pixeltraj.finetune.lora import Lora, fold, unfold
from pixeltraj.finetune.loss import diffusion_loss, draw_length, grids, learning_rate, motion_weight
from pixeltraj.finetune.processes import Processes, check_launch
from pixeltraj.finetune.weights import (
    read_weights,
    restore_weights,
    trainable_state_encoder,
    trained_parameters,
    trained_weights,
    write_weights,
)
from pixeltraj.generator import CONFIG_FILE, Generator
from pixeltraj.grid import Grid
from pixeltraj.prompt import PromptKind
from pixeltraj.settings import changed, recorded
from pixeltraj.store import Store

CHECKPOINT_EVERY = 50
READ_EVERY = 10
ADDED = ("start", "ema", "min_snr", "lora", "computing", "prior")
"""Settings that there once were not: at their defaults they are not told, so that what was trained before stays the
same run."""


@dataclass(frozen=True)
class FinetuneConfig:
    store: Path
    """A rendered store; every fifth episode is held out."""
    out: Path
    """Folder for the LoRA: a new one, or one that an interrupted run of the same command left."""
    base: str | None = None
    """A diffusers folder, single file or hub id; the embedded base if not given."""
    k: tuple[int, ...] = (5,)
    """Frames in an image: 5, 10, 15, 20 or 25; of several, each step draws one, and one LoRA makes all of them."""
    steps: int = 600
    """Training steps."""
    batch: int = 8
    """Images of five frames a step and process; of longer ones as many fewer."""
    rank: int = 16
    """Rank of the LoRA."""
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
    ema: float = 0.0
    """Decay of the averaged weights that are kept; 0 keeps the last ones."""
    min_snr: float | None = None
    """Weighs timesteps by min(SNR, this) (Hang et al. 2023, who take 5); all alike if not given."""
    lora: Annotated[Lora, tyro.conf.arg(name="")] = field(default_factory=Lora)
    computing: Annotated[Computing, tyro.conf.arg(name="")] = field(default_factory=Computing)
    prior: Prior = field(default_factory=Prior)

    def check(self) -> None:
        if min(self.steps, self.batch, self.rank) < 1 or self.lr <= 0:
            raise PixeltrajError("--steps, --batch and --rank must be at least 1 and --lr above 0")
        shares = (self.no_prompt, self.no_state, self.no_frame)
        if min(shares) < 0 or max(shares) > 1:
            raise PixeltrajError("--no-prompt, --no-state and --no-frame are shares: from 0 to 1")
        if not 0 <= self.ema < 1:
            raise PixeltrajError("--ema must be from 0 to below 1")
        if self.min_snr is not None and self.min_snr <= 0:
            raise PixeltrajError("--min-snr must be above 0; leave it out to weigh all timesteps alike")
        if not self.k:
            raise PixeltrajError("--k must name at least one length")
        for k in self.k:
            Grid(k)
        for part in (self.lora, self.computing, self.prior):
            part.check()

    def settings(self) -> dict[str, str]:
        """What a run has to share with one that it goes on from."""
        unset = {f.name: f.default_factory() if callable(f.default_factory) else f.default for f in fields(self)}
        untold = [key for key in ADDED if getattr(self, key) == unset[key]]
        return recorded({key: value for key, value in asdict(self).items() if key not in ("out", *untold)})


def finetune(config: FinetuneConfig, windows: Windows | None = None) -> dict[str, Any]:
    """Train, or go on training, and write what plain diffusers loads. Returns what CONFIG_FILE holds.

    windows: (W, k) rows of the store for each k, to be trained on and measured with instead of the store's own; a k
    that has none is not trained. Whoever chooses them shows how far things are: there is no bar.
    Multi-process under `accelerate launch`: the processes share the images of a step, the first one writes.
    """
    config.check()
    check_launch(config.computing)
    settings = config.settings()
    if (config.out / CONFIG_FILE).exists():
        done = read_json(config.out / CONFIG_FILE, "fine-tuned LoRA")
        if other := ", ".join(changed(done["config"], settings)):
            raise PixeltrajError(f"{config.out} holds a LoRA trained with another {other}; give another --out")
        return done
    store = Store.open(config.store)
    store.require_frames()
    training, measured = split_windows(store, config.k) if windows is None else (windows, windows)
    lengths = tuple(k for k in config.k if len(training[k]))
    stores = [store, *config.prior.open(lengths)]
    base = Base.load(config.base)
    generator = Generator(base, config.k[0], base.identity, config.k, config.prompt)
    processes = Processes(config.computing.accumulate)
    accelerator = processes.accelerator
    device, count = accelerator.device, accelerator.num_processes
    # a prompt that is too long is told here
    generator.embed([prompt for each in stores for prompt in each.task.prompts])
    base.vae.to(device)
    with accelerator.main_process_first():
        images = Images(stores, base, training, config.prior.share)
    base.vae.cpu()
    torch.manual_seed(config.seed)
    config.lora.add(base, config.rank)
    base.unet.to(device)
    if base.widened:  # the new channels start at zero and have to be learned
        base.unet.conv_in.requires_grad_(True)
    base.state_encoder = trainable_state_encoder(base) if config.states else None
    if config.start is not None:
        restore_weights(base, read_weights(base, config.start, config.prompt))
        unfold(base)
    config.computing.prepare(base.unet)
    base.text_encoder.to(device)
    checkpoint = Checkpoint(config.out / "checkpoint", settings | ({"processes": count} if count > 1 else {}))
    step, states = checkpoint.load()
    if states:
        restore_weights(base, states["lora"])
    conditions = Conditions(stores, generator, learning=config.lora.text_encoder)
    if not config.lora.text_encoder:
        base.text_encoder.cpu()
    check = Evaluation(images, {k: measured[k] for k in lengths}, conditions, config.seed, config.computing)
    before = states["heldout_loss_before"] if states else check.losses(generator)
    course = Course(accelerator, states.get("losses", []))
    models = processes.wrap(base, text=config.lora.text_encoder)
    parameters = trained_parameters(base)
    optimizer = accelerator.prepare_optimizer(config.computing.optimizer(parameters, config.lr))
    average = EMAModel(parameters, decay=config.ema) if config.ema else None
    scaler = config.computing.scaler(device)
    if states:
        processes.restore(states, parameters, optimizer, average)
        scaler.load_state_dict(states.get("scaler", {}))
    base.unet.train()
    bar = tqdm(
        range(step, config.steps),
        desc="finetune",
        initial=step,
        total=config.steps,
        unit="step",
        disable=windows is not None or not accelerator.is_main_process,
    )
    parts = count * config.computing.accumulate
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config.lr, step, config.steps)
        rng = np.random.default_rng([config.seed, step, 0])  # the same in every process
        current = generator.at(draw_length(rng, lengths))
        size = grids(config.batch, current.k) * parts
        batch = Batch.draw(images, rng, current.grid, size, config.no_prompt, config.no_state, config.no_frame)
        motion = motion_weight(current.grid, images.tiles(batch.rows)).mean().to(device) if parts > 1 else None
        total = torch.zeros((), device=device)
        for i in range(config.computing.accumulate):
            part = batch.part(i * count + accelerator.process_index, parts)
            with accelerator.accumulate(*models):
                tiles = images.tiles(part.rows).to(device)
                embedding = conditions.embed(current, part.rows[:, 0], part.told, part.stated)
                loss = diffusion_loss(current, tiles, embedding, part.noise, config.computing, config.min_snr, motion)
                accelerator.backward(scaler.scale(loss))
                if accelerator.sync_gradients:
                    scaler.unscale_(optimizer)
                    accelerator.clip_grad_norm_(parameters, 1.0)
                    scaler.step(optimizer)
                    scaler.update()
                    optimizer.zero_grad()
            total += loss.detach() / config.computing.accumulate
        course.add(total)
        if average:
            average.step(parameters)
        if (step + 1) % READ_EVERY == 0:
            bar.set_postfix(loss=f"{np.mean(course.read()[-50:]):.4f}", refresh=False)
        if (step + 1) % CHECKPOINT_EVERY == 0:
            learned = {"lora": trained_weights(base, accelerator), "optimizer": optimizer.state_dict()}
            learned |= {"average": average.state_dict()} if average else {}
            learned |= {"scaler": scaler.state_dict()} if scaler.is_enabled() else {}
            learned |= {"heldout_loss_before": before, "losses": course.read()}
            learned = processes.whole(learned)
            if accelerator.is_main_process:
                checkpoint.save(step + 1, **learned)
    losses = course.read()
    accelerator.wait_for_everyone()
    processes.unwrap(base)
    if average:
        average.copy_to(parameters)
    fold(base)
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
        "processes": count,
        "loss_before": float(np.mean(losses[:20])),
        "loss_after": float(np.mean(losses[-50:])),
        f"{name}_before": float(np.mean(before)),
        f"{name}_after": float(np.mean(after)),
        f"{name}_after_by_k": dict(zip(map(str, lengths), after)),
        "provenance": provenance(store=store.attributes["provenance"], renderer=store.renderer),
    }
    weights = processes.whole(trained_weights(base, accelerator))
    if accelerator.is_main_process:
        write_weights(weights, config.out)
        write_card(base, result, config.out)
        write_json(config.out / CONFIG_FILE, result)
        checkpoint.remove()
    return result
