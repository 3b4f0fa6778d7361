"""What fine-tuning writes must be loaded by plain diffusers, and by us only where it fits."""

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionInstructPix2PixPipeline, StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file, save_file

from pixeltraj.base import Base
from pixeltraj.errors import PixeltrajError
from pixeltraj.finetune.train import FinetuneConfig, finetune
from pixeltraj.generator import CONFIG_FILE, CONV_IN_FILE, LAST, LORA_FILE, STATE_FILE, Generator
from pixeltraj.grid import Grid
from pixeltraj.store import Store
from tests.together import printed, together

PROMPT = "push the red puck to the goal on the table"


def small(store: Path, base: Path, out: Path, **changes: object) -> FinetuneConfig:
    config = FinetuneConfig(store, out, str(base), steps=4, batch=2, rank=2, lr=2e-2)
    return replace(config, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def lora(store_path: Path, base_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("lora") / "lora"
    finetune(small(store_path, base_path, out))
    return out


def generate(pipeline: object, **inputs: object) -> np.ndarray:
    pipeline.set_progress_bar_config(disable=True)  # type: ignore[attr-defined]
    arguments = {"prompt": PROMPT, "num_inference_steps": 2, "guidance_scale": 1.0, "output_type": "np"}
    rng = torch.Generator().manual_seed(0)
    return pipeline(**arguments, **inputs, generator=rng).images[0]  # type: ignore[operator]


def test_plain_diffusers_generates_with_the_lora_of_an_eight_channel_base(
    base_path: Path, lora: Path, store: Store
) -> None:
    pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(base_path, torch_dtype=torch.float32)
    frame = store.read("frames", 0, 1)
    grid = Grid(5).to_image(np.repeat(frame[:, None], 5, axis=1))[0].permute(1, 2, 0)
    picture = Image.fromarray(((grid + 1) * 127.5).round().byte().numpy())
    without = generate(pipeline, image=picture, image_guidance_scale=1.0)
    pipeline.load_lora_weights(lora)
    with_lora = generate(pipeline, image=picture, image_guidance_scale=1.0)
    assert with_lora.shape == (96, 480, 3)
    assert np.abs(with_lora - without).max() > 1e-3


def test_plain_diffusers_generates_with_the_lora_of_a_four_channel_base(
    store_path: Path, plain_base_path: Path, tmp_path: Path
) -> None:
    finetune(small(store_path, plain_base_path, tmp_path / "lora"))
    pipeline = StableDiffusionPipeline.from_pretrained(plain_base_path, torch_dtype=torch.float32)
    without = generate(pipeline, height=96, width=480)
    pipeline.load_lora_weights(tmp_path / "lora")
    assert np.abs(generate(pipeline, height=96, width=480) - without).max() > 1e-3


def test_our_sampler_agrees_with_plain_diffusers(base_path: Path, lora: Path) -> None:
    """The same noise through both gives the same latents: what we train is what others run."""
    generator = Generator.load(Base.load(str(base_path)), lora)
    pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(base_path, torch_dtype=torch.float32)
    pipeline.load_lora_weights(lora)
    first = torch.randn(1, 4, 12, 12, generator=torch.Generator().manual_seed(1))
    ours = generator.sample(first, [PROMPT], torch.Generator().manual_seed(0), num_inference_steps=2)
    noise = torch.randn(1, 4, 12, 60, generator=torch.Generator().manual_seed(0))
    pipeline.scheduler.set_timesteps(timesteps=[999, LAST])
    latents = noise * pipeline.scheduler.init_noise_sigma
    embedding = generator.base.embed([PROMPT])
    for timestep in pipeline.scheduler.timesteps:
        scaled = pipeline.scheduler.scale_model_input(latents, timestep)
        inputs = torch.cat([scaled, generator.grid.condition(first)], dim=1)
        with torch.no_grad():
            output = pipeline.unet(inputs, timestep, embedding).sample
        latents = pipeline.scheduler.step(output, timestep, latents).prev_sample
    assert torch.allclose(ours, latents, atol=0.05), (ours - latents).abs().max()  # bf16 against float32


def test_a_lora_that_does_not_fit_is_refused(
    base_path: Path, plain_base_path: Path, lora: Path, tmp_path: Path
) -> None:
    with pytest.raises(PixeltrajError, match="trained on the base"):
        Generator.load(Base.load(str(plain_base_path)), lora)
    with pytest.raises(PixeltrajError, match="k=5, not k=10"):
        Generator.load(Base.load(str(base_path)), lora, k=10)
    broken = tmp_path / "broken"
    shutil.copytree(lora, broken)
    tensors = load_file(lora / LORA_FILE)
    name = next(iter(tensors))
    save_file({n.replace("to_q", "to_nowhere"): t for n, t in tensors.items()}, broken / LORA_FILE)
    with pytest.raises(PixeltrajError, match=r"does not fit|found no place"):
        Generator.load(Base.load(str(base_path)), broken)
    save_file({n: t for n, t in tensors.items() if n != name}, broken / LORA_FILE)
    with pytest.raises(PixeltrajError):
        Generator.load(Base.load(str(base_path)), broken)


def test_a_lora_that_was_told_the_state_needs_its_encoder(base_path: Path, lora: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(lora, broken)
    (broken / STATE_FILE).unlink()
    with pytest.raises(PixeltrajError, match=r"lacks state_encoder\.safetensors"):
        Generator.load(Base.load(str(base_path)), broken)


def test_a_widened_base_needs_its_first_convolution(store_path: Path, plain_base_path: Path, tmp_path: Path) -> None:
    finetune(small(store_path, plain_base_path, tmp_path / "lora"))
    generator = Generator.load(Base.load(str(plain_base_path)), tmp_path / "lora")
    first = torch.randn(2, 4, 12, 12, generator=torch.Generator().manual_seed(1))
    one, other = (
        generator.sample(f[None], [PROMPT], torch.Generator().manual_seed(0), num_inference_steps=1) for f in first
    )
    assert not torch.equal(one, other), "the first frame is ignored"
    (tmp_path / "lora" / CONV_IN_FILE).unlink()
    with pytest.raises(PixeltrajError, match="ignores the first frame"):
        Generator.load(Base.load(str(plain_base_path)), tmp_path / "lora")


def test_the_loss_on_one_batch_falls(store_path: Path, base_path: Path, tmp_path: Path) -> None:
    result = finetune(small(store_path, base_path, tmp_path / "lora", steps=60, rank=8, lr=1e-2))
    assert result["heldout_loss_after"] < result["heldout_loss_before"]


def test_training_goes_on_from_another_lora(store_path: Path, base_path: Path, lora: Path, tmp_path: Path) -> None:
    """It begins where that one ended, the state encoder's weights included, and leaves its folder alone."""
    ended = json.loads((lora / CONFIG_FILE).read_text())
    held = {path.name: path.read_bytes() for path in lora.iterdir() if path.is_file()}
    result = finetune(small(store_path, base_path, tmp_path / "next", start=lora, steps=2))
    assert result["heldout_loss_before"] == pytest.approx(ended["heldout_loss_after"], rel=1e-6)
    assert result["heldout_loss_before"] != pytest.approx(ended["heldout_loss_before"], rel=1e-6)
    a, b = (load_file(folder / LORA_FILE) for folder in (lora, tmp_path / "next"))
    assert a.keys() == b.keys() and any(not torch.equal(a[name], b[name]) for name in a)
    Generator.load(Base.load(str(base_path)), tmp_path / "next")
    assert held == {path.name: path.read_bytes() for path in lora.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"rank": 3}, "another rank"), ({"prompt": "none"}, "prompt language"), ({"states": False}, "")],
)
def test_a_lora_to_go_on_from_has_to_fit(
    store_path: Path, base_path: Path, lora: Path, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(PixeltrajError, match=words or "states True"):
        finetune(small(store_path, base_path, tmp_path / "next", start=lora, **changes))
    assert not (tmp_path / "next").exists()


def test_chosen_windows_are_all_that_is_learned(store_path: Path, base_path: Path, tmp_path: Path) -> None:
    """A length without windows is not trained, but the LoRA serves it."""
    windows = {5: np.arange(5)[None] + np.array([[2], [7]]), 10: np.empty((0, 10), np.int64)}
    config = small(store_path, base_path, tmp_path / "lora", k=(5, 10), steps=40, rank=8, lr=1e-2)
    result = finetune(config, windows)
    assert result["chosen_loss_after"] < result["chosen_loss_before"] and "heldout_loss_after" not in result
    assert list(result["chosen_loss_after_by_k"]) == ["5"]
    assert Generator.load(Base.load(str(base_path)), tmp_path / "lora").lengths == (5, 10)


@pytest.mark.parametrize(("field", "value", "words"), [("steps", 0, "at least 1"), ("k", (5, 7), "k must be 5")])
def test_bad_settings_are_refused_before_anything_is_written(
    store_path: Path, base_path: Path, tmp_path: Path, field: str, value: int, words: str
) -> None:
    with pytest.raises(PixeltrajError, match=words):
        finetune(small(store_path, base_path, tmp_path / "lora", **{field: value}))
    assert not (tmp_path / "lora").exists()


def test_killed_fine_tuning_goes_on_and_ends_like_an_unbroken_one(
    store_path: Path, base_path: Path, tmp_path: Path
) -> None:
    killed, unbroken = (small(store_path, base_path, tmp_path / name, steps=5) for name in ("killed", "unbroken"))
    assert together(killed, killed=True) == [-signal.SIGKILL], printed(killed)
    assert (killed.out / "checkpoint").exists() and not (killed.out / LORA_FILE).exists()
    assert together(killed) == together(unbroken) == [0], printed(killed)
    assert not (killed.out / "checkpoint").exists()
    told, whole = (json.loads((config.out / CONFIG_FILE).read_text()) for config in (killed, unbroken))
    assert all(told[name] == whole[name] for name in ("steps", "loss_before", "loss_after", "heldout_loss_after"))
    one, other = load_file(killed.out / LORA_FILE), load_file(unbroken.out / LORA_FILE)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_finished_lora_is_known_again_wherever_it_and_its_store_are(
    store_path: Path, base_path: Path, lora: Path, tmp_path: Path
) -> None:
    store, out = (shutil.copytree(path, tmp_path / path.name) for path in (store_path, lora))
    assert finetune(small(store, base_path, out)) == json.loads((lora / CONFIG_FILE).read_text())
    with pytest.raises(PixeltrajError, match="trained with another rank; give"):
        finetune(small(store, base_path, out, rank=3))


def test_a_lora_of_before_lengths_is_told(base_path: Path, lora: Path, tmp_path: Path) -> None:
    shutil.copytree(lora, tmp_path / "old")
    file = tmp_path / "old" / CONFIG_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | {"k": 5}))
    with pytest.raises(PixeltrajError, match="older pixeltraj; fine-tune again"):
        Generator.load(Base.load(str(base_path)), tmp_path / "old")
