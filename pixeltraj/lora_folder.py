"""A folder with a LoRA, ours or anybody's that diffusers loads, put into a base so that nothing of it is lost."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from diffusers import StableDiffusionPipeline
from diffusers.utils import recurse_remove_peft_layers
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pixeltraj.base import Base
from pixeltraj.errors import PixeltrajError
from pixeltraj.files import file_hash, read_json
from pixeltraj.state_encoder import StateEncoder

LORA_FILE = "pytorch_lora_weights.safetensors"
"""What diffusers writes and reads."""
CONV_IN_FILE = "conv_in.safetensors"
"""The first convolution of a widened base; without it the condition would be ignored in silence."""
STATE_FILE = "state_encoder.safetensors"
"""The state encoder as it was fine-tuned; without it the generator takes no states."""
CONFIG_FILE = "pixeltraj.json"
"""Beside it: base, k, task, how it was made."""

T = TypeVar("T", bound=nn.Module)


def read_config(base: Base, folder: Path) -> dict[str, Any] | None:
    """What fine-tuning wrote of the LoRA; None where somebody else made it. Raises PixeltrajError unless it was made
    for this base, and all its files are there."""
    if not (folder / CONFIG_FILE).is_file() and lora_file(folder).is_file():
        return None
    config: dict[str, Any] = read_json(folder / CONFIG_FILE, "fine-tuned LoRA")
    if not isinstance(config["k"], list) or "prompt" not in config:
        raise PixeltrajError(f"the LoRA in {folder} was written by an older pixeltraj; fine-tune again")
    if config["base"] != base.identity:
        raise PixeltrajError(
            f"the LoRA in {folder} was trained on the base {config['base']} ({config['base_path']}), this is "
            f"{base.identity} ({base.path}); give that one with --base or fine-tune again"
        )
    if config["states"] and not (folder / STATE_FILE).is_file():
        raise PixeltrajError(f"{folder} lacks {STATE_FILE}, without which the current state is ignored")
    if base.widened and not (folder / CONV_IN_FILE).is_file():
        raise PixeltrajError(f"{folder} lacks {CONV_IN_FILE}, without which {base.path} ignores the first frame")
    return config


def lora_file(lora: Path) -> Path:
    """The LoRA of a folder, or the file itself."""
    return lora / LORA_FILE if lora.suffix != ".safetensors" else lora


def lora_identity(lora: Path) -> str:
    """A hash of all weights."""
    beside = [path for name in (CONV_IN_FILE, STATE_FILE) if (path := lora / name).is_file()]
    return file_hash(lora_file(lora), *beside)


def fuse_lora(base: Base, lora: Path) -> None:
    """Put it into the base's own weights: every pass would pay for two sets. Raises PixeltrajError unless every tensor
    finds its place."""
    load_lora(base, lora)
    for model in (base.unet, base.text_encoder):
        if getattr(model, "peft_config", None):
            for layer in model.modules():
                if isinstance(layer, BaseTunerLayer):
                    layer.merge(safe_merge=True)
            recurse_remove_peft_layers(model)
            del model.peft_config
            model._hf_peft_config_loaded = False


def load_lora(base: Base, lora: Path) -> None:
    """Put it beside the weights of U-Net and text encoder, as plain diffusers does. Raises PixeltrajError unless every
    tensor finds its place, of which diffusers only warns."""
    path = lora_file(lora)
    try:
        load_file(path)
    except (OSError, SafetensorError) as error:
        raise PixeltrajError(f"no LoRA at {path} ({error})") from error
    models: tuple[nn.Module, ...] = (base.unet, base.text_encoder)
    try:
        state, alphas, metadata = StableDiffusionPipeline.lora_state_dict(
            str(path.parent), weight_name=path.name, use_safetensors=True, return_lora_metadata=True
        )
        how = {"network_alphas": alphas, "metadata": metadata}
        prefixes = {name.partition(".")[0] for name in state}
        if "unet" in prefixes:
            StableDiffusionPipeline.load_lora_into_unet(state, unet=base.unet, **how)
        if "text_encoder" in prefixes:
            StableDiffusionPipeline.load_lora_into_text_encoder(
                state, text_encoder=base.text_encoder, prefix="text_encoder", **how
            )
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise PixeltrajError(f"the LoRA at {path} does not fit the base {base.path}: {reason}") from error
    there, placed = digests(state.values()), digests(adapters(models))
    if there != placed:
        raise PixeltrajError(
            f"the LoRA at {path} has {len(state)} tensors, of which {(there - placed).total()} found no place in "
            f"{base.path}, and lacks {(placed - there).total()} that belong to the others"
        )
    if (file := lora / CONV_IN_FILE).is_file():
        fill(base.unet.conv_in, base, file)
    for model in models:
        model.requires_grad_(False)
    base.state_encoder = load_state_encoder(base, file) if (file := lora / STATE_FILE).is_file() else None


def adapters(models: tuple[nn.Module, ...]) -> list[Tensor]:
    return [value for model in models for name, value in model.named_parameters() if ".lora_" in name]


def digests(tensors: Iterable[Tensor]) -> Counter[bytes]:
    """What they hold: what has been loaded goes by other names, but has the same numbers."""
    return Counter(hashlib.sha256(x.detach().float().cpu().contiguous().numpy().tobytes()).digest() for x in tensors)


def make_state_encoder(base: Base) -> StateEncoder:
    """An untrained one, of the shape of the base's own where it has one."""
    if base.state_encoder is not None:
        return StateEncoder(**{key: value for key, value in base.state_encoder.config.items() if key[0] != "_"})
    return StateEncoder(base.unet.config.cross_attention_dim)


def load_state_encoder(base: Base, path: Path) -> StateEncoder:
    return fill(make_state_encoder(base), base, path).eval().requires_grad_(False)


def fill(part: T, base: Base, path: Path) -> T:
    """Raises PixeltrajError unless the file has exactly the part's tensors."""
    try:
        part.load_state_dict(load_file(path))
    except (RuntimeError, OSError, SafetensorError) as error:
        raise PixeltrajError(f"{path} does not fit the base {base.path}: {error}") from error
    return part
