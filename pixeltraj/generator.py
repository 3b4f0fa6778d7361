"""Generator: a base and a LoRA that imagine k frames from the first one and a prompt."""

from pathlib import Path

import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor

from pixeltraj.base import Base
from pixeltraj.errors import PixeltrajError
from pixeltraj.files import file_hash, read_json
from pixeltraj.grid import Grid

LORA_FILE = "pytorch_lora_weights.safetensors"
"""What diffusers writes and reads."""
CONV_IN_FILE = "conv_in.safetensors"
"""The first convolution of a widened base; without it the condition would be ignored in silence."""
CONFIG_FILE = "pixeltraj.json"
"""Beside it: base, k, task, how it was made."""


class Generator:
    """Conditions in, latents of a grid out. Shapes: B batch, h, w = latents of the grid, L, D = text."""

    def __init__(self, base: Base, k: int, identity: str, lengths: tuple[int, ...] | None = None) -> None:
        """lengths: all k that it was trained for; k alone if not given."""
        self.base, self.k, self.grid = base, k, Grid(k)
        self.identity = identity
        self.lengths = lengths or (k,)
        self._scheduler_config = dict(base.noise_scheduler.config)

    @classmethod
    def load(cls, base: Base, lora: Path | None = None, k: int | None = None) -> "Generator":
        """The base with the LoRA of a folder that finetune wrote; the base alone if None.

        k: frames in a grid; the least it was trained for if None. Raises PixeltrajError where it was not trained
        for that k, where the LoRA was made for another base, or where any of its tensors has no place in the
        U-Net (or the other way round).
        """
        if lora is None:
            return cls(base, base.lengths[0], base.identity, base.lengths).at(k)
        config = read_json(lora / CONFIG_FILE, "fine-tuned LoRA")
        if not isinstance(config["k"], list):
            raise PixeltrajError(f"the LoRA in {lora} was written by an older pixeltraj; fine-tune again")
        if config["base"] != base.identity:
            raise PixeltrajError(
                f"the LoRA in {lora} was trained on the base {config['base']} ({config['base_path']}), this is "
                f"{base.identity} ({base.path}); give that one with --base or fine-tune again"
            )
        files = [path for name in (LORA_FILE, CONV_IN_FILE) if (path := lora / name).is_file()]
        generator = cls(base, config["k"][0], f"{base.identity}+{file_hash(*files)}", tuple(config["k"])).at(k)
        load_lora(base, lora)
        return generator

    def at(self, k: int | None) -> "Generator":
        """The same generator for grids of k frames; itself if None. Raises PixeltrajError on a k it was not
        trained for."""
        if k is None or k == self.k:
            return self
        if k not in self.lengths:
            trained = ", ".join(map(str, self.lengths))
            raise PixeltrajError(f"this generator was trained for k={trained}, not k={k}: fine-tune it with --k {k}")
        return Generator(self.base, k, self.identity, self.lengths)

    @property
    def unet(self) -> UNet2DConditionModel:
        return self.base.unet

    def predict(self, noisy: Tensor, timestep: Tensor, first: Tensor, embedding: Tensor) -> Tensor:
        """The U-Net's output (B, 4, h, w) for noisy (B, 4, h, w), timestep (B,), first (B, 4, 12, 12), embedding
        (B, L, D). The condition is unscaled, as InstructPix2Pix has it."""
        condition = self.grid.repeat(first) / self.base.vae.config.scaling_factor
        return self.base.unet(torch.cat([noisy, condition], dim=1), timestep, embedding).sample

    @torch.no_grad()
    def sample(
        self,
        first: Tensor,
        prompts: list[str],
        generator: torch.Generator,
        num_inference_steps: int = 10,
    ) -> Tensor:
        """(B, 4, h, w) latents of imagined grids that begin with the frames first (B, 4, 12, 12).

        DPM-Solver++, second order. The same generator state gives the same bytes on one machine.
        """
        scheduler = DPMSolverMultistepScheduler.from_config(self._scheduler_config, timestep_spacing="trailing")
        scheduler.set_timesteps(num_inference_steps)
        embedding = self.base.embed(prompts)
        noise = torch.randn(self.grid.repeat(first).shape, generator=generator)
        latents = noise * scheduler.init_noise_sigma
        for timestep in scheduler.timesteps:
            scaled = scheduler.scale_model_input(latents, timestep)
            with torch.autocast(first.device.type, torch.bfloat16):
                output = self.predict(scaled, timestep.expand(len(first)), first, embedding)
            latents = scheduler.step(output.float(), timestep, latents).prev_sample
        return latents


def load_lora(base: Base, folder: Path) -> None:
    """Put the LoRA into the base's U-Net. Raises PixeltrajError unless every tensor finds its place."""
    path = folder / LORA_FILE
    try:
        wanted = load_file(path)
    except (OSError, ValueError) as error:
        raise PixeltrajError(f"no LoRA at {path} ({error})") from error
    before = {name for name, _ in base.unet.named_parameters()}
    try:
        state, alphas, *_ = StableDiffusionPipeline.lora_state_dict(str(folder), return_lora_metadata=False)
        StableDiffusionPipeline.load_lora_into_unet(state, network_alphas=alphas, unet=base.unet)
    except (RuntimeError, ValueError, KeyError) as error:
        raise PixeltrajError(f"the LoRA in {folder} does not fit the base {base.path}: {error}") from error
    added = [name for name, _ in base.unet.named_parameters() if ".lora_" in name and name not in before]
    if len(added) != len(wanted):
        raise PixeltrajError(
            f"the LoRA in {folder} has {len(wanted)} tensors, {len(added)} found a place in the base {base.path}"
        )
    if base.widened:
        if not (folder / CONV_IN_FILE).is_file():
            raise PixeltrajError(f"{folder} lacks {CONV_IN_FILE}, without which {base.path} ignores the first frame")
        base.unet.conv_in.load_state_dict(load_file(folder / CONV_IN_FILE))
    base.unet.requires_grad_(False)
