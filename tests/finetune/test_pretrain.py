"""Pretraining: a base that everything else takes, and that a kill does not change."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionInstructPix2PixPipeline

import pixeltraj.finetune.pretrain as pretraining
from pixeltraj.base import PRETRAINING, Base
from pixeltraj.errors import PixeltrajError
from pixeltraj.files import read_json
from pixeltraj.finetune.pretrain import Mixture, PretrainConfig, pretrain
from pixeltraj.finetune.vae import VAEConfig
from pixeltraj.generator import Generator
from pixeltraj.render.collect import CollectConfig, collect
from pixeltraj.store import Store
from pixeltraj.tasks import TASKS


def small(store: Path, out: Path) -> PretrainConfig:
    vae = VAEConfig(steps=2, batch=2, channels=(8, 8, 8, 8))
    return PretrainConfig((store,), out, steps=4, k=(5, 10), batch=2, channels=(8, 16), vae=vae)


@pytest.fixture(scope="module")
def pretrained(store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pretrained") / "base"
    pretrain(small(store_path, out))
    return out


def test_the_base_knows_its_lengths_the_state_and_every_task(pretrained: Path) -> None:
    base = Base.load(str(pretrained))
    assert base.lengths == (5, 10) and base.state_encoder is not None and not base.widened
    base.embed([task.prompt for task in TASKS.values()])  # none is too long
    generator, first = Generator.load(base), torch.randn(2, 4, 12, 12)

    def sample(states: torch.Tensor | None) -> torch.Tensor:
        rng = torch.Generator().manual_seed(0)
        return generator.at(10).sample(first, ["push", ""], rng, 2, states)

    with_states, without = sample(torch.zeros(2, 17)), sample(None)
    assert with_states.shape == (2, 4, 24, 60) and torch.isfinite(with_states).all()
    assert not torch.equal(with_states, without)


def test_plain_diffusers_loads_it(pretrained: Path) -> None:
    pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(pretrained)
    assert pipeline.unet.config.in_channels == 8


def test_killed_pretraining_goes_on_and_ends_like_an_unbroken_one(
    store_path: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = pretraining.diffusion_loss, 0

    def killed_in_the_third_step(*arguments: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(pretraining, "CHECKPOINT_EVERY", 1)
    monkeypatch.setattr(pretraining, "diffusion_loss", killed_in_the_third_step)
    config = small(store_path, tmp_path / "base")
    with pytest.raises(KeyboardInterrupt):
        pretrain(config)
    pretrain(config)
    assert calls == 3 + 2  # steps 0 and 1 were not done again
    assert Base.load(str(tmp_path / "base")).identity == Base.load(str(pretrained)).identity


def test_a_base_that_is_taken_up_keeps_its_vae_and_learns_on(
    store_path: Path, pretrained: Path, tmp_path: Path
) -> None:
    before = Base.load(str(pretrained))
    config = PretrainConfig((store_path,), tmp_path / "on", str(pretrained), steps=2, k=(5,), batch=2)
    after = pretrain(config)
    assert after.vae_identity == before.vae_identity and after.identity != before.identity
    assert after.lengths == (5,) and tuple(after.unet.config.block_out_channels) == (8, 16)
    near = [(a - b).abs().max() for a, b in zip(before.unet.parameters(), after.unet.parameters())]
    assert 0 < max(near) < 0.01  # two steps away from where it was, not from nothing
    earlier = read_json(tmp_path / "on" / PRETRAINING, "record")["went_on_from"]
    assert earlier["identity"] == before.identity and earlier["steps"] == 4 and earlier["went_on_from"] is None


def test_a_taken_up_base_without_states_gets_their_encoder(store_path: Path, base_path: Path, tmp_path: Path) -> None:
    assert Base.load(str(base_path)).state_encoder is None
    after = pretrain(PretrainConfig((store_path,), tmp_path / "on", str(base_path), steps=1, batch=2))
    assert after.state_encoder is not None


def test_a_batch_has_states_as_long_as_the_longest_and_nothing_behind_shorter_ones(
    store_path: Path, tmp_path: Path
) -> None:
    collect(CollectConfig("PointMaze_UMaze-v3", tmp_path / "maze", policy="random", episodes=5, max_steps=12))
    stores = [Store.open(store_path), Store.open(tmp_path / "maze")]
    mixture = Mixture(stores, [torch.zeros(store.frame_count, 4, 12, 12) for store in stores], (5,))
    tiles, states, prompts = mixture.batch(np.random.default_rng(0), 5, 64)
    assert tiles.shape == (64, 5, 4, 12, 12) and states.shape == (64, 17)
    maze = torch.tensor([prompt == stores[1].task.prompt for prompt in prompts])
    assert 16 < int(maze.sum()) < 48  # each task as often as the other, though one has many more windows
    assert torch.isnan(states[maze][:, 6:]).all() and torch.isfinite(states[maze][:, :6]).all()
    assert torch.isfinite(states[~maze]).all()
    with pytest.raises(PixeltrajError, match="no episode of PointMaze_UMaze-v3"):
        Mixture(stores, [torch.zeros(store.frame_count, 4, 12, 12) for store in stores], (5, 25))
