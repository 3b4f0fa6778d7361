"""Imagination for agents: draws the agent's current state and imagines on from it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pixeltraj.base import Base
from pixeltraj.decode.decoder import Decoder
from pixeltraj.generator import Generator
from pixeltraj.imaginer import Imaginer, Start
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
    k: int = 5
    """Frames in an image."""
    num_inference_steps: int = 8
    """Denoising steps of the sampler."""

    def imaginer(self) -> Imaginer:
        generator = Generator.load(Base.load(self.base), self.lora, self.k)
        return Imaginer(generator, Decoder.load(self.decoder, generator), self.num_inference_steps)

    def __call__(self, task: Task) -> "Imagination":
        """What an experiment's process calls once; see `pixeltraj.eval.experiment`."""
        return Imagination(self.imaginer(), open_renderer(task.make()))


class Imagination:
    """states and snapshots in, trajectories out: pixeltraj.replay_buffer.Imagine."""

    def __init__(self, imaginer: Imaginer, renderer: Renderer) -> None:
        self.imaginer, self.renderer = imaginer, renderer

    def __call__(self, states: np.ndarray, snapshots: np.ndarray, seed: int) -> list[Trajectory]:
        frames = self.renderer.frames(snapshots)
        starts = [Start(state, frame) for state, frame in zip(states, frames)]
        return self.imaginer.imagine(starts, torch.Generator().manual_seed(seed))
