"""What cannot be a base says why before any weight is read: most of these folders have none."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.random_bases import SHAPES, write_random_base
from pixeltraj.base import Base
from pixeltraj.base_sources import find
from pixeltraj.errors import PixeltrajError

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Do not write into it."""
    return write_random_base(SHAPES["sd-1.5"].tiny(), tmp_path_factory.mktemp("sd") / "sd-1.5")


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture
def configs(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns("*.safetensors")))


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        ("model_index.json", {"text_encoder_2": ["transformers", "CLIPTextModelWithProjection"]}, "XL"),
        ("model_index.json", {"transformer": ["diffusers", "FluxTransformer2DModel"]}, "a transformer denoises"),
        ("unet/config.json", {"_class_name": "UNet3DConditionModel"}, "U-Net is a UNet3DConditionModel"),
        ("unet/config.json", {"in_channels": 5}, r"takes 5 channels, not 4 \(Stable Diffusion\), 8 .*, 9 "),
        ("unet/config.json", {"out_channels": 8}, "makes 8 channels, not 4"),
        ("unet/config.json", {"addition_embed_type": "text_time"}, "addition_embed_type: text_time"),
        ("unet/config.json", {"class_embed_type": "projection"}, "class_embed_type: projection"),
        ("unet/config.json", {"cross_attention_dim": 1024}, "words 1024 numbers wide.* makes them 32 wide"),
        ("vae/config.json", {"latent_channels": 16}, "16 latent channels, not 4"),
        ("vae/config.json", {"block_out_channels": [32, 32, 32]}, "shrinks pictures 4 times"),
        ("vae/config.json", {"_class_name": "AutoencoderTiny"}, "VAE is a AutoencoderTiny"),
        ("text_encoder/config.json", {"model_type": "t5"}, "text encoder is a t5"),
        ("scheduler/scheduler_config.json", {"prediction_type": "flow_prediction"}, "predicts flow_prediction"),
    ],
)
def test_another_architecture_is_named(configs: Path, file: str, changes: dict[str, Any], words: str) -> None:
    edit(configs / file, lambda config: config.update(changes))
    with pytest.raises(PixeltrajError, match=words):
        find(str(configs))


@pytest.mark.parametrize("part", ["unet", "tokenizer", "model_index.json"])
def test_a_missing_part_is_named(configs: Path, part: str) -> None:
    path = configs / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(PixeltrajError, match=f"it lacks {part}"):
        find(str(configs))


def test_configs_without_weights_are_no_base(configs: Path) -> None:
    with pytest.raises(PixeltrajError, match=r"vae has no weights: diffusion_pytorch_model\.safetensors is missing"):
        find(str(configs))


def test_pickled_weights_are_refused_with_what_to_do(copy: Path) -> None:
    (copy / UNET).rename(copy / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(PixeltrajError, match=r"unet are pickled.*use_safetensors=False.*--base NEW"):
        find(str(copy))


@pytest.mark.parametrize(("left", "words"), [(120, "a pointer that git-lfs has not replaced"), (50_000, "not a whole")])
def test_half_a_file_is_told(copy: Path, left: int, words: str) -> None:
    whole = (copy / UNET).read_bytes()
    (copy / UNET).write_bytes(b"version https://git-lfs" if left < 1000 else whole[:left])
    with pytest.raises(PixeltrajError, match=words):
        find(str(copy))


def test_half_precision_alone_is_taken(folder: Path, copy: Path) -> None:
    for part, name in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model")):
        whole = copy / part / f"{name}.safetensors"
        save_file(
            {key: value.half() for key, value in load_file(whole).items()}, whole.with_suffix(".fp16.safetensors")
        )
        whole.unlink()
    base = Base.load(str(copy))
    assert base.unet.dtype == base.text_encoder.dtype == torch.float32
    wanted, found = Base.load(str(folder)).unet.state_dict(), base.unet.state_dict()
    assert all(torch.equal(value.half().float(), found[name]) for name, value in wanted.items())


def test_full_precision_is_preferred_and_alone_counts(folder: Path, copy: Path) -> None:
    """What lies beside the weights that are loaded changes nothing: other precisions, pickles, a safety checker."""
    save_file({"x": torch.zeros(1)}, copy / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    save_file({"x": torch.zeros(1)}, copy / "unet" / "diffusion_pytorch_model.non_ema.safetensors")
    (copy / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    (copy / "safety_checker").mkdir()
    save_file({"x": torch.zeros(1)}, copy / "safety_checker" / "model.safetensors")
    one, other = find(str(folder)), find(str(copy))
    assert one.identity == other.identity and one.vae_identity == other.vae_identity
    assert other.weights["unet"] == (None, (copy / UNET,))


def test_weights_in_shards_are_all_read_and_all_count(folder: Path, copy: Path) -> None:
    base = Base.load(str(folder))
    (copy / UNET).unlink()
    wide = base.unet.conv_in.weight[:, :4].clone()
    del base.unet.conv_in
    base.unet.conv_in = torch.nn.Conv2d(4, len(wide), 3, padding=1)
    base.unet.register_to_config(in_channels=4)
    base.unet.save_pretrained(copy / "unet", max_shard_size="2MB")
    shards = sorted((copy / "unet").glob("*.safetensors"))
    assert len(shards) > 1 and find(str(copy)).weights["unet"] == (None, tuple(shards))
    found = Base.load(str(copy))
    assert torch.equal(found.unet.conv_out.weight, base.unet.conv_out.weight)
    shards[-1].unlink()
    with pytest.raises(PixeltrajError, match="no weights at"):
        find(str(copy))


def test_tensors_named_as_in_the_first_releases_are_understood(folder: Path, copy: Path) -> None:
    """Stable Diffusion 1.5 is published with names that both libraries have given up since."""
    text, vae = copy / "text_encoder" / "model.safetensors", copy / "vae" / "diffusion_pytorch_model.safetensors"
    named = {f"text_model.{name}": value for name, value in load_file(text).items()}
    save_file(named | {"text_model.embeddings.position_ids": torch.arange(77)[None]}, text, {"format": "pt"})
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = {}
    for name, value in load_file(vae).items():
        for new, before in old.items():
            name = name.replace(f".{new}.", f".{before}.")
        tensors[name] = value
    assert any("proj_attn" in name for name in tensors)
    save_file(tensors, vae, {"format": "pt"})
    one, other = Base.load(str(folder)), Base.load(str(copy))
    assert torch.equal(one.embed(["push"]), other.embed(["push"]))
    mine, theirs = one.vae.state_dict(), other.vae.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
