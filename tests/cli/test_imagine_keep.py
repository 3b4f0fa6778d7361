"""`pixeltraj imagine --keep`: what is dropped is the worst, counted, and the same after an interruption."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pixeltraj.cli import main
from pixeltraj.cli.imagination import ImagineConfig
from pixeltraj.cli.imagine import Config, imagine
from pixeltraj.cli.starts import StoreStarts
from pixeltraj.decode.train import TrainConfig, train
from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.agents.td3_bc import TD3BCConfig
from pixeltraj.eval.arm import Arm
from pixeltraj.eval.run import Course, Run
from pixeltraj.keep import ALL, Keep, Tally
from pixeltraj.replay_buffer import ReplayBuffer, ReplayBufferConfig
from pixeltraj.store import Store

Ask = Callable[..., Config]
HALF = Keep(uncertainty=0.75, cycle=0.75)


@pytest.fixture(scope="module")
def decoder_path(store_path: Path, base_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whose states the simulator can be brought to, so that there is something to keep."""
    folder = tmp_path_factory.mktemp("decoders") / "decoder"
    train(TrainConfig(store_path, folder, str(base_path), k=(5,), steps=10, head_steps=10, copies=1, scatter=2))
    return folder


@pytest.fixture(scope="module")
def ask(store_path: Path, base_path: Path, decoder_path: Path) -> Ask:
    def config(out: Path, n: int = 18, keep: Keep = ALL) -> Config:
        parts = {"decoder": decoder_path, "base": str(base_path), "keep": keep}
        return Config(task="push-v3", source=store_path, out=out, n=n, **parts)

    return config


@pytest.fixture(scope="module")
def everything(ask: Ask, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return imagine(ask(tmp_path_factory.mktemp("imagined") / "all"))[0]


@pytest.fixture(scope="module")
def half(ask: Ask, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Tally]:
    tally = Tally()
    return imagine(ask(tmp_path_factory.mktemp("imagined") / "half", keep=HALF), tally)[0], tally


def test_what_is_kept_are_beginnings_of_what_was_imagined(
    everything: Store, half: tuple[Store, Tally], store_path: Path
) -> None:
    store, tally = half
    whole = {(t.origin["episode"], t.origin["step"]): t for t in everything}
    assert "keep" not in everything.attributes["provenance"] and "keep" not in everything.episodes[0]
    for part in store:
        same = whole[part.origin["episode"], part.origin["step"]]
        np.testing.assert_array_equal(part.states, same.states[: len(part) + 1])
        np.testing.assert_array_equal(part.frames, same.frames[: len(part) + 1])  # type: ignore[index]
    assert tally.imagined == everything.frame_count - len(everything)
    assert tally.kept == store.frame_count - len(store) <= 0.75 * tally.imagined + 2
    assert store.episodes[-1]["keep"]["imagined"] <= tally.imagined
    assert store.attributes["provenance"]["keep"] == {"uncertainty": 0.75, "cycle": 0.75, "audit": 1.0, "weigh": False}
    assert everything.renderer and everything.renderer["starts"] == Store.open(store_path).renderer


def test_interrupted_after_a_batch_it_ends_alike(half: tuple[Store, Tally], ask: Ask, tmp_path: Path) -> None:
    store, tally = half
    imagine(ask(tmp_path / "out", n=16, keep=HALF))
    again = Tally()
    resumed, _ = imagine(ask(tmp_path / "out", keep=HALF), again)
    assert again == tally and resumed.episodes == store.episodes
    for a, b in zip(resumed, store):
        np.testing.assert_array_equal(a.states, b.states)
    with pytest.raises(PixeltrajError, match="imagined in another way"):
        imagine(ask(tmp_path / "out"))


def test_the_command_says_what_it_kept(ask: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = ask(tmp_path / "out")
    line = f"imagine push-v3 --from {config.source} --decoder {config.decoder} --base {config.base} --n 2"
    assert main([*line.split(), "--out", str(config.out), "--keep.uncertainty", "0.5", "--keep.weigh"]) == 0
    store = Store.open(config.out)
    total = store.frame_count - len(store)
    assert f"kept {total} of {total} transitions of 2 trajectories" in capsys.readouterr().out
    weights = [episode["weights"] for episode in store.episodes]
    assert [len(w) for w in weights] == [episode["transitions"] for episode in store.episodes]
    assert all(0 < b <= a <= 1 for w in weights for a, b in pairwise(w))
    assert config.source
    arm = Arm("x", "td3_bc", TD3BCConfig(hidden=4, batch=4), (config.source,), (config.out,), online=False)
    run = Run(Course(steps=1, eval_episodes=1), "push-v3", arm, 0, tmp_path / "run")
    run.learn(lambda step: None)
    given = run.buffer.imagined.state_dict()["weights"]
    np.testing.assert_array_equal(given, np.concatenate(weights, dtype=np.float32))
    assert main([*line.split(), "--out", str(tmp_path / "new"), "--keep.cycle", "1.5"]) == 2
    assert "keep.cycle is 1.5; it must be above 0 and at most 1" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_an_agents_imagination_is_kept_and_weighed(ask: Ask, store: Store, tmp_path: Path) -> None:
    config = ask(tmp_path)
    parts = ImagineConfig(config.decoder, base=config.base, keep=Keep(cycle=0.5, audit=0.5, weigh=True))
    imagination = parts(store.task)
    try:
        buffer = ReplayBuffer(
            ReplayBufferConfig(rho=0.5, imagine_batch=3, expected_length=1.0),
            store.task.state_size,
            store.task.action_size,
            np.random.default_rng(0),
            imagination,
        )
        real = store.trajectory(0)
        assert real.snapshots is not None
        for t in range(3):
            now, after = real.states[t : t + 2]
            buffer.store(now, real.actions[t], 0.0, after, False, real.snapshots[t + 1])
        assert imagination.tally.kept == len(buffer.imagined) <= imagination.tally.imagined > 0
        if buffer.received:
            assert buffer.imagined.weights is not None and buffer.imagined.weights.min() < 1
    finally:
        imagination.close()


def test_starts_without_simulator_states_cannot_be_drawn_again(store: Store, tmp_path: Path) -> None:
    rendered = StoreStarts(store, seed=0)
    _, origins = rendered(0, 3)
    states = np.stack([start.state for start in rendered(0, 3)[0]])
    simulator = store.task.make()
    for state, snapshot in zip(states, rendered.snapshots(origins)):
        simulator.restore(snapshot)
        np.testing.assert_allclose(simulator.state(), state, atol=1e-6)
    bare = StoreStarts(store, seed=0)
    bare.store = Store.create(tmp_path / "bare", store.task, {}, {})
    with pytest.raises(PixeltrajError, match=r"holds no simulator states.*leave out --keep\.cycle"):
        bare.snapshots(origins)
