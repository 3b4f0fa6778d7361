"""A small rendered store and a small base with random weights: real files, made once a test session."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pixeltraj.base import Base
from pixeltraj.decode.train import TrainConfig, train
from pixeltraj.finetune import evaluation
from pixeltraj.finetune.pretrain import make_noise_scheduler, make_unet, write_base
from pixeltraj.finetune.text import make_text_encoder, make_tokenizer
from pixeltraj.finetune.vae import VAEConfig, make_vae
from pixeltraj.render.collect import CollectConfig, collect
from pixeltraj.render.render import RenderConfig, render
from pixeltraj.store import Store

torch.set_num_threads(1)

QUICK = {"steps": 2, "head_steps": 2, "batch": 4, "copies": 1, "windows": 40, "scatter": 2}
"""Of a decoder's training: all that it does, on few windows."""


@pytest.fixture(scope="module", autouse=True)
def _denormal_numbers() -> Iterator[None]:
    """Commands that train leave a process without them."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """push-v3: five scripted episodes until they are solved, rendered. Do not write into it."""
    path = tmp_path_factory.mktemp("stores") / "push"
    collect(CollectConfig("push-v3", path, episodes=5))
    render(RenderConfig(path))
    return path


@pytest.fixture
def store(store_path: Path) -> Store:
    return Store.open(store_path)


@pytest.fixture(scope="session")
def base_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of the embedded one's classes, a few thousand parameters, 8 input channels."""
    return small_base(tmp_path_factory.mktemp("bases") / "small", channels=8)


@pytest.fixture(scope="session")
def plain_base_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with 4 input channels, as Stable Diffusion has."""
    return small_base(tmp_path_factory.mktemp("bases") / "plain", channels=4)


@pytest.fixture
def base(base_path: Path) -> Base:
    return Base.load(str(base_path))


@pytest.fixture(scope="module")
def few_windows() -> Iterator[None]:
    """Fine-tunings of a few steps are measured on few windows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "HELDOUT_WINDOWS", 16)
        yield


@pytest.fixture(scope="session")
def decoder_path(store_path: Path, base_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder of k=5 that was hardly trained. Do not write into it."""
    folder = tmp_path_factory.mktemp("decoders") / "decoder"
    train(TrainConfig(store_path, folder, str(base_path), k=(5,), **QUICK))
    return folder


def small_base(path: Path, channels: int, widths: tuple[int, ...] = (8, 16)) -> Path:
    tokenizer = make_tokenizer(["push the red puck to the goal on the table"], path / "tokenizer")
    vae = make_vae(VAEConfig(channels=(8, 8, 8, 8)))
    torch.manual_seed(0)
    text_encoder, unet = make_text_encoder(tokenizer), make_unet(widths, 5, in_channels=channels)
    write_base(path, vae, unet, text_encoder, tokenizer, make_noise_scheduler())
    return path
