"""Weights: what fine-tuning changes, kept in checkpoints and written for others."""

from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from diffusers import StableDiffusionPipeline
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pixeltraj.base import Base
from pixeltraj.errors import PixeltrajError
from pixeltraj.files import read_json, write_whole
from pixeltraj.generator import CONFIG_FILE, CONV_IN_FILE, LORA_FILE, STATE_FILE, make_state_encoder
from pixeltraj.prompt import PromptKind
from pixeltraj.state_encoder import StateEncoder


def trainable_state_encoder(base: Base) -> StateEncoder:
    """The base's own, or a new one where it has none."""
    encoder = base.state_encoder or make_state_encoder(base)
    return encoder.to(base.unet.device).train().requires_grad_(True)


def trained_parameters(base: Base) -> list[torch.nn.Parameter]:
    models = [base.unet, *([] if base.state_encoder is None else [base.state_encoder]), base.text_encoder]
    return [p for model in models for p in model.parameters() if p.requires_grad]


def _adapted(base: Base) -> dict[str, torch.nn.Module]:
    """The models that have a LoRA, by the prefix of its tensors in diffusers' file; several processes train wrapped
    ones."""
    models = {"unet": base.unet, "text_encoder": base.text_encoder}
    bare = {name: getattr(model, "module", model) for name, model in models.items()}
    return {name: model for name, model in bare.items() if hasattr(model, "peft_config")}


def _lora(base: Base) -> dict[str, Tensor]:
    """By the names that diffusers gives them."""
    return {
        f"{name}.{key}": value
        for name, model in _adapted(base).items()
        for key, value in get_peft_model_state_dict(model).items()
    }


def whole_parts(base: Base) -> dict[str, torch.nn.Module]:
    """What is trained whole beside the LoRA, by the file it goes to."""
    unet = getattr(base.unet, "module", base.unet)  # several processes train a wrapped one
    parts: dict[str, torch.nn.Module] = {CONV_IN_FILE: unet.conv_in} if base.widened else {}
    if base.state_encoder is not None:
        parts[STATE_FILE] = base.state_encoder
    return parts


def trained_weights(base: Base, accelerator: Accelerator) -> dict[str, dict[str, Tensor]]:
    return {LORA_FILE: _lora(base)} | {
        name: accelerator.unwrap_model(part).state_dict() for name, part in whole_parts(base).items()
    }


def read_weights(base: Base, folder: Path, prompt: PromptKind) -> dict[str, dict[str, Tensor]]:
    """What `write_weights` wrote, as `trained_weights` has it.

    Raises PixeltrajError unless it was trained on this base, told the same, and every tensor has its place.
    """
    config = read_json(folder / CONFIG_FILE, "fine-tuned LoRA")
    if config["base"] != base.identity:
        raise PixeltrajError(f"the LoRA in {folder} was trained on another base than {base.path}; start from one of it")
    if "distilled" in config:
        raise PixeltrajError(
            f"the LoRA in {folder} is distilled, which more fine-tuning would undo; start from the one that it was "
            f"distilled from"
        )
    if config["prompt"] != prompt or config["states"] != (base.state_encoder is not None):
        raise PixeltrajError(
            f"the LoRA in {folder} was trained with prompt {config['prompt']} and states {config['states']}; go on "
            f"with the same"
        )
    wanted = {LORA_FILE: _lora(base)}
    wanted |= {name: part.state_dict() for name, part in whole_parts(base).items()}
    weights = {name: _tensors(folder / name) for name in wanted}
    for name, there in wanted.items():
        shapes, found = ({key: tuple(value.shape) for key, value in part.items()} for part in (there, weights[name]))
        if shapes != found:
            raise PixeltrajError(
                f"{folder / name} has not the tensors that are trained here: it is of another rank (its own is "
                f"{config['config']['rank']}), or other layers were trained"
            )
    return weights


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise PixeltrajError(f"{path} cannot be read ({error}); fine-tune again") from error


def restore_weights(base: Base, weights: dict[str, dict[str, Tensor]]) -> None:
    for name, model in _adapted(base).items():
        prefix = f"{name}."
        own = {key.removeprefix(prefix): value for key, value in weights[LORA_FILE].items() if key.startswith(prefix)}
        set_peft_model_state_dict(model, own)
    for name, part in whole_parts(base).items():
        part.load_state_dict(weights[name])


def write_weights(weights: dict[str, dict[str, Tensor]], out: Path) -> None:
    """What `trained_weights` has: LORA_FILE as diffusers writes it; beside it what diffusers' LoRA loader could not
    take: the widened conv_in and the state encoder, where there are any."""
    for name in set(weights) - {LORA_FILE}:
        write_whole(out / name, partial(save_file, {key: value.contiguous() for key, value in weights[name].items()}))
    write_layers(weights[LORA_FILE], out)


def write_layers(lora: dict[str, Tensor], out: Path) -> None:
    """LORA_FILE; lora: by the names that diffusers gives them."""

    def save(beside: Path) -> None:
        layers: dict[str, dict[str, Tensor]] = {}
        for name, value in lora.items():
            model, _, key = name.partition(".")
            layers.setdefault(f"{model}_lora_layers", {})[key] = value.contiguous()
        StableDiffusionPipeline.save_lora_weights(beside.parent, **layers, weight_name=beside.name)

    write_whole(out / LORA_FILE, save)
