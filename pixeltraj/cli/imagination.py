"""Imagination for agents: draws the agent's current state and imagines on from it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pixeltraj.base import Base
from pixeltraj.cli.keeping import Keeper
from pixeltraj.decode.decoder import Actions
from pixeltraj.decode.own_reward import Rewards, decoder_for, own_outcome
from pixeltraj.errors import PixeltrajError
from pixeltraj.generator import Generator
from pixeltraj.guidance import UNGUIDED, Guidance
from pixeltraj.imaginer import Imaginer, Start
from pixeltraj.keep import ALL, Keep, Tally
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
    """A diffusers folder, single file or hub id; the embedded base if not given."""
    k: int | None = None
    """Frames in an image, one of those that the generator was trained for; the least of them if not given."""
    length: Path | None = None
    """Folder that `pixeltraj length` wrote: each trajectory gets the k it needs; else all get --k."""
    num_inference_steps: int | None = None
    """Denoising steps of the sampler; the decoder reads what the last one sees. If not given 10; 2 where the LoRA is
    distilled; where `pretrain` made the base 2, from 15 frames on 3: more make its states no truer."""
    guidance: Guidance = UNGUIDED
    """How strongly each condition steers; 1 is as trained."""
    keep: Keep = ALL
    """What is kept of what is imagined; all of it if nothing is said."""
    rewards: Rewards = "learned"
    """Where rewards and ends come from. task: its own function of decoded states and actions, not learned."""
    actions: Actions = "sampled"
    """Where actions come from. sampled: what the store's agent would have done between the decoded states, from a
    diffusion model; read: off the pictures, as in the paper. Agents that clone learn more from sampled ones."""

    def read(self) -> tuple[Imaginer, dict[str, Any] | None]:
        """The imaginer, and how the frames have to be drawn that it sets out from (None: not known)."""
        generator = Generator.load(Base.load(self.base), self.lora, self.k)
        decoder = decoder_for(self.rewards).load(self.decoder, generator, actions=self.actions)
        length = LengthEstimator.load(self.length, decoder.task) if self.length else None
        if length:
            for k in length.lengths:
                decoder.readable(generator.at(k).k)
        imaginer = Imaginer(generator, decoder, self.num_inference_steps, length=length, guidance=self.guidance)
        return imaginer, decoder.renderer

    def __call__(self, task: Task) -> "Imagination":
        """What an experiment's process calls once; see `pixeltraj.eval.experiment`."""
        self.require_rewards(task)
        imaginer, wanted = self.read()
        return Imagination(imaginer, self.renderer(task, wanted), self.keep)

    def require_rewards(self, task: Task) -> None:
        """Raise PixeltrajError where the task cannot give the rewards that are asked for."""
        if self.rewards == "task":
            own_outcome(task)

    def keeper(self, imaginer: Imaginer, wanted: dict[str, Any] | None) -> Keeper:
        """What keeps the good ones of trajectories that the imaginer makes; closes the renderer that it opened."""
        drawing = self.renderer(imaginer.task, wanted) if "cycle" in self.keep.wanted else None
        return Keeper(self.keep, imaginer.decoder, drawing)

    def renderer(self, task: Task, wanted: dict[str, Any] | None) -> Renderer:
        """What draws frames as the decoder knows them. Raises PixeltrajError where that cannot be done here."""
        renderer = open_renderer(task.make(), wanted["backend"] if wanted else "auto")
        if wanted and renderer.settings != wanted:
            raise PixeltrajError(
                f"{self.decoder} was trained on frames drawn with {wanted}, here they are drawn with "
                f"{renderer.settings}: render the store here and train the decoder again"
            )
        return renderer


class Imagination:
    """states and snapshots in, trajectories out: pixeltraj.replay_buffer.Imagine."""

    def __init__(self, imaginer: Imaginer, renderer: Renderer, keep: Keep = ALL) -> None:
        self.imaginer, self.renderer = imaginer, renderer
        self._keeper = Keeper(keep, imaginer.decoder, renderer)

    @property
    def tally(self) -> Tally:
        """How much was kept so far of what was imagined."""
        return self._keeper.tally

    def __call__(self, states: np.ndarray, snapshots: np.ndarray, seed: int) -> list[Trajectory]:
        """`Keep` chooses among the trajectories of one call."""
        frames = self.renderer.frames(snapshots)
        prompts = map(self.imaginer.task.prompt_of, states, snapshots)
        starts = [Start(*start) for start in zip(states, frames, prompts)]
        rng = torch.Generator().manual_seed(seed)
        imagined = self.imaginer.imagine(starts, rng, frames=self._keeper.needs_frames)
        return [replace(trajectory, frames=None) for trajectory in self._keeper(imagined, list(snapshots))]

    def close(self) -> None:
        self.renderer.close()
