"""LoRA: which layers of a base learn, and how strongly what they learn counts."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import nn

from pixeltraj.base import Base
from pixeltraj.errors import PixeltrajError

TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2", "conv_shortcut", "time_emb_proj")
"""Attention, and the convolutions beside it: attention alone moves a small U-Net too little."""
TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")
"""The text encoder's attention, as diffusers' own scripts train it."""


@dataclass(frozen=True)
class Lora:
    alpha: float | None = None
    """What the LoRA adds is scaled by alpha / rank; by 1 if not given. The file that is written has it multiplied in,
    so that tools which know no alpha load it rightly."""
    targets: tuple[str, ...] = TARGETS
    """Layers of the U-Net that get a LoRA, by the ends of their names."""
    text_encoder: bool = False
    """A LoRA on the text encoder's attention too; prompts are then embedded in every step."""

    def check(self) -> None:
        if self.alpha is not None and self.alpha <= 0:
            raise PixeltrajError("--alpha must be above 0; leave it out for the rank")
        if not self.targets:
            raise PixeltrajError("--targets must name at least one layer, such as to_q")

    def add(self, base: Base, rank: int) -> None:
        """An adapter on the U-Net, and on the text encoder if it learns too. Raises PixeltrajError on targets that the
        U-Net does not have."""
        alpha = rank if self.alpha is None else self.alpha
        for target in self.targets:
            if not any(_ends(name, target) for name, _ in base.unet.named_modules()):
                raise PixeltrajError(f"--targets {target}: the U-Net of {base.path} has no layer of this name")
        base.unet.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(self.targets)))
        if self.text_encoder:
            base.text_encoder.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(TEXT_TARGETS)))


def _ends(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


@torch.no_grad()
def fold(base: Base) -> None:
    """Multiply alpha / rank into the weights: as they are written, every tool reads them with a scale of 1."""
    for layer, adapter in _layers(base):
        layer.lora_B[adapter].weight.mul_(layer.scaling[adapter])
        layer.scaling[adapter] = 1.0


@torch.no_grad()
def unfold(base: Base) -> None:
    """For weights that were read: what `fold` multiplied in is taken out again."""
    for layer, adapter in _layers(base):
        layer.lora_B[adapter].weight.div_(layer.scaling[adapter])


def _layers(base: Base) -> Iterator[tuple[LoraLayer, str]]:
    models: tuple[nn.Module, ...] = (base.unet, base.text_encoder)
    for model in models:
        for module in model.modules():
            if isinstance(module, LoraLayer):
                for adapter in module.lora_B:
                    yield module, adapter
