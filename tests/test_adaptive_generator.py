"""Adaptive generator: new LoRAs while it serves, the frozen copy beside them."""

from pathlib import Path

import pytest
import torch

from pixeltraj.adaptive_generator import AdaptiveGenerator
from pixeltraj.base import Base
from pixeltraj.errors import PixeltrajError
from pixeltraj.finetune.train import FinetuneConfig, finetune
from pixeltraj.generator import Generator

LENGTHS = (5, 10)


@pytest.fixture(scope="module")
def loras(store_path: Path, base_path: Path, tmp_path_factory: pytest.TempPathFactory, few_windows: None) -> list[Path]:
    folder = tmp_path_factory.mktemp("loras")
    for name, seed, k in (("old", 0, LENGTHS), ("new", 1, LENGTHS), ("short", 2, (5,))):
        finetune(FinetuneConfig(store_path, folder / name, str(base_path), k, steps=3, batch=2, lr=5e-2, seed=seed))
    return [folder / "old", folder / "new", folder / "short"]


def load(base_path: Path, lora: Path) -> Generator:
    return Generator.load(Base.load(str(base_path)), lora)


def sample(generator: Generator, count: int = 6, seed: int = 0) -> torch.Tensor:
    first = torch.randn(count, 4, 12, 12, generator=torch.Generator().manual_seed(1))
    states = torch.randn(count, 17, generator=torch.Generator().manual_seed(2))
    return generator.sample(first, ["push"] * count, torch.Generator().manual_seed(seed), 2, states)


def test_it_serves_the_old_lora_until_it_takes_a_new_one(base_path: Path, loras: list[Path]) -> None:
    old, new = load(base_path, loras[0]), load(base_path, loras[1])
    adaptive = AdaptiveGenerator(load(base_path, loras[0]), frozen_share=0.0)
    assert torch.equal(sample(adaptive), sample(old))
    adaptive.update(loras[1])
    assert adaptive.updates == 1 and adaptive.identity == old.identity
    rng = torch.Generator().manual_seed(0)
    torch.rand(6, generator=rng)  # what decides which grids are the frozen one's
    first = torch.randn(6, 4, 12, 12, generator=torch.Generator().manual_seed(1))
    states = torch.randn(6, 17, generator=torch.Generator().manual_seed(2))
    assert torch.equal(sample(adaptive), new.sample(first, ["push"] * 6, rng, 2, states))


def test_both_are_mixed_in_one_batch_and_the_same_seed_mixes_alike(base_path: Path, loras: list[Path]) -> None:
    adaptive = AdaptiveGenerator(load(base_path, loras[0]), frozen_share=0.5)
    adaptive.update(loras[1])
    mixed = sample(adaptive, 12, seed=3)
    assert torch.equal(mixed, sample(adaptive, 12, seed=3)) and torch.isfinite(mixed).all()
    adaptive.frozen_share = 1.0
    only_old = sample(adaptive, 12, seed=3)
    adaptive.frozen_share = 0.0
    only_new = sample(adaptive, 12, seed=3)
    assert not torch.equal(mixed, only_old) and not torch.equal(mixed, only_new)


def test_all_lengths_learn_on_and_features_stay_the_frozen_ones(base_path: Path, loras: list[Path]) -> None:
    adaptive = AdaptiveGenerator(load(base_path, loras[0]), frozen_share=0.0)
    longer = adaptive.at(10)
    before, weight = sample(longer), adaptive.unet.conv_in.weight.clone()
    noisy, first = torch.randn(1, 4, 12, 60), torch.randn(1, 4, 12, 12)
    embedding = adaptive.embed(["push"])
    with torch.no_grad():
        seen = adaptive.predict(noisy, torch.tensor([1]), first, embedding)
        adaptive.update(loras[1])
        assert not torch.equal(sample(longer), before)
        assert torch.equal(adaptive.predict(noisy, torch.tensor([1]), first, embedding), seen)
    assert torch.equal(adaptive.unet.conv_in.weight, weight)


def test_a_lora_that_does_not_fit_leaves_all_as_it_was(
    base_path: Path, loras: list[Path], plain_base_path: Path, store_path: Path, tmp_path: Path
) -> None:
    adaptive = AdaptiveGenerator(load(base_path, loras[0]), frozen_share=0.0)
    adaptive.update(loras[1])
    before = sample(adaptive)
    foreign = tmp_path / "foreign"
    finetune(FinetuneConfig(store_path, foreign, str(plain_base_path), steps=1, batch=1))
    with pytest.raises(PixeltrajError, match="trained on the base"):
        adaptive.update(foreign)
    with pytest.raises(PixeltrajError, match="not k=10"):
        adaptive.update(loras[2])
    with pytest.raises(PixeltrajError, match="no fine-tuned LoRA"):
        adaptive.update(tmp_path / "nothing")
    assert adaptive.updates == 1 and torch.equal(sample(adaptive), before)
    with pytest.raises(PixeltrajError, match="frozen share"):
        AdaptiveGenerator(adaptive.frozen, 1.5)
