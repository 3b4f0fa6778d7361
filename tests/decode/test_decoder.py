"""The decoder: what its heads can learn, what it gives back, what it refuses, and that training survives a kill."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pixeltraj.base import Base
from pixeltraj.camera import FRAME_SIZE
from pixeltraj.decode.decoder import CONFIG, WEIGHTS, Decoder, pin
from pixeltraj.decode.features import Windows, finished, grid_features, tile_features
from pixeltraj.decode.heads import Heads, HeadsConfig, KeypointHead, keypoint_loss
from pixeltraj.decode.measurement import calibration, detection
from pixeltraj.decode.train import TrainConfig, refinement_loss, train_on
from pixeltraj.errors import PixeltrajError
from pixeltraj.generator import LAST, Generator
from pixeltraj.grid import LATENT, MARGIN
from pixeltraj.store import Store
from pixeltraj.task import Task
from pixeltraj.tasks import get_task
from pixeltraj.trajectory import Trajectory

COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [0, 255, 255]], dtype=np.uint8)


def blobs(task: Task, keypoints: np.ndarray) -> np.ndarray:
    """(T, 84, 84, 3) uint8: a coloured disc at each keypoint (T, N, 3), so that no OpenGL is needed."""
    frames = np.full((len(keypoints), FRAME_SIZE, FRAME_SIZE, 3), 90, dtype=np.uint8)
    pixel = np.arange(FRAME_SIZE) + 0.5
    for frame, points in zip(frames, task.camera.project(keypoints)):
        for colour, (column, row, _) in zip(COLOURS, points):
            frame[(pixel - column) ** 2 + ((pixel - row) ** 2)[:, None] < 9] = colour
    return frames


def make_store(path: Path, task: Task, episodes: int = 5, steps: int = 6) -> Store:
    simulator = task.make()
    store = Store.create(path, task, {}, simulator.snapshot_layout)
    rng = np.random.default_rng(0)
    for seed in range(episodes):
        states, keypoints, snapshots = [simulator.reset(seed=seed)[0]], [simulator.keypoints()], [simulator.snapshot()]
        actions = rng.uniform(-1, 1, (steps, task.action_size)).astype(np.float32)
        for action in actions:
            states.append(simulator.step(action)[0])
            keypoints.append(simulator.keypoints())
            snapshots.append(simulator.snapshot())
        last = np.arange(steps) == steps - 1  # as if the task were solved there
        store.append(
            [
                Trajectory(
                    states=np.stack(states),
                    actions=actions,
                    rewards=last.astype(np.float32),
                    terminations=last,
                    truncations=np.zeros(steps, dtype=bool),
                    keypoints=np.stack(keypoints),
                    snapshots=np.stack(snapshots),
                    frames=blobs(task, np.stack(keypoints)),
                )
            ]
        )
    return store


@pytest.fixture(scope="module")
def generator(base_path: Path) -> Generator:
    return Generator.load(Base.load(str(base_path)))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("store") / "push", get_task("push-v3"))


def config(store: Store, out: Path, base: Base, **fields: Any) -> TrainConfig:
    quick: dict[str, Any] = {"k": (5,), "steps": 20, "head_steps": 20, "batch": 4, "scatter": 0} | fields
    return TrainConfig(store=store.path, out=out, base=base.path, **quick)


@pytest.fixture(scope="module")
def decoder(store: Store, generator: Generator, tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    out = tmp_path_factory.mktemp("decoder") / "push"
    return train_on(store, generator, config(store, out, generator.base))


def inputs(store: Store, generator: Generator, count: int = 3) -> tuple[Tensor, Tensor, list[str], np.ndarray]:
    first = generator.base.encode(store.read("frames", 0, count))
    latents = generator.sample(first, [store.task.prompt] * count, torch.Generator().manual_seed(0), 2)
    return latents, first, [store.task.prompt] * count, store.read("states", 0, count)


def test_keypoint_head_finds_position_and_depth_of_a_blob() -> None:
    camera = get_task("push-v3").camera
    shape = HeadsConfig(channels=4, keypoints=1, state=1, hidden=(), actions=1, sparse=True, width=16)
    rng = np.random.default_rng(0)

    def batch(size: int) -> tuple[Tensor, Tensor]:
        pixels = rng.uniform((10, 10, 0.5), (74, 74, 0.9), (size, 3))
        cell = torch.from_numpy((pixels[:, :2] + MARGIN) / 8 - 0.5).float()
        index = torch.arange(LATENT)
        far = (index - cell[:, :1])[:, None, :] ** 2 + (index - cell[:, 1:])[:, :, None] ** 2
        bump = torch.exp(-0.5 * far)
        depth = torch.from_numpy(pixels[:, 2]).float()[:, None, None]  # the nearer, the brighter
        return torch.stack([bump, bump * (depth - 0.7) * 8, 0 * bump, 0 * bump], dim=1), torch.from_numpy(
            pixels[:, None]
        ).float()

    torch.manual_seed(0)
    head = KeypointHead(shape)
    head.depth_mean.fill_(0.7)
    head.depth_std.fill_(0.1)
    optimizer = torch.optim.AdamW(head.parameters(), lr=4e-3)
    for step in range(150):
        tiles, target = batch(16)
        loss = keypoint_loss(*head(tiles), target, camera.focal)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        optimizer.param_groups[0]["lr"] = 4e-3 * (1 - step / 150)
    tiles, target = batch(128)
    with torch.no_grad():
        error = (head(tiles)[0] - target).abs().mean(dim=(0, 1))
    assert error[0] < 1 and error[1] < 1, f"pixels off: {error}"
    assert error[2] < 0.03, f"metres off: {error[2]}, guessing the mean gives 0.1"


def test_the_window_corrects_what_single_frames_misread_and_says_how_sure_it_is() -> None:
    """A point on the table, misread upwards: by 1 mm where the features say so, by 20 mm where they do not."""
    torch.manual_seed(0)
    heads = Heads(HeadsConfig(channels=2, keypoints=1, state=1, hidden=(), actions=1, sparse=True, mlp=64))
    heads.keypoint_std.fill_(0.05)
    heads.misread.fill_(0.01)

    def batch(size: int) -> tuple[Tensor, Tensor, Tensor]:
        truth = torch.cat([0.1 * torch.rand(size, 5, 1, 2), torch.zeros(size, 5, 1, 1)], dim=-1)
        clear = torch.arange(size) % 2 == 0
        wrong = torch.randn(size, 5, 1) * torch.where(clear, 0.001, 0.02)[:, None, None]
        pooled = torch.stack([clear, ~clear], dim=-1).float()[:, None].expand(-1, 5, -1)
        return truth, truth + torch.nn.functional.pad(wrong[..., None], (2, 0)), pooled

    optimizer = torch.optim.AdamW(heads.refine.parameters(), lr=5e-3)
    for _ in range(400):
        truth, read, pooled = batch(64)
        assert torch.equal(heads.refined(read, pooled)[0][:, 0], read[:, 0])
        keypoints, spread = heads.refined(read, pooled)
        loss = refinement_loss(keypoints[:, 1:], spread[:, 1:], truth[:, 1:], heads.misread)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    truth, read, pooled = batch(256)
    with torch.no_grad():
        keypoints, spread = heads.refined(read, pooled)
    before, after = ((part - truth)[:, 1:, 0, 2].square().mean().sqrt() for part in (read, keypoints))
    assert after < 0.35 * before, f"{after} m are left of {before}"
    clear, vague = spread[::2, 1:].mean(), spread[1::2, 1:].mean()
    assert vague > 1.5 * clear and not spread[:, 0].any()


def test_a_perfect_generator_finishes_with_the_grid_itself(generator: Generator, monkeypatch: Any) -> None:
    grids, first = torch.randn(2, 4, 12, 60), torch.randn(2, 4, 12, 12)
    schedule, noises = generator.base.noise_scheduler, []

    def add_noise(clean: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        noises.append(noise)
        return type(schedule).add_noise(schedule, clean, noise, timestep)

    def perfect(noisy: Tensor, timestep: Tensor, *_: Tensor) -> Tensor:
        assert (noisy - grids).abs().mean() > 0.05, "nothing would be painted anew"
        return schedule.get_velocity(grids, noises[-1], timestep)

    monkeypatch.setattr(schedule, "add_noise", add_noise)
    monkeypatch.setattr(generator, "predict", perfect)
    states, rng = torch.zeros(2, 8), torch.Generator().manual_seed(0)
    painted, _ = finished(generator, grids, first, ["push", ""], states, rng)
    torch.testing.assert_close(painted, grids, atol=1e-4, rtol=1e-4)


def test_calibration_tells_sure_from_unsure() -> None:
    missed = np.array([0.001, 0.002, 0.003, 0.004])
    right, wrong = calibration(2 * missed, missed), calibration(missed[::-1], missed)
    assert right["rank_correlation"] == pytest.approx(1) and right["stated_mm"] == pytest.approx(2 * right["missed_mm"])
    assert wrong["rank_correlation"] == pytest.approx(-1)


def test_features_are_those_of_the_finished_grid(store: Store, generator: Generator) -> None:
    latents, first, prompts, _ = inputs(store, generator)
    features = grid_features(generator, latents, first, prompts)
    assert features.shape == (3, 5, 16 + 8 + 4, LATENT, LATENT)
    assert torch.equal(features[:, :, -4:], generator.grid.split(latents))
    other = grid_features(generator, latents, first.flip(0), prompts)
    assert not torch.equal(features, other), "the condition must reach the U-Net"
    assert not any(block._forward_hooks for block in generator.unet.up_blocks), "hooks must not stay"


def test_what_the_sampler_saw_last_is_what_finishing_its_grid_shows(store: Store, generator: Generator) -> None:
    _, first, prompts, starts = inputs(store, generator)
    states, maps = torch.from_numpy(starts), list[Tensor]()
    seen: list[tuple[Tensor, ...]] = []
    predict = generator.predict
    generator.predict = lambda *told: seen.append(told) or predict(*told)  # type: ignore[method-assign,func-returns-value]
    try:
        latents = generator.sample(first, prompts, torch.Generator().manual_seed(0), 3, states, maps=maps)
    finally:
        generator.predict = predict  # type: ignore[method-assign]
    assert [int(told[1][0]) for told in seen] == [999, 530, LAST]
    again, look = generator.finish(*seen[-1])
    torch.testing.assert_close(again, latents, atol=1e-3, rtol=1e-3)
    assert len(maps) == len(look) == 2 and all(torch.equal(one, other) for one, other in zip(maps, look))
    assert tile_features(latents, maps).shape == grid_features(generator, latents, first, prompts).shape
    none: list[Tensor] = []
    generator.sample(first, prompts, torch.Generator().manual_seed(0), 1, maps=none)
    assert not none, "noise shows nothing"


def test_windows_are_padded_and_say_so(store: Store, generator: Generator) -> None:
    windows = Windows.read(store, [0, 2], generator)
    assert len(windows) == 14 and windows.features.dtype == torch.float16
    assert windows.real[:7].sum(axis=1).tolist() == [4, 4, 4, 3, 2, 1, 0]
    assert (windows.states[6] == windows.states[6, 0]).all()
    assert windows.terminations.sum() == 8 and not windows.terminations[~windows.real].any()
    assert windows.rewards.sum() == 8
    few = Windows.read(store, [0, 1, 2], generator, move=2, stride=30)  # episodes have 7 windows
    assert len(few) == 3 and few.moved.shape == (3, 2)


def test_windows_that_show_an_end_are_read_besides(store: Store, generator: Generator) -> None:
    few = Windows.read(store, [0, 1], generator, stride=30, ends=2)
    assert len(few) == 2 + 2 * 2
    assert few.terminations[2 - 1 :].sum() >= 4 and few.terminations.any(axis=1).sum() >= 4
    again = Windows.read(store, [0, 1], generator, stride=30, ends=2)
    np.testing.assert_array_equal(few.states, again.states)


def test_reading_follows_its_calibration(decoder: Decoder, store: Store, generator: Generator) -> None:
    windows, heads = Windows.read(store, [0], generator), decoder.heads
    before, doubt, threshold = (
        decoder.read(windows.features, windows.states[:, 0]),
        heads.doubt.clone(),
        heads.threshold,
    )
    threshold = threshold.clone()
    heads.doubt.mul_(3.0)
    heads.threshold.fill_(float(np.median(before.ends)))
    after = decoder.read(windows.features, windows.states[:, 0])
    heads.doubt.copy_(doubt)
    heads.threshold.copy_(threshold)
    np.testing.assert_allclose(after.uncertainty, 3 * before.uncertainty, rtol=1e-5)
    np.testing.assert_array_equal(after.terminations, before.ends > np.median(before.ends))
    np.testing.assert_array_equal(after.rewards > 0.5, after.terminations)
    assert 0 < after.terminations.sum() < after.terminations.size


def test_pin_makes_the_first_frame_say_the_known_state() -> None:
    rng = np.random.default_rng(0)
    for name in ("push-v3", "HalfCheetah-v5"):
        task = get_task(name)
        simulator = task.make()
        states, points = [], []
        for seed in range(4):
            states.append(simulator.reset(seed=seed)[0])
            points.append(simulator.keypoints())
        starts, exact = np.stack(states), np.stack(points)[:, None].astype(np.float64)
        off = exact + 0.01 * rng.standard_normal(exact.shape)
        known = [i for i, d in enumerate(task.state) if d.name not in task.hidden]
        pinned = off + pin(task, off, starts)
        said = task.state_from_keypoints(pinned, starts)[:, 0, known]
        assert np.abs(said - starts[:, known]).max() < 2e-3
        assert np.abs(pinned - off).mean() < 0.01, "no keypoint is moved further than it takes"


def test_trajectories_begin_at_their_start_and_end_once(decoder: Decoder, store: Store, generator: Generator) -> None:
    latents, first, prompts, starts = inputs(store, generator)
    decoder.heads.threshold.fill_(-1e9)  # everything is an end
    cut = decoder.decode(latents, first, prompts, starts)
    decoder.heads.threshold.fill_(1e9)  # nothing is
    whole = decoder.decode(latents, first, prompts, starts)
    static = store.task.indices(store.task.static)
    for short, long, start in zip(cut, whole, starts):
        assert len(short) == 1 and short.terminations[-1] and short.rewards[-1] == 1
        assert len(long) == 4 and not long.terminations.any() and not long.rewards.any()
        for trajectory in (short, long):
            trajectory.check(store.task)
            assert (trajectory.states[0] == start).all()
            assert (trajectory.states[:, static] == start[static]).all()
            assert np.abs(trajectory.actions).max() <= 1
            assert trajectory.uncertainty is not None and trajectory.uncertainty.shape == (len(trajectory) + 1,)
            assert trajectory.uncertainty[0] == 0 and (trajectory.uncertainty[1:] > 0).all()
        before = long.states[1, 7:14] - start[:7]
        assert np.abs(np.delete(before, 3)).max() < 2e-3, "previous = the known state one before"
    with pytest.raises(PixeltrajError, match="NaN"):
        decoder.decode(latents * float("nan"), first, prompts, starts)


def test_dense_tasks_get_velocities_and_rewards(tmp_path: Path, generator: Generator) -> None:
    task = get_task("HalfCheetah-v5")
    store = make_store(tmp_path / "cheetah", task)
    store.task = replace(task, prompt="run")  # the small base's text encoder knows few letters
    decoder = train_on(store, generator, config(store, tmp_path / "out", generator.base, steps=5, head_steps=20))
    latents, first, prompts, starts = inputs(store, generator)
    for trajectory in decoder.decode(latents, first, prompts, starts):
        trajectory.check(task)
        velocities = trajectory.states[1:, task.indices(task.hidden)]
        assert velocities.std() > 0, "hidden dimensions are read, not left out"
    assert "r2" in decoder.about["metrics"]["reward"]


def test_saved_and_loaded_decoders_give_the_same_bytes(
    decoder: Decoder, store: Store, generator: Generator, tmp_path: Path
) -> None:
    decoder.save(tmp_path)
    loaded = Decoder.load(tmp_path, generator, store.task)
    grids = inputs(store, generator)
    for one, two in zip(decoder.decode(*grids), loaded.decode(*grids)):
        for name in ("states", "actions", "rewards", "keypoints"):
            assert getattr(one, name).tobytes() == getattr(two, name).tobytes()
    assert loaded.about == json.loads(json.dumps(decoder.about))


def test_decoders_of_something_else_are_refused(
    decoder: Decoder, store: Store, generator: Generator, plain_base_path: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "decoder"
    decoder.save(folder)
    with pytest.raises(PixeltrajError, match="another base"):
        Decoder.load(folder, Generator.load(Base.load(str(plain_base_path))))
    lora = Generator(generator.base, 5, f"{generator.base.identity}+other")
    with pytest.raises(PixeltrajError, match="another LoRA"):
        Decoder.load(folder, lora)
    with pytest.raises(PixeltrajError, match="k=5, not k=10"):
        Decoder.load(folder, Generator.load(generator.base, k=10))
    with pytest.raises(PixeltrajError, match="reads push-v3, not door-open-v3"):
        Decoder.load(folder, generator, get_task("door-open-v3"))
    moved = replace(store.task, camera=replace(store.task.camera, azimuth=10.0))
    with pytest.raises(PixeltrajError, match="another camera"):
        Decoder.load(folder, generator, moved)
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])
    with pytest.raises(PixeltrajError, match="is not the file"):
        Decoder.load(folder, generator)
    (folder / CONFIG).unlink()
    with pytest.raises(PixeltrajError, match="no decoder"):
        Decoder.load(folder, generator)


def test_training_survives_a_kill(store: Store, generator: Generator, tmp_path: Path) -> None:
    killed = config(store, tmp_path / "killed", generator.base)
    program = (
        "import torch; torch.set_num_threads(1)\n"
        "from pathlib import Path; from pixeltraj.decode import train as module\n"
        "module.CHECKPOINT_EVERY = 4\n"
        f"module.train(module.TrainConfig(store=Path({str(store.path)!r}), out=Path({str(killed.out)!r}), "
        f"base={generator.base.path!r}, k=(5,), steps=20, head_steps=20, batch=4, scatter=0))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    checkpoint = killed.out / "train.checkpoint"
    deadline = time.monotonic() + 300
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    assert checkpoint.exists(), "no checkpoint came"
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (killed.out / CONFIG).exists()
    at = torch.load(checkpoint, weights_only=True)["step"]
    assert 0 < at < 40

    resumed = train_on(store, generator, killed)
    whole = train_on(store, generator, replace(killed, out=tmp_path / "whole"))
    assert resumed.about["provenance"]["steps"] == whole.about["provenance"]["steps"] == 40
    for name, value in whole.heads.state_dict().items():
        assert torch.equal(value, resumed.heads.state_dict()[name]), name
    assert not checkpoint.exists()


def test_detection_counts() -> None:
    read, truth = np.array([True, True, False, False]), np.array([True, False, True, True])
    assert detection(read, truth) == {"positives": 3, "read": 2, "precision": 0.5, "recall": 1 / 3}
    assert detection(truth[:0], truth[:0]) == {"positives": 0, "read": 0, "precision": None, "recall": None}
