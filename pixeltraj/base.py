"""Base: a Stable Diffusion checkpoint, the embedded one or anybody's."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from safetensors import SafetensorError
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from pixeltraj.base_files import (
    CONDITION_CHANNELS,
    EMBEDDED,
    INPAINTING_CHANNELS,
    PRETRAINING,
    STATE_ENCODER,
    BaseFiles,
)
from pixeltraj.base_sources import find, resolve
from pixeltraj.errors import PixeltrajError
from pixeltraj.files import read_json
from pixeltraj.grid import LENGTHS, to_tiles
from pixeltraj.single_file import load_single_file
from pixeltraj.state_encoder import StateEncoder

__all__ = ["CONDITION_CHANNELS", "EMBEDDED", "PRETRAINING", "STATE_ENCODER", "Base", "resolve"]


class Base:
    """VAE, U-Net, text encoder, tokenizer and noise schedule of one checkpoint, frozen.

    `identity` is a hash of all weights, `vae_identity` one of the VAE's: what was made with other weights does
    not fit. `widened`: the U-Net had 4 input channels and got 4 more; `inpaints`: it takes 9.
    `pretrained`: `pixeltraj pretrain` made it, and grids are what it knows; `lengths`: all k that they may have.
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
        pretrained: bool = False,
    ) -> None:
        self.widened, self.lengths, self.pretrained = widened, lengths, pretrained
        self.inpaints = unet.config.in_channels == INPAINTING_CHANNELS
        self.path, self.identity, self.vae_identity = path, identity, vae_identity
        self.vae = vae.eval().requires_grad_(False)
        self.unet = unet.eval().requires_grad_(False)
        self.text_encoder = text_encoder.eval().requires_grad_(False)
        self.tokenizer, self.noise_scheduler = tokenizer, noise_scheduler
        self.state_encoder = state_encoder.eval().requires_grad_(False) if state_encoder else None

    @classmethod
    def load(cls, path: str | None = None) -> "Base":
        """A diffusers folder, a .safetensors file or a hub id (`base_sources.find`); the embedded base if None.

        A U-Net that takes 4 channels is widened to 8, by zeros, so that nothing changes before training. Raises
        PixeltrajError where it cannot be a base, or where tensors are missing, left over or misshapen.
        """
        found = find(path)
        try:
            vae, unet, text_encoder = load_weights(found)
            states = STATE_ENCODER in found.weights
            state_encoder = load_whole(StateEncoder, found, STATE_ENCODER).float() if states else None
            tokenizer = CLIPTokenizer.from_pretrained(found.folder, subfolder="tokenizer")
            noise_scheduler = DDPMScheduler.from_pretrained(found.folder, subfolder="scheduler")
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            reason = str(error).strip().splitlines()[0]
            raise PixeltrajError(f"{found.name} cannot be loaded as a Stable Diffusion checkpoint: {reason}") from error
        widened = unet.config.in_channels == CONDITION_CHANNELS // 2
        if widened:
            widen(unet)
        parts = (vae.float(), unet.float(), text_encoder.float(), tokenizer, noise_scheduler)
        lengths, pretrained = trained_lengths(found.folder), (found.folder / PRETRAINING).is_file()
        identities = (found.identity, found.vae_identity)
        return cls(found.name, *parts, *identities, widened, lengths, state_encoder, pretrained)

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


def load_weights(found: BaseFiles) -> tuple[AutoencoderKL, UNet2DConditionModel, CLIPTextModel]:
    if found.checkpoint:
        return load_single_file(found.checkpoint, found.folder)
    parts = {"vae": AutoencoderKL, "unet": UNet2DConditionModel, "text_encoder": CLIPTextModel}
    vae, unet, text_encoder = (load_whole(model, found, part) for part, model in parts.items())
    return vae, unet, text_encoder


def load_whole(model: Any, found: BaseFiles, part: str) -> Any:
    """A part of the base. Raises PixeltrajError where tensors are missing or left over, which both libraries only
    warn of: what is missing would be random."""
    which = {"subfolder": part, "variant": found.weights[part][0], "use_safetensors": True}
    loaded, told = model.from_pretrained(found.folder, output_loading_info=True, **which)
    for what, keys in (("lacks", "missing_keys"), ("has no place for", "unexpected_keys")):
        if names := sorted(told[keys]):
            raise PixeltrajError(
                f"{found.folder}/{part} {what} {len(names)} tensors ({names[0]}, ...): its weights are not those that "
                f"its config.json describes; get the checkpoint again"
            )
    return loaded


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
