"""Imagination for agents: draws the agent's current state and imagines on from it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pixeltraj.base import Base
from pixeltraj.decode.decoder import Decoder
from pixeltraj.errors import PixeltrajError
from pixeltraj.generator import Generator
from pixeltraj.guidance import UNGUIDED, Guidance
from pixeltraj.imaginer import Imaginer, Start
from pixeltraj.length import LengthEstimator
from pixeltraj.render.backends import open_renderer
from pixeltraj.render.renderer import Renderer
from pixeltraj.task import Task
from pixeltraj.trajectory import Trajectory


@dataclass(frozen=True)
class ImagineConfig:
    """What an imaginer is put together from."""

    decoder: Path
    """Folder that `pixeltraj decode train` wrote."""
    lora: Path | None = None
    """Folder that fine-tuning wrote; the base alone if not given."""
    base: str | None = None
    """A diffusers folder or hub id; the embedded base if not given."""
    k: int | None = None
    """Frames in an image, one of those that the generator was trained for; the least of them if not given."""
    length: Path | None = None
    """Folder that `pixeltraj length` wrote: each trajectory gets the k it needs; else all get --k."""
    num_inference_steps: int | None = None
    """Denoising steps of the sampler; the decoder reads what the last one sees. If not given 2, from 15 frames on 3:
    more make the embedded base's states no truer. A Stable Diffusion of full size wants 8 to 12."""
    guidance: Guidance = UNGUIDED
    """How strongly each condition steers; 1 is as trained."""

    def read(self) -> tuple[Imaginer, dict[str, Any] | None]:
        """The imaginer, and how the frames have to be drawn that it sets out from (None: not known)."""
        generator = Generator.load(Base.load(self.base), self.lora, self.k)
        decoder = Decoder.load(self.decoder, generator)
        length = LengthEstimator.load(self.length, decoder.task) if self.length else None
        if length:
            for k in length.lengths:
                decoder.readable(generator.at(k).k)
        imaginer = Imaginer(generator, decoder, self.num_inference_steps, length=length, guidance=self.guidance)
        return imaginer, decoder.renderer

    def __call__(self, task: Task) -> "Imagination":
        """What an experiment's process calls once; see `pixeltraj.eval.experiment`."""
        imaginer, wanted = self.read()
        renderer = open_renderer(task.make(), wanted["backend"] if wanted else "auto")
        if wanted and renderer.settings != wanted:
            raise PixeltrajError(
                f"{self.decoder} was trained on frames drawn with {wanted}, here they are drawn with "
                f"{renderer.settings}: render the store here and train the decoder again"
            )
        return Imagination(imaginer, renderer)


class Imagination:
    """states and snapshots in, trajectories out: pixeltraj.replay_buffer.Imagine."""

    def __init__(self, imaginer: Imaginer, renderer: Renderer) -> None:
        self.imaginer, self.renderer = imaginer, renderer

    def __call__(self, states: np.ndarray, snapshots: np.ndarray, seed: int) -> list[Trajectory]:
        frames = self.renderer.frames(snapshots)
        starts = [Start(state, frame) for state, frame in zip(states, frames)]
        return self.imaginer.imagine(starts, torch.Generator().manual_seed(seed))

    def close(self) -> None:
        self.renderer.close()
