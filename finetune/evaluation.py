"""Evaluation: the loss while a fine-tuning goes on, and on fixed windows before and after it."""

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from pixeltraj.finetune.computing import Computing
from pixeltraj.finetune.conditions import Conditions
from pixeltraj.finetune.images import Images, Windows
from pixeltraj.finetune.loss import Noise, diffusion_loss, grids
from pixeltraj.generator import Generator

HELDOUT_WINDOWS = 64


class Evaluation:
    """The loss on fixed windows with fixed noise, so that two figures can be compared."""

    def __init__(
        self, images: Images, windows: Windows, conditions: Conditions, seed: int, computing: Computing
    ) -> None:
        """windows: rows of the store that is learned."""
        self.images, self.conditions, self.computing = images, conditions, computing
        self.rows = {}
        for k, rows in windows.items():
            rng = np.random.default_rng(seed)
            chosen = rng.choice(len(rows), size=min(grids(HELDOUT_WINDOWS, k), len(rows)), replace=False)
            self.rows[k] = rows[chosen]

    def losses(self, generator: Generator) -> list[float]:
        """One for each k."""
        return [self._loss(generator.at(k), rows) for k, rows in self.rows.items()]

    @torch.no_grad()
    def _loss(self, generator: Generator, all_rows: np.ndarray) -> float:
        total = 0.0
        for i in range(0, len(all_rows), 8):
            rows = all_rows[i : i + 8]
            tiles = self.images.tiles(rows).to(generator.unet.device)
            embedding = self.conditions.embed(generator, rows[:, 0], np.ones(len(rows), dtype=bool), stated=True)
            noise = Noise.draw(generator.grid, len(rows), torch.Generator().manual_seed(i))
            with torch.compiler.set_stance("force_eager"):  # not worth a graph of its own
                total += diffusion_loss(generator, tiles, embedding, noise, self.computing).item() * len(rows)
        return total / len(all_rows)


class Course:
    """The loss of every step, over all processes; read from the device only now and then, because reading waits."""

    def __init__(self, accelerator: Accelerator, losses: list[float]) -> None:
        """losses: of the steps before, where training goes on."""
        self.accelerator, self.losses = accelerator, losses
        self._unread: list[Tensor] = []

    def add(self, loss: Tensor) -> None:
        """This process's loss of a step, a scalar."""
        self._unread.append(loss)

    def read(self) -> list[float]:
        """All so far. Every process has to call it after the same steps."""
        if self._unread:
            self.losses += self.accelerator.reduce(torch.stack(self._unread), "mean").tolist()
            self._unread = []
        return self.losses
