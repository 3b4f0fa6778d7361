"""The embedded base's VAE: a small AutoencoderKL, trained on rendered frames."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from pixeltraj.camera import FRAME_SIZE
from pixeltraj.checkpoint import Checkpoint
from pixeltraj.finetune.loss import learning_rate
from pixeltraj.grid import MARGIN, TILE, to_tiles
from pixeltraj.store import Store

FOREGROUND_WEIGHT, KEYPOINT_WEIGHT = 4.0, 10.0
KL_WEIGHT = 1e-5
CHECKPOINT_EVERY = 200


@dataclass(frozen=True)
class VAEConfig:
    steps: int = 7500
    """Training steps."""
    batch: int = 8
    """Frames a step."""
    lr: float = 1e-3
    """Peak learning rate; warm-up over 100 steps, cosine to zero."""
    channels: tuple[int, ...] = (16, 32, 64, 128)
    """Channels of each level; three halvings, as in Stable Diffusion."""
    seed: int = 0
    """Of weights and batches."""


def make_vae(config: VAEConfig) -> AutoencoderKL:
    torch.manual_seed(config.seed)
    levels = len(config.channels)
    vae = AutoencoderKL(
        block_out_channels=config.channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=TILE,
        scaling_factor=1.0,
    )
    with torch.no_grad():  # begin with almost no noise on the latents: reconstruction comes first
        vae.quant_conv.weight[4:] = 0.0
        vae.quant_conv.bias[4:] = -6.0
    return vae


class Frames:
    """All training frames of several stores in memory, each with the weight of its pixels."""

    def __init__(self, stores: list[Store]) -> None:
        parts, weights = [], []
        for store in stores:
            keep = np.concatenate([np.arange(store.offsets[e], store.offsets[e + 1]) for e in store.split()[0]])
            frames = store.read("frames", 0, store.frame_count)
            parts.append(frames[keep])
            weights.append(pixel_weight(store, frames)[keep])
        self.pixels, self.weights = np.concatenate(parts), np.concatenate(weights)

    def batch(self, rng: np.random.Generator, size: int) -> tuple[Tensor, Tensor]:
        """(B, 3, 96, 96) tiles and (B, 1, 96, 96) weights."""
        picked = rng.integers(len(self.pixels), size=size)
        weight = torch.from_numpy(self.weights[picked]).float()[:, None]
        return to_tiles(self.pixels[picked]), functional.pad(weight, (MARGIN,) * 4, value=1.0)


def pixel_weight(store: Store, frames: np.ndarray) -> np.ndarray:
    """(F, 84, 84) float16: what moves counts more than the background, what is small and matters most of all."""
    background = np.median(frames[:: max(1, len(frames) // 200)], axis=0)
    moving = np.abs(frames.astype(np.int16) - background).max(axis=-1) > 24
    points = store.task.camera.project(store.read("keypoints", 0, store.frame_count))  # (F, N, 3)
    pixel = np.arange(FRAME_SIZE) + 0.5
    near = np.zeros(moving.shape, dtype=bool)
    for column, row, _ in np.moveaxis(points, 1, 0).swapaxes(1, 2):
        far = (pixel - column[:, None])[:, None, :] ** 2 + (pixel - row[:, None])[:, :, None] ** 2
        near |= far < 4.0**2
    return (1 + FOREGROUND_WEIGHT * moving + KEYPOINT_WEIGHT * near).astype(np.float16)


def train_vae(config: VAEConfig, stores: list[Store], out: Path) -> AutoencoderKL:
    """Train, or go on training; afterwards latents have mean 0 and deviation 1 without any scaling factor, so
    that InstructPix2Pix pipelines, which leave the condition unscaled, see what the U-Net was trained on."""
    vae = make_vae(config)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=config.lr, weight_decay=1e-4)
    checkpoint = Checkpoint(out / "vae.checkpoint", asdict(config))
    step, states = checkpoint.load()
    if states:
        vae.load_state_dict(states["vae"])
        optimizer.load_state_dict(states["optimizer"])
    frames = Frames(stores)
    bar = tqdm(range(step, config.steps), desc="vae", initial=step, total=config.steps, unit="step")
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config.lr, step, config.steps)
        loss = vae_loss(vae, *frames.batch(np.random.default_rng([config.seed, step]), config.batch), step)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        if step % 20 == 0:
            bar.set_postfix(loss=f"{loss.item():.4f}")
        if (step + 1) % CHECKPOINT_EVERY == 0:
            checkpoint.save(step + 1, vae=vae.state_dict(), optimizer=optimizer.state_dict())
    whiten(vae, frames)
    vae.half().save_pretrained(out / "vae")  # as it will be shipped: latents belong to these very weights
    return vae.float()


def vae_loss(vae: AutoencoderKL, tiles: Tensor, weight: Tensor, step: int) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        posterior = vae.encode(tiles).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(step))
        image = vae.decode(posterior.mean + posterior.std * noise).sample
    error = (image.float() - tiles).abs() + (image.float() - tiles).square()
    kl = posterior.kl().float().mean()
    return (error * weight).mean() / weight.mean() + KL_WEIGHT * kl


@torch.no_grad()
def whiten(vae: AutoencoderKL, frames: Frames) -> None:
    """Move mean and scale of the latents into the 1x1 convolutions around them."""
    tiles, _ = frames.batch(np.random.default_rng(0), 256)
    latents = vae.encode(tiles).latent_dist.mode()
    mean, std = latents.mean(), latents.std()
    # quant_conv's first half gives the mean of the posterior, its second the log-variance
    half = latents.shape[1]
    vae.quant_conv.weight[:half] /= std
    vae.quant_conv.bias[:half] = (vae.quant_conv.bias[:half] - mean) / std
    vae.quant_conv.bias[half:] -= 2 * std.log()
    vae.post_quant_conv.bias += vae.post_quant_conv.weight.sum(dim=(1, 2, 3)) * mean
    vae.post_quant_conv.weight *= std


@torch.no_grad()
def psnr(vae: AutoencoderKL, store: Store, episodes: list[int], most: int = 10_000) -> dict[str, float]:
    """PSNR in dB of the reconstruction, whole frames and foreground (what moves), over the given episodes; of more
    than `most` frames every second, third, ..."""
    rows = np.concatenate([np.arange(store.offsets[e], store.offsets[e + 1]) for e in episodes])
    rows = rows[:: -(-len(rows) // most)]
    frames = store.read("frames", 0, store.frame_count)
    foreground = (pixel_weight(store, frames) > 1)[rows]
    squared = []
    for part in np.array_split(rows, max(1, len(rows) // 64)):
        tiles = to_tiles(frames[part])
        image = vae.decode(vae.encode(tiles).latent_dist.mode()).sample.clamp(-1, 1)
        error = ((image - tiles) / 2).square().mean(dim=1)
        squared.append(error[:, MARGIN:-MARGIN, MARGIN:-MARGIN].numpy())
    error = np.concatenate(squared)
    return {
        "psnr_db": float(-10 * np.log10(error.mean())),
        "foreground_psnr_db": float(-10 * np.log10(error[foreground].mean())),
    }
