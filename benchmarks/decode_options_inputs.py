"""What a decoder may read of a grid. Shapes: B batch, K frames, C channels, L = 12 latents a tile."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional

from pixeltraj import generator as generators
from pixeltraj.decode import features
from pixeltraj.decode.features import See, grid_features
from pixeltraj.generator import Generator
from pixeltraj.prompt import worded


def unet(timestep: int = features.TIMESTEP, blocks: int = generators.BLOCKS, attention: bool = False) -> See:
    """As `grid_features`, but from another timestep (no noise is added to the latents) or so many up blocks;
    attention: and the maps of the prompt's words."""

    def see(generator: Generator, latents: Tensor, first: Tensor, prompts: list[str]) -> Tensor:
        layers = generator.unet.up_blocks if attention else nn.ModuleList()
        at, last = patch.object(features, "TIMESTEP", timestep), patch.object(generators, "BLOCKS", blocks)
        with at, last, attended(layers) as maps:
            seen = grid_features(generator, latents, first, prompts)
        if not attention:
            return seen
        height, width = latents.shape[-2:]
        said = generator.base.tokenizer([worded(p, generator.prompt) for p in sorted(set(prompts))]).input_ids
        words = max(map(len, said))  # the rest is padding
        grids = [_as_grid(part[..., :words], height, width) for part in maps]
        return torch.cat([seen, generator.grid.split(sum(grids) / len(grids))], dim=2)  # type: ignore[arg-type]

    return see


@contextmanager
def attended(blocks: nn.Module) -> Iterator[list[Tensor]]:
    """The cross-attention maps (B, places, words), mean over the heads, of each layer inside the blocks, in order."""
    maps: list[Tensor] = []

    def look(attention: Any, arguments: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        query = attention.head_to_batch_dim(attention.to_q(arguments[0]))
        key = attention.head_to_batch_dim(attention.to_k(named["encoder_hidden_states"]))
        weights = attention.get_attention_scores(query, key)
        maps.append(weights.float().unflatten(0, (-1, attention.heads)).mean(dim=1))

    layers = [module for name, module in blocks.named_modules() if name.endswith("attn2")]
    hooks = [layer.register_forward_pre_hook(look, with_kwargs=True) for layer in layers]
    try:
        yield maps
    finally:
        for hook in hooks:
            hook.remove()


def _as_grid(maps: Tensor, height: int, width: int) -> Tensor:
    """(B, places, words) of any level of a U-Net -> (B, words, height, width)."""
    smaller = round((height * width / maps.shape[1]) ** 0.5)
    grid = maps.transpose(1, 2).unflatten(-1, (height // smaller, width // smaller))
    return functional.interpolate(grid, size=(height, width), mode="nearest")


def latents_alone(generator: Generator, latents: Tensor, first: Tensor, prompts: list[str]) -> Tensor:
    """No U-Net at all: C = 4."""
    return generator.grid.split(latents)


@torch.no_grad()
def pictures(generator: Generator, latents: Tensor, first: Tensor, prompts: list[str]) -> Tensor:
    """The VAE's pictures of all tiles, each 8x8 pixels in one place: C = 192."""
    tiles = generator.grid.split(latents)
    with torch.autocast(latents.device.type, torch.bfloat16):
        images = generator.base.decode(tiles.flatten(0, 1))
    return functional.pixel_unshuffle(images.float(), 8).unflatten(0, tiles.shape[:2])


INPUTS: dict[str, See | None] = {
    "features": None,
    "own-pass": grid_features,
    "latents": latents_alone,
    "pictures": pictures,
    "attention": unet(attention=True),
    "blocks-1": unet(blocks=1),
    "blocks-3": unet(blocks=3),
    "timestep-50": unet(timestep=50),
    "timestep-200": unet(timestep=200),
}
"""What options may read; None is what is shipped: of what was imagined what the sampler's last pass saw."""
