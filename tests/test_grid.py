"""Grid and windows: nothing is lost or moved on the way into an image and out of it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixeltraj.errors import PixeltrajError
from pixeltraj.grid import LATENT, TILE, Grid
from pixeltraj.render.collect import CollectConfig, collect
from pixeltraj.store import Store
from pixeltraj.windows import padded_windows, require_windows, store_windows

KS = st.sampled_from([5, 10, 15, 20, 25])


@settings(max_examples=20, deadline=None)
@given(KS, st.integers(1, 2), st.integers(0, 2**32 - 1))
def test_frames_survive_the_grid(k: int, batch: int, seed: int) -> None:
    frames = np.random.default_rng(seed).integers(0, 256, (batch, k, 84, 84, 3), dtype=np.uint8)
    grid = Grid(k)
    image = grid.to_image(frames)
    assert image.shape == (batch, 3, TILE * k // 5, 480)
    assert np.array_equal(grid.to_frames(image), frames)


@settings(max_examples=30, deadline=None)
@given(KS, st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_tile_i_stands_in_row_i_div_5_and_column_i_mod_5(k: int, channels: int, seed: int) -> None:
    tiles = torch.rand(2, k, channels, LATENT, LATENT, generator=torch.Generator().manual_seed(seed))
    grid = Grid(k)
    joined = grid.join(tiles)
    for i in range(k):
        row, column = divmod(i, 5)
        cut = joined[..., row * LATENT : (row + 1) * LATENT, column * LATENT : (column + 1) * LATENT]
        assert torch.equal(cut, tiles[:, i])
    assert torch.equal(grid.split(joined), tiles)


@pytest.mark.parametrize("k", [5, 10, 25])
def test_the_condition_is_the_first_frame_in_every_tile_and_its_place_in_the_margin(k: int) -> None:
    first = torch.rand(2, 4, LATENT, LATENT)
    tiles = Grid(k).split(Grid(k).condition(first))
    assert all(torch.equal(tiles[:, i, :, 1:-1], first[:, :, 1:-1]) for i in range(k))
    marks = tiles[:, :, :, (0, -1)]
    assert torch.equal(marks[0], marks[1]) and torch.isfinite(marks).all()
    apart = torch.cdist(marks[0].flatten(1), marks[0].flatten(1)) + 1e3 * torch.eye(k)
    assert apart.min() > 1  # no two places look alike
    longest = Grid(25).split(Grid(25).condition(first))[:, :k]
    assert torch.equal(tiles, longest)  # a place is marked alike in grids of all lengths


@pytest.mark.parametrize("k", [0, 1, 4, 7, -5])
def test_other_k_are_refused(k: int) -> None:
    with pytest.raises(PixeltrajError, match="k must be"):
        Grid(k)


def test_frames_of_another_size_are_refused() -> None:
    with pytest.raises(PixeltrajError, match="84, 84, 3"):
        Grid(5).to_image(np.zeros((1, 5, 64, 64, 3), dtype=np.uint8))


@given(st.integers(1, 200), KS)
def test_redundant_padding_is_that_of_the_paper(frames: int, k: int) -> None:
    """The sequence plus k copies of its last frame; t windows of length k with starts 1..t."""
    padded = [*range(frames), *([frames - 1] * k)]
    expected = [padded[start : start + k] for start in range(frames)]
    assert padded_windows(frames, k).tolist() == expected


def test_an_episode_that_was_cut_off_is_not_padded(tmp_path: Path) -> None:
    """It would have gone on: no window may show it standing still."""
    path = tmp_path / "cut"
    collect(CollectConfig("push-v3", path, episodes=5, max_steps=12, seed=0))
    store = Store.open(path)
    assert not store.read("terminations", 0, store.frame_count).any()
    assert len(store_windows(store, 5, [0, 1])) == 2 * (13 - 5 + 1)
    assert store_windows(store, 5, [1]).tolist() == [list(range(i, i + 5)) for i in range(13, 13 + 9)]
    assert store_windows(store, 25, [0]).shape == (0, 25)
    require_windows(store, (5, 10))
    with pytest.raises(PixeltrajError, match="no window of 25 frames to train on"):
        require_windows(store, (5, 25))


def test_an_episode_that_came_to_its_end_is_padded(store: Store) -> None:
    frames = store.episodes[0]["frames"]
    assert store.read("terminations", 0, store.frame_count)[frames - 2]
    assert store_windows(store, 10, [0]).tolist() == padded_windows(frames, 10).tolist()
