"""State encoder: tokens of any task's state, without statistics of any data."""

import pytest
import torch

from pixeltraj.errors import PixeltrajError
from pixeltraj.state_encoder import StateEncoder
from pixeltraj.tasks import TASKS


@pytest.fixture
def encoder() -> StateEncoder:
    torch.manual_seed(0)
    encoder = StateEncoder(32)
    torch.nn.init.normal_(encoder.out.weight)
    return encoder.requires_grad_(False)


def test_untrained_tokens_are_zero() -> None:
    assert not StateEncoder(32)(torch.randn(2, 17)).any()


def test_it_takes_the_state_of_every_task(encoder: StateEncoder) -> None:
    assert max(task.state_size for task in TASKS.values()) <= encoder.dimensions
    with pytest.raises(PixeltrajError, match="states of 65 numbers"):
        encoder(torch.zeros(1, 65))


def test_missing_numbers_are_not_zeros(encoder: StateEncoder) -> None:
    short = torch.randn(1, 5)
    padded = torch.cat([short, torch.full((1, 6), torch.nan)], dim=1)
    assert torch.equal(encoder(short), encoder(padded))
    assert not torch.allclose(encoder(short), encoder(torch.cat([short, torch.zeros(1, 6)], dim=1)))


def test_a_few_millimetres_and_a_whole_turn_both_show(encoder: StateEncoder) -> None:
    state = torch.full((1, 3), 0.2)
    for change in (0.005, 6.2831853):
        moved = encoder(state + torch.tensor([[change, 0.0, 0.0]]))
        assert (moved - encoder(state)).norm() > 0.01 * encoder(state).norm()
