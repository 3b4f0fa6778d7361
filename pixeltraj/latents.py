"""Latents: the frames of a store as the VAE sees them, computed once."""

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from pixeltraj.base import Base
from pixeltraj.files import write_whole
from pixeltraj.grid import LATENT
from pixeltraj.store import CHUNK, Store


def store_latents(store: Store, base: Base) -> Tensor:
    """(F, 4, 12, 12) float16 latents of all frames, scaled to the U-Net.

    Kept beside the frames in STORE/latents/, one file for each VAE, and made again when the store has grown. The file
    is mapped: of a large one, all processes share the part that they have read.
    """
    store.require_frames()
    path = store.path / "latents" / f"{base.vae_identity}.safetensors"
    if path.exists():
        latents = load_file(path)["latents"]
        if len(latents) == store.frame_count:
            return latents
    latents = torch.empty(store.frame_count, 4, LATENT, LATENT, dtype=torch.float16)
    for start in tqdm(range(0, store.frame_count, CHUNK), desc=f"latents {store.path.name}", unit="chunk", delay=2):
        part = latents[start : start + CHUNK]
        part.copy_(base.encode(store.read("frames", start, start + CHUNK))[: len(part)])
    write_whole(path, lambda beside: save_file({"latents": latents}, beside))
    return latents
