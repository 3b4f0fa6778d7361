"""Imaginer: trajectories that begin where they were told to, the same ones under the same seed."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pixeltraj.base import Base
from pixeltraj.decode.decoder import Decoder
from pixeltraj.decode.train import TrainConfig, train
from pixeltraj.errors import PixeltrajError
from pixeltraj.files import read_json
from pixeltraj.finetune.train import FinetuneConfig, finetune
from pixeltraj.generator import Generator
from pixeltraj.imaginer import Imaginer, Start
from pixeltraj.state_encoder import StateEncoder
from pixeltraj.store import Store
from tests.conftest import QUICK


@pytest.fixture(scope="module")
def imaginer(decoder_path: Path, base_path: Path) -> Imaginer:
    generator = Generator.load(Base.load(str(base_path)))
    return Imaginer(generator, Decoder.load(decoder_path, generator), num_inference_steps=2, batch=2)


def starts(store: Store, rows: range) -> list[Start]:
    frames, states = (store.read(name, 0, rows.stop) for name in ("frames", "states"))
    return [Start(states[row], frames[row]) for row in rows]


class ByHeight:
    """The lower half of the hands needs fewer frames."""

    lengths = (5, 15)

    def __call__(self, states: np.ndarray) -> np.ndarray:
        return np.where(states[:, 2] < np.median(states[:, 2]), 5, 15)


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


def test_the_generator_is_told_what_a_frame_does_not_show(
    imaginer: Imaginer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = StateEncoder(imaginer.generator.unet.config.cross_attention_dim)
    torch.nn.init.normal_(encoder.out.weight)
    monkeypatch.setattr(imaginer.generator.base, "state_encoder", encoder.requires_grad_(False))
    start = starts(store, range(1))[0]
    faster = start.state.copy()
    faster[store.task.indices(("previous_hand_x",))] += 0.1
    one, other = (
        imaginer.imagine([Start(state, start.frame)], seeded(0), frames=True)[0].frames
        for state in (start.state, faster)
    )
    assert one is not None and other is not None and not np.array_equal(one[1], other[1])


def test_states_and_frames_of_a_wrong_shape_are_refused(imaginer: Imaginer, store: Store) -> None:
    start = starts(store, range(1))[0]
    with pytest.raises(PixeltrajError, match="states of 17"):
        imaginer.imagine([Start(start.state[:5], start.frame)], seeded(0))
    with pytest.raises(PixeltrajError, match="84, 84, 3"):
        imaginer.imagine([Start(start.state, start.frame[:64, :64])], seeded(0))


def test_one_generator_and_one_decoder_imagine_every_length_they_were_trained_for(
    store_path: Path, base_path: Path, store: Store, tmp_path: Path
) -> None:
    finetune(FinetuneConfig(store_path, tmp_path / "lora", str(base_path), k=(5, 15), steps=4, batch=2, rank=2))
    quick = QUICK | {"head_steps": 4}  # two of each length
    train(TrainConfig(store_path, tmp_path / "decoder", str(base_path), tmp_path / "lora", **quick))
    made = read_json(tmp_path / "decoder" / "config.json", "decoder")
    assert made["k"] == [5, 15] and set(made["metrics"]["by_k"]) == {"5", "15"}
    for k in (5, 15):
        generator = Generator.load(Base.load(str(base_path)), tmp_path / "lora", k)
        imaginer = Imaginer(generator, Decoder.load(tmp_path / "decoder", generator), num_inference_steps=2)
        for trajectory in imaginer.imagine(starts(store, range(2)), seeded(0), frames=True):
            trajectory.check(store.task)
            assert len(trajectory) <= k - 1
    generator = Generator.load(Base.load(str(base_path)), tmp_path / "lora")
    chosen = Imaginer(generator, Decoder.load(tmp_path / "decoder", generator), 2, length=ByHeight())
    asked = starts(store, range(6))
    imagined = chosen.imagine(asked, seeded(0))
    wanted = ByHeight()(np.stack([start.state for start in asked]))
    assert set(wanted) == {5, 15}
    for start, k, trajectory in zip(asked, wanted, imagined):
        assert np.array_equal(trajectory.states[0], start.state) and len(trajectory) <= k - 1
    with pytest.raises(PixeltrajError, match="trained for k=5, 15, not k=10"):
        Generator.load(Base.load(str(base_path)), tmp_path / "lora", 10)


def test_a_decoder_refuses_lengths_it_was_not_trained_to_read(
    decoder_path: Path, base_path: Path, store: Store
) -> None:
    generator = Generator.load(Base.load(str(base_path)), k=10)
    with pytest.raises(PixeltrajError, match="trained to read k=5, not k=10; train it again with --k 10"):
        Decoder.load(decoder_path, generator)
    imaginer = Imaginer(generator.at(5), Decoder.load(decoder_path, generator.at(5)), num_inference_steps=1)
    assert len(imaginer.imagine(starts(store, range(1)), seeded(0))[0]) <= 4
