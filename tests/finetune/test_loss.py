"""The denoising loss: what is drawn, and what counts."""

import pytest
import torch

from pixeltraj.base import Base
from pixeltraj.finetune.loss import diffusion_loss
from pixeltraj.generator import Generator


def test_late_timesteps_are_drawn_as_often_as_they_are_late(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    generator, drawn = Generator(base, 5, ""), []

    def noted(noisy: torch.Tensor, timestep: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        drawn.append(timestep)
        return noisy

    monkeypatch.setattr(generator, "predict", noted)
    tiles, rng = torch.zeros(1, 5, 4, 12, 12).expand(2000, -1, -1, -1, -1), torch.Generator().manual_seed(0)
    diffusion_loss(generator, tiles, torch.zeros(2000, 1, 1), rng)
    quarters = torch.histc(drawn[0].float(), 4, 0, 1000) / 2000
    assert torch.allclose(quarters, torch.tensor([1, 3, 5, 7]) / 16, atol=0.04)


def test_what_moves_counts_more(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same error costs more where the latents differ from the first frame's."""
    generator = Generator(base, 5, "")
    tiles = torch.zeros(1, 5, 4, 12, 12)
    tiles[:, 1:, :, :6] = 1.0
    losses = []
    for rows in (slice(0, 6), slice(6, 12)):  # what moves, what does not

        def wrong_there(
            noisy: torch.Tensor, timestep: torch.Tensor, *_: torch.Tensor, rows: slice = rows
        ) -> torch.Tensor:
            rng = torch.Generator().manual_seed(0)
            clean = generator.grid.join(tiles)
            velocity = base.noise_scheduler.get_velocity(clean, torch.randn(clean.shape, generator=rng), timestep)
            velocity[:, :, rows, 12:] += 1.0
            return velocity

        monkeypatch.setattr(generator, "predict", wrong_there)
        losses.append(diffusion_loss(generator, tiles, torch.zeros(1, 1, 1), torch.Generator().manual_seed(0)).item())
    assert losses[0] == pytest.approx(3 * losses[1], rel=1e-3)
