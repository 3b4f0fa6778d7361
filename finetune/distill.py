"""Distillation: a LoRA with which a fine-tuned generator needs one to four steps (LCM-LoRA, Luo et al. 2023).

What is learned is a further LoRA. It is written together with the one that it was learned on as one LoRA of both ranks:
B [A x] of both add up to [B B'] [A; A'] x, exactly.
"""

import shutil
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from pixeltraj.base import Base
from pixeltraj.checkpoint import Checkpoint
from pixeltraj.errors import PixeltrajError
from pixeltraj.files import provenance, read_json, write_json, write_whole
from pixeltraj.finetune.card import write_card
from pixeltraj.finetune.computing import Computing
from pixeltraj.finetune.conditions import Conditions
from pixeltraj.finetune.consistency import Consistency
from pixeltraj.finetune.images import Batch, Images, Windows, split_windows
from pixeltraj.finetune.loss import Noise, draw_length, grids, learning_rate, motion_weight
from pixeltraj.finetune.train import CHECKPOINT_EVERY, FinetuneConfig
from pixeltraj.finetune.weights import write_layers
from pixeltraj.generator import CONFIG_FILE, CONV_IN_FILE, LORA_FILE, STATE_FILE, Generator
from pixeltraj.lora_folder import lora_identity, read_config
from pixeltraj.settings import changed, recorded
from pixeltraj.store import Store

HELDOUT_WINDOWS = 16


@dataclass(frozen=True)
class DistillConfig:
    lora: Annotated[Path, tyro.conf.Positional]
    """Folder that fine-tuning wrote: the teacher, which stays as it is."""
    store: Path
    """The rendered store that it was tuned to, or another of the same task; every fifth episode is held out."""
    out: Path
    """Folder for the LoRA: a new one, or one that an interrupted run of the same command left."""
    base: str | None = None
    """A diffusers folder, single file or hub id; the embedded base if not given."""
    steps: int = 300
    """Training steps."""
    batch: int = 8
    """Images of five frames a step; of longer ones as many fewer."""
    rank: int = 16
    """Rank of the further LoRA; the one that is written has the teacher's besides."""
    lr: float = 3e-3
    """Peak learning rate; linear warm-up, cosine to zero. For the embedded base: a Stable Diffusion of full size wants
    1e-4."""
    cut: int = 10
    """Steps of the teacher's whole way, which the student learns to take at once."""
    jump: int = 5
    """Steps of the teacher's after which the student has to end where it would have ended before them. The paper's 1 is
    cheapest, and wants a low --lr and many --steps, or the student runs after itself; with --cut it only follows the
    teacher."""
    seed: int = 0
    """Of the LoRA's weights, the batches and the noise."""
    computing: Annotated[Computing, tyro.conf.arg(name="")] = field(default_factory=Computing)

    def check(self) -> None:
        if min(self.steps, self.batch, self.rank) < 1 or self.lr <= 0:
            raise PixeltrajError("--steps, --batch and --rank must be at least 1 and --lr above 0")
        if self.cut < 2:
            raise PixeltrajError("--cut must be at least 2: one step of the teacher's is nothing to shorten")
        if not 1 <= self.jump <= self.cut:
            raise PixeltrajError("--jump must be from 1 to --cut")
        self.computing.check()
        if self.computing.precision == "fp16":
            raise PixeltrajError("--precision fp16 is for fine-tuning only: distill in bf16 or fp32")


def distill(config: DistillConfig) -> dict[str, Any]:
    """Train, or go on training, and write a LoRA folder with which `Generator`, and plain diffusers' LCMScheduler, need
    few steps. Returns what CONFIG_FILE holds. Raises PixeltrajError where base, LoRA and store do not fit."""
    config.check()
    base = Base.load(config.base)
    teacher = read_config(base, config.lora)
    if teacher is None or "distilled" in teacher:
        why = "was not made by fine-tuning here" if teacher is None else "is distilled already"
        raise PixeltrajError(f"{config.lora} {why}: give a folder that `pixeltraj.finetune` wrote")
    identity = lora_identity(config.lora)
    settings = recorded({key: value for key, value in asdict(config).items() if key != "out"} | {"teacher": identity})
    if (config.out / CONFIG_FILE).exists():
        done = read_json(config.out / CONFIG_FILE, "distilled LoRA")
        if other := ", ".join(changed(done["config"], settings)):
            raise PixeltrajError(f"{config.out} holds a LoRA trained with another {other}; give another --out")
        return done
    store, lengths = Store.open(config.store), tuple(teacher["k"])
    store.require_frames()
    training, heldout = split_windows(store, lengths)
    generator = Generator.load(base, config.lora)
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    base.vae.to(device)
    images = Images([store], base, training, share=0.0)
    base.vae.cpu()
    conditions = Conditions([store], generator)
    torch.manual_seed(config.seed)
    base.unet.add_adapter(LoraConfig(r=config.rank, lora_alpha=config.rank, target_modules=layers(config.lora)))
    base.unet.to(device)
    if base.state_encoder is not None:
        base.state_encoder.to(device)
    config.computing.prepare(base.unet)
    parameters = [p for p in base.unet.parameters() if p.requires_grad]
    optimizer = config.computing.optimizer(parameters, config.lr)
    checkpoint = Checkpoint(config.out / "checkpoint", settings)
    step, states = checkpoint.load()
    if states:
        set_peft_model_state_dict(base.unet, states["lora"])
        optimizer.load_state_dict(states["optimizer"])
    learners = {k: Consistency(generator.at(k), config.cut, config.jump, config.computing) for k in lengths}
    before = states.get("heldout_loss_before") or gaps(learners, images, heldout, conditions, config.seed)
    losses = states.get("losses", [])
    bar = tqdm(range(step, config.steps), desc="distill", initial=step, total=config.steps, unit="step")
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config.lr, step, config.steps)
        losses.append(learn(config, learners, images, conditions, step))
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        bar.set_postfix(loss=f"{np.mean(losses[-50:]):.4f}", refresh=False)
        if (step + 1) % CHECKPOINT_EVERY == 0:
            lora, moments = get_peft_model_state_dict(base.unet), optimizer.state_dict()
            checkpoint.save(step + 1, lora=lora, optimizer=moments, heldout_loss_before=before, losses=losses)
    after = gaps(learners, images, heldout, conditions, config.seed)
    kept = ("base", "base_path", "k", "prompt", "states", "widened")
    result = {key: teacher[key] for key in kept} | {
        "config": settings,
        "distilled": {"teacher": identity, "cut": config.cut, "jump": config.jump},
        "fingerprint": store.task.fingerprint(),
        "steps": config.steps,
        "loss_before": float(np.mean(losses[:20])),
        "loss_after": float(np.mean(losses[-50:])),
        "heldout_loss_before": float(np.mean(before)),
        "heldout_loss_after": float(np.mean(after)),
        "heldout_loss_after_by_k": dict(zip(map(str, lengths), after)),
        "provenance": provenance(store=store.attributes["provenance"], renderer=store.renderer),
    }
    for name in (CONV_IN_FILE, STATE_FILE):
        if (config.lora / name).is_file():
            write_whole(config.out / name, partial(shutil.copyfile, config.lora / name))
    write_layers(joined(load_file(config.lora / LORA_FILE), get_peft_model_state_dict(base.unet)), config.out)
    write_card(base, result, config.out)
    write_json(config.out / CONFIG_FILE, result)
    checkpoint.remove()
    return result


def learn(
    config: DistillConfig, learners: dict[int, Consistency], images: Images, conditions: Conditions, step: int
) -> float:
    """Gradients of a step, and its loss. Conditions are withheld as often as while fine-tuning."""
    rng = np.random.default_rng([config.seed, step])
    learner = learners[draw_length(rng, tuple(learners))]
    generator, parts = learner.generator, config.computing.accumulate
    shares = (FinetuneConfig.no_prompt, FinetuneConfig.no_state, FinetuneConfig.no_frame)
    batch = Batch.draw(images, rng, generator.grid, grids(config.batch, generator.k) * parts, *shares)
    device = generator.unet.device
    motion = motion_weight(generator.grid, images.tiles(batch.rows)).mean().to(device)
    total = 0.0
    for part in (batch.part(i, parts) for i in range(parts)):
        embedding = conditions.embed(generator, part.rows[:, 0], part.told, part.stated)
        loss = learner.loss(images.tiles(part.rows).to(device), embedding, part.noise, motion) / parts
        loss.backward()
        total += loss.item()
    return total


def gaps(
    learners: dict[int, Consistency], images: Images, heldout: Windows, conditions: Conditions, seed: int
) -> list[float]:
    """`Consistency.gap` for each k: the mean over fixed held-out windows, with fixed noise."""
    found = []
    for k, learner in learners.items():
        rng, generator = np.random.default_rng(seed), learner.generator
        rows = rng.choice(heldout[k], size=min(grids(HELDOUT_WINDOWS, k), len(heldout[k])), replace=False)
        with torch.no_grad():
            told, first = np.ones(len(rows), dtype=bool), images.tiles(rows[:, :1])[:, 0].to(generator.unet.device)
            embedding = conditions.embed(generator, rows[:, 0], told, stated=True)
        drawn = Noise.draw(generator.grid, len(rows), torch.Generator().manual_seed(seed))
        found.append(learner.gap(drawn.noise.to(first), first, embedding).mean().item())
    return found


def layers(lora: Path) -> list[str]:
    """The layers of the U-Net that a LoRA folder changes."""
    names = {name.partition(".lora_")[0] for name in load_file(lora / LORA_FILE)}
    return sorted(name.removeprefix("unet.") for name in names if name.startswith("unet."))


def joined(first: dict[str, Tensor], further: dict[str, Tensor]) -> dict[str, Tensor]:
    """Two LoRAs of the same layers as one that does what both do, by the names of diffusers' file. first: such a file's
    tensors; those that are not the U-Net's stay. further: as peft names those of the U-Net."""
    both = dict(first)
    for name, value in further.items():
        there = first[f"unet.{name}"]
        both[f"unet.{name}"] = torch.cat([there, value.to(there)], dim=0 if ".lora_A." in name else 1)
    return both
