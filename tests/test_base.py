"""Base: whole checkpoints are taken, damaged ones are named before any work."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pixeltraj.base import EMBEDDED, Base
from pixeltraj.errors import PixeltrajError
from pixeltraj.finetune.train import FinetuneConfig, finetune
from pixeltraj.generator import Generator
from pixeltraj.render.collect import CollectConfig, collect
from pixeltraj.render.render import RenderConfig, render

FILES = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}


@pytest.mark.parametrize("part", FILES)
@pytest.mark.parametrize(
    ("damage", "words"),
    [("missing", "lacks 1 tensors"), ("extra", "has no place for 1 tensors"), ("misshapen", "cannot be loaded")],
)
def test_a_tensor_that_does_not_fit_is_told(
    base_path: Path, tmp_path: Path, part: str, damage: str, words: str
) -> None:
    shutil.copytree(base_path, tmp_path / "base")
    file = tmp_path / "base" / part / FILES[part]
    tensors = load_file(file)
    first = sorted(tensors)[0]
    if damage == "missing":
        del tensors[first]
    elif damage == "extra":
        tensors["from.elsewhere"] = torch.zeros(3)
    else:
        tensors[first] = torch.zeros(7)
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(PixeltrajError, match=words):
        Base.load(str(tmp_path / "base"))


def test_the_embedded_base_says_what_it_was_trained_for() -> None:
    base = Base.load()
    assert base.path == str(EMBEDDED) and base.lengths == (5, 10, 15, 20, 25)
    assert [Generator.load(base, k=k).num_inference_steps for k in base.lengths] == [2, 2, 3, 3, 3]


def test_a_base_of_somebody_else_may_be_tuned_to_any_length_and_needs_more_steps(base_path: Path) -> None:
    base = Base.load(str(base_path))
    assert base.lengths == (5, 10, 15, 20, 25)
    assert [Generator.load(base, k=k).num_inference_steps for k in base.lengths] == [10] * 5


def test_a_prompt_that_is_too_long_is_told_before_any_frame_is_encoded(base_path: Path, tmp_path: Path) -> None:
    store = collect(CollectConfig("FrankaKitchen-v1", tmp_path / "kitchen", policy="random", episodes=5, max_steps=5))
    render(RenderConfig(store.path))
    config = FinetuneConfig(store.path, tmp_path / "lora", str(base_path), steps=1, batch=1)
    with pytest.raises(PixeltrajError, match=r"tokens, the text encoder of .* takes 32: give another --base"):
        finetune(config)
    assert not (store.path / "latents").exists() and not config.out.exists()
