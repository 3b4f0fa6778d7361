"""Base: a Stable Diffusion checkpoint, the embedded one or anybody's."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from pixeltraj.errors import PixeltrajError
from pixeltraj.files import file_hash, read_json
from pixeltraj.grid import LENGTHS, to_tiles
from pixeltraj.state_encoder import StateEncoder

EMBEDDED = Path(str(files("pixeltraj") / "embedded"))
PRETRAINING = "pretraining.json"
"""Beside them where `pixeltraj pretrain` made them: how."""
PARTS = ("vae", "unet", "text_encoder", "tokenizer", "scheduler")
STATE_ENCODER = "state_encoder"
"""The part that only our bases have, and only if they take the current state."""
CONDITION_CHANNELS = 8
"""The U-Net takes noisy latents and the first frame's, side by side, as InstructPix2Pix does."""


class Base:
    """VAE, U-Net, text encoder, tokenizer and noise schedule of one checkpoint, frozen.

    `identity` is a hash of all weights, `vae_identity` one of the VAE's: what was made with other weights does
    not fit. `widened`: the U-Net had 4 input channels and got 4 more. `lengths`: all k that its grids may have.
    `state_encoder`: what makes tokens of the current state, where there is one.
    """

    def __init__(
        self,
        path: str,
        vae: AutoencoderKL,
        unet: UNet2DConditionModel,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        noise_scheduler: DDPMScheduler,
        identity: str,
        vae_identity: str,
        widened: bool = False,
        lengths: tuple[int, ...] = LENGTHS,
        state_encoder: StateEncoder | None = None,
    ) -> None:
        self.widened, self.lengths = widened, lengths
        self.path, self.identity, self.vae_identity = path, identity, vae_identity
        self.vae = vae.eval().requires_grad_(False)
        self.unet = unet.eval().requires_grad_(False)
        self.text_encoder = text_encoder.eval().requires_grad_(False)
        self.tokenizer, self.noise_scheduler = tokenizer, noise_scheduler
        self.state_encoder = state_encoder.eval().requires_grad_(False) if state_encoder else None

    @classmethod
    def load(cls, path: str | None = None) -> "Base":
        """A diffusers folder or hub id; the embedded base if None.

        Raises PixeltrajError where parts or tensors of them are missing, left over or misshapen, or where the U-Net
        takes neither 4 channels (they are widened to 8 by zeros, so that nothing changes before training) nor 8.
        """
        folder = resolve(path)
        try:
            vae = load_whole(AutoencoderKL, folder, "vae")
            unet = load_whole(UNet2DConditionModel, folder, "unet")
            text_encoder = load_whole(CLIPTextModel, folder, "text_encoder")
            states = (folder / STATE_ENCODER).is_dir()
            state_encoder = load_whole(StateEncoder, folder, STATE_ENCODER).float() if states else None
            tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")
            noise_scheduler = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise PixeltrajError(f"{folder} cannot be loaded as a Stable Diffusion checkpoint: {reason}") from error
        widened = unet.config.in_channels == CONDITION_CHANNELS // 2
        if widened:
            widen(unet)
        if unet.config.in_channels != CONDITION_CHANNELS:
            raise PixeltrajError(
                f"the U-Net of {folder} takes {unet.config.in_channels} channels; a base must take 4 (Stable "
                f"Diffusion) or 8 (InstructPix2Pix)"
            )
        parts = (vae.float(), unet.float(), text_encoder.float(), tokenizer, noise_scheduler)
        identity = file_hash(*sorted(folder.rglob("*.safetensors")))
        vae_identity = file_hash(*sorted((folder / "vae").rglob("*.safetensors")))
        return cls(str(folder), *parts, identity, vae_identity, widened, trained_lengths(folder), state_encoder)

    @torch.no_grad()
    def encode(self, frames: np.ndarray, batch: int = 64) -> Tensor:
        """(B, 84, 84, 3) uint8 -> (B, 4, 12, 12) float32 latents of the padded tiles, scaled to the U-Net."""
        tiles, device = to_tiles(frames), self.vae.device
        with torch.autocast(device.type, torch.bfloat16):
            latents = [self.vae.encode(part.to(device)).latent_dist.mode() for part in tiles.split(batch)]
        return torch.cat(latents).float() * self.vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """(B, 4, h, w) latents -> (B, 3, 8 h, 8 w) images, about [-1, 1]."""
        return self.vae.decode(latents / self.vae.config.scaling_factor).sample

    def embed(self, prompts: list[str]) -> Tensor:
        """(B, L, D) text embeddings. Raises PixeltrajError on a prompt longer than the encoder takes."""
        length = self.tokenizer.model_max_length
        for prompt in prompts:
            if (count := len(self.tokenizer(prompt).input_ids)) > length:
                raise PixeltrajError(
                    f"the prompt {prompt!r} has {count} tokens, the text encoder of {self.path} takes {length}: give "
                    f"another --base, or a shorter prompt in pixeltraj/tasks"
                )
        tokens = self.tokenizer(prompts, padding="max_length", max_length=length, return_tensors="pt")
        return self.text_encoder(tokens.input_ids.to(self.text_encoder.device))[0]


def load_whole(model: Any, folder: Path, part: str) -> Any:
    """A part of the base. Raises PixeltrajError where tensors are missing or left over, which both libraries only
    warn of: what is missing would be random."""
    loaded, found = model.from_pretrained(folder, subfolder=part, output_loading_info=True)
    for what, keys in (("lacks", "missing_keys"), ("has no place for", "unexpected_keys")):
        if names := sorted(found[keys]):
            raise PixeltrajError(
                f"{folder}/{part} {what} {len(names)} tensors ({names[0]}, ...): its weights are not those that its "
                f"config.json describes; get the checkpoint again"
            )
    return loaded


def resolve(path: str | None) -> Path:
    """The local folder of a base: the embedded one, a folder, or a hub id that is fetched (or in the cache)."""
    folder = EMBEDDED if path is None else Path(path)
    if not folder.is_dir():
        if path is None or path.count("/") != 1 or path.startswith((".", "/", "~")):
            raise PixeltrajError(f"no base at {folder}: give a diffusers folder or a hub id with --base")
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        try:
            wanted = [f"{part}/*" for part in (*PARTS, STATE_ENCODER)]
            folder = Path(snapshot_download(path, allow_patterns=["model_index.json", PRETRAINING, *wanted]))
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
            raise PixeltrajError(f"the hub has no base {path!r} that can be reached from here ({error})") from error
    index = folder / "model_index.json"
    missing = [part for part in PARTS if not (folder / part).is_dir()]
    if not index.is_file() or missing:
        lacks = ["model_index.json"] if not index.is_file() else missing
        raise PixeltrajError(f"{folder} is not a Stable Diffusion folder: it lacks {', '.join(lacks)}")
    json.loads(index.read_text())
    return folder


def trained_lengths(folder: Path) -> tuple[int, ...]:
    """The k that `pixeltraj pretrain` trained a base for; any of another's, which knows no grids at all."""
    about = folder / PRETRAINING
    return tuple(read_json(about, "pretraining record").get("k", LENGTHS)) if about.is_file() else LENGTHS


def widen(unet: UNet2DConditionModel) -> None:
    """Give a 4-channel U-Net 4 more input channels that start at zero: its output stays what it was."""
    old = unet.conv_in
    new = torch.nn.Conv2d(CONDITION_CHANNELS, old.out_channels, old.kernel_size, old.stride, old.padding)
    with torch.no_grad():
        new.weight.zero_()
        new.weight[:, : old.in_channels] = old.weight
        assert new.bias is not None and old.bias is not None
        new.bias.copy_(old.bias)
    unet.conv_in = new
    unet.register_to_config(in_channels=CONDITION_CHANNELS)
