"""The parts of `benchmarks.decode_options` that can be right or wrong by themselves."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.decode_options import table
from benchmarks.decode_options_config import Benchmark
from benchmarks.decode_options_direct import SCALE, DirectTask
from benchmarks.decode_options_inputs import INPUTS, pictures
from benchmarks.decode_options_list import OPTIONS, OTHERS, Option
from benchmarks.decode_options_stages import stages
from benchmarks.decode_options_training import option_decoder, option_heads
from benchmarks.decode_options_windows import NAMES, Lesson
from pixeltraj.base import Base
from pixeltraj.decode.calibration import joined
from pixeltraj.decode.decoder import known_states, pin
from pixeltraj.decode.features import Windows, grid_features
from pixeltraj.decode.heads import Heads
from pixeltraj.errors import PixeltrajError
from pixeltraj.generator import Generator
from pixeltraj.grid import LATENT
from pixeltraj.tasks import get_task

K = 5
BY_NAME = {option.name: option for option in OPTIONS}


def made_up(name: str, channels: int = 6, count: int = 12, seed: int = 0) -> Windows:
    """Windows of smooth random states, whose frames are noise."""
    rng, task = np.random.default_rng(seed), get_task(name)
    keypoints = rng.uniform(-0.1, 0.1, (count, K, len(task.keypoints), 3)) + task.camera.lookat
    start = rng.normal(size=(count, task.state_size)).astype(np.float32)
    states = start[:, None] + 0.1 * rng.normal(size=(count, K, task.state_size)).cumsum(axis=1).astype(np.float32)
    states[..., task.indices(task.static)] = start[:, None, task.indices(task.static)]
    for i, dimension in enumerate(task.state):
        if dimension.name.startswith("previous_"):
            states[:, 1:, i] = states[:, :-1, i - 7]
    return Windows(
        features=torch.from_numpy(rng.normal(size=(count, K, channels, LATENT, LATENT))).half(),
        states=states,
        keypoints=keypoints.astype(np.float32),
        actions=rng.uniform(-1, 1, (count, K - 1, task.action_size)).astype(np.float32),
        rewards=rng.normal(size=(count, K - 1)).astype(np.float32),
        terminations=np.zeros((count, K - 1), dtype=bool),
        real=np.ones((count, K - 1), dtype=bool),
        moved=np.zeros((count, 2), dtype=np.int64),
    )


@pytest.fixture(scope="module")
def generator() -> Generator:
    base = Base.load()
    return Generator(base, K, base.identity)


@pytest.mark.parametrize("name", ["push-v3", "HalfCheetah-v5"])
def test_numbers_of_a_state_say_all_of_it_that_a_frame_can_show(name: str) -> None:
    windows = made_up(name)
    task = DirectTask.of(get_task(name), windows)
    shown = task.shown(windows)
    states = known_states(task, shown.keypoints, windows.states[:, 0])
    seen = [i for i in range(task.state_size) if i not in task.indices(task.hidden)]
    assert np.abs(states - windows.states)[..., seen].max() < 1e-4
    assert np.std(shown.keypoints[..., 0, 0]) == pytest.approx(SCALE, rel=0.01)
    # and the known start corrects them as it does keypoints
    off = shown.keypoints[:, :1] + 0.03
    shift = pin(task, off, windows.states[:, 0])
    assert np.abs((off + shift - shown.keypoints[:, :1]).reshape(len(off), -1)[:, : len(task.told)]).max() < 1e-3


def test_without_a_window_nothing_corrects_a_frame_and_an_action_depends_on_its_two_frames_only(tmp_path: Path) -> None:
    windows, task = made_up("push-v3"), get_task("push-v3")
    training = Benchmark(out=tmp_path).training("push-v3")
    single, shipped = (option_heads(BY_NAME[name], task, windows, training) for name in ("single", "shipped"))
    for heads in (single, shipped):
        torch.nn.init.normal_(heads.action.get_parameter("head.out.weight" if heads is single else "out.weight"))
    assert not any(p.requires_grad for p in single.refine.parameters())
    pooled, keypoints = torch.randn(2, K, 6), torch.from_numpy(windows.keypoints[:2])
    assert torch.equal(single.refined(keypoints, pooled)[0], keypoints)
    states = torch.from_numpy(windows.states[:2])
    changed = states.clone()
    changed[:, 4] += 1.0

    def touched(heads: Heads) -> list[bool]:
        before, after = heads.act(states, pooled)[0], heads.act(changed, pooled)[0]
        return [not torch.equal(before[:, i], after[:, i]) for i in range(K - 1)]

    assert touched(single) == [False, False, False, True]
    assert all(touched(shipped))


@pytest.mark.parametrize("of", ["push-v3", "HalfCheetah-v5"])
@pytest.mark.parametrize("name", ["direct", "pixels", "single", "generic"])
def test_every_kind_of_decoder_trains_and_reads_windows(
    name: str, of: str, generator: Generator, tmp_path: Path
) -> None:
    option, task = BY_NAME[name], get_task(of)
    training = replace(Benchmark(out=tmp_path).training(of), steps=2, head_steps=2, batch=8)
    channels = 192 if name == "pixels" else 6
    names = (of, *OTHERS.get(of, ())) if option.generic else (of,)
    lessons = []
    for seed, each in enumerate(names):
        windows = made_up(each, channels, seed=seed)
        lessons.append(Lesson(windows, windows, windows, windows, windows))
    decoder = option_decoder(option, task, generator, lessons, training)
    windows = lessons[0].real
    assert bool(decoder.task.pose) == (of == "HalfCheetah-v5" and name in ("pixels", "generic"))
    reading = decoder.read(windows.features, windows.states[:, 0])
    assert reading.states.shape == windows.states.shape and np.isfinite(reading.states).all()
    assert np.array_equal(reading.states[:, 0], windows.states[:, 0])
    assert reading.actions.shape == windows.actions.shape and np.abs(reading.actions).max() <= 1


def test_inputs_are_the_shipped_features_more_or_less(generator: Generator) -> None:
    rng = torch.Generator().manual_seed(0)
    tiles = torch.randn(2, K, 4, LATENT, LATENT, generator=rng)
    asked = (generator, generator.grid.join(tiles), tiles[:, 0], [get_task("push-v3").prompt] * 2)
    seen = {name: see(*asked) for name, see in INPUTS.items() if see}
    shipped = grid_features(*asked)
    assert torch.equal(seen["own-pass"], shipped)
    assert torch.equal(seen["latents"], tiles)
    channels = shipped.shape[2]
    assert torch.equal(seen["attention"][:, :, :channels], shipped)
    maps = seen["attention"][:, :, channels:]
    assert 3 < maps.shape[2] <= generator.base.tokenizer.model_max_length
    assert maps.min() >= 0 and 0.05 < float(maps.sum(dim=2).mean()) <= 1.001  # the rest looks at the padding
    fewer, more = seen["blocks-1"], seen["blocks-3"]
    assert fewer.shape[2] < channels < more.shape[2]
    assert torch.equal(fewer, shipped[:, :, channels - fewer.shape[2] :])
    assert torch.equal(more[:, :, -channels:], shipped)
    for name in ("timestep-50", "timestep-200"):
        assert seen[name].shape == shipped.shape and not torch.allclose(seen[name], shipped, atol=0.05)
        assert torch.equal(seen[name][:, :, -4:], tiles)  # no noise is added


def test_pictures_are_the_tiles_that_the_vae_paints(generator: Generator) -> None:
    tiles = torch.randn(1, K, 4, LATENT, LATENT, generator=torch.Generator().manual_seed(1))
    seen = pictures(generator, generator.grid.join(tiles), tiles[:, 0], [""])
    assert seen.shape == (1, K, 192, LATENT, LATENT)
    image = generator.base.decode(tiles[0, 3:4])
    again = torch.nn.functional.pixel_shuffle(seen[0, 3:4], 8)
    assert float((image - again).abs().mean()) < 0.02 * float(image.std())


def test_windows_come_back_from_disk_and_stand_one_after_the_other(tmp_path: Path) -> None:
    parts = [made_up("push-v3", seed=seed) for seed in range(5)]
    Lesson(*parts).save(tmp_path / "windows.safetensors")
    back = Lesson.load(tmp_path / "windows.safetensors")
    both = joined([back.clean, back.real])
    assert len(both) == len(parts[0]) + len(parts[3])
    for name in NAMES:
        there = np.asarray(getattr(both, name))
        expected = np.concatenate([np.asarray(getattr(parts[i], name)) for i in (0, 3)])
        assert np.array_equal(there, expected) and there.dtype == expected.dtype


def test_an_option_has_the_stages_that_it_needs_and_no_others() -> None:
    listed = {stage.name: stage for stage in stages(Benchmark(option=("generic", "latents"), seeds=2))}
    assert not any(stage.name.startswith("read-HalfCheetah-v5-generic") for stage in listed.values())
    assert [t for t in ("push-v3", "HalfCheetah-v5") if BY_NAME["unfitted"].concerns(t)] == ["HalfCheetah-v5"]
    assert all(BY_NAME[name].concerns("push-v3") for name in ("shipped", "single", "direct", "generic"))
    assert "windows-push-v3-features-push-back-v3" in listed["read-push-v3-generic-1"].after
    assert listed["read-push-v3-latents-0"].after == ("windows-push-v3-latents-push-v3",)
    for stage in listed.values():
        assert set(stage.after) <= set(listed)
    with pytest.raises(PixeltrajError, match="no option 'colour'; there are shipped, "):
        stages(Benchmark(option=("colour",)))


def test_the_table_tells_means_and_how_far_seeds_differ() -> None:
    def run(state: float, hand: float | None) -> dict[str, float | None]:
        nothing = dict.fromkeys(("object_mm", "angle_rad", "keypoint_mm", "action_r2", "action_r2_mean"))
        return {"state_pct": state, "hand_mm": hand, **nothing}

    def row(frames: float, real: list[Any], painted: list[Any]) -> dict[str, Any]:
        pace = {"frames_per_cpu_s": frames, "imagined_frames_per_cpu_s": 2 * frames}
        return {"real": real, "reconstructed": painted, "speed": pace}

    shipped = row(400.4, [run(1.0, 4.0), run(2.0, 6.0)], [run(3.0, 8.0), run(3.0, 8.0)])
    rows = {"shipped": shipped, "direct": row(500.0, [run(9.0, 5.0)], [run(9.5, 5.5)])}
    lines = table({"tasks": {"push-v3": rows}}, "push-v3").splitlines()
    assert lines[0] == "| push-v3 | state, % of range | hand, mm | frames a CPU-second |"
    assert lines[2].endswith("| 1.50 / 3.00 | 5.0 / 8.0 | 400 / 801 |")
    assert lines[3] == "| its deviation over 2 seeds | 0.71 / 0.00 | 1.4 / 0.0 | |"
    assert lines[4].startswith("| `direct`: regression") and lines[4].endswith(
        "| 9.00 / 9.50 | 5.0 / 5.5 | 500 / 1000 |"
    )


def test_every_option_reads_an_input_that_there_is() -> None:
    assert {option.input for option in OPTIONS} <= set(INPUTS)
    assert [option.name for option in OPTIONS if option == replace(Option(option.name, option.words))] == ["shipped"]
