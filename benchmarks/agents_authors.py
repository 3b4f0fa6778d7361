"""Diffusion-QL as its authors wrote it, so that ours can be measured beside it. Their code is not part of this
repository: github.com/Zhendong-Wang/Diffusion-Policies-for-Offline-RL (Apache-2.0)."""

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from pixeltraj.replay_buffer import Batch


class AuthorsDiffusionQL:
    """With their settings for Hopper's medium data; batches are given, not drawn by it."""

    def __init__(self, folder: Path, states: int, actions: int) -> None:
        """folder: their repository."""
        sys.path.insert(0, str(folder))
        self.agent = importlib.import_module("agents.ql_diffusion").Diffusion_QL(
            state_dim=states,
            action_dim=actions,
            max_action=1.0,
            device="cpu",
            discount=0.99,
            tau=0.005,
            eta=1.0,
            beta_schedule="vp",
            n_timesteps=5,
            lr=3e-4,
            grad_norm=9.0,
        )

    def update(self, batch: Batch) -> None:
        states, actions, rewards, next_states, ends = (torch.from_numpy(c).float() for c in batch[:5])
        rows = states, actions, next_states, rewards[:, None], 1 - ends[:, None]
        self.agent.train(SimpleNamespace(sample=lambda size: rows), 1, len(states))

    def act(self, state: np.ndarray, explore: bool) -> np.ndarray:
        """Drawn by value among 50 candidates, as they evaluate."""
        return self.agent.sample_action(state)
