"""Imaginer: trajectories that begin where they were told to, the same ones under the same seed."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pixeltraj.base import Base
from pixeltraj.decode.decoder import Decoder
from pixeltraj.decode.train import TrainConfig, train
from pixeltraj.errors import PixeltrajError
from pixeltraj.generator import Generator
from pixeltraj.imaginer import Imaginer, Start
from pixeltraj.store import Store


@pytest.fixture(scope="module")
def imaginer(store_path: Path, base_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Imaginer:
    folder = tmp_path_factory.mktemp("decoder") / "decoder"
    train(TrainConfig(store_path, folder, str(base_path), steps=2, head_steps=2))
    generator = Generator.load(Base.load(str(base_path)))
    return Imaginer(generator, Decoder.load(folder, generator), num_inference_steps=2, batch=2)


def starts(store: Store, rows: range) -> list[Start]:
    frames, states = (store.read(name, 0, rows.stop) for name in ("frames", "states"))
    return [Start(states[row], frames[row]) for row in rows]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_trajectories_are_valid_and_begin_in_the_given_states(imaginer: Imaginer, store: Store) -> None:
    asked = starts(store, range(3))
    imagined = imaginer.imagine(asked, seeded(0), frames=True)
    assert len(imagined) == 3
    for start, trajectory in zip(asked, imagined):
        trajectory.check(store.task)
        assert np.array_equal(trajectory.states[0], start.state)
        assert trajectory.frames is not None
        assert np.array_equal(trajectory.frames[0], start.frame)
        assert len(trajectory.frames) == len(trajectory) + 1 <= 5


def test_a_seed_gives_the_same_bytes_and_another_seed_another_future(imaginer: Imaginer, store: Store) -> None:
    first, again, other = (imaginer.imagine(starts(store, range(2)), seeded(s)) for s in (0, 0, 1))
    assert all(np.array_equal(a.states, b.states) for a, b in zip(first, again))
    assert any(a.states.shape != b.states.shape or not np.array_equal(a.states, b.states) for a, b in zip(first, other))


def test_states_and_frames_of_a_wrong_shape_are_refused(imaginer: Imaginer, store: Store) -> None:
    start = starts(store, range(1))[0]
    with pytest.raises(PixeltrajError, match="states of 17"):
        imaginer.imagine([Start(start.state[:5], start.frame)], seeded(0))
    with pytest.raises(PixeltrajError, match="84, 84, 3"):
        imaginer.imagine([Start(start.state, start.frame[:64, :64])], seeded(0))
