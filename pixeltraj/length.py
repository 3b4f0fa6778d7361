"""Length: how many frames an imagined trajectory needs (ATraDiff, section 4.2).

A small network predicts from the current state how many decisions the task still takes. The prediction is a
distribution over the presets k; the one that is taken is the least that suffices in at least half of all cases, so
that it is rounded up.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from pixeltraj.errors import PixeltrajError
from pixeltraj.files import provenance, read_json, write_json, write_whole
from pixeltraj.grid import LENGTHS, Grid
from pixeltraj.store import Store
from pixeltraj.task import Task
from pixeltraj.tasks import get_task

WEIGHTS, CONFIG = "length.safetensors", "length.json"
ENOUGH = 0.5
"""Share of cases in which the preset that is taken suffices."""
NETWORKS = 5
"""Trained on different shares of the episodes; their mean is less sure of itself than any of them."""


@dataclass(frozen=True)
class LengthConfig:
    store: tyro.conf.Positional[Path]
    """A collected store; every fifth episode is held out and measured on."""
    out: Path
    """The estimator's folder."""
    k: tuple[int, ...] = LENGTHS
    """The presets: lengths that the generator was trained for."""
    steps: int = 600
    """Training steps of each network."""
    batch: int = 256
    """States a step."""
    lr: float = 3e-3
    """Peak learning rate; a cosine to zero."""
    width: int = 64
    """Hidden units."""
    seed: int = 0
    """Of weights and batches."""


class LengthEstimator:
    """States -> k. `probabilities` are calibrated on episodes that the networks were not trained on."""

    def __init__(self, task: Task, lengths: tuple[int, ...], networks: nn.ModuleList, about: dict[str, Any]) -> None:
        self.task, self.lengths, self.about = task, lengths, about
        self.networks = networks.eval().requires_grad_(False)
        self.mean = torch.tensor(about["mean"], dtype=torch.float32)
        self.std = torch.tensor(about["std"], dtype=torch.float32)
        self.temperature = float(about["temperature"])

    def __call__(self, states: np.ndarray) -> np.ndarray:
        """states (B, S) -> (B,) k, the least preset that is enough for what is left."""
        reached = self.probabilities(states).cumsum(axis=1) >= ENOUGH - 1e-6
        return np.array(self.lengths)[reached.argmax(axis=1)]

    @torch.no_grad()
    def probabilities(self, states: np.ndarray) -> np.ndarray:
        """states (B, S) -> (B, presets): that each is the least that is enough. Raises PixeltrajError on states of
        another size."""
        if states.ndim != 2 or states.shape[1] != self.task.state_size:
            raise PixeltrajError(f"{self.task.name} has states of {self.task.state_size}, not {states.shape[1:]}")
        scaled = ((torch.from_numpy(states).float() - self.mean) / self.std).clamp(-5, 5)
        logits = torch.stack([network(scaled) for network in self.networks]) / self.temperature
        return logits.softmax(dim=-1).mean(dim=0).numpy()

    def save(self, folder: Path) -> None:
        """The weights, then the JSON that makes them count."""
        tensors = {name: value.contiguous() for name, value in self.networks.state_dict().items()}
        write_whole(folder / WEIGHTS, lambda beside: save_file(tensors, beside))
        fingerprint = self.task.fingerprint()
        write_json(folder / CONFIG, {"fingerprint": fingerprint, "k": list(self.lengths), **self.about})

    @classmethod
    def load(cls, folder: Path, task: Task | None = None) -> "LengthEstimator":
        """What `save` wrote. Raises PixeltrajError where it is of another task, or damaged."""
        about = read_json(folder / CONFIG, "length estimator")
        then = about["fingerprint"]
        if task is not None and task.name != then["task"]:
            raise PixeltrajError(f"the length estimator in {folder} is of {then['task']}, not {task.name}")
        task = task or get_task(then["task"])
        now = json.loads(json.dumps(task.fingerprint()))
        if any(then[key] != now[key] for key in ("state", "action_repeat")):
            raise PixeltrajError(f"the length estimator in {folder} is of another {task.name}; train it again")
        networks = make_networks(task, len(about["k"]), about["width"])
        try:
            networks.load_state_dict(load_file(folder / WEIGHTS))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise PixeltrajError(f"{folder / WEIGHTS} cannot be read ({error}); train it again") from error
        return cls(task, tuple(about["k"]), networks, about)


def make_networks(task: Task, presets: int, width: int) -> nn.ModuleList:
    """(B, S) -> (B, presets) logits, each."""
    return nn.ModuleList(
        nn.Sequential(
            nn.Linear(task.state_size, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, presets)
        )
        for _ in range(NETWORKS)
    )


def train_length(config: LengthConfig) -> LengthEstimator:
    """Train in seconds, measure on held-out episodes, save. Raises PixeltrajError where no episode tells an end."""
    for k in config.k:
        Grid(k)
    store = Store.open(config.store)
    lengths = tuple(sorted(config.k))
    training, heldout = store.split()
    states, presets, episode = examples(store, training, lengths)
    if not len(states):
        raise PixeltrajError(
            f"no training episode of {config.store} reaches an end, so nothing tells how long {store.task.name} takes; "
            f"collect with a policy that solves it, or choose --k yourself"
        )
    torch.manual_seed(config.seed)
    networks = make_networks(store.task, len(lengths), config.width)
    mean, std = states.mean(axis=0), np.maximum(states.std(axis=0), 0.01)
    scaled = torch.from_numpy(((states - mean) / std).clip(-5, 5)).float()
    target = torch.from_numpy(presets)
    left_out = []
    for i, network in enumerate(networks):
        fold = torch.from_numpy(episode % NETWORKS == i)
        if bool(fold.all()) or not bool(fold.any()):
            fold = torch.zeros(len(episode), dtype=torch.bool)
        _fit(network, scaled[~fold], target[~fold], config, i)
        with torch.no_grad():
            left_out.append((network(scaled[fold]), target[fold]))
    about = {
        "mean": mean.tolist(),
        "std": std.tolist(),
        "temperature": _temperature(*(torch.cat(parts) for parts in zip(*left_out))),
        "width": config.width,
    }
    estimator = LengthEstimator(store.task, lengths, networks, about)
    about["metrics"] = measure(estimator, store, heldout)
    about["provenance"] = provenance(store=store.attributes["provenance"], seed=config.seed, steps=config.steps)
    estimator.save(config.out)
    return estimator


def examples(store: Store, episodes: list[int], lengths: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(M, S) states, (M,) the index of the least preset with room for what is left, (M,) the episode.

    An episode that only ran out of time tells that the longest preset is not enough, as long as that was true.
    """
    states, presets, which = [], [], []
    room = np.array(lengths) - 1  # transitions in k frames
    for e in episodes:
        a, b = int(store.offsets[e]), int(store.offsets[e + 1])
        left = np.arange(b - a - 1, 0, -1)  # of every state but the last
        solved = bool(store.read("terminations", b - 2, b - 1)[0])
        kept = np.ones(len(left), dtype=bool) if solved else left >= room[-1]
        states.append(store.read("states", a, b - 1)[kept])
        presets.append(np.searchsorted(room, np.minimum(left, room[-1]))[kept])
        which.append(np.full(int(kept.sum()), e))
    return np.concatenate(states), np.concatenate(presets), np.concatenate(which)


def _fit(network: nn.Module, states: Tensor, target: Tensor, config: LengthConfig, which: int) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.lr, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)
    rng = np.random.default_rng([config.seed, which])
    for _ in range(config.steps):
        rows = rng.integers(len(states), size=config.batch)
        loss = functional.cross_entropy(network(states[rows]), target[rows], label_smoothing=0.02)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def _temperature(logits: Tensor, target: Tensor) -> float:
    """By which left-out logits have to be divided to be likeliest; 1 where none were left out."""
    if not len(target):
        return 1.0
    candidates = np.geomspace(0.5, 8.0, 41)
    return float(min(candidates, key=lambda t: float(functional.cross_entropy(logits / float(t), target))))


def measure(estimator: LengthEstimator, store: Store, episodes: list[int]) -> dict[str, Any]:
    """On episodes that nothing was trained on: shares of states, and how far said and true probabilities differ."""
    states, presets, _ = examples(store, episodes, estimator.lengths)
    if not len(states):
        return {"states": 0}
    chosen = np.searchsorted(estimator.lengths, estimator(states))
    said = estimator.probabilities(states)
    sure, right = said.max(axis=1), said.argmax(axis=1) == presets
    bins = np.minimum((sure * 10).astype(int), 9)
    gaps = [abs(sure[bins == i].mean() - right[bins == i].mean()) * (bins == i).mean() for i in np.unique(bins)]
    return {
        "states": len(states),
        "right_preset": float((chosen == presets).mean()),
        "too_short": float((chosen < presets).mean()),
        "too_long": float((chosen > presets).mean()),
        "always_longest": float((presets == len(estimator.lengths) - 1).mean()),
        "calibration_error": float(np.sum(gaps)),
    }
