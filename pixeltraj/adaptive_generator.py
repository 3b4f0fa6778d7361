"""AdaptiveGenerator: takes new LoRAs while it serves, beside the one it began with (ATraDiff, section 4.3)."""

from copy import copy
from pathlib import Path

import torch
from torch import Tensor

from pixeltraj.base import Base
from pixeltraj.errors import PixeltrajError
from pixeltraj.generator import Generator
from pixeltraj.guidance import UNGUIDED, Guidance


class Live:
    """The generator that learns on; None as long as it has learned nothing. All lengths share it."""

    generator: Generator | None = None
    updates: int = 0


class AdaptiveGenerator(Generator):
    """A generator with a frozen copy of itself: each grid is sampled by the frozen one with probability
    frozen_share, else by the LoRA that was taken last, so that what was learned before is not forgotten.

    Whatever else is asked of it, above all a decoder's features, comes from the frozen one.
    """

    def __init__(self, frozen: Generator, frozen_share: float = 0.5) -> None:
        if not 0 <= frozen_share <= 1:
            raise PixeltrajError(f"the frozen share must be from 0 to 1, not {frozen_share}")
        super().__init__(frozen.base, frozen.k, frozen.identity, frozen.lengths, frozen.prompt)
        self.frozen, self.frozen_share, self._live = frozen, frozen_share, Live()

    @property
    def updates(self) -> int:
        """LoRAs taken so far."""
        return self._live.updates

    @property
    def num_inference_steps(self) -> int:
        return self.frozen.num_inference_steps

    def update(self, lora: Path) -> None:
        """Sample with the LoRA of a folder that fine-tuning wrote, from the next batch on; a batch that another
        thread is sampling is finished as it began.

        Raises PixeltrajError where it does not fit, or does not know every length; then all stays as it was.
        """
        base = Base.load(self.base.path)
        base.vae = self.base.vae  # never fine-tuned: one will do
        base.unet.to(self.unet.device)
        base.text_encoder.to(self.base.text_encoder.device)
        live = Generator.load(base, lora)
        for k in self.lengths:
            live.at(k)
        self._live.generator = live
        self._live.updates += 1

    def at(self, k: int | None) -> "AdaptiveGenerator":
        other = copy(self)
        other.frozen = self.frozen.at(k)
        other.k, other.grid = other.frozen.k, other.frozen.grid
        return other

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
        """As Generator.sample; which grids are the frozen one's is drawn from the generator too. maps stay empty once a
        LoRA was taken: a decoder was trained on what the frozen one sees, and has to look for itself."""
        live = self._live.generator
        if live is None:
            return self.frozen.sample(first, prompts, generator, num_inference_steps, states, guidance, maps)
        old = torch.rand(len(first), generator=generator) < self.frozen_share
        latents = torch.empty_like(self.grid.repeat(first))
        for sampler, rows in ((self.frozen, old), (live.at(self.k), ~old)):
            if rows.any():
                words = [prompt for prompt, row in zip(prompts, rows.tolist()) if row]
                seen = None if states is None else states[rows]
                latents[rows] = sampler.sample(first[rows], words, generator, num_inference_steps, seen, guidance)
        return latents
