"""LoRAs go both ways between us and plain diffusers, and mean the same to the last bit that float32 has."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.training_utils import _collate_lora_metadata
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.random_bases import SHAPES, write_random_base
from pixeltraj.base import Base
from pixeltraj.errors import PixeltrajError
from pixeltraj.finetune.lora import Lora
from pixeltraj.finetune.train import FinetuneConfig, finetune
from pixeltraj.generator import CONV_IN_FILE, LORA_FILE, Generator
from pixeltraj.grid import Grid

PROMPT = "push the red puck to the goal on the table"
WINDOW = {5: np.arange(5)[None]}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Small ones of each kind. Do not write into them."""
    root = tmp_path_factory.mktemp("sd")
    return lambda kind: root / kind if (root / kind).exists() else write_random_base(SHAPES[kind].tiny(), root / kind)


def pipeline(kind: str, folder: Path) -> Any:
    nothing: dict[str, Any] = dict.fromkeys(("safety_checker", "feature_extractor"))
    made = getattr(diffusers, SHAPES[kind].pipeline).from_pretrained(folder, requires_safety_checker=False, **nothing)
    made.set_progress_bar_config(disable=True)
    return made


def inputs(generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Noisy latents, timestep, first frame, embedding."""
    rng = torch.Generator().manual_seed(0)
    noisy, first = torch.randn(1, 4, 12, 60, generator=rng), torch.randn(1, 4, 12, 12, generator=rng)
    with torch.no_grad():
        return noisy, torch.tensor([400]), first, generator.embed([PROMPT])


@torch.no_grad()
def outputs(generator: Generator, theirs: Any) -> tuple[Tensor, Tensor]:
    """Of our U-Net and of the pipeline's; one with 4 channels is not shown the first frame."""
    noisy, timestep, first, embedding = inputs(generator)
    condition = () if generator.base.widened else generator.condition(first)
    tokens = theirs.tokenizer(PROMPT, padding="max_length", max_length=77, return_tensors="pt").input_ids
    words = theirs.text_encoder(tokens)[0]
    return (
        generator.predict(noisy, timestep, first, embedding),
        theirs.unet(torch.cat([noisy, *condition], dim=1), timestep, words).sample,
    )


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("sd-1.5", {}),
        ("sd-2.1", {"alpha": 1.0}),
        ("instruct-pix2pix", {"text_encoder": True}),
        ("sd-2-inpainting", {}),
    ],
)
def test_plain_diffusers_computes_what_we_compute(
    kind: str, changes: dict[str, Any], bases: Callable[[str], Path], store_path: Path, tmp_path: Path
) -> None:
    lora = Lora(**changes)
    config = FinetuneConfig(store_path, tmp_path / "lora", str(bases(kind)), steps=2, batch=1, rank=2, lr=1e-2)
    finetune(replace(config, lora=lora), WINDOW)
    theirs, bare = pipeline(kind, bases(kind)), Generator.load(Base.load(str(bases(kind))))
    if SHAPES[kind].in_channels == 4:  # what diffusers cannot be told of
        conv = bare.base.unet.conv_in.state_dict()
        assert not torch.equal(load_file(tmp_path / "lora" / CONV_IN_FILE)["weight"], conv["weight"])
        save_file(conv, tmp_path / "lora" / CONV_IN_FILE)
    before, plain = outputs(bare, theirs)
    assert torch.allclose(before, plain, atol=1e-5)
    theirs.load_lora_weights(tmp_path / "lora")
    ours, plain = outputs(Generator.load(Base.load(str(bases(kind))), tmp_path / "lora"), theirs)
    assert torch.allclose(ours, plain, atol=1e-4), (ours - plain).abs().max()
    assert not torch.allclose(ours, before, atol=1e-3)


def test_plain_diffusers_generates_a_grid(bases: Callable[[str], Path], store_path: Path, tmp_path: Path) -> None:
    """On an inpainting base; of the others tests/finetune/test_lora.py tells."""
    base = bases("sd-2-inpainting")
    finetune(FinetuneConfig(store_path, tmp_path / "lora", str(base), steps=1, batch=1, rank=2), WINDOW)
    theirs = pipeline("sd-2-inpainting", base)
    theirs.load_lora_weights(tmp_path / "lora")
    mask = torch.nn.functional.interpolate(Grid(5).unknown(torch.zeros(1, 4, 12, 12)), scale_factor=8)
    picture = torch.rand(1, 3, 96, 480, generator=torch.Generator().manual_seed(0))
    size = {"height": 96, "width": 480}
    made = theirs(PROMPT, picture, mask, num_inference_steps=1, guidance_scale=1.0, output_type="np", **size).images
    assert made.shape == (1, 96, 480, 3) and np.isfinite(made).all()


def write_theirs(folder: Path, out: Path, text: bool = False, alpha: int = 4, metadata: bool = False) -> Any:
    """A LoRA of rank 4 as diffusers' text-to-image script writes it, by its own code -> the pipeline that has it."""
    theirs = pipeline("sd-1.5", folder)
    torch.manual_seed(0)
    models = {"unet": (theirs.unet, ["to_k", "to_q", "to_v", "to_out.0"])}
    if text:
        models["text_encoder"] = theirs.text_encoder, ["q_proj", "k_proj", "v_proj", "out_proj"]
    layers = {}
    for name, (model, targets) in models.items():
        model.add_adapter(LoraConfig(r=4, lora_alpha=alpha, init_lora_weights="gaussian", target_modules=targets))
        for key, value in model.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(value, std=0.05)
        layers[f"{name}_lora_layers"] = convert_state_dict_to_diffusers(get_peft_model_state_dict(model))
    how = _collate_lora_metadata({name: model for name, (model, _) in models.items()}) if metadata else {}
    diffusers.StableDiffusionPipeline.save_lora_weights(save_directory=out, **layers, safe_serialization=True, **how)
    return theirs


@pytest.mark.parametrize(
    "changes",
    [{}, {"text": True}, {"alpha": 8, "metadata": True}, {"text": True, "alpha": 2, "metadata": True}],
    ids=str,
)
def test_a_lora_of_diffusers_own_script_is_taken(
    changes: dict[str, Any], bases: Callable[[str], Path], tmp_path: Path
) -> None:
    theirs = write_theirs(bases("sd-1.5"), tmp_path / "lora", **changes)
    generator = Generator.load(Base.load(str(bases("sd-1.5"))), tmp_path / "lora", k=5)
    ours, plain = outputs(generator, theirs)
    assert torch.allclose(ours, plain, atol=1e-4), (ours - plain).abs().max()
    bare, _ = outputs(Generator.load(Base.load(str(bases("sd-1.5")))), theirs)
    assert not torch.allclose(ours, bare, atol=1e-3)
    by_file = Generator.load(Base.load(str(bases("sd-1.5"))), tmp_path / "lora" / LORA_FILE)
    assert by_file.identity == generator.identity and torch.equal(outputs(by_file, theirs)[0], ours)


def test_it_starts_from_the_first_frame_though_it_was_never_shown_one(
    bases: Callable[[str], Path], tmp_path: Path
) -> None:
    write_theirs(bases("sd-1.5"), tmp_path / "lora")
    generator = Generator.load(Base.load(str(bases("sd-1.5"))), tmp_path / "lora")
    assert not generator.shown and not generator.at(10).shown
    frames = torch.randn(2, 4, 12, 12, generator=torch.Generator().manual_seed(1))
    one, other = (generator.sample(f[None], [PROMPT], torch.Generator().manual_seed(0), 2) for f in frames)
    tiles = [generator.grid.split(grid)[0] for grid in (one, other)]
    assert torch.equal(tiles[0][0], frames[0]) and torch.equal(tiles[1][0], frames[1])
    assert not torch.allclose(tiles[0][1], tiles[1][1], atol=1e-3), "the next frame does not depend on it"


def broken(tensors: dict[str, Tensor], how: str) -> dict[str, Tensor]:
    name = next(name for name in tensors if "attn2.to_k" in name and "down" in name)
    if how == "missing":
        del tensors[name]
    elif how == "unexpected":
        tensors[name.replace("to_k", "to_nowhere")] = tensors[name].clone()
    elif how == "misnamed":
        tensors[name.replace("to_k", "to_nowhere")] = tensors.pop(name)
    elif how == "of nothing":
        tensors[name.removeprefix("unet.")] = tensors.pop(name)
    elif how == "rank":
        tensors[name] = tensors[name][:2].contiguous()
    return tensors


@pytest.mark.parametrize("how", ["missing", "unexpected", "misnamed", "of nothing", "rank"])
def test_what_diffusers_only_warns_of_is_an_error(how: str, bases: Callable[[str], Path], tmp_path: Path) -> None:
    write_theirs(bases("sd-1.5"), tmp_path / "lora")
    save_file(broken(load_file(tmp_path / "lora" / LORA_FILE), how), tmp_path / "lora" / LORA_FILE)
    with pytest.raises(PixeltrajError, match=r"does not fit the base|found no place in"):
        Generator.load(Base.load(str(bases("sd-1.5"))), tmp_path / "lora")


def test_a_lora_of_another_stable_diffusion_is_an_error(
    bases: Callable[[str], Path], base_path: Path, tmp_path: Path
) -> None:
    write_theirs(bases("sd-1.5"), tmp_path / "lora")
    with pytest.raises(PixeltrajError, match="does not fit the base"):
        Generator.load(Base.load(str(base_path)), tmp_path / "lora")


def test_pickled_loras_are_refused(bases: Callable[[str], Path], tmp_path: Path) -> None:
    write_theirs(bases("sd-1.5"), tmp_path / "lora")
    shutil.move(tmp_path / "lora" / LORA_FILE, tmp_path / "lora" / "pytorch_lora_weights.bin")
    with pytest.raises(PixeltrajError, match="no fine-tuned LoRA at"):
        Generator.load(Base.load(str(bases("sd-1.5"))), tmp_path / "lora")
