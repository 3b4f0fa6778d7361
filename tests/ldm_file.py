"""A folder in diffusers' layout as one file, with the tensor names of Stable Diffusion's first release."""

import re
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

UNET = [
    (r"conv_in", "input_blocks.0.0"),
    (r"time_embedding\.linear_1", "time_embed.0"),
    (r"time_embedding\.linear_2", "time_embed.2"),
    (r"conv_norm_out", "out.0"),
    (r"conv_out", "out.2"),
    (r"mid_block\.resnets\.0", "middle_block.0"),
    (r"mid_block\.attentions\.0", "middle_block.1"),
    (r"mid_block\.resnets\.1", "middle_block.2"),
    (r"down_blocks\.(\d)\.resnets\.(\d)", lambda m: f"input_blocks.{3 * int(m[1]) + int(m[2]) + 1}.0"),
    (r"down_blocks\.(\d)\.attentions\.(\d)", lambda m: f"input_blocks.{3 * int(m[1]) + int(m[2]) + 1}.1"),
    (r"down_blocks\.(\d)\.downsamplers\.0\.conv", lambda m: f"input_blocks.{3 * int(m[1]) + 3}.0.op"),
    (r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"output_blocks.{3 * int(m[1]) + int(m[2])}.0"),
    (r"up_blocks\.(\d)\.attentions\.(\d)", lambda m: f"output_blocks.{3 * int(m[1]) + int(m[2])}.1"),
    (r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"output_blocks.{3 * int(m[1]) + 2}.{1 + (m[1] != '0')}"),
]
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
VAE = [
    (r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}"),
    (r"mid_block\.attentions\.0", "mid.attn_1"),
    (r"down_blocks\.(\d)\.resnets", r"down.\1.block"),
    (r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
    (r"up_blocks\.(\d)\.resnets", lambda m: f"up.{3 - int(m[1])}.block"),
    (r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample"),
    (r"conv_norm_out", "norm_out"),
    (r"conv_shortcut", "nin_shortcut"),
    (r"group_norm", "norm"),
    (r"to_out\.0", "proj_out"),
    (r"to_([qkv])", r"\1"),
]
OPEN_CLIP = [
    (r"embeddings\.token_embedding", "token_embedding"),
    (r"embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"final_layer_norm", "ln_final"),
    (r"encoder\.layers", "transformer.resblocks"),
    (r"layer_norm(\d)", r"ln_\1"),
    (r"mlp\.fc1", "mlp.c_fc"),
    (r"mlp\.fc2", "mlp.c_proj"),
    (r"self_attn", "attn"),
]


def write_single_file(folder: Path, path: Path, open_clip: bool) -> Path:
    tensors = {f"model.diffusion_model.{unet_name(name)}": x for name, x in weights(folder, "unet").items()}
    for name, x in weights(folder, "vae").items():
        attention = "attentions" in name and name.endswith("weight") and x.ndim == 2
        tensors[f"first_stage_model.{renamed(name, VAE)}"] = x[:, :, None, None].contiguous() if attention else x
    text = weights(folder, "text_encoder")
    if open_clip:
        tensors |= {f"cond_stage_model.model.{name}": x for name, x in open_clip_text(text).items()}
    else:
        tensors |= {f"cond_stage_model.transformer.text_model.{name}": x for name, x in text.items()}
        tensors["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    tensors["model_ema.decay"] = torch.tensor(0.9999)
    save_file(tensors, path)
    return path


def weights(folder: Path, part: str) -> dict[str, Tensor]:
    (path,) = (folder / part).glob("*.safetensors")
    return load_file(path)


def renamed(name: str, rules: list) -> str:
    for pattern, new in rules:
        name = re.sub(pattern, new, name)
    return name


def unet_name(name: str) -> str:
    resnet = ".resnets." in name
    for pattern, new in UNET:
        if re.match(pattern, name):
            name = re.sub(pattern, new, name, count=1)
            break
    if resnet:
        for old, new in RESNET.items():
            name = name.replace(f".{old}.", f".{new}.")
    return name


def open_clip_text(text: dict[str, Tensor]) -> dict[str, Tensor]:
    made = {}
    for name, x in text.items():
        if "q_proj" in name:
            parts = [text[name.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")]
            made[renamed(name, OPEN_CLIP).replace("q_proj.", "in_proj_")] = torch.cat(parts)
        elif "k_proj" not in name and "v_proj" not in name:
            made[renamed(name, OPEN_CLIP)] = x
    width = len(text["final_layer_norm.bias"])
    return made | {"text_projection": torch.eye(width), "logit_scale": torch.tensor(1.0)}
