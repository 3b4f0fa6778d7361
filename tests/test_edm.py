"""EDM: exact where the denoiser is known, and it learns what it is shown."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from pixeltraj.edm import DEFAULT, EDM, EDMConfig, ResidualMLP, heun, noise_levels
from pixeltraj.errors import PixeltrajError

PLAIN = dataclasses.replace(DEFAULT, churn=0.0)
DEVIATION = 0.5
"""Of the Gaussian whose denoiser is known."""


def wiener(noisy: Tensor, sigma: Tensor) -> Tensor:
    """The denoiser of that Gaussian."""
    return noisy * DEVIATION**2 / (DEVIATION**2 + sigma**2)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def flow_error(steps: int) -> float:
    """Against where the flow of the Gaussian takes the noise, which is known too."""
    noise = torch.randn(500, 2, generator=generator(), dtype=torch.float64)
    flown = noise * PLAIN.sigma_max * DEVIATION / math.sqrt(DEVIATION**2 + PLAIN.sigma_max**2)
    return float((heun(wiener, noise, noise_levels(PLAIN, steps), PLAIN, generator()) - flown).abs().max())


def test_the_sampler_follows_the_flow_of_a_gaussian_to_the_second_order() -> None:
    assert flow_error(64) < 1e-2
    assert flow_error(16) / flow_error(32) > 3.3


def test_churn_keeps_the_distribution() -> None:
    noise = torch.randn(20_000, 1, generator=generator())
    config = dataclasses.replace(DEFAULT, churn_noise=1.0)
    levels = noise_levels(config, 64)
    samples = heun(wiener, noise, levels, config, generator(1))
    assert abs(float(samples.mean())) < 0.02 and abs(float(samples.std()) / DEVIATION - 1) < 0.02
    straight = heun(wiener, noise, levels, PLAIN, generator(1))
    assert abs(float(torch.corrcoef(torch.stack([samples[:, 0], straight[:, 0]]))[0, 1])) < 0.9


def test_noise_levels_go_from_the_greatest_to_none() -> None:
    levels = noise_levels(DEFAULT, 18)
    assert len(levels) == 19 and levels == sorted(levels, reverse=True)
    assert levels[0] == pytest.approx(80) and levels[-2] == pytest.approx(0.002) and levels[-1] == 0


class Nothing(torch.nn.Module):
    def forward(self, vectors: Tensor, noise: Tensor) -> Tensor:
        return torch.zeros_like(vectors)


@pytest.mark.parametrize("deviation", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("level", [-4.0, 0.0, 3.0])
def test_a_network_that_says_nothing_has_loss_one_at_every_noise_level(deviation: float, level: float) -> None:
    config = EDMConfig(sigma_data=deviation, p_mean=level, p_std=1e-6)
    clean = deviation * torch.randn(20_000, 2, generator=generator())
    assert float(EDM(Nothing(), config).loss(clean, generator(1))) == pytest.approx(1.0, abs=0.03)


def test_it_learns_both_modes_and_how_wide_they_are() -> None:
    torch.manual_seed(0)
    edm = EDM(ResidualMLP(2, 64, 3), DEFAULT)
    optimizer = torch.optim.Adam(edm.parameters(), lr=2e-3)
    rng = generator()
    for i in range(500):
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - i / 500)
        side = torch.randint(2, (256, 1), generator=rng) * 2.0 - 1
        data = side * torch.tensor([1.0, 0.5]) + torch.tensor([0.2, 0.1]) * torch.randn(256, 2, generator=rng)
        loss = edm.loss(data, rng)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    samples = edm.sample(1500, 2, 20, rng)
    right = samples[:, 0] > 0
    assert 0.4 < float(right.float().mean()) < 0.6
    for mode, sign in ((samples[right], 1), (samples[~right], -1)):
        torch.testing.assert_close(mode.mean(0), sign * torch.tensor([1.0, 0.5]), atol=0.05, rtol=0)
        torch.testing.assert_close(mode.std(0), torch.tensor([0.2, 0.1]), atol=0.04, rtol=0)


def test_same_seed_same_samples() -> None:
    torch.manual_seed(0)
    edm = EDM(ResidualMLP(3, 8, 2), DEFAULT)
    torch.testing.assert_close(edm.sample(4, 3, 4, generator()), edm.sample(4, 3, 4, generator()), rtol=0, atol=0)
    assert not torch.equal(edm.sample(4, 3, 4, generator()), edm.sample(4, 3, 4, generator(1)))


@pytest.mark.parametrize(
    ("field", "value"), [("sigma_min", 0.0), ("sigma_max", 0.001), ("sigma_data", 0.0), ("rho", 0.0), ("churn", -1.0)]
)
def test_impossible_noise_levels_are_refused(field: str, value: float) -> None:
    with pytest.raises(PixeltrajError, match=field):
        EDM(Nothing(), dataclasses.replace(DEFAULT, **{field: value}))


def test_samples_go_with_what_is_known() -> None:
    torch.manual_seed(0)
    edm, rng = EDM(ResidualMLP(1, 32, 2, known=1), DEFAULT), generator()
    optimizer = torch.optim.Adam(edm.parameters(), lr=3e-3)
    for _ in range(300):
        known = torch.randn(256, 1, generator=rng)
        loss = edm.loss(-known + 0.1 * torch.randn(256, 1, generator=rng), rng, known)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    known = torch.linspace(-2, 2, 200)[:, None]
    samples = edm.sample(200, 1, 12, rng, known)
    assert float((samples + known).abs().mean()) < 0.25, "of samples that know nothing it is above 1"


def test_a_deep_network_begins_no_louder_than_a_shallow_one() -> None:
    torch.manual_seed(0)
    vectors, noise = torch.randn(50, 4), torch.randn(50, 1)
    shallow, deep = (float(ResidualMLP(4, 64, depth)(vectors, noise).std()) for depth in (6, 128))
    assert deep < 2 * shallow


def test_too_few_steps_and_no_layers_are_refused() -> None:
    with pytest.raises(PixeltrajError, match="1 denoising steps are too few"):
        noise_levels(DEFAULT, 1)
    with pytest.raises(PixeltrajError, match="width and depth"):
        ResidualMLP(2, 8, 0)
