"""Stable Diffusion checkpoints of the published shapes, with random weights: what can be run where no hub is reached.

The shapes are those of the checkpoints' own config.json files. A tiny one has the same classes, blocks, kinds of
attention and files; only its widths are small.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from pixeltraj.files import write_json
from pixeltraj.finetune.text import make_tokenizer

TOKENS = 77
SCHEDULE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000}


@dataclass(frozen=True)
class Shape:
    pipeline: str
    """diffusers' class of it, in model_index.json."""
    scheduler: str
    """The scheduler's class that it was published with."""
    prediction_type: str | None
    """None where its config does not tell, which means epsilon."""
    in_channels: int = 4
    unet: tuple[int, ...] = (320, 640, 1280, 1280)
    """Widths of the U-Net's levels."""
    heads: int | tuple[int, ...] = 8
    """Its attention heads, of each level or of all."""
    linear_projection: bool = False
    vae: tuple[int, ...] = (128, 256, 512, 512)
    """Widths of the VAE's levels."""
    text: int = 768
    """Width of the text encoder."""
    text_layers: int = 12
    text_heads: int = 12
    text_activation: str = "quick_gelu"
    vocabulary: int = 49408

    def tiny(self) -> "Shape":
        heads = 4 if isinstance(self.heads, int) else (1, 2, 2, 2)
        small = {"unet": (32, 64, 64, 64), "vae": (32, 32, 32, 32), "text": 32, "text_layers": 2, "text_heads": 4}
        return replace(self, heads=heads, vocabulary=1500, **small)


SD_1_5 = Shape("StableDiffusionPipeline", "PNDMScheduler", None)
SD_2_1 = Shape(
    "StableDiffusionPipeline",
    "DDIMScheduler",
    "v_prediction",
    heads=(5, 10, 20, 20),
    linear_projection=True,
    text=1024,
    text_layers=23,
    text_heads=16,
    text_activation="gelu",
)
SHAPES = {
    "sd-1.5": SD_1_5,
    "sd-1.5-inpainting": replace(SD_1_5, pipeline="StableDiffusionInpaintPipeline", in_channels=9),
    "instruct-pix2pix": replace(SD_1_5, pipeline="StableDiffusionInstructPix2PixPipeline", in_channels=8),
    "sd-2.1": SD_2_1,
    "sd-2.1-base": replace(SD_2_1, scheduler="PNDMScheduler", prediction_type="epsilon"),
    "sd-2-inpainting": replace(
        SD_2_1, pipeline="StableDiffusionInpaintPipeline", prediction_type="epsilon", in_channels=9
    ),
}


def write_random_base(shape: Shape, path: Path, seed: int = 0) -> Path:
    """A folder in diffusers' layout, float32 -> its path. One part after the other is in memory."""
    torch.manual_seed(seed)
    make_vae(shape).save_pretrained(path / "vae")  # first, so that those of one seed and shape are the same
    make_unet(shape).save_pretrained(path / "unet")
    make_text_encoder(shape).save_pretrained(path / "text_encoder")
    tokenizer = make_tokenizer(["push the red puck to the goal on the table"], path / "tokenizer")
    tokenizer.model_max_length = TOKENS
    tokenizer.save_pretrained(path / "tokenizer")
    schedule = {"_class_name": shape.scheduler, "_diffusers_version": "0.6.0", "clip_sample": False, **SCHEDULE}
    schedule |= {"steps_offset": 1, "set_alpha_to_one": False, "skip_prk_steps": True}
    if shape.prediction_type is not None:
        schedule["prediction_type"] = shape.prediction_type
    write_json(path / "scheduler" / "scheduler_config.json", schedule)
    parts = {
        "feature_extractor": [None, None],
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "scheduler": ["diffusers", shape.scheduler],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    write_json(path / "model_index.json", {"_class_name": shape.pipeline, "_diffusers_version": "0.6.0", **parts})
    return path


def make_unet(shape: Shape) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=64,
        in_channels=shape.in_channels,
        out_channels=4,
        block_out_channels=shape.unet,
        layers_per_block=2,
        attention_head_dim=shape.heads,
        cross_attention_dim=shape.text,
        use_linear_projection=shape.linear_projection,
    )


def make_vae(shape: Shape) -> AutoencoderKL:
    levels = len(shape.vae)
    return AutoencoderKL(
        block_out_channels=shape.vae,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
    )


def make_text_encoder(shape: Shape) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=shape.vocabulary,
            hidden_size=shape.text,
            intermediate_size=4 * shape.text,
            num_hidden_layers=shape.text_layers,
            num_attention_heads=shape.text_heads,
            hidden_act=shape.text_activation,
            max_position_embeddings=TOKENS,
            projection_dim=shape.text,
            bos_token_id=0,
            eos_token_id=2,
        )
    )
