"""Pretraining of the embedded base: VAE, then U-Net and text encoder together, on stores rendered here."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.training_utils import EMAModel
from torch import Tensor
from tqdm import tqdm
from transformers import CLIPTextModel, CLIPTokenizer

from pixeltraj.base import CONDITION_CHANNELS, PRETRAINING, STATE_ENCODER, Base, resolve
from pixeltraj.checkpoint import Checkpoint
from pixeltraj.errors import PixeltrajError
from pixeltraj.files import file_hash, provenance, read_json, write_json
from pixeltraj.finetune.loss import Noise, diffusion_loss, draw_length, grids, learning_rate
from pixeltraj.finetune.paraphrase import paraphrase, vocabulary
from pixeltraj.finetune.text import WIDTH, make_text_encoder, make_tokenizer
from pixeltraj.finetune.vae import VAEConfig, psnr, train_vae
from pixeltraj.generator import Generator, make_state_encoder
from pixeltraj.grid import LATENT, Grid
from pixeltraj.latents import Latents, store_latents
from pixeltraj.prompt import worded
from pixeltraj.state_encoder import StateEncoder
from pixeltraj.store import Store
from pixeltraj.tasks import TASKS
from pixeltraj.windows import store_windows

CHECKPOINT_EVERY = 250
MEASURED = 40
"""Held-out frames of each store on which the VAE is measured."""


@dataclass(frozen=True)
class PretrainConfig:
    stores: tuple[Path, ...]
    """Rendered stores; the mixture takes each task as often as any other."""
    out: Path
    """The base's folder."""
    base: str | None = None
    """A diffusers folder, single file or hub id to go on from, with its VAE; from nothing if not given."""
    steps: int = 10000
    """Training steps of U-Net and text encoder."""
    k: tuple[int, ...] = (5,)
    """Frames in a grid; of several, each step draws one."""
    batch: int = 8
    """Grids of five frames a step; of longer ones as many fewer."""
    lr: float = 5e-4
    """Peak learning rate; warm-up over 100 steps, cosine to zero."""
    channels: tuple[int, ...] = (32, 64, 128)
    """Channels of the U-Net's levels."""
    ema: float = 0.998
    """Decay of the averaged weights that are kept."""
    no_prompt: float = 0.1
    """Share of windows whose prompt is left empty, for classifier-free guidance."""
    one_hot: float = 0.1
    """Share of windows whose task is told by a code instead of words."""
    no_state: float = 0.2
    """Share of steps without the state's tokens."""
    no_frame: float = 0.05
    """Share of windows whose first frame is withheld."""
    seed: int = 0
    """Of weights, batches and noise."""
    vae: VAEConfig = field(default_factory=VAEConfig)


def make_unet(channels: tuple[int, ...], k: int, in_channels: int = CONDITION_CHANNELS) -> UNet2DConditionModel:
    """Attention below the top level only: there it would cost 2.6 times the whole U-Net."""
    levels = len(channels)
    return UNet2DConditionModel(
        sample_size=(LATENT * Grid(k).rows, LATENT * 5),
        in_channels=in_channels,
        out_channels=4,
        block_out_channels=channels,
        down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * (levels - 1),
        up_block_types=("CrossAttnUpBlock2D",) * (levels - 1) + ("UpBlock2D",),
        layers_per_block=1,
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


class Mixture:
    """Windows of several stores, drawn so that each task is seen equally often."""

    def __init__(self, stores: list[Store], latents: list[Latents], lengths: tuple[int, ...]) -> None:
        self.latents, self.tasks = latents, [store.task for store in stores]
        self.states = [store.read("states", 0, store.frame_count) for store in stores]
        self.prompts = [store.prompts(np.arange(store.frame_count)) for store in stores]
        self.state_size = max(task.state_size for task in self.tasks)
        self.windows = {k: [store_windows(store, k, store.split()[0]) for store in stores] for k in lengths}
        self.weights = {k: self._weights(windows) for k, windows in self.windows.items()}

    def _weights(self, windows: list[np.ndarray]) -> np.ndarray:
        names, sizes = [task.name for task in self.tasks], np.array([len(w) for w in windows], dtype=np.float64)
        totals = {name: sum(s for n, s in zip(names, sizes) if n == name) for name in names}
        if empty := [name for name, total in totals.items() if not total]:
            raise PixeltrajError(f"no episode of {empty[0]} is as long as the longest k; collect longer ones")
        weights = np.array([size / totals[name] for name, size in zip(names, sizes)])
        return weights / weights.sum()

    def batch(self, rng: np.random.Generator, k: int, size: int) -> tuple[Tensor, Tensor, list[str]]:
        """(B, K, 4, 12, 12) float32 latents; the states (B, S) of their first frames, NaN behind shorter ones; and
        their prompts."""
        tiles, prompts, states = [], [], np.full((size, self.state_size), np.nan, np.float32)
        for i, which in enumerate(rng.choice(len(self.latents), size=size, p=self.weights[k])):
            windows, task = self.windows[k][which], self.tasks[which]
            window = windows[rng.integers(len(windows))]
            tiles.append(self.latents[which][window])
            states[i, : task.state_size] = self.states[which][window[0]]
            prompts.append(self.prompts[which][window[0]])
        return torch.stack(tiles).float(), torch.from_numpy(states), prompts


def pretrain(config: PretrainConfig) -> Base:
    """Train the base, or go on where an interrupted run stopped, and write it in diffusers' layout."""
    for k in config.k:
        Grid(k)
    if not config.stores:
        raise PixeltrajError("pretraining needs --stores: make some with `pixeltraj collect` and `pixeltraj render`")
    stores = [Store.open(path) for path in config.stores]
    for store in stores:
        store.require_frames()
    base = _taken_up(config, stores) if config.base else _begun(config, stores)
    mixture = Mixture(stores, [store_latents(store, base) for store in stores], config.k)
    step = _train(config, base, mixture)
    _save(config, base, stores, step)
    return Base.load(str(config.out))


def _begun(config: PretrainConfig, stores: list[Store]) -> Base:
    """A trained VAE; everything else as random weights."""
    if (config.out / "vae").is_dir():
        vae = AutoencoderKL.from_pretrained(config.out / "vae")
    else:
        vae = train_vae(config.vae, stores, config.out)
    tokenizer = make_tokenizer(vocabulary([task.prompt for task in TASKS.values()]), config.out / "tokenizer")
    torch.manual_seed(config.seed)
    text_encoder, unet = make_text_encoder(tokenizer), make_unet(config.channels, config.k[0])
    vae_identity = file_hash(*sorted((config.out / "vae").glob("*.safetensors")))
    parts = (vae, unet, text_encoder, tokenizer, make_noise_scheduler())
    return Base(str(config.out), *parts, "", vae_identity, state_encoder=StateEncoder(WIDTH))


def _taken_up(config: PretrainConfig, stores: list[Store]) -> Base:
    base = Base.load(config.base)
    base.embed(
        sorted({prompt for store in stores for prompt in store.task.prompts})
    )  # a prompt that is too long is told here
    if base.state_encoder is None:
        torch.manual_seed(config.seed)
        base.state_encoder = make_state_encoder(base)
    return base


def _train(config: PretrainConfig, base: Base, mixture: Mixture) -> int:
    generator = Generator(base, config.k[0], "", config.k)
    assert base.state_encoder is not None
    models = torch.nn.ModuleList([base.unet.train(), base.text_encoder, base.state_encoder]).requires_grad_(True)
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
            group["lr"] = learning_rate(config.lr, step, config.steps)
        rng = np.random.default_rng([config.seed, step])
        current = generator.at(draw_length(rng, config.k))
        tiles, current_states, prompts = mixture.batch(rng, current.k, grids(config.batch, current.k))
        embedding = current.embed([_worded(prompt, config, rng) for prompt in prompts], current_states)
        if rng.random() < config.no_state:
            embedding = embedding[:, : base.tokenizer.model_max_length]
        noise_rng = torch.Generator().manual_seed(int(rng.integers(2**62)))
        noise = Noise.draw(current.grid, len(tiles), noise_rng, config.no_frame)
        loss = diffusion_loss(current, tiles, embedding, noise)
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


def _worded(prompt: str, config: PretrainConfig, rng: np.random.Generator) -> str:
    kind = rng.random()
    if kind < config.no_prompt:
        return ""
    return worded(prompt, "one-hot") if kind < config.no_prompt + config.one_hot else paraphrase(prompt, rng)


def _save(config: PretrainConfig, base: Base, stores: list[Store], steps: int) -> None:
    quality = {store.path.name: psnr(base.vae, store, store.split()[1], most=MEASURED) for store in stores}
    write_base(config.out, base.vae, base.unet, base.text_encoder, base.tokenizer, base.noise_scheduler)
    assert base.state_encoder is not None
    base.state_encoder.register_to_config(_name_or_path="")
    base.state_encoder.half().save_pretrained(config.out / STATE_ENCODER)
    how = {"k": list(config.k)} | provenance(
        config={key: str(value) for key, value in asdict(config).items() if key not in ("stores", "out")},
        steps=steps,
        went_on_from=_earlier(config.base) if config.base else None,
        stores={store.path.name: store.attributes["provenance"] for store in stores},
        heldout_vae=quality,
    )
    write_json(config.out / PRETRAINING, how)


def _earlier(base: str) -> dict[str, Any]:
    """What is known of how the base was trained that a training went on from; its stores are told by itself."""
    folder = resolve(base)
    about = folder / PRETRAINING
    known = read_json(about, "pretraining record") if about.is_file() else {}
    return {"identity": Base.load(base).identity} | {
        key: known[key] for key in ("config", "steps", "went_on_from") if key in known
    }


def write_base(
    out: Path,
    vae: AutoencoderKL,
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    noise_scheduler: DDPMScheduler,
) -> None:
    """diffusers' layout in float16, with a scheduler that needs few steps. The models are float16 afterwards."""
    eight = unet.config.in_channels == CONDITION_CHANNELS
    for model in (vae, unet):
        model.register_to_config(_name_or_path="")  # one that was loaded remembers from which folder
    pipeline = (StableDiffusionInstructPix2PixPipeline if eight else StableDiffusionPipeline)(
        vae=vae.half(),
        text_encoder=text_encoder.half(),
        tokenizer=tokenizer,
        unet=unet.half(),
        scheduler=DPMSolverMultistepScheduler.from_config(
            noise_scheduler.config, timestep_spacing="trailing", steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(out)
