"""Policies that fill a store: the suite's scripted ones, random ones, and stable-baselines3 checkpoints."""

import io
import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pixeltraj.errors import PixeltrajError
from pixeltraj.simulator import Simulator

Policy = Callable[[Simulator, np.ndarray, np.random.Generator], np.ndarray]
"""(simulator, state (S,), rng) -> action (A,) in [-1, 1]"""


def make_policy(spec: str, simulator: Simulator) -> Policy:
    """'scripted', 'random' or 'sb3:PATH'. Raises PixeltrajError where there is no such policy for the task."""
    task = simulator.task
    if spec == "random":
        return lambda _, state, rng: rng.uniform(-1.0, 1.0, task.action_size)
    if spec == "scripted":
        simulator.reset(seed=0)
        if simulator.scripted_action() is None:
            raise PixeltrajError(f"{task.name} ships no scripted policy; use --policy random or --policy sb3:PATH")
        return scripted
    if spec.startswith("sb3:"):
        actor = SB3Actor.load(Path(spec.removeprefix("sb3:")))
        if (actor.inputs, actor.outputs) != (task.state_size, task.action_size):
            raise PixeltrajError(
                f"{spec} maps {actor.inputs} numbers to {actor.outputs}, {task.name} has states of "
                f"{task.state_size} and actions of {task.action_size}"
            )
        return lambda _, state, rng: actor(state)
    raise PixeltrajError(f"unknown policy {spec!r}: use scripted, random or sb3:PATH")


def scripted(simulator: Simulator, state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What the suite's demonstrator does."""
    action = simulator.scripted_action()
    assert action is not None
    return action


@dataclass
class SB3Actor:
    """The deterministic actor of a stable-baselines3 PPO, SAC, TD3 or TQC checkpoint, read without pickle."""

    network: nn.Sequential
    squash: bool
    mean: np.ndarray | None
    std: np.ndarray | None
    clip: float

    @property
    def inputs(self) -> int:
        first = self.network[0]
        assert isinstance(first, nn.Linear)
        return first.in_features

    @property
    def outputs(self) -> int:
        last = self.network[-1]
        assert isinstance(last, nn.Linear)
        return last.out_features

    @torch.no_grad()
    def __call__(self, state: np.ndarray) -> np.ndarray:
        if self.mean is not None and self.std is not None:
            state = np.clip((state - self.mean) / self.std, -self.clip, self.clip)
        action = self.network(torch.as_tensor(state, dtype=torch.float32)[None])[0]
        return np.clip((torch.tanh(action) if self.squash else action).numpy(), -1.0, 1.0)

    @classmethod
    def load(cls, path: Path) -> "SB3Actor":
        """From the zip, and, where `NAME_norm.npz` (mean, var, epsilon, clip) lies beside it, with its
        observation normalisation."""
        try:
            with zipfile.ZipFile(path) as archive:
                weights = torch.load(io.BytesIO(archive.read("policy.pth")), weights_only=True, map_location="cpu")
                described = json.loads(archive.read("data"))
        except Exception as error:  # a file that is something else fails in a dozen ways
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise PixeltrajError(f"{path} is not a stable-baselines3 checkpoint ({reason})") from error
        on_policy = "mlp_extractor.policy_net.0.weight" in weights
        body, head = ("mlp_extractor.policy_net.", "action_net.") if on_policy else ("actor.latent_pi.", "actor.mu.")
        if not on_policy and f"{head}weight" not in weights:  # TD3 keeps one sequence
            body, head = "actor.mu.", ""
        named = re.search(r"modules\.activation\.(\w+)", str(described.get("policy_kwargs")))
        activation = getattr(nn, named[1] if named else "Tanh" if on_policy else "ReLU")
        indices = sorted({int(key[len(body) :].split(".")[0]) for key in weights if key.startswith(body)})
        names = [f"{body}{i}." for i in indices] + ([head] if head else [])
        if not names or any(f"{name}weight" not in weights for name in names):
            raise PixeltrajError(f"{path} is not the MLP policy of a PPO, SAC, TD3 or TQC; only those can be read")
        layers: list[nn.Module] = []
        for name in names:
            weight, bias = weights[f"{name}weight"], weights[f"{name}bias"]
            linear = nn.Linear(weight.shape[1], weight.shape[0])
            linear.load_state_dict({"weight": weight, "bias": bias})
            layers += [linear, activation()]
        normalisation = path.with_name(f"{path.stem}_norm.npz")
        mean = std = None
        clip = np.inf
        if normalisation.exists():
            values = np.load(normalisation, allow_pickle=False)
            mean, std = values["mean"], np.sqrt(values["var"] + values["epsilon"])
            clip = float(values["clip"])
        return cls(nn.Sequential(*layers[:-1]).eval(), not on_policy, mean, std, clip)
