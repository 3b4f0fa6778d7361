"""Every Stable Diffusion 1 and 2 is a base: real classes and kinds of blocks, small widths, random weights."""

from pathlib import Path

import pytest
import torch

from benchmarks.random_bases import SHAPES, make_unet, write_random_base
from pixeltraj.base import Base, widen
from pixeltraj.generator import Generator
from pixeltraj.grid import Grid


@pytest.fixture(scope="module", params=SHAPES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Base:
    folder = write_random_base(SHAPES[request.param].tiny(), tmp_path_factory.mktemp("sd") / request.param)
    return Base.load(str(folder))


def kind(base: Base) -> str:
    return Path(base.path).name


def test_it_is_told_apart_by_its_configs(base: Base) -> None:
    shape = SHAPES[kind(base)]
    assert base.widened == (shape.in_channels == 4) and base.inpaints == (shape.in_channels == 9)
    assert base.unet.config.in_channels == max(8, shape.in_channels)
    assert base.noise_scheduler.config.prediction_type == (shape.prediction_type or "epsilon")
    assert base.embed(["push the puck", ""]).shape == (2, 77, base.unet.config.cross_attention_dim)


def test_it_takes_grids_unpadded(base: Base) -> None:
    """Latents of 12 x 60, 36 x 60 and 60 x 60, which no three halvings divide."""
    first = torch.randn(1, 4, 12, 12, generator=torch.Generator().manual_seed(0))
    for k in (5, 15, 25):
        made = Generator.load(base, k=k).sample(first, ["push"], torch.Generator().manual_seed(1), 1)
        assert made.shape == (1, 4, 12 * k // 5, 60) and made.isfinite().all()
        if base.widened:  # it was never shown the first frame, which is put there
            assert torch.equal(Grid(k).split(made)[:, 0], first)


def test_what_it_predicts_leads_to_the_clean_latents(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a U-Net that is right, `finish` finds what noise was added to, whatever a base predicts."""
    generator = Generator.load(base, k=5)
    rng = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 2, 4, 12, 60, generator=rng)
    timestep, schedule = torch.tensor([60, 400]), base.noise_scheduler
    v = schedule.config.prediction_type == "v_prediction"
    right = schedule.get_velocity(clean, noise, timestep) if v else noise
    monkeypatch.setattr(generator, "predict", lambda *_: right)
    noisy = schedule.add_noise(clean, noise, timestep)
    found, _ = generator.finish(noisy, timestep, clean[..., :12], torch.zeros(2, 1, 1))
    assert torch.allclose(found, clean, atol=1e-4)


def test_the_first_frame_is_shown_as_each_was_trained_to_see_it(base: Base) -> None:
    generator = Generator(base, 10, "")
    first = torch.randn(1, 4, 12, 12, generator=torch.Generator().manual_seed(0))
    *mask, shown = generator.condition(first)
    factor = 1.0 if base.inpaints else base.vae.config.scaling_factor
    assert torch.allclose(Grid(10).split(shown * factor)[0, 3, :, 1:-1], first[0, :, 1:-1])
    assert len(mask) == base.inpaints
    if mask:
        assert Grid(10).split(mask[0])[0].mean(dim=(1, 2, 3)).tolist() == [0.0] + [1.0] * 9


def test_widening_changes_nothing() -> None:
    unet = make_unet(SHAPES["sd-2.1"].tiny()).eval()
    inputs = torch.randn(1, 8, 12, 60), torch.tensor([7]), torch.randn(1, 77, 32)
    with torch.no_grad():
        before = unet(inputs[0][:, :4], *inputs[1:]).sample
        widen(unet)
        assert torch.allclose(unet(*inputs).sample, before, atol=1e-6)
