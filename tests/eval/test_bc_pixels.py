"""Cloning from pixels: what it sees, in data and while it acts; that it learns; what it refuses."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pixeltraj.cli.sight import draw_alike
from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.agents.agent import Seeing, no_data
from pixeltraj.eval.agents.bc_pixels import BCPixels, BCPixelsConfig, SeenSimulator, shifted
from pixeltraj.eval.agents.catalogue import make_agent
from pixeltraj.eval.arm import Arm
from pixeltraj.eval.augmentation import Augmentation
from pixeltraj.eval.experiment import Experiment
from pixeltraj.eval.oracle import Oracle
from pixeltraj.eval.run import Course, Run
from pixeltraj.render.collect import CollectConfig, collect
from pixeltraj.render.render import RenderConfig, render
from pixeltraj.replay_buffer import Batch
from pixeltraj.store import Store
from pixeltraj.tasks import get_task
from pixeltraj.trajectory import Trajectory

SMALL = BCPixelsConfig(batch=16, channels=8, features=16, hidden=32, shift=1)


def squares(count: int, rng: np.random.Generator, steps: int = 6) -> list[Trajectory]:
    """A square that moves on a background of its own. The first action tells where it is, the second where it comes
    from: only several frames tell that, and nothing does where an episode begins."""
    made = []
    for _ in range(count):
        background = rng.integers(0, 100, 3)
        frames = np.full((steps + 1, 84, 84, 3), background, np.uint8)
        x, direction = int(rng.integers(30, 48)), int(rng.choice([-1, 1]))
        places = x + 4 * direction * np.arange(steps + 1)
        for frame, place in zip(frames, places):
            frame[36:48, place - 6 : place + 6] = 255
        came = direction * (np.arange(steps) > 0)
        actions = np.stack([(places[:-1] - 42) / 42, 0.5 * came], axis=1).astype(np.float32)
        flags, points = np.zeros(steps, bool), np.zeros((steps + 1, 1, 3), np.float32)
        states = np.zeros((steps + 1, 3), np.float32)
        made.append(Trajectory(states, actions, np.zeros(steps, np.float32), flags, flags, points, frames=frames))
    return made


def make(config: BCPixelsConfig = SMALL, seed: int = 0, album: list[Trajectory] | None = None) -> Any:
    agent = make_agent("bc_pixels", no_data(3, 2), torch.Generator().manual_seed(seed), config)
    assert isinstance(agent, Seeing)
    agent.see(None, album or [])  # type: ignore[arg-type]
    return agent


def drawn(batch: Batch, size: int, rng: np.random.Generator) -> Batch:
    rows = rng.integers(len(batch.states), size=size)
    return batch.at(rows)


# Frames


def test_the_first_frame_stands_for_those_before_it() -> None:
    episodes = squares(2, np.random.default_rng(0))
    for i, episode in enumerate(episodes):
        episode.frames[:] = (10 * i + np.arange(7))[:, None, None, None]
    agent = make(replace(SMALL, stack=3), album=episodes)
    stacks = agent.stacks(np.array([[0, 0], [0, 1], [1, 0], [1, 5]], np.float32))
    assert stacks.shape == (4, 3, 84, 84, 3) and stacks.dtype == np.uint8
    assert stacks[..., 0, 0, 0].tolist() == [[0, 0, 0], [0, 0, 1], [10, 10, 10], [13, 14, 15]]


def test_transitions_name_their_frames() -> None:
    one, other = squares(1, np.random.default_rng(0), steps=2) + squares(1, np.random.default_rng(1), steps=3)
    agent = make(album=[one, other])
    batch = agent.transitions([other, one], imagined=True)
    assert batch.states.tolist() == [[1, 0], [1, 1], [1, 2], [0, 0], [0, 1]]
    assert batch.next_states.tolist() == [[1, 1], [1, 2], [1, 3], [0, 1], [0, 2]]
    assert batch.states.dtype == np.float32 and batch.states.shape[1] == agent.observation_size
    np.testing.assert_array_equal(batch.actions, np.concatenate([other.actions, one.actions]))
    assert batch.imagined.all()
    assert all(mine is episode.frames for mine, episode in zip(agent.album, [one, other]))  # no copies


def test_shifts_move_whole_stacks_and_repeat_the_edge() -> None:
    stacks = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (20, 2, 9, 9, 3), dtype=np.uint8))
    before = stacks.clone()
    moved, again = (shifted(stacks, 2, torch.Generator().manual_seed(0)) for _ in range(2))
    assert torch.equal(moved, again) and torch.equal(stacks, before) and moved.dtype == torch.uint8
    offsets = set()
    for stack, one in zip(stacks.numpy(), moved.numpy()):
        wide = np.pad(stack, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
        found = [(y, x) for y in range(5) for x in range(5) if (wide[:, y : y + 9, x : x + 9] == one).all()]
        assert len(found) == 1
        offsets |= set(found)
    assert len(offsets) > 8


# Learning


@pytest.mark.parametrize("bf16", [False, True])
def test_clones_what_frames_show(bf16: bool) -> None:
    rng = np.random.default_rng(0)
    episodes, heldout = squares(60, rng), squares(20, rng)
    agent = make(replace(SMALL, stack=2, learning_rate=3e-3, bf16=bf16), album=[*episodes, *heldout])
    batch, unseen = agent.transitions(episodes), agent.transitions(heldout)
    for _ in range(120):
        agent.update(drawn(batch, 16, rng))
    actions = agent.act(agent.stacks(unseen.states), explore=False)
    error = np.square(actions - unseen.actions).mean(axis=0)
    constant = np.square(batch.actions.mean(axis=0) - unseen.actions).mean(axis=0)
    assert (error < 0.3 * constant).all()
    single = agent.act(agent.stacks(unseen.states[:1])[0], explore=True)
    np.testing.assert_allclose(single, actions[0], atol=0.02)
    assert agent.td_error(unseen) is None


def test_saved_and_resumed_equals_unbroken(tmp_path: Path) -> None:
    episodes = squares(4, np.random.default_rng(0))
    whole, first, resumed = (make(seed=seed, album=episodes) for seed in (0, 0, 1))
    batches = [drawn(whole.transitions(episodes), 8, np.random.default_rng(i)) for i in range(6)]
    for batch in batches:
        whole.update(batch)
    for batch in batches[:3]:
        first.update(batch)
    save_file(first.tensors(), tmp_path / "agent.safetensors")
    resumed.load_tensors(load_file(tmp_path / "agent.safetensors"))
    for batch in batches[3:]:
        resumed.update(batch)
    saved, again = whole.tensors(), resumed.tensors()
    assert saved.keys() == again.keys() and all(torch.equal(saved[key], again[key]) for key in saved)
    assert not all(torch.equal(saved[key], value) for key, value in first.tensors().items())


def test_settings_that_show_nothing() -> None:
    for bad in ({"stack": 0}, {"channels": 0}, {"shift": -1}, {"shift": 84}):
        with pytest.raises(PixeltrajError, match="bc_pixels wants"):
            make(BCPixelsConfig(**bad))


# On stores, in the simulator


@pytest.fixture(scope="module")
def hopper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five short random episodes, rendered."""
    path = tmp_path_factory.mktemp("pixels") / "hopper"
    collect(CollectConfig("Hopper-v5", path, "random", episodes=5, max_steps=8))
    render(RenderConfig(path))
    return path


@pytest.fixture(scope="module")
def imagined(hopper: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same frames, as `pixeltraj imagine` keeps them."""
    path = tmp_path_factory.mktemp("pixels") / "imagined"
    source = Store.open(hopper)
    store = Store.create(path, source.task, {"imagined": True}, {})
    store.begin_rendering({"backend": "imagined", "starts": source.renderer})
    store.append([replace(trajectory, snapshots=None) for trajectory in source])
    return path


def arm(*stores: Path, synthetic: tuple[Path, ...] = (), **more: Any) -> Arm:
    settings = {"online": False, "symmetric": False} | more
    return Arm("pixels", "bc_pixels", SMALL, stores=stores, synthetic=synthetic, **settings)


def one(path: Path, how: Arm, steps: int = 9) -> Run:
    course = Course(steps=steps, eval_every=3, eval_episodes=1, checkpoint_every=3)
    return Run(course, "Hopper-v5", how, 0, path, draw_alike)


def test_sees_what_the_store_shows(hopper: Path) -> None:
    store = Store.open(hopper)
    episode = store.trajectory(1)
    with draw_alike(store.task, store.renderer) as sight:
        simulator = SeenSimulator(store.task.make(), sight, 3)
        seen, _ = simulator.reset(seed=int(str(episode.origin["seed"])))
        agent = BCPixels(replace(SMALL, stack=3), no_data(11, 3), torch.Generator().manual_seed(0))
        agent.see(sight, [episode])
        stacks = agent.stacks(np.stack([np.zeros(5), np.arange(5)], axis=1))
        np.testing.assert_array_equal(seen, stacks[0])
        for expected, action in zip(stacks[1:], episode.actions):
            seen, *_ = simulator.step(action)
            np.testing.assert_array_equal(seen, expected)
        np.testing.assert_array_equal(simulator.snapshot(), episode.snapshots[4])


def test_resumed_run_equals_unbroken(hopper: Path, imagined: Path, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(step: int) -> None:
        if broken.path.exists():
            raise Stop

    how = arm(hopper, synthetic=(imagined,))
    whole, broken = one(tmp_path / "whole", how), one(tmp_path / "broken", how)
    done = whole.learn(lambda step: None)
    with pytest.raises(Stop):
        broken.learn(stop)
    assert 3 <= broken.step < 9
    resumed = one(tmp_path / "broken", how)
    assert resumed.learn(lambda step: None).curve == done.curve
    saved, again = whole.agent.tensors(), resumed.agent.tensors()
    assert all(torch.equal(saved[key], again[key]) for key in saved)
    transitions = [row["transitions"] for row in Store.open(hopper).episodes]
    assert (done.own, done.imagined) == (sum(transitions[:4]), sum(transitions))
    batch = whole.buffer.sample(200)
    assert set(batch.states[~batch.imagined, 0]) == {0, 1, 2, 3}
    assert set(batch.states[batch.imagined, 0]) == {4, 5, 6, 7, 8}
    assert (tmp_path / "whole").stat().st_size < 1e6  # frames stay in the stores


def test_refused_before_anything_is_learned(hopper: Path, imagined: Path, tmp_path: Path) -> None:
    bare, other = tmp_path / "bare", tmp_path / "other"
    for path in (bare, other):
        collect(CollectConfig("Hopper-v5", path, "random", episodes=5, max_steps=2))
    render(RenderConfig(other, "ray-2x2"))
    dark = Store.create(tmp_path / "dark", get_task("Hopper-v5"), {"imagined": True}, {})
    dark.append([replace(trajectory, snapshots=None) for trajectory in Store.open(bare)])
    strange = Store.create(tmp_path / "strange", dark.task, {"imagined": True}, {})
    strange.begin_rendering({"backend": "imagined", "starts": Store.open(other).renderer})
    strange.append([replace(trajectory, snapshots=None) for trajectory in Store.open(other)])
    for how, message in (
        (arm(bare), f"shows 0 of .* states: `pixeltraj render {bare}`"),
        (arm(hopper, other), "other was rendered with .*ray-2x2.*; render them alike"),
        (arm(hopper, synthetic=(dark.path,)), "shows 0 of .* `pixeltraj imagine Hopper-v5` filled"),
        (arm(hopper, synthetic=(strange.path,)), "strange goes on from frames drawn with .*ray-2x2"),
        (arm(hopper, online=True, imagine=Oracle()), "learns from frames of stores alone; give online=False"),
        (arm(hopper, augment=Augmentation()), "no states that could be augmented"),
        (arm(hopper, imagine=Oracle()), "give it imagined stores, not an imagination"),
        (arm(hopper), "nothing draws them; give the experiment a sight"),
    ):
        with pytest.raises(PixeltrajError, match=message):
            Experiment(task="Hopper-v5", arms=(how,), out=tmp_path / "out").check()
    for how, message in (
        (arm(imagined), "frames of Hopper-v5 are imagined and cannot be drawn like that"),
        (arm(hopper), "drawn with .*'0.0'.*, here they are drawn with"),
    ):
        with pytest.raises(PixeltrajError, match=message):
            Run(Course(), "Hopper-v5", how, 0, tmp_path / "run", elsewhere if how.stores == (hopper,) else draw_alike)
    assert not (tmp_path / "out").exists() and not (tmp_path / "run").exists()


def elsewhere(task: Any, settings: dict[str, Any]) -> Any:
    """As if the store had been drawn by another MuJoCo."""
    return draw_alike(task, settings | {"mujoco": "0.0"})
