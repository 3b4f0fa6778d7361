"""Strip: actions in the margin of an image survive it, and leave the picture alone."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pixeltraj import strip
from pixeltraj.base import Base
from pixeltraj.decode.decoder import Decoder
from pixeltraj.decode.features import Windows
from pixeltraj.decode.train import TrainConfig, train
from pixeltraj.errors import PixeltrajError
from pixeltraj.finetune.images import Images
from pixeltraj.finetune.loss import ACTION_WEIGHT, motion_weight
from pixeltraj.finetune.train import FinetuneConfig, finetune
from pixeltraj.generator import Generator
from pixeltraj.grid import LATENT, TILE, to_tiles
from pixeltraj.imaginer import Imaginer, Start
from pixeltraj.latents import store_latents
from pixeltraj.store import Store
from pixeltraj.windows import store_windows
from tests.conftest import QUICK


@pytest.fixture(scope="module")
def lora(store_path: Path, base_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("loras") / "actions"
    finetune(FinetuneConfig(store_path, out, str(base_path), steps=2, batch=2, rank=2, actions=True))
    return out


@pytest.mark.parametrize("size", [1, 3, 4, 6, 8, 17, 30, 48])
def test_what_was_drawn_is_read(size: int) -> None:
    rng = torch.Generator().manual_seed(size)
    tiles, actions = torch.randn(2, 5, 4, 12, 12, generator=rng), 2 * torch.rand(2, 5, size, generator=rng) - 1
    drawn = strip.draw(tiles, actions)
    assert torch.allclose(strip.read(drawn, size), actions, atol=1e-6)
    assert torch.equal(drawn[..., :-1, :], tiles[..., :-1, :])
    noisy = drawn + 0.1 * torch.randn(drawn.shape, generator=rng)
    places = 12 // -(-size // 4)  # where each number stands: the mean over them is what is read
    assert (strip.read(noisy, size) - actions).std() < 0.11 / places**0.5


@pytest.mark.parametrize("size", [0, 49])
def test_there_has_to_be_room(size: int) -> None:
    with pytest.raises(PixeltrajError, match=f"not {size}: leave out --actions"):
        strip.draw(torch.zeros(1, 5, 4, 12, 12), torch.zeros(1, 5, size))


def test_of_the_frame_it_covers_two_rows_of_pixels(store: Store) -> None:
    frames = store.read("frames", 0, 1)
    changed = frames.copy()
    changed[:, :-2] = 0
    under, under_changed = (to_tiles(some)[..., -TILE // LATENT :, :] for some in (frames, changed))
    assert torch.equal(under, under_changed)


def test_images_hold_the_actions_of_their_own_store(store: Store, base: Base) -> None:
    rows = {5: store_windows(store, 5, store.split()[0])}
    chosen = rows[5][::7]
    tiles = Images([store], base, rows, 0.0, actions=True).tiles(chosen)
    assert np.allclose(strip.read(tiles, 4).numpy(), store.windows("actions", chosen), atol=1e-6)
    both = Images([store, store], base, rows, 0.3, actions=True).tiles(chosen + store.frame_count)
    assert torch.equal(both, tiles)


def test_the_first_tile_s_action_is_not_told(base: Base) -> None:
    """It is imagined: the condition has other things in that row."""
    generator = Generator(base, 5, "", actions=True)
    first = torch.randn(1, 4, 12, 12, generator=torch.Generator().manual_seed(0))
    other = first.clone()
    other[..., -1, :] += 1.0
    assert all(torch.equal(a, b) for a, b in zip(generator.condition(first), generator.condition(other)))


def test_latents_of_actions_weigh_alike(base: Base) -> None:
    tiles = torch.zeros(1, 5, 4, 12, 12)
    weight = motion_weight(Generator(base, 5, "", actions=True), tiles)
    assert weight.shape == (1, 1, 12, 60)
    assert (weight[..., -1, :] == ACTION_WEIGHT).all() and (weight[..., :-1, :] == 1).all()
    assert (motion_weight(Generator(base, 5, ""), tiles) == 1).all()


def test_a_lora_says_whether_its_images_hold_actions(lora: Path, base_path: Path) -> None:
    generator = Generator.load(Base.load(str(base_path)), lora)
    assert generator.actions and generator.at(5).actions
    assert not Generator.load(Base.load(str(base_path))).actions


def test_pictures_do_not_show_it(store: Store, lora: Path, base_path: Path) -> None:
    generator = Generator.load(Base.load(str(base_path)), lora)
    tiles, rng = store_latents(store, generator.base)[:3].float(), np.random.default_rng(0)
    one, other = (
        generator.frames(generator.draw(tiles[None], rng.uniform(-1, 1, (1, 3, 4)).astype(np.float32))[0])
        for _ in range(2)
    )
    assert np.array_equal(one, other)


def test_a_decoder_reads_the_actions_off(store: Store, store_path: Path, lora: Path, base_path: Path) -> None:
    """Exactly, whatever its heads have learned; and those that were imagined are those of the trajectory."""
    out = lora.parent / "decoder"
    decoder = train(TrainConfig(store_path, out, str(base_path), lora, **QUICK))
    assert decoder.heads.action is None
    loaded = Decoder.load(out, Generator.load(Base.load(str(base_path)), lora))
    windows = Windows.read(store, store.split()[1], loaded.generator)
    reading = loaded.read(windows.features, windows.states[:, 0])
    assert np.allclose(reading.actions, windows.actions, atol=1e-3)  # features are kept in half precision
    start = Start(store.read("states", 0, 1)[0], store.read("frames", 0, 1)[0])
    first = loaded.generator.base.encode(start.frame[None])
    drawn = loaded.generator.sample(
        first, [store.task.prompt], torch.Generator().manual_seed(0), states=torch.from_numpy(start.state[None])
    )
    (imagined,) = Imaginer(loaded.generator, loaded).imagine([start], torch.Generator().manual_seed(0))
    expected = strip.read(loaded.generator.grid.split(drawn), 4)[0, : len(imagined)]
    assert np.allclose(imagined.actions, expected.numpy(), atol=1e-5)


def test_without_actions_a_head_reads_them(store_path: Path, base_path: Path, tmp_path: Path) -> None:
    finetune(FinetuneConfig(store_path, tmp_path / "lora", str(base_path), steps=1, batch=1, rank=2))
    decoder = train(TrainConfig(store_path, tmp_path / "decoder", str(base_path), tmp_path / "lora", **QUICK))
    assert decoder.heads.action is not None and not decoder.generator.actions
