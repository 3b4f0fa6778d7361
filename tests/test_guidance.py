"""Guidance: the forward passes it needs, and that the sampler does what they say."""

import pytest
import torch

from pixeltraj.base import Base
from pixeltraj.errors import PixeltrajError
from pixeltraj.generator import Generator
from pixeltraj.guidance import Condition, Guidance
from pixeltraj.state_encoder import StateEncoder

ALL = Condition()


def test_unguided_sampling_needs_one_forward_pass() -> None:
    assert Guidance().passes(states=True) == {ALL: 1.0}
    assert Guidance().passes(states=False) == {Condition(state=False): 1.0}


def test_factors_add_up_to_one_and_equal_passes_are_merged() -> None:
    guidance = Guidance(frame=1.5, state=2.0, prompt=3.0)
    with_states, without = guidance.passes(states=True), guidance.passes(states=False)
    assert len(with_states) == 4 and len(without) == 3
    assert sum(with_states.values()) == pytest.approx(1) and sum(without.values()) == pytest.approx(1)
    assert with_states[ALL] == 3.0 and with_states[Condition(True, True, False)] == pytest.approx(-1.0)
    assert Guidance(prompt=0.0).passes(states=True) == {Condition(True, True, False): 1.0}


def test_a_negative_scale_is_refused() -> None:
    with pytest.raises(PixeltrajError, match="must not be negative"):
        Guidance(prompt=-1.0)


@pytest.fixture
def generator(base: Base) -> Generator:
    encoder = StateEncoder(base.unet.config.cross_attention_dim)
    torch.manual_seed(0)
    torch.nn.init.normal_(encoder.out.weight)
    base.state_encoder = encoder.requires_grad_(False)
    return Generator(base, 5, "guided")


def sample(generator: Generator, prompt: str, states: torch.Tensor | None, guidance: Guidance) -> torch.Tensor:
    first = torch.randn(1, 4, 12, 12, generator=torch.Generator().manual_seed(1))
    return generator.sample(first, [prompt], torch.Generator().manual_seed(0), 2, states, guidance)


def test_a_scale_of_zero_ignores_the_condition(generator: Generator) -> None:
    states = torch.ones(1, 17)
    told = sample(generator, "push the puck", states, Guidance(prompt=0.0))
    assert torch.equal(told, sample(generator, "", states, Guidance()))
    assert not torch.equal(told, sample(generator, "push the puck", states, Guidance()))
    stated = sample(generator, "", states, Guidance(state=0.0, prompt=0.0))
    assert torch.equal(stated, sample(generator, "", None, Guidance()))
    assert not torch.equal(stated, told)


def test_a_larger_scale_goes_further_from_what_the_prompt_does_not_change(generator: Generator) -> None:
    without, once, twice = (
        sample(generator, "push the puck", None, Guidance(prompt=scale)) for scale in (0.0, 1.0, 2.0)
    )
    assert (twice - without).norm() > 1.2 * (once - without).norm() > 0
