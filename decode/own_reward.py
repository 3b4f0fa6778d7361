"""Own reward: the task's own function of what was decoded, in place of the learned reward and end."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pixeltraj.decode.decoder import Actions, Decoder, Reading
from pixeltraj.errors import PixeltrajError
from pixeltraj.generator import Generator
from pixeltraj.task import Outcome, Task
from pixeltraj.tasks import TASKS
from pixeltraj.trajectory import Trajectory

Rewards = Literal["learned", "task"]
"""Where rewards and ends come from: the decoder's head, or `Task.outcome` of the decoded states and actions."""


def own_outcome(task: Task) -> Outcome:
    """`task.outcome`. Raises PixeltrajError where there is none."""
    if task.outcome is None:
        having = ", ".join(name for name, other in TASKS.items() if other.outcome)
        raise PixeltrajError(
            f"the states of {task.name} do not tell its reward: leave --rewards at learned; those of these do: {having}"
        )
    return task.outcome


def decoder_for(rewards: Rewards) -> type[Decoder]:
    """The kind of decoder that takes rewards and ends from there."""
    return Decoder if rewards == "learned" else OwnRewardDecoder


class OwnRewardDecoder(Decoder):
    """A trained decoder, of which only states and actions are believed.

    It knows of the task what the learned reward had to find out: the origin of its trajectories says so.
    """

    @classmethod
    def load(
        cls, folder: Path, generator: Generator, task: Task | None = None, actions: Actions = "read"
    ) -> "OwnRewardDecoder":
        """As `Decoder.load`. Raises PixeltrajError, too, where the task has no outcome of its own."""
        decoder = super().load(folder, generator, task, actions)
        assert isinstance(decoder, cls)
        own_outcome(decoder.task)
        return decoder

    @torch.no_grad()
    def read(self, features: Tensor, starts: np.ndarray, rng: torch.Generator | None = None) -> Reading:
        reading = super().read(features, starts, rng)
        shape = reading.rewards.shape
        before, actions, after = reading.states[:, :-1], reading.actions, reading.states[:, 1:]
        rewards, over = own_outcome(self.task)(*(part.reshape(-1, part.shape[-1]) for part in (before, actions, after)))
        return replace(reading, rewards=rewards.reshape(shape), terminations=over.reshape(shape))

    def decode(
        self,
        latents: Tensor,
        first: Tensor,
        prompts: list[str],
        starts: np.ndarray,
        maps: list[Tensor] | None = None,
        rng: torch.Generator | None = None,
    ) -> list[Trajectory]:
        trajectories = super().decode(latents, first, prompts, starts, maps, rng)
        for trajectory in trajectories:
            trajectory.origin["rewards"] = "task"
        return trajectories
