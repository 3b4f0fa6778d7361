"""Base: whole checkpoints are taken, damaged ones are named before any work."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pixeltraj.base import EMBEDDED, Base
from pixeltraj.errors import PixeltrajError

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
    assert base.path == str(EMBEDDED) and base.lengths == (5,)


def test_a_base_of_somebody_else_may_be_tuned_to_any_length(base_path: Path) -> None:
    assert Base.load(str(base_path)).lengths == (5, 10, 15, 20, 25)
