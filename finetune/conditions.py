"""Conditions: what a generator is told of the rows of a store while it is trained."""

import numpy as np
import torch
from torch import Tensor

from pixeltraj.generator import Generator
from pixeltraj.store import Store


class Conditions:
    """Prompts, embedded once, and states."""

    def __init__(self, store: Store, generator: Generator) -> None:
        self.states = torch.from_numpy(store.read("states", 0, store.frame_count))
        prompts = [store.task.prompt_of(state) for state in self.states.numpy()]
        self.unique = ["", *sorted(set(prompts))]
        self.which = np.array([self.unique.index(prompt) for prompt in prompts])
        self.words = generator.embed(self.unique)  # (P, L, D)

    def embed(self, generator: Generator, rows: np.ndarray, told: np.ndarray, stated: bool) -> Tensor:
        """(B, L, D) for the first rows (B,) of windows; told (B,) bool: which of them get their prompt."""
        device = generator.unet.device
        words = self.words[np.where(told, self.which[rows], 0)].to(device)
        if generator.base.state_encoder is None:
            return words
        tokens = generator.base.state_encoder(self.states[rows].to(device))
        # withheld tokens stay in the graph: every process has to have a gradient for every weight
        return torch.cat([words, tokens], dim=1) if stated else words + 0 * tokens.sum()
