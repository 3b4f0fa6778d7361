"""A single-file checkpoint is the same base as the folder that it was made of; what cannot be one says why."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.random_bases import SHAPES, write_random_base
from pixeltraj.base import Base
from pixeltraj.errors import PixeltrajError
from tests.ldm_file import write_single_file

KINDS = ("sd-1.5", "sd-1.5-inpainting", "sd-2.1")


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_base(SHAPES[request.param].tiny(), tmp_path_factory.mktemp("sd") / request.param)


def single_file(folder: Path, out: Path, configs: bool = True) -> Path:
    path = write_single_file(folder, out / "model.safetensors", open_clip="sd-2" in folder.name)
    if configs:
        shutil.copytree(folder, out / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    return path


def test_it_has_the_weights_of_the_folder_that_it_was_made_of(folder: Path, tmp_path: Path) -> None:
    one, other = Base.load(str(single_file(folder, tmp_path))), Base.load(str(folder))
    assert one.path == str(tmp_path / "model.safetensors") and one.widened == other.widened
    for part in ("unet", "vae", "text_encoder"):
        mine, theirs = getattr(one, part).state_dict(), getattr(other, part).state_dict()
        assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert one.noise_scheduler.config.prediction_type == other.noise_scheduler.config.prediction_type
    assert torch.equal(one.embed(["push the puck"]), other.embed(["push the puck"]))


def test_its_own_channels_count_not_those_of_the_configs(tmp_path: Path) -> None:
    """Configs of plain Stable Diffusion serve its inpainting relative."""
    folder = write_random_base(SHAPES["sd-1.5-inpainting"].tiny(), tmp_path / "sd-1.5-inpainting")
    plain = write_random_base(SHAPES["sd-1.5"].tiny(), tmp_path / "model")
    assert plain.is_dir()
    path = write_single_file(folder, tmp_path / "model.safetensors", open_clip=False)
    assert Base.load(str(path)).inpaints


@pytest.mark.parametrize(
    ("kind", "words"),
    [("sd-1.5", "unet, vae, text_encoder, tokenizer"), ("sd-2.1", "predicts v or epsilon, and only its configs tell")],
)
def test_without_configs_it_says_where_they_have_to_be(
    tmp_path: Path, kind: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = write_random_base(SHAPES[kind].tiny(), tmp_path / kind)
    path = single_file(folder, tmp_path, configs=False)
    with pytest.raises(PixeltrajError, match=words) as told:
        Base.load(str(path))
    assert str(tmp_path / "model") in str(told.value)


@pytest.mark.parametrize(
    ("prefix", "words"),
    [
        ("model.diffusion_model.input_blocks.0.0", "it has no U-Net of one"),
        ("model.diffusion_model.input_blocks.1.0.in_layers.0.bias", "tensors of the unet, its config in .* describes"),
        ("first_stage_model", "it has no VAE of one"),
        ("first_stage_model.decoder.conv_in.bias", "tensors of the vae, its config in .* describes"),
        ("cond_stage_model", "it has no text encoder of one"),
        ("cond_stage_model.transformer.text_model.final_layer_norm.bias", "lacks 1 tensors of the text encoder"),
    ],
)
def test_what_is_missing_is_told(tmp_path: Path, prefix: str, words: str) -> None:
    path = single_file(write_random_base(SHAPES["sd-1.5"].tiny(), tmp_path / "sd-1.5"), tmp_path)
    save_file({name: x for name, x in load_file(path).items() if not name.startswith(prefix)}, path)
    with pytest.raises(PixeltrajError, match=words):
        Base.load(str(path))


def test_what_is_left_over_is_told(tmp_path: Path) -> None:
    path = single_file(write_random_base(SHAPES["sd-1.5"].tiny(), tmp_path / "sd-1.5"), tmp_path)
    tensors = load_file(path)
    save_file(tensors | {"model.diffusion_model.input_blocks.1.2.norm.weight": torch.ones(3)}, path)
    with pytest.raises(PixeltrajError, match=r"tensors of the unet, its config in .* describes"):
        Base.load(str(path))


def test_configs_of_another_stable_diffusion_are_told(tmp_path: Path) -> None:
    path = single_file(write_random_base(SHAPES["sd-1.5"].tiny(), tmp_path / "sd-1.5"), tmp_path, configs=False)
    write_random_base(SHAPES["sd-2.1"].tiny(), tmp_path / "model")
    with pytest.raises(PixeltrajError, match=r"model\.safetensors"):
        Base.load(str(path))


def test_a_pickle_is_refused_unopened(tmp_path: Path) -> None:
    path = tmp_path / "v1-5-pruned.ckpt"
    path.write_bytes(b"not even one")
    with pytest.raises(PixeltrajError, match=r"is a pickle.*take the \.safetensors .*save_pretrained"):
        Base.load(str(path))
