"""Distillation: what the student learns is where the teacher's way ends; what is written, everybody's tools take."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import LCMScheduler, StableDiffusionInstructPix2PixPipeline, StableDiffusionPipeline
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file
from torch import Tensor

from pixeltraj.base import Base
from pixeltraj.cli import main
from pixeltraj.errors import PixeltrajError
from pixeltraj.finetune import distill as distilling
from pixeltraj.finetune.computing import Computing
from pixeltraj.finetune.consistency import Consistency
from pixeltraj.finetune.distill import DistillConfig, distill, joined
from pixeltraj.finetune.loss import Noise, motion_weight
from pixeltraj.finetune.train import FinetuneConfig, finetune
from pixeltraj.generator import CONFIG_FILE, LAST, LORA_FILE, Generator

PROMPT = "push the red puck to the goal on the table"
MEAN, SPREAD = 0.3, 0.7
EXACT = Computing("fp32")


@pytest.fixture(scope="module", autouse=True)
def few_windows() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distilling, "HELDOUT_WINDOWS", 2)
        yield


@pytest.fixture(scope="module")
def teacher(store_path: Path, base_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("teacher") / "lora"
    finetune(FinetuneConfig(store_path, out, str(base_path), (5, 10), steps=3, batch=2, rank=2, lr=2e-2))
    return out


def small(teacher: Path, store: Path, base: Path, out: Path) -> DistillConfig:
    return DistillConfig(teacher, store, out, str(base), steps=4, batch=2, rank=3, lr=2e-2, cut=4, jump=2)


@pytest.fixture(scope="module")
def student(teacher: Path, store_path: Path, base_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("student") / "lora"
    distill(small(teacher, store_path, base_path, out))
    return out


# What is learned


def adapted(base: Base, prediction: str) -> Generator:
    base.noise_scheduler.register_to_config(prediction_type=prediction)
    base.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"]))
    return Generator(base, 5, "")


def gaussian(learner: Consistency, off: float = 0.0) -> Callable[..., Tensor]:
    """The outputs of U-Nets that know all of N(MEAN, SPREAD^2): the teacher's leads towards the mean of what the noisy
    grid can have been, the student's to where that way ends, and `off` beside it."""
    unet, schedule = learner.generator.unet, learner.schedule
    layer = next(module for module in unet.modules() if isinstance(module, BaseTunerLayer))

    def predict(noisy: Tensor, timestep: Tensor, *_: Tensor) -> Tensor:
        kept = schedule.alphas_cumprod[timestep][:, None, None, None]
        variance = kept * SPREAD**2 + 1 - kept
        away = noisy - kept.sqrt() * MEAN  # divided by the deviation it stays the same along the way
        clean = MEAN + SPREAD**2 * kept.sqrt() / variance * away
        if not layer.disable_adapters:
            skip, out = (scale[:, None, None, None] for scale in learner._scalings(timestep))
            clean = (MEAN + SPREAD * away / variance.sqrt() + off - skip * noisy) / out.clamp(min=1e-9)
        if schedule.config.prediction_type == "v_prediction":
            return (kept.sqrt() * noisy - clean) / (1 - kept).sqrt()
        return (noisy - kept.sqrt() * clean) / (1 - kept).sqrt()

    return predict


@pytest.mark.parametrize(("prediction", "jump"), [("epsilon", 1), ("v_prediction", 3)])
def test_nothing_is_left_to_learn_where_the_student_knows_the_end(
    base: Base, prediction: str, jump: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The teacher's steps are Euler's: the shorter they are, the nearer its way is to the exact one."""
    generator, rng = adapted(base, prediction), torch.Generator().manual_seed(0)
    tiles = MEAN + SPREAD * torch.randn(32, 5, 4, 12, 12, generator=rng)
    drawn, embedding = Noise.draw(generator.grid, 32, rng), torch.zeros(32, 1, 1)
    some, losses, gaps = (drawn.noise[:2], tiles[:2, 0], embedding[:2]), [], []
    for cut in (10, 40, 160):
        learner = Consistency(generator, cut, jump, EXACT)
        monkeypatch.setattr(generator, "predict", gaussian(learner))
        losses.append(learner.loss(tiles, embedding, drawn).item())
        gaps.append(learner.gap(*some).sqrt().mean().item())
    assert losses[0] > 4 * losses[1] > 16 * losses[2] and losses[2] < 1e-4
    assert gaps[0] > 2 * gaps[1] > 4 * gaps[2] and gaps[2] < 0.02
    learner = Consistency(generator, 10, jump, EXACT)
    monkeypatch.setattr(generator, "predict", gaussian(learner, off=0.5))
    assert learner.gap(*some).sqrt().mean().item() == pytest.approx(0.5, abs=0.2)
    last = replace(drawn, late=torch.full((32,), 0.17))
    assert learner.loss(tiles, embedding, last).item() == pytest.approx(0.5, abs=0.05), "the end is the teacher's own"


def test_at_the_end_of_the_way_it_stays_where_it_is(base: Base) -> None:
    generator, rng = adapted(base, "v_prediction"), torch.Generator().manual_seed(0)
    learner = Consistency(generator, 20, 1, EXACT)
    noisy, first = torch.randn(3, 4, 12, 60, generator=rng), torch.randn(3, 4, 12, 12, generator=rng)
    embedding = generator.embed([PROMPT] * 3)
    timestep = torch.tensor([0, LAST, 999])
    with torch.no_grad():
        end = learner.end(noisy, timestep, first, embedding)
        clean = generator.clean(noisy, timestep, generator.predict(noisy, timestep, first, embedding))
    assert torch.equal(end[0], noisy[0])
    torch.testing.assert_close(end[1:], clean[1:], atol=1e-3, rtol=1e-3)
    left, before = learner.ahead(1, noisy, torch.tensor([30, 50, 999]), first, embedding)
    assert before.tolist() == [0, 0, 949] and torch.isfinite(left).all()
    further, before = learner.ahead(2, left, before, first, embedding)
    assert before.tolist() == [0, 0, 849] and torch.equal(further[:2], left[:2])


def test_two_loras_together_do_what_both_do() -> None:
    rng = torch.Generator().manual_seed(0)

    def lora(rank: int, prefix: str) -> dict[str, Tensor]:
        shapes = {
            "a.lora_A": (rank, 6),
            "a.lora_B": (5, rank),
            "c.lora_A": (rank, 6, 3, 3),
            "c.lora_B": (5, rank, 1, 1),
        }
        return {f"{prefix}{n}.weight": torch.randn(shape, generator=rng) for n, shape in shapes.items()}

    def product(tensors: dict[str, Tensor], layer: str) -> Tensor:
        a, b = (tensors[f"unet.{layer}.lora_{x}.weight"] for x in "AB")
        return b.flatten(1) @ a.flatten(1)

    one, other = lora(2, "unet.") | {"text_encoder.b.lora_A.weight": torch.ones(2, 6)}, lora(3, "")
    both = joined(one, other)
    assert both.keys() == one.keys() and both["text_encoder.b.lora_A.weight"].shape == (2, 6)
    for layer in "ac":
        further = product({f"unet.{name}": value for name, value in other.items()}, layer)
        torch.testing.assert_close(product(both, layer), product(one, layer) + further)


def test_the_losses_of_parts_have_the_whole_batch_s_as_their_mean(base: Base) -> None:
    generator, rng = adapted(base, "v_prediction"), torch.Generator().manual_seed(0)
    learner = Consistency(generator, 4, 2, EXACT)
    tiles = torch.randn(4, 5, 4, 12, 12, generator=rng) * torch.tensor([0.0, 0.1, 1.0, 2.0])[:, None, None, None, None]
    drawn, embedding = Noise.draw(generator.grid, 4, rng), generator.embed([PROMPT] * 4)
    with torch.no_grad():
        whole, motion = learner.loss(tiles, embedding, drawn), motion_weight(generator.grid, tiles).mean()
        halves = [
            learner.loss(tiles[part], embedding[part], drawn[part], motion) for part in (slice(0, 2), slice(2, 4))
        ]
    assert sum(halves) / 2 == pytest.approx(whole.item(), rel=1e-4)


# What is written


def test_the_folder_is_a_lora_that_generates_in_few_steps(
    teacher: Path, student: Path, base_path: Path, tmp_path: Path
) -> None:
    made = json.loads((student / CONFIG_FILE).read_text())
    assert made["k"] == [5, 10] and list(made["heldout_loss_after_by_k"]) == ["5", "10"]
    assert np.isfinite([made["loss_after"], made["heldout_loss_before"], made["heldout_loss_after"]]).all()
    old, new = (load_file(folder / LORA_FILE) for folder in (teacher, student))
    assert old.keys() == new.keys()
    for name, value in new.items():
        rank = 0 if ".lora_A." in name else 1
        kept = value.narrow(rank, 0, 2)
        assert value.shape[rank] == 5 and torch.equal(kept, old[name]), "the teacher's part stays as it is"
    generator = Generator.load(Base.load(str(base_path)), student, 10)
    assert generator.distilled and generator.at(5).distilled and generator.num_inference_steps == 2
    assert "LCMScheduler" in (student / "README.md").read_text()


def test_plain_diffusers_and_we_sample_alike(student: Path, base_path: Path) -> None:
    generator = Generator.load(Base.load(str(base_path)), student)
    pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(base_path, torch_dtype=torch.float32)
    pipeline.load_lora_weights(student)
    scheduler = LCMScheduler.from_config(pipeline.scheduler.config, original_inference_steps=1000)
    scheduler.set_timesteps(timesteps=[999, 530, LAST])
    first = torch.randn(1, 4, 12, 12, generator=torch.Generator().manual_seed(1))
    rng = torch.Generator().manual_seed(0)
    latents, embedding = torch.randn(1, 4, 12, 60, generator=rng), generator.base.embed([PROMPT])
    for timestep in scheduler.timesteps:
        inputs = torch.cat([latents, generator.grid.condition(first)], dim=1)
        with torch.no_grad():
            output = pipeline.unet(inputs, timestep, embedding).sample
        latents = scheduler.step(output, timestep, latents, generator=rng).prev_sample
    maps: list[Tensor] = []
    ours = generator.sample(first, [PROMPT], torch.Generator().manual_seed(0), 3, maps=maps)
    assert torch.allclose(ours, latents, atol=0.05), (ours - latents).abs().max()  # bf16 against float32
    assert len(maps) == 2, "its last pass is one that a decoder can read"
    again = generator.sample(first, [PROMPT], torch.Generator().manual_seed(0), 3)
    assert torch.equal(ours, again)


def test_diffusers_own_pipeline_takes_it(store_path: Path, plain_base_path: Path, tmp_path: Path) -> None:
    """Of a base with four channels, whose widened convolution goes along, and the text encoder's LoRA too."""
    config = FinetuneConfig(store_path, tmp_path / "lora", str(plain_base_path), steps=1, batch=1, rank=2)
    finetune(replace(config, lora=replace(config.lora, text_encoder=True)))
    distill(small(tmp_path / "lora", store_path, plain_base_path, tmp_path / "out"))
    assert Generator.load(Base.load(str(plain_base_path)), tmp_path / "out").distilled
    pipeline = StableDiffusionPipeline.from_pretrained(plain_base_path, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = LCMScheduler.from_config(pipeline.scheduler.config)
    images = []
    for lora in (tmp_path / "lora", tmp_path / "out"):
        pipeline.load_lora_weights(lora)
        arguments = {"num_inference_steps": 2, "guidance_scale": 1.0, "output_type": "np", "height": 96, "width": 480}
        images.append(pipeline(PROMPT, generator=torch.Generator().manual_seed(0), **arguments).images[0])
        pipeline.unload_lora_weights()
    assert images[0].shape == (96, 480, 3) and np.abs(images[0] - images[1]).max() > 1e-3


def test_interrupted_it_goes_on_and_ends_like_an_unbroken_one(
    teacher: Path, student: Path, store_path: Path, base_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(teacher, store_path, base_path, tmp_path / "broken")
    learn = distilling.learn

    def broken(*told: object) -> float:
        if told[-1] == 3:
            raise KeyboardInterrupt
        return learn(*told)  # type: ignore[arg-type]

    monkeypatch.setattr(distilling, "CHECKPOINT_EVERY", 2)
    monkeypatch.setattr(distilling, "learn", broken)
    with pytest.raises(KeyboardInterrupt):
        distill(config)
    assert not (config.out / LORA_FILE).exists()
    monkeypatch.setattr(distilling, "learn", learn)
    with pytest.raises(PixeltrajError, match="another seed"):
        distill(replace(config, seed=1))
    distill(config)
    for name in (LORA_FILE, "state_encoder.safetensors"):
        assert (config.out / name).read_bytes() == (student / name).read_bytes()
    assert not (config.out / "checkpoint").exists()


def test_the_command(
    teacher: Path, store_path: Path, base_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["distill", teacher, "--store", store_path, "--base", base_path, "--out", out, "--cut", 4, "--jump", 2]
    words += ["--steps", 16, "--batch", 2, "--lr", 2e-2]
    assert main(list(map(str, words))) == 0
    assert "one step is" in capsys.readouterr().out
    made = json.loads((out / CONFIG_FILE).read_text())
    assert made["heldout_loss_after"] < made["heldout_loss_before"]
    before = (out / LORA_FILE).stat().st_mtime_ns
    assert main(list(map(str, words))) == 0 and (out / LORA_FILE).stat().st_mtime_ns == before


def test_what_cannot_be_distilled_is_refused_before_anything_is_written(
    teacher: Path, student: Path, store_path: Path, base_path: Path, plain_base_path: Path, tmp_path: Path
) -> None:
    config = small(teacher, store_path, base_path, tmp_path / "out")
    for changes, words in (
        ({"lora": student}, "is distilled already"),
        ({"lora": tmp_path}, "no fine-tuned LoRA"),
        ({"base": str(plain_base_path)}, "was trained on the base"),
        ({"cut": 1}, "--cut must be at least 2"),
        ({"jump": 5}, "--jump must be from 1"),
        ({"steps": 0}, "at least 1"),
    ):
        with pytest.raises(PixeltrajError, match=words):
            distill(replace(config, **changes))  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
    start = FinetuneConfig(store_path, tmp_path / "out", str(base_path), (5, 10), steps=1, rank=5, start=student)
    with pytest.raises(PixeltrajError, match="more fine-tuning would undo"):
        finetune(start)
