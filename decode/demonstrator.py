"""Demonstrator: what the store's agent would have done from one state to reach the next, as a diffusion model.

The action head (heads.py) reads actions off the pictures. Agents that clone learn more from actions that are sampled
here for the same states (docs/experiments.md).

The model is an EDM with a residual MLP, as SynthER's: (s, s') -> p(a). Shapes: B windows, K frames, S state, A action.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from pixeltraj.checkpoint import Checkpoint
from pixeltraj.diffuser import Diffuser, DiffuserConfig, read_config
from pixeltraj.errors import PixeltrajError
from pixeltraj.task import Task
from pixeltraj.trajectory import Trajectory

WEIGHTS, CONFIG = "demonstrator.safetensors", "demonstrator.json"
TITLE = "demonstrator"


class Demonstrator:
    """`fit` on real trajectories, then call it with states."""

    def __init__(self, task: Task, config: DiffuserConfig) -> None:
        """Random weights. Raises PixeltrajError on a bad config."""
        self.task = task
        known = 2 * task.state_size
        self.diffuser = Diffuser(known + task.action_size, config, TITLE, known, flags=0)

    def fit(self, trajectories: Iterable[Trajectory], checkpoint: Checkpoint | None = None) -> None:
        """Train on all transitions. checkpoint: gone on from where it holds a part of this fit, and left behind for
        its owner to remove. Raises PixeltrajError where training diverges."""
        parts = [np.concatenate([one.states[:-1], one.states[1:], one.actions], axis=1) for one in trajectories]
        self.diffuser.fit(np.concatenate(parts, dtype=np.float32), checkpoint)

    def __call__(self, states: np.ndarray, rng: torch.Generator) -> np.ndarray:
        """states (B, K, S) -> actions (B, K-1, A) in [-1, 1], a sample for each transition."""
        pairs = np.concatenate([states[:, :-1], states[:, 1:]], axis=-1, dtype=np.float32)
        rows = self.diffuser.sample(pairs.shape[0] * pairs.shape[1], rng, pairs.reshape(-1, pairs.shape[-1]))
        return rows[:, pairs.shape[-1] :].clip(-1.0, 1.0).reshape(*pairs.shape[:2], -1)

    def save(self, folder: Path) -> None:
        self.diffuser.save(folder, WEIGHTS, CONFIG, self.task, self.diffuser.about)

    @classmethod
    def load(cls, folder: Path, task: Task) -> "Demonstrator":
        """What `save` wrote. Raises PixeltrajError where there is none, or where it is of another task or damaged."""
        if not (folder / CONFIG).is_file():
            raise PixeltrajError(
                f"the decoder in {folder} cannot sample actions, it was trained before decoders could: train it "
                f"again with `pixeltraj decode train STORE`, or give --actions read"
            )
        content, task = read_config(folder / CONFIG, TITLE, task)
        demonstrator = cls(task, DiffuserConfig(**content["config"]))
        demonstrator.diffuser.load_weights(folder / WEIGHTS, content["step"])
        return demonstrator
