"""Computing: how a fine-tuning is computed, which changes what it costs and not what it learns."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from pixeltraj.errors import PixeltrajError
from pixeltraj.finetune.attention import AttentionKind, attend, require_xformers
from pixeltraj.generator import Generator

Precision = Literal["bf16", "fp16", "fp32"]
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Computing:
    precision: Precision = "bf16"
    """bf16: products, and the frozen weights that they are made of, in bfloat16; the LoRA and its optimizer in float32
    all the same. fp16: in float16, with the loss scaled, for GPUs without bfloat16. fp32: everything in float32."""
    attention: AttentionKind = "auto"
    """sdpa: what PyTorch chooses; xformers: it, if it works here; auto: sdpa, but plainly computed where a CPU is
    faster that way."""
    accumulate: int = 1
    """Backward passes of --batch images that make one step; memory is that of one."""
    checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, a third more time."""
    compile: bool = False
    """torch.compile on the U-Net: a minute or more at the start, faster steps after it on a GPU."""
    channels_last: bool = False
    """The U-Net's images with their channels last in memory, which some GPUs convolve faster."""
    adam_8bit: bool = False
    """Moments of the optimizer in 8 bits, by bitsandbytes (the extra `8bit`)."""

    def check(self) -> None:
        """Raises PixeltrajError on what cannot be had, before anything is loaded."""
        if self.accumulate < 1:
            raise PixeltrajError("--accumulate must be at least 1")
        if self.adam_8bit:
            _adam_8bit()

    def prepare(self, unet: UNet2DConditionModel) -> None:
        """Make the U-Net ready, once it has its LoRA and stands on its device. Raises PixeltrajError where xformers is
        asked for and does not run there."""
        if self.attention == "xformers":
            require_xformers(next(unet.parameters()).device)
            unet.enable_xformers_memory_efficient_attention()
        if self.precision in HALVES:
            halve(unet, HALVES[self.precision])
        if self.checkpointing:
            unet.enable_gradient_checkpointing()
        if self.channels_last:
            unet.to(memory_format=torch.channels_last)
        if self.compile:
            unet.compile()

    def optimizer(self, parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
        adam: Callable[..., torch.optim.Optimizer] = _adam_8bit() if self.adam_8bit else torch.optim.AdamW
        return adam(parameters, lr=lr, weight_decay=1e-2)

    def scaler(self, device: torch.device) -> torch.amp.GradScaler:
        """Around backward pass and step; it does something in float16 only, whose small gradients would vanish."""
        return torch.amp.GradScaler(device.type, enabled=self.precision == "fp16")

    @contextmanager
    def around(self, generator: Generator) -> Iterator[None]:
        """A forward pass of the generator's U-Net stands inside."""
        half = HALVES.get(self.precision)
        device = next(generator.unet.parameters()).device  # diffusers' own property asks every layer for hooks
        # what is computed again is computed outside, with PyTorch's choice, and has to be the same
        kind = "sdpa" if self.checkpointing else self.attention
        with (
            torch.autocast(device.type, half, enabled=half is not None),
            attend(kind, generator.k, device),
        ):
            yield


def halve(unet: nn.Module, half: torch.dtype) -> None:
    """Frozen weights of convolutions and linear layers in half precision: what autocast would make of them in every
    pass."""
    for module in unet.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and not any(p.requires_grad for p in module.parameters()):
            module.to(half)


def _adam_8bit() -> Callable[..., torch.optim.Optimizer]:
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise PixeltrajError(f"--adam-8bit needs bitsandbytes ({error}): pip install 'pixeltraj[8bit]'") from error
    return AdamW8bit
