"""Conditions: what a generator is told of the rows of stores while it is trained."""

import numpy as np
import torch
from torch import Tensor

from pixeltraj.generator import Generator
from pixeltraj.store import Store


class Conditions:
    """Prompts, and states; the rows of several stores are numbered through."""

    def __init__(self, stores: list[Store], generator: Generator, learning: bool = False) -> None:
        """learning: the text encoder is trained too, so that prompts are embedded whenever they are asked for; they are
        embedded once if not."""
        states = [store.read("states", 0, store.frame_count) for store in stores]
        widest = max(part.shape[1] for part in states)
        missing = [(0, widest - part.shape[1]) for part in states]
        padded = [np.pad(part, ((0, 0), after), constant_values=np.nan) for part, after in zip(states, missing)]
        self.states = torch.from_numpy(np.concatenate(padded))
        prompts = [prompt for store in stores for prompt in store.prompts(np.arange(store.frame_count))]
        self.unique = ["", *sorted(set(prompts))]
        number = {prompt: i for i, prompt in enumerate(self.unique)}
        self.which = np.array([number[prompt] for prompt in prompts])
        self.words = None if learning else generator.embed(self.unique)  # (P, L, D)

    def embed(self, generator: Generator, rows: np.ndarray, told: np.ndarray, stated: bool) -> Tensor:
        """(B, L, D) for the first rows (B,) of windows; told (B,) bool: which of them get their prompt."""
        device = next(generator.unet.parameters()).device
        words = self._words(generator, np.where(told, self.which[rows], 0)).to(device)
        if generator.base.state_encoder is None:
            return words
        tokens = generator.base.state_encoder(self.states[rows].to(device))
        # withheld tokens stay in the graph: every process has to have a gradient for every weight
        return torch.cat([words, tokens], dim=1) if stated else words + 0 * tokens.sum()

    def _words(self, generator: Generator, which: np.ndarray) -> Tensor:
        if self.words is not None:
            return self.words[which]
        prompts, place = np.unique(which, return_inverse=True)
        return generator.embed([self.unique[prompt] for prompt in prompts])[place]
