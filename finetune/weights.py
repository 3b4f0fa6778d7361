"""Weights: what fine-tuning changes, kept in checkpoints and written for others."""

from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers import StableDiffusionPipeline
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor

from pixeltraj.base import Base
from pixeltraj.files import write_whole
from pixeltraj.generator import CONV_IN_FILE, LORA_FILE, STATE_FILE, make_state_encoder
from pixeltraj.state_encoder import StateEncoder


def trainable_state_encoder(base: Base) -> StateEncoder:
    """The base's own, or a new one where it has none."""
    encoder = base.state_encoder or make_state_encoder(base)
    return encoder.to(base.unet.device).train().requires_grad_(True)


def trained_parameters(base: Base) -> list[torch.nn.Parameter]:
    models = [base.unet] if base.state_encoder is None else [base.unet, base.state_encoder]
    return [p for model in models for p in model.parameters() if p.requires_grad]


def whole_parts(base: Base) -> dict[str, torch.nn.Module]:
    """What is trained whole beside the LoRA, by the file it goes to."""
    unet = getattr(base.unet, "module", base.unet)  # several processes train a wrapped one
    parts: dict[str, torch.nn.Module] = {CONV_IN_FILE: unet.conv_in} if base.widened else {}
    if base.state_encoder is not None:
        parts[STATE_FILE] = base.state_encoder
    return parts


def trained_weights(base: Base, accelerator: Accelerator) -> dict[str, dict[str, Tensor]]:
    unet = accelerator.unwrap_model(base.unet)
    return {LORA_FILE: get_peft_model_state_dict(unet)} | {
        name: accelerator.unwrap_model(part).state_dict() for name, part in whole_parts(base).items()
    }


def restore_weights(base: Base, weights: dict[str, dict[str, Tensor]]) -> None:
    set_peft_model_state_dict(base.unet, weights[LORA_FILE])
    for name, part in whole_parts(base).items():
        part.load_state_dict(weights[name])


def write_lora(base: Base, out: Path) -> None:
    """LORA_FILE as diffusers writes it; beside it what diffusers' LoRA loader could not take: the widened conv_in and
    the state encoder, where there are any."""
    for name, part in whole_parts(base).items():
        tensors = {key: value.detach().contiguous() for key, value in part.state_dict().items()}
        write_whole(out / name, partial(save_file, tensors))

    def save(beside: Path) -> None:
        layers = get_peft_model_state_dict(base.unet)
        StableDiffusionPipeline.save_lora_weights(beside.parent, unet_lora_layers=layers, weight_name=beside.name)

    write_whole(out / LORA_FILE, save)
