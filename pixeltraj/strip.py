"""Strip: actions drawn into the margin of an image, so that they are imagined with it.

A picture shows where things are. What was done to get them there it hardly shows: a decision moves a hand by
millimetres. So the last row of each tile's latents, in which its frame has only its margin, holds the action that is
taken in that frame. It is not decoded, it is read off.

Shapes: A action, L = 12 latents a tile.
"""

import torch
from torch import Tensor

from pixeltraj.errors import PixeltrajError
from pixeltraj.grid import LATENT

CHANNELS = 4
"""Of latents."""
CAPACITY = CHANNELS * LATENT
"""Numbers for which there is room."""


def draw(tiles: Tensor, actions: Tensor) -> Tensor:
    """tiles (..., 4, L, L), actions (..., A) in [-1, 1], about as wide as latents are -> the same tiles with the
    actions in them. Raises PixeltrajError where an action has more than 48 numbers."""
    strips = torch.zeros_like(tiles[..., -1, :])  # (..., 4, L)
    for part, columns in _blocks(actions.shape[-1]):
        value = actions[..., part].to(tiles)
        strips[..., : value.shape[-1], columns] = value[..., None]
    return torch.cat([tiles[..., :-1, :], strips[..., None, :]], dim=-2)


def read(tiles: Tensor, size: int) -> Tensor:
    """tiles (..., 4, L, L) -> actions (..., A = size) in [-1, 1]: the mean over all places where each number stands."""
    strips = tiles[..., -1, :]
    parts = [strips[..., : part.stop - part.start, columns].mean(dim=-1) for part, columns in _blocks(size)]
    return torch.cat(parts, dim=-1).clamp(-1, 1)


def without(tiles: Tensor) -> Tensor:
    """tiles (..., 4, L, L) as a VAE takes them: the row beside the strip in its place."""
    return torch.cat([tiles[..., :-1, :], tiles[..., -2:-1, :]], dim=-2)


def require_room(size: int) -> None:
    """Raise PixeltrajError unless actions have 1 to 48 numbers."""
    if not 0 < size <= CAPACITY:
        raise PixeltrajError(
            f"images have room for actions of 1 to {CAPACITY} numbers, not {size}: leave out --actions"
        )


def _blocks(size: int) -> list[tuple[slice, slice]]:
    """Which numbers of an action stand in which columns: four, one a channel, in as many columns as there are for
    them."""
    require_room(size)
    count = -(-size // CHANNELS)
    width = LATENT // count
    return [
        (slice(CHANNELS * i, min(CHANNELS * (i + 1), size)), slice(width * i, width * (i + 1))) for i in range(count)
    ]
