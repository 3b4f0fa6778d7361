"""Generator: a base and a LoRA that imagine k frames from the first one, the state and a prompt."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor, nn

from pixeltraj.base import Base
from pixeltraj.errors import PixeltrajError
from pixeltraj.files import file_hash, read_json
from pixeltraj.grid import Grid
from pixeltraj.guidance import UNGUIDED, Condition, Guidance
from pixeltraj.prompt import PromptKind, worded
from pixeltraj.state_encoder import StateEncoder

LORA_FILE = "pytorch_lora_weights.safetensors"
"""What diffusers writes and reads."""
CONV_IN_FILE = "conv_in.safetensors"
"""The first convolution of a widened base; without it the condition would be ignored in silence."""
STATE_FILE = "state_encoder.safetensors"
"""The state encoder as it was fine-tuned; without it the generator takes no states."""
CONFIG_FILE = "pixeltraj.json"
"""Beside it: base, k, task, how it was made."""
LAST = 60
"""Timestep of the sampler's last pass: late enough for it to make one picture of what is nearly one, early enough for
its features to show what that picture shows."""
SHORT = 10
"""Frames up to which two denoising steps do; the embedded base wants three for longer grids."""
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
    ) -> None:
        """lengths: all k that it was trained for; k alone if not given. prompt: what it is told of the task."""
        self.base, self.k, self.grid = base, k, Grid(k)
        self.identity, self.prompt = identity, prompt
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
        if not isinstance(config["k"], list) or "prompt" not in config:
            raise PixeltrajError(f"the LoRA in {lora} was written by an older pixeltraj; fine-tune again")
        if config["base"] != base.identity:
            raise PixeltrajError(
                f"the LoRA in {lora} was trained on the base {config['base']} ({config['base_path']}), this is "
                f"{base.identity} ({base.path}); give that one with --base or fine-tune again"
            )
        if config["states"] and not (lora / STATE_FILE).is_file():
            raise PixeltrajError(f"{lora} lacks {STATE_FILE}, without which the current state is ignored")
        files = [path for name in (LORA_FILE, CONV_IN_FILE, STATE_FILE) if (path := lora / name).is_file()]
        identity = f"{base.identity}+{file_hash(*files)}"
        generator = cls(base, config["k"][0], identity, tuple(config["k"]), config["prompt"]).at(k)
        load_lora(base, lora)
        base.unet.fuse_lora()  # one set of weights: every pass would pay for two
        base.unet.unload_lora()
        return generator

    def at(self, k: int | None) -> "Generator":
        """The same generator for grids of k frames; itself if None. Raises PixeltrajError on a k it was not
        trained for."""
        if k is None or k == self.k:
            return self
        if k not in self.lengths:
            trained = ", ".join(map(str, self.lengths))
            raise PixeltrajError(f"this generator was trained for k={trained}, not k={k}: fine-tune it with --k {k}")
        return Generator(self.base, k, self.identity, self.lengths, self.prompt)

    @property
    def unet(self) -> UNet2DConditionModel:
        return self.base.unet

    @property
    def num_inference_steps(self) -> int:
        """Denoising steps, unless told otherwise: as few as the embedded base needs for grids of k frames."""
        return 2 if self.k <= SHORT else 3

    def predict(self, noisy: Tensor, timestep: Tensor, first: Tensor, embedding: Tensor) -> Tensor:
        """The U-Net's output (B, 4, h, w) for noisy (B, 4, h, w), timestep (B,), first (B, 4, 12, 12), embedding
        (B, L, D). The condition is unscaled, as InstructPix2Pix has it."""
        condition = self.grid.condition(first / self.base.vae.config.scaling_factor)
        return self.base.unet(torch.cat([noisy, condition], dim=1), timestep, embedding).sample

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

        DPM-Solver++, second order; its steps are spaced evenly from the noise to LAST, a single one is the noise.
        The same generator state gives the same bytes on one machine.
        """
        scheduler = DPMSolverMultistepScheduler.from_config(self._scheduler_config)
        late = scheduler.config.num_train_timesteps - 1
        steps = num_inference_steps or self.num_inference_steps
        scheduler.set_timesteps(timesteps=torch.linspace(late, LAST, steps).round().long().tolist())
        takes_states = states is not None and self.base.state_encoder is not None
        passes = [
            (factor, condition, *self._conditions(condition, first, prompts, states))
            for condition, factor in guidance.passes(takes_states).items()
        ]
        noise = torch.randn(self.grid.repeat(first).shape, generator=generator)
        latents = noise * scheduler.init_noise_sigma
        for timestep in scheduler.timesteps:
            scaled, at = scheduler.scale_model_input(latents, timestep), timestep.expand(len(first))
            output = torch.zeros_like(latents)
            for factor, condition, seen, embedding in passes:
                with record(self.unet) as blocks, torch.autocast(first.device.type, torch.bfloat16):
                    output += factor * self.predict(scaled, at, seen, embedding).float()
                if maps is not None and timestep == LAST and condition == Condition(state=takes_states):
                    maps[:] = blocks
            latents = scheduler.step(output, timestep, latents).prev_sample
        return latents

    @torch.no_grad()
    def finish(self, noisy: Tensor, timestep: Tensor, first: Tensor, embedding: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What the sampler's last pass does. noisy (B, 4, h, w), at the timesteps (B,), embedding as `embed` gives it
        -> the latents (B, 4, h, w) that the U-Net takes them for, and what its last up blocks saw."""
        with record(self.unet) as maps, torch.autocast(first.device.type, torch.bfloat16):
            output = self.predict(noisy, timestep, first, embedding).float()
        schedule = self.base.noise_scheduler
        kept = schedule.alphas_cumprod.to(noisy.device)[timestep][:, None, None, None]
        if schedule.config.prediction_type == "v_prediction":
            return kept.sqrt() * noisy - (1 - kept).sqrt() * output, maps
        return (noisy - (1 - kept).sqrt() * output) / kept.sqrt(), maps

    def _conditions(
        self, condition: Condition, first: Tensor, prompts: list[str], states: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        seen = first if condition.frame else torch.zeros_like(first)
        words = prompts if condition.prompt else [""] * len(prompts)
        return seen, self.embed(words, states if condition.state else None)


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
    base.state_encoder = load_state_encoder(base, folder / STATE_FILE) if (folder / STATE_FILE).is_file() else None


def make_state_encoder(base: Base) -> StateEncoder:
    """An untrained one, of the shape of the base's own where it has one."""
    if base.state_encoder is not None:
        return StateEncoder(**{key: value for key, value in base.state_encoder.config.items() if key[0] != "_"})
    return StateEncoder(base.unet.config.cross_attention_dim)


def load_state_encoder(base: Base, path: Path) -> StateEncoder:
    encoder = make_state_encoder(base)
    try:
        encoder.load_state_dict(load_file(path))
    except RuntimeError as error:
        raise PixeltrajError(f"{path} does not fit the base {base.path}: {error}") from error
    return encoder.eval().requires_grad_(False)
