"""Generator: a base and a LoRA that imagine k frames from the first one, the state and a prompt."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler, LCMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from pixeltraj.base import Base
from pixeltraj.errors import PixeltrajError
from pixeltraj.grid import LATENT, Grid
from pixeltraj.guidance import UNGUIDED, Condition, Guidance
from pixeltraj.lora_folder import (
    CONFIG_FILE,
    CONV_IN_FILE,
    LORA_FILE,
    STATE_FILE,
    fuse_lora,
    load_lora,
    lora_identity,
    make_state_encoder,
    read_config,
)
from pixeltraj.prompt import PromptKind, worded

__all__ = ["CONFIG_FILE", "CONV_IN_FILE", "LORA_FILE", "STATE_FILE", "Generator", "load_lora", "make_state_encoder"]

LAST = 60
"""Timestep of the sampler's last pass: late enough for it to make one picture of what is nearly one, early enough for
its features to show what that picture shows."""
STEPS = 10
"""Denoising steps of a Stable Diffusion that was made for pictures of all kinds."""
SHORT = 10
"""Frames up to which two denoising steps do where a base was pretrained on grids; longer ones want three."""
NOISE = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "prediction_type",
    "rescale_betas_zero_snr",
)
"""What of a scheduler's config is the base's and not the scheduler's."""
BLOCKS = 2
"""Up blocks of the U-Net whose features are kept, counted from the output."""


class Generator:
    """Conditions in, latents of a grid out. Shapes: B batch, h, w = latents of the grid, L, D = text."""

    def __init__(
        self,
        base: Base,
        k: int,
        identity: str,
        lengths: tuple[int, ...] | None = None,
        prompt: PromptKind = "language",
        shown: bool = True,
        distilled: bool = False,
    ) -> None:
        """lengths: all k that it was trained for; k alone if not given. prompt: what it is told of the task. shown: the
        U-Net was trained to be shown the first frame; where it was not, that frame is put into what it denoises.
        distilled: each pass gets to a clean grid at once, as `pixeltraj distill` trains it."""
        self.base, self.k, self.grid = base, k, Grid(k)
        self.identity, self.prompt, self.shown, self.distilled = identity, prompt, shown, distilled
        self.lengths = lengths or (k,)
        self._scheduler_config = dict(base.noise_scheduler.config)

    @classmethod
    def load(cls, base: Base, lora: Path | None = None, k: int | None = None) -> "Generator":
        """The base with the LoRA of a folder that finetune wrote, or of a folder or file of anybody's that plain
        diffusers loads; the base alone if None.

        k: frames in a grid; the least it was trained for if None. Raises PixeltrajError where it was not trained
        for that k, where the LoRA was made for another base, or where any of its tensors has no place in the
        U-Net (or the other way round).
        """
        config = read_config(base, lora) if lora else None
        identity = f"{base.identity}+{lora_identity(lora)}" if lora else base.identity
        if config is None:  # nobody told it of a first frame
            generator = cls(base, base.lengths[0], identity, base.lengths, shown=not base.widened).at(k)
        else:
            told = (tuple(config["k"]), config["prompt"])
            generator = cls(base, config["k"][0], identity, *told, distilled="distilled" in config).at(k)
        if lora is None:
            return generator
        fuse_lora(base, lora)
        return generator

    def at(self, k: int | None) -> "Generator":
        """The same generator for grids of k frames; itself if None. Raises PixeltrajError on a k it was not
        trained for."""
        if k is None or k == self.k:
            return self
        if k not in self.lengths:
            trained = ", ".join(map(str, self.lengths))
            raise PixeltrajError(f"this generator was trained for k={trained}, not k={k}: fine-tune it with --k {k}")
        return Generator(self.base, k, self.identity, self.lengths, self.prompt, self.shown, self.distilled)

    @property
    def unet(self) -> UNet2DConditionModel:
        return self.base.unet

    @property
    def num_inference_steps(self) -> int:
        """Denoising steps, unless told otherwise: what `STEPS` says; where the base was pretrained on grids, as few as
        those of k frames need; where it was distilled, two."""
        if self.distilled:
            return 2
        if not self.base.pretrained:
            return STEPS
        return 2 if self.k <= SHORT else 3

    def predict(self, noisy: Tensor, timestep: Tensor, first: Tensor, embedding: Tensor) -> Tensor:
        """The U-Net's output (B, 4, h, w) for noisy (B, 4, h, w), timestep (B,), first (B, 4, 12, 12), embedding
        (B, L, D)."""
        return self.base.unet(torch.cat([noisy, *self.condition(first)], dim=1), timestep, embedding).sample

    def condition(self, first: Tensor) -> tuple[Tensor, ...]:
        """What the U-Net is shown beside the noisy latents for first (B, 4, 12, 12), each (B, C, h, w): the grid's
        condition, unscaled as InstructPix2Pix has it; of an inpainting base the mask of all tiles but the first, and
        the grid's condition, scaled as its latents are."""
        if self.base.inpaints:
            return self.grid.unknown(first), self.grid.condition(first)
        return (self.grid.condition(first / self.base.vae.config.scaling_factor),)

    def embed(self, prompts: list[str], states: Tensor | None = None) -> Tensor:
        """(B, L, D) what the U-Net's cross-attention reads: the prompts, worded as this generator knows them, and
        behind them the tokens of states (B, S), where it takes any."""
        words = self.base.embed([worded(prompt, self.prompt) for prompt in prompts])
        if states is None or self.base.state_encoder is None:
            return words
        return torch.cat([words, self.base.state_encoder(states.to(words.device))], dim=1)

    @torch.no_grad()
    def sample(
        self,
        first: Tensor,
        prompts: list[str],
        generator: torch.Generator,
        num_inference_steps: int | None = None,
        states: Tensor | None = None,
        guidance: Guidance = UNGUIDED,
        maps: list[Tensor] | None = None,
    ) -> Tensor:
        """(B, 4, h, w) latents of imagined grids that begin with the frames first (B, 4, 12, 12).

        states: (B, S) float32, in which they were seen. maps: an empty list, which takes what the last up blocks saw in
        the last pass, told every condition, for a decoder; it stays empty where there was no such pass.

        DPM-Solver++, second order, or what `consistency_scheduler` makes where it was distilled. Its steps are spaced
        evenly from the noise to LAST, a single one is the noise. The same generator state gives the same bytes on one
        machine.
        """
        make = consistency_scheduler if self.distilled else DPMSolverMultistepScheduler.from_config
        scheduler = make(self._scheduler_config)
        late = scheduler.config.num_train_timesteps - 1
        steps = num_inference_steps or self.num_inference_steps
        scheduler.set_timesteps(timesteps=torch.linspace(late, LAST, steps).round().long().tolist())
        takes_states = states is not None and self.base.state_encoder is not None
        passes = [
            (factor, condition, *self._conditions(condition, first, prompts, states))
            for condition, factor in guidance.passes(takes_states).items()
        ]
        noise = torch.randn(self.grid.repeat(first).shape, generator=generator).to(first.device)
        latents = noise * scheduler.init_noise_sigma
        for timestep in scheduler.timesteps:
            if not self.shown:
                self._put(first, latents, noise, timestep)
            scaled, at = scheduler.scale_model_input(latents, timestep), timestep.expand(len(first))
            output = torch.zeros_like(latents)
            for factor, condition, seen, embedding in passes:
                with record(self.unet) as blocks, torch.autocast(first.device.type, torch.bfloat16):
                    output += factor * self.predict(scaled, at, seen, embedding).float()
                if maps is not None and timestep == LAST and condition == Condition(state=takes_states):
                    maps[:] = blocks
            latents = scheduler.step(output, timestep, latents, generator=generator).prev_sample
        if not self.shown:
            self._put(first, latents, noise, None)
        return latents

    @torch.no_grad()
    def finish(self, noisy: Tensor, timestep: Tensor, first: Tensor, embedding: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What the sampler's last pass does. noisy (B, 4, h, w), at the timesteps (B,), embedding as `embed` gives it
        -> the latents (B, 4, h, w) that the U-Net takes them for, and what its last up blocks saw."""
        with record(self.unet) as maps, torch.autocast(first.device.type, torch.bfloat16):
            output = self.predict(noisy, timestep, first, embedding).float()
        return self.clean(noisy, timestep, output), maps

    def clean(self, noisy: Tensor, timestep: Tensor, output: Tensor) -> Tensor:
        """The latents (B, 4, h, w) that the U-Net takes noisy (B, 4, h, w) for, by its output at timestep (B,)."""
        schedule = self.base.noise_scheduler
        kept = schedule.alphas_cumprod.to(noisy.device)[timestep][:, None, None, None]
        if schedule.config.prediction_type == "v_prediction":
            return kept.sqrt() * noisy - (1 - kept).sqrt() * output
        return (noisy - (1 - kept).sqrt() * output) / kept.sqrt()

    def _put(self, first: Tensor, latents: Tensor, noise: Tensor, timestep: Tensor | None) -> None:
        """The first frame into the first tile of latents, as noisy as they are; None: clean."""
        known = first
        if timestep is not None:
            schedule, there = self.base.noise_scheduler, noise[..., :LATENT, :LATENT]
            known = schedule.add_noise(first, there, timestep.to(first.device).expand(len(first)))
        latents[..., :LATENT, :LATENT] = known

    def _conditions(
        self, condition: Condition, first: Tensor, prompts: list[str], states: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        seen = first if condition.frame else torch.zeros_like(first)
        words = prompts if condition.prompt else [""] * len(prompts)
        return seen, self.embed(words, states if condition.state else None)


def consistency_scheduler(config: Mapping[str, Any]) -> LCMScheduler:
    """Gets to a clean grid at once, makes it as noisy as the next timestep wants it, and so on (multistep consistency
    sampling, Song et al. 2023). config: the base's noise schedule; any of its timesteps may be asked for."""
    told = {key: config[key] for key in NOISE}
    return LCMScheduler(**told, original_inference_steps=config["num_train_timesteps"])


@contextmanager
def record(unet: UNet2DConditionModel) -> Iterator[list[Tensor]]:
    """The outputs of the U-Net's last up blocks during the forward passes inside, in the order they come."""
    seen: list[Tensor] = []
    blocks: list[nn.Module] = list(unet.up_blocks)[-BLOCKS:]
    hooks = [block.register_forward_hook(lambda _, __, output: seen.append(output)) for block in blocks]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
