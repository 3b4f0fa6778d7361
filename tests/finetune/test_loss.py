"""The denoising loss: what is drawn, and what counts."""

import pytest
import torch

from pixeltraj.base import Base
from pixeltraj.finetune.computing import Computing
from pixeltraj.finetune.loss import Noise, diffusion_loss, motion_weight, snr_weight
from pixeltraj.generator import Generator


def test_late_timesteps_are_drawn_as_often_as_they_are_late(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    generator, drawn = Generator(base, 5, ""), []

    def noted(noisy: torch.Tensor, timestep: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        drawn.append(timestep)
        return noisy

    monkeypatch.setattr(generator, "predict", noted)
    tiles = torch.zeros(1, 5, 4, 12, 12).expand(2000, -1, -1, -1, -1)
    noise = Noise.draw(generator.grid, 2000, torch.Generator().manual_seed(0))
    diffusion_loss(generator, tiles, torch.zeros(2000, 1, 1), noise)
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
        noise = Noise.draw(generator.grid, 1, torch.Generator().manual_seed(0))
        losses.append(diffusion_loss(generator, tiles, torch.zeros(1, 1, 1), noise).item())
    assert losses[0] == pytest.approx(3 * losses[1], rel=1e-3)


def test_the_losses_of_parts_have_the_whole_batch_s_as_their_mean(base: Base) -> None:
    """Although what moves weighs more, and more of it is in one part than in the other."""
    generator, rng = Generator(base, 5, ""), torch.Generator().manual_seed(0)
    tiles = torch.randn(4, 5, 4, 12, 12, generator=rng) * torch.tensor([0.0, 0.1, 1.0, 2.0])[:, None, None, None, None]
    embedding = torch.randn(4, 3, base.unet.config.cross_attention_dim, generator=rng)
    noise, exact = Noise.draw(generator.grid, 4, rng), Computing("fp32")
    with torch.no_grad():
        whole = diffusion_loss(generator, tiles, embedding, noise, exact)
        motion = motion_weight(generator.grid, tiles).mean()
        halves = [
            diffusion_loss(generator, tiles[part], embedding[part], noise[part], exact, motion=motion)
            for part in (slice(0, 2), slice(2, 4))
        ]
    assert sum(halves) / 2 == pytest.approx(whole.item(), rel=1e-5)
    assert halves[0].item() != pytest.approx(halves[1].item(), rel=0.1)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_min_snr_weighs_errors_in_the_clean_latents(base: Base, prediction: str) -> None:
    """Whatever the U-Net predicts, the error in the clean latents that follows from it weighs min(SNR, gamma)."""
    generator, schedule = Generator(base, 5, ""), base.noise_scheduler
    schedule.register_to_config(prediction_type=prediction)
    timestep = torch.tensor([0, 200, 500, 999])
    kept = schedule.alphas_cumprod[timestep].double()
    rng = torch.Generator().manual_seed(0)
    clean, noise, wrong = torch.randn(3, 4, generator=rng, dtype=torch.double)
    noisy = kept.sqrt() * clean + (1 - kept).sqrt() * noise
    if prediction == "epsilon":
        read = (noisy - (1 - kept).sqrt() * (noise + wrong)) / kept.sqrt()
    else:
        read = kept.sqrt() * noisy - (1 - kept).sqrt() * (kept.sqrt() * noise - (1 - kept).sqrt() * clean + wrong)
    weighted = snr_weight(generator, timestep, 5.0) * wrong.square()
    snr = kept / (1 - kept)
    assert torch.allclose(weighted.double(), snr.clamp(max=5) * (read - clean).square(), rtol=1e-3)
    assert (snr > 5).any() and (snr < 5).any()
