"""A whole Stable Diffusion in one .safetensors file, its tensors named as the first release named them.

It has no configs and no tokenizer. Those are taken from a folder beside it that is called as it is, without the
suffix, in diffusers' layout without weights; where there is none, from the hub, or its cache.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import init_empty_weights
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from safetensors import safe_open
from transformers import CLIPTextModel

from pixeltraj.base_files import CHANNELS, BaseFiles, check_configs, require_safetensors
from pixeltraj.errors import PixeltrajError

UNET, VAE = "model.diffusion_model.", "first_stage_model."
FIRST = f"{UNET}input_blocks.0.0.weight"
CLIP, OPEN_CLIP = "cond_stage_model.transformer.", "cond_stage_model.model."
"""The text encoders of Stable Diffusion 1 and 2."""
CONFIGS = "stable-diffusion-v1-5/stable-diffusion-v1-5"
"""A repository on the hub that has the configs of all Stable Diffusions 1. Those of 2 predict either v or epsilon, and
their weights do not tell which."""


@dataclass(frozen=True)
class Contents:
    shapes: dict[str, tuple[int, ...]]
    text: str
    """The prefix of the text encoder's tensors."""

    @property
    def in_channels(self) -> int:
        return self.shapes[FIRST][1]

    def require_described(self, path: Path, configs: Path) -> None:
        """Raises PixeltrajError unless U-Net and VAE have as many tensors as their configs describe."""
        parts: dict[str, tuple[Any, str]] = {"unet": (UNet2DConditionModel, UNET), "vae": (AutoencoderKL, VAE)}
        for part, (model, prefix) in parts.items():
            with init_empty_weights():
                described = len(model.from_config(model.load_config(configs, subfolder=part)).state_dict())
            if (there := sum(name.startswith(prefix) for name in self.shapes)) != described:
                raise PixeltrajError(
                    f"{path} has {there} tensors of the {part}, its config in {configs} describes {described}: it is "
                    f"not whole, or the configs are those of another Stable Diffusion"
                )


def find_single_file(path: Path, fetch_configs: Callable[[str], Path]) -> BaseFiles:
    """Raises PixeltrajError where it is not there or cannot be a base; only its header is read."""
    contents = read_header(path)
    folder, why = path.with_suffix(""), "a Stable Diffusion 2 predicts v or epsilon, and only its configs tell which"
    if not folder.is_dir():
        try:
            if contents.text == OPEN_CLIP:
                raise PixeltrajError(why)
            folder = fetch_configs(CONFIGS)
        except PixeltrajError as error:
            raise PixeltrajError(
                f"{path} has no configs beside it: put model_index.json and the folders unet, vae, text_encoder, "
                f"tokenizer and scheduler of its kind of Stable Diffusion into {folder}, weights not needed ({error})"
            ) from error
    check_configs(folder)
    contents.require_described(path, folder)
    return BaseFiles(str(path), folder, {}, path)


def read_header(path: Path) -> Contents:
    """Raises PixeltrajError unless it has U-Net, VAE and text encoder of a Stable Diffusion 1 or 2."""
    require_safetensors(path)
    with safe_open(path, framework="pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    text = next((prefix for prefix in (CLIP, OPEN_CLIP) if any(name.startswith(prefix) for name in shapes)), None)
    missing = {"U-Net": FIRST not in shapes, "VAE": not any(name.startswith(VAE) for name in shapes)}
    missing["text encoder"] = text is None
    if text is None or any(missing.values()):
        lacks = ", ".join(part for part, lacking in missing.items() if lacking)
        raise PixeltrajError(
            f"{path} is not a whole Stable Diffusion 1 or 2: it has no {lacks} of one; Stable Diffusion XL, Flux, "
            f"LoRAs and U-Nets alone cannot be a base"
        )
    if shapes[FIRST][1] not in CHANNELS:
        known = ", ".join(f"{n} ({kind})" for n, kind in CHANNELS.items())
        raise PixeltrajError(f"the U-Net of {path} takes {shapes[FIRST][1]} channels, not {known}")
    return Contents(shapes, text)


def load_single_file(path: Path, configs: Path) -> tuple[AutoencoderKL, UNet2DConditionModel, CLIPTextModel]:
    """Its parts, by diffusers' own conversion. Raises PixeltrajError where the text encoder lacks tensors."""
    contents = read_header(path)
    where: dict[str, Any] = {"config": str(configs), "local_files_only": True}
    unet = UNet2DConditionModel.from_single_file(str(path), subfolder="unet", in_channels=contents.in_channels, **where)
    none = dict.fromkeys(("safety_checker", "feature_extractor", "image_encoder"))
    pipeline = StableDiffusionPipeline.from_single_file(
        str(path), unet=unet, requires_safety_checker=False, **none, **where
    )
    text_encoder = pipeline.text_encoder
    if lacking := [name for name, tensor in text_encoder.state_dict().items() if tensor.is_meta]:
        raise PixeltrajError(f"{path} lacks {len(lacking)} tensors of the text encoder ({lacking[0]}, ...)")
    return pipeline.vae, unet, text_encoder
