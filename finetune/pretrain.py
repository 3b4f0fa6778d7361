"""Pretraining of the embedded base: VAE, then U-Net and text encoder together, on stores rendered here."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, DPMSolverMultistepScheduler, UNet2DConditionModel
from diffusers import StableDiffusionInstructPix2PixPipeline as Pipeline
from diffusers.training_utils import EMAModel
from pixeltraj.finetune.text import WIDTH, make_text_encoder, make_tokenizer
from pixeltraj.finetune.vae import VAEConfig, psnr, schedule, train_vae
from torch import Tensor
from tqdm import tqdm
from transformers import CLIPTextModel, CLIPTokenizer

from pixeltraj.base import CONDITION_CHANNELS, Base
from pixeltraj.checkpoint import Checkpoint
from pixeltraj.errors import PixeltrajError
from pixeltraj.files import file_hash, provenance, write_json
from pixeltraj.generator import Generator
from pixeltraj.grid import LATENT, Grid
from pixeltraj.latents import store_latents
from pixeltraj.store import Store
from pixeltraj.windows import store_windows

CHECKPOINT_EVERY = 250


@dataclass(frozen=True)
class PretrainConfig:
    stores: tuple[Path, ...]
    """Rendered stores; the mixture takes each task as often as any other."""
    out: Path
    """The base's folder."""
    steps: int = 12000
    """Training steps of U-Net and text encoder."""
    k: int = 5
    """Frames in a grid."""
    batch: int = 8
    """Grids a step."""
    lr: float = 5e-4
    """Peak learning rate; warm-up over 100 steps, cosine to zero."""
    channels: tuple[int, ...] = (32, 64, 128)
    """Channels of the U-Net's levels."""
    ema: float = 0.998
    """Decay of the averaged weights that are kept."""
    no_prompt: float = 0.1
    """Share of windows whose prompt is left empty, for classifier-free guidance."""
    seed: int = 0
    """Of weights, batches and noise."""
    vae: VAEConfig = field(default_factory=VAEConfig)


def make_unet(channels: tuple[int, ...], k: int) -> UNet2DConditionModel:
    """Attention below the top level only: there it would cost 2.6 times the whole U-Net."""
    levels = len(channels)
    return UNet2DConditionModel(
        sample_size=(LATENT * Grid(k).rows, LATENT * 5),
        in_channels=CONDITION_CHANNELS,
        out_channels=4,
        block_out_channels=channels,
        down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * (levels - 1),
        up_block_types=("CrossAttnUpBlock2D",) * (levels - 1) + ("UpBlock2D",),
        layers_per_block=2,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def make_noise_scheduler() -> DDPMScheduler:
    """Stable Diffusion's schedule, predicting v."""
    return DDPMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        clip_sample=False,
    )


def diffusion_loss(
    generator: Generator, clean: Tensor, first: Tensor, embedding: Tensor, rng: torch.Generator
) -> Tensor:
    """Denoising loss at random timesteps for clean (B, 4, h, w); latents that differ from the first frame's,
    which is what moves, count up to three times as much as those that do not."""
    noise = torch.randn(clean.shape, generator=rng).to(clean.device)
    schedule = generator.base.noise_scheduler
    timestep = torch.randint(schedule.config.num_train_timesteps, (len(clean),), generator=rng).to(
        clean.device
    )
    noisy = schedule.add_noise(clean, noise, timestep)
    target = noise
    if schedule.config.prediction_type == "v_prediction":
        target = schedule.get_velocity(clean, noise, timestep)
    with torch.autocast(clean.device.type, torch.bfloat16):
        output = generator.predict(noisy, timestep, first, embedding)
    change = (clean - generator.grid.repeat(first)).abs().mean(dim=1, keepdim=True)
    weight = 1 + 2 * change.clamp(max=0.5) / 0.5
    return ((output.float() - target).square() * weight).mean() / weight.mean()


class Mixture:
    """Windows of several stores, drawn so that each task is seen equally often."""

    def __init__(self, stores: list[Store], latents: list[Tensor], k: int) -> None:
        self.latents = latents
        self.prompts = [store.task.prompt for store in stores]
        self.windows = [store_windows(store, k, store.split()[0]) for store in stores]
        names = [store.task.name for store in stores]
        sizes = np.array([len(w) for w in self.windows], dtype=np.float64)
        totals = {name: sum(s for n, s in zip(names, sizes) if n == name) for name in names}
        self.weights = np.array([size / totals[name] for name, size in zip(names, sizes)])
        self.weights /= self.weights.sum()

    def batch(self, rng: np.random.Generator, size: int) -> tuple[Tensor, list[str]]:
        """(B, K, 4, 12, 12) float32 latents and their prompts."""
        tiles, prompts = [], []
        for which in rng.choice(len(self.latents), size=size, p=self.weights):
            window = self.windows[which][rng.integers(len(self.windows[which]))]
            tiles.append(self.latents[which][window])
            prompts.append(self.prompts[which])
        return torch.stack(tiles).float(), prompts


def pretrain(config: PretrainConfig) -> Base:
    """Train the base, or go on where an interrupted run stopped, and write it in diffusers' layout."""
    if not config.stores:
        raise PixeltrajError(
            "pretraining needs --stores: make some with `pixeltraj collect` and `pixeltraj render`"
        )
    stores = [Store.open(path) for path in config.stores]
    for store in stores:
        store.require_frames()
    if (config.out / "vae").is_dir():
        vae = AutoencoderKL.from_pretrained(config.out / "vae")
    else:
        vae = train_vae(config.vae, stores, config.out)
    tokenizer = make_tokenizer([store.task.prompt for store in stores], config.out / "tokenizer")
    torch.manual_seed(config.seed)
    text_encoder, unet = make_text_encoder(tokenizer), make_unet(config.channels, config.k)
    vae_identity = file_hash(*sorted((config.out / "vae").glob("*.safetensors")))
    base = Base(str(config.out), vae, unet, text_encoder, tokenizer, make_noise_scheduler(), "", vae_identity)
    mixture = Mixture(stores, [store_latents(store, base) for store in stores], config.k)
    step = _train(config, base, mixture)
    _save(config, base, stores, step)
    return Base.load(str(config.out))


def _train(config: PretrainConfig, base: Base, mixture: Mixture) -> int:
    generator = Generator(base, config.k, "")
    models = torch.nn.ModuleList(
        [base.unet.requires_grad_(True).train(), base.text_encoder.requires_grad_(True)]
    )
    parameters = [p for p in models.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=1e-2)
    average = EMAModel(parameters, decay=config.ema)
    settings = {key: value for key, value in asdict(config).items() if key not in ("out", "vae")}
    checkpoint = Checkpoint(config.out / "unet.checkpoint", settings)
    step, states = checkpoint.load()
    if states:
        models.load_state_dict(states["models"])
        optimizer.load_state_dict(states["optimizer"])
        average.load_state_dict(states["average"])
    bar = tqdm(range(step, config.steps), desc="pretrain", initial=step, total=config.steps, unit="step")
    smooth = 1.0
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = config.lr * schedule(step, config.steps)
        rng = np.random.default_rng([config.seed, step])
        tiles, prompts = mixture.batch(rng, config.batch)
        prompts = ["" if rng.random() < config.no_prompt else prompt for prompt in prompts]
        tokens = base.tokenizer(
            prompts, padding="max_length", max_length=base.tokenizer.model_max_length, return_tensors="pt"
        )
        embedding = base.text_encoder(tokens.input_ids)[0]
        noise_rng = torch.Generator().manual_seed(int(rng.integers(2**62)))
        loss = diffusion_loss(generator, generator.grid.join(tiles), tiles[:, 0], embedding, noise_rng)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        average.step(parameters)
        smooth += (loss.item() - smooth) * max(0.01, 1 / (step + 1))
        bar.set_postfix(loss=f"{smooth:.4f}", refresh=False)
        if (step + 1) % CHECKPOINT_EVERY == 0:
            states = {
                "models": models.state_dict(),
                "optimizer": optimizer.state_dict(),
                "average": average.state_dict(),
            }
            checkpoint.save(step + 1, **states)
    average.copy_to(parameters)
    return config.steps


def _save(config: PretrainConfig, base: Base, stores: list[Store], steps: int) -> None:
    """diffusers' layout, float16, with a scheduler that needs few steps."""
    scheduler = DPMSolverMultistepScheduler.from_config(
        base.noise_scheduler.config, timestep_spacing="trailing"
    )
    text_encoder: CLIPTextModel = base.text_encoder
    tokenizer: CLIPTokenizer = base.tokenizer
    pipeline = Pipeline(
        vae=base.vae.half(),
        text_encoder=text_encoder.half(),
        tokenizer=tokenizer,
        unet=base.unet.half(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(config.out)
    base.vae.float(), base.unet.float(), base.text_encoder.float()
    quality = {store.path.name: psnr(base.vae, store, store.split()[1]) for store in stores}
    how = provenance(
        config={key: str(value) for key, value in asdict(config).items()},
        steps=steps,
        stores={store.path.name: store.attributes["provenance"] for store in stores},
        heldout_vae=quality,
    )
    write_json(config.out / "pretraining.json", how)
