"""BaseFiles: where a base's parts are, and that they can work at all, before any weight is read."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from pixeltraj.errors import PixeltrajError
from pixeltraj.files import file_hash, read_json

EMBEDDED = Path(str(files("pixeltraj") / "embedded"))
PRETRAINING = "pretraining.json"
"""Beside the parts where `pixeltraj pretrain` made them: how."""
WEIGHTS = {"vae": "diffusion_pytorch_model", "unet": "diffusion_pytorch_model", "text_encoder": "model"}
"""The parts that have weights, and how their files are called."""
PARTS = (*WEIGHTS, "tokenizer", "scheduler")
STATE_ENCODER = "state_encoder"
"""The part that only our bases have, and only if they take the current state."""
CONDITION_CHANNELS = 8
"""The U-Net takes noisy latents and the first frame's, side by side, as InstructPix2Pix does."""
INPAINTING_CHANNELS = 9
"""Noisy latents, what is to be painted as 1, and the latents of what is known."""
CHANNELS = {4: "Stable Diffusion", CONDITION_CHANNELS: "InstructPix2Pix", INPAINTING_CHANNELS: "inpainting"}
"""Kinds of base by their U-Net's input channels."""
VARIANTS = (None, "fp16")
"""Files of weights that are taken, the first one that is there: full precision, then half."""
STRANGERS = {
    "transformer": "a transformer denoises there, as in Flux and Stable Diffusion 3",
    "text_encoder_2": "it has a second text encoder, as Stable Diffusion XL has",
    "prior": "it has a prior, as unCLIP and Kandinsky have",
    "controlnet": "it is a ControlNet",
    "image_normalizer": "it wants the embedding of an image, as unCLIP does",
}
"""Parts by which another architecture is told."""
CONFIGS = ["model_index.json", PRETRAINING, "*/config.json", "scheduler/*.json", "tokenizer/*"]


@dataclass(frozen=True)
class BaseFiles:
    name: str
    """What --base finds it by again: a folder, a file, or ID@COMMIT; "" for the embedded one."""
    folder: Path
    """Configs, tokenizer, scheduler, and the weights unless they are in `checkpoint`."""
    weights: dict[str, tuple[str | None, tuple[Path, ...]]]
    """For each part in the folder that has any: the variant, and its safetensors files."""
    checkpoint: Path | None = None
    """A single file that holds all weights, named as the first Stable Diffusion's were."""

    @property
    def identity(self) -> str:
        """A hash of all weights."""
        return file_hash(*sorted(path for _, paths in self.weights.values() for path in paths), *self._single)

    @property
    def vae_identity(self) -> str:
        """A hash of the VAE's; of the whole checkpoint where they are in one."""
        return file_hash(*(sorted(self.weights["vae"][1]) if "vae" in self.weights else ()), *self._single)

    @property
    def _single(self) -> tuple[Path, ...]:
        return (self.checkpoint,) if self.checkpoint else ()


def find_folder(folder: Path, name: str) -> BaseFiles:
    """A folder in diffusers' layout. Raises PixeltrajError where it cannot be a base."""
    check_configs(folder)
    parts = [*WEIGHTS, *([STATE_ENCODER] if (folder / STATE_ENCODER).is_dir() else [])]
    return BaseFiles(name, folder, {part: part_weights(folder, part) for part in parts})


def check_configs(folder: Path) -> None:
    """Raises PixeltrajError, which says what is wrong, unless the configs are those of a Stable Diffusion 1 or 2."""
    index_file = folder / "model_index.json"
    index = read_json(index_file, "Stable Diffusion folder") if index_file.is_file() else {}
    for part, why in STRANGERS.items():
        if (index.get(part) or [None])[0] is not None:
            raise PixeltrajError(f"{folder} is no Stable Diffusion 1 or 2: {why}; give one of these with --base")
    missing = [part for part in PARTS if not (folder / part).is_dir()]
    if not index or missing:
        lacks = missing if index else ["model_index.json"]
        raise PixeltrajError(f"{folder} is not a Stable Diffusion folder: it lacks {', '.join(lacks)}")
    configs = {part: read_json(folder / part / "config.json", f"config of the {part}") for part in WEIGHTS}
    configs["scheduler"] = read_json(folder / "scheduler" / "scheduler_config.json", "config of the scheduler")
    if problem := next(problems(configs), None):
        raise PixeltrajError(f"{folder} cannot be a base: {problem}; give a Stable Diffusion 1 or 2 with --base")


def problems(configs: dict[str, dict[str, Any]]) -> Any:
    """What keeps the parts from being a base, one sentence after the other."""
    unet, vae, text, schedule = (configs[part] for part in ("unet", "vae", "text_encoder", "scheduler"))
    for part, config, wanted in (("U-Net", unet, "UNet2DConditionModel"), ("VAE", vae, "AutoencoderKL")):
        if (name := config.get("_class_name")) != wanted:
            yield f"its {part} is a {name}, not a {wanted}"
    if (kind := text.get("model_type")) != "clip_text_model":
        yield f"its text encoder is a {kind}, not a clip_text_model"
    for extra in ("addition_embed_type", "class_embed_type", "encoder_hid_dim", "num_class_embeds"):
        if unet.get(extra) is not None:
            yield f"its U-Net wants a condition that nothing here has ({extra}: {unet[extra]})"
    if (channels := unet.get("in_channels", 4)) not in CHANNELS:
        known = ", ".join(f"{n} ({kind})" for n, kind in CHANNELS.items())
        yield f"its U-Net takes {channels} channels, not {known}"
    if (channels := unet.get("out_channels", 4)) != 4:
        yield f"its U-Net makes {channels} channels, not 4"
    if (channels := vae.get("latent_channels", 4)) != 4:
        yield f"its VAE has {channels} latent channels, not 4"
    if (factor := 2 ** (len(vae.get("block_out_channels", ())) - 1)) != 8:
        yield f"its VAE shrinks pictures {factor} times, not 8 times"
    if (width := unet.get("cross_attention_dim")) != (words := text.get("hidden_size")):
        yield f"its U-Net wants words {width} numbers wide, its text encoder makes them {words} wide"
    if (kind := schedule.get("prediction_type", "epsilon")) not in ("epsilon", "v_prediction"):
        yield f"its U-Net predicts {kind}, neither epsilon nor v_prediction"


def part_weights(folder: Path, part: str) -> tuple[str | None, tuple[Path, ...]]:
    """The variant and the safetensors files of a part. Raises PixeltrajError where there are none that can be read."""
    stem = WEIGHTS.get(part, WEIGHTS["unet"])
    for variant in VARIANTS:
        whole = folder / part / ".".join([stem, *([variant] if variant else []), "safetensors"])
        shards = folder / part / ".".join([stem, "safetensors", "index", *([variant] if variant else []), "json"])
        if whole.is_file():
            found = (whole,)
        elif shards.is_file():
            names = set(read_json(shards, "index of shards")["weight_map"].values())
            found = tuple(sorted(folder / part / name for name in names))
        else:
            continue
        for path in found:
            require_safetensors(path)
        return variant, found
    if any((folder / part).glob("*.bin")):
        raise PixeltrajError(
            f"the weights in {folder / part} are pickled, and a pickle can run anything: where you trust it, write "
            f'them again with `python -c "from diffusers import DiffusionPipeline as P; '
            f"P.from_pretrained('{folder}', use_safetensors=False).save_pretrained('NEW')\"` and give --base NEW"
        )
    raise PixeltrajError(f"{folder / part} has no weights: {stem}.safetensors is missing; get the checkpoint again")


def require_safetensors(path: Path) -> None:
    """Raises PixeltrajError unless the file is there, has the header of a safetensors file, and is all there."""
    try:
        with safe_open(path, framework="pt"):
            return
    except FileNotFoundError:
        raise PixeltrajError(f"no weights at {path}; get the checkpoint again") from None
    except (SafetensorError, OSError) as error:
        hint = " (a pointer that git-lfs has not replaced)" if path.stat().st_size < 1024 else ""
        raise PixeltrajError(f"{path} is not a whole safetensors file{hint}: {error}; get it again") from error
