"""StateEncoder: the current state as tokens beside the prompt's."""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional

from pixeltraj.errors import PixeltrajError

FREQUENCIES = (1.0, 3.0, 9.0, 27.0)
"""Radians a metre, radian or metre a second: from whole rooms to a few millimetres."""


class StateEncoder(ModelMixin, ConfigMixin):
    """States in their own units, without statistics of any data, so that a new task needs none.

    Untrained, its tokens are zero: next to nothing to attention.
    """

    @register_to_config
    def __init__(self, cross_attention_dim: int, tokens: int = 4, dimensions: int = 64, width: int = 256) -> None:
        """dimensions: numbers in the longest state that it takes."""
        super().__init__()
        self.dimensions, self.tokens = dimensions, tokens
        self.hidden = nn.Linear(dimensions * (1 + 2 * len(FREQUENCIES)), width)
        self.out = nn.Linear(width, tokens * cross_attention_dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, states: Tensor) -> Tensor:
        """(B, S) float32, S at most `dimensions`, NaN where a batch's shorter states have nothing -> (B, T, D)."""
        if states.shape[1] > self.dimensions:
            raise PixeltrajError(f"states of {states.shape[1]} numbers; this generator takes {self.dimensions} at most")
        states = functional.pad(states, (0, self.dimensions - states.shape[1]), value=torch.nan)
        there = torch.isfinite(states)[..., None]
        values = states.nan_to_num(0.0)[..., None]
        turns = values * torch.tensor(FREQUENCIES, device=states.device)
        seen = torch.cat([torch.tanh(values / 5), turns.sin(), turns.cos()], dim=-1) * there
        tokens = self.out(functional.silu(self.hidden(seen.flatten(1))))
        return tokens.unflatten(1, (self.tokens, -1))
