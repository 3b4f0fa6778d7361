"""Diffuser: rows of numbers in, an EDM with a residual MLP trained on them, such rows out.

What SynthER and its extension to trajectories share: normalisation, training that can be resumed, sampling, files.
Shapes: B rows, D numbers of a row; Q of them, the first ones, may be known when a row is sampled.
"""

import json
import math
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from pixeltraj.checkpoint import Checkpoint
from pixeltraj.edm import DEFAULT, EDM, EDMConfig, ResidualMLP, noise_levels
from pixeltraj.errors import PixeltrajError
from pixeltraj.files import provenance, read_json, write_json, write_whole
from pixeltraj.task import Task
from pixeltraj.tasks import get_task

CHECKPOINT_EVERY = 1000
TOGETHER = 1000
"""Rows that are sampled at once."""


@dataclass(frozen=True, kw_only=True)
class DiffuserConfig:
    steps: int = 10_000
    """Training steps."""
    width: int = 256
    """Of the residual MLP."""
    depth: int = 6
    """Its blocks."""
    lr: float = 3e-4
    """Peak learning rate of Adam, the paper's; a cosine to zero. With so few steps 1e-3 fits small data closer."""
    batch: int = 256
    """Rows a step."""
    ema: float = 0.9995
    """Decay of the average of the weights, a step; the paper has 0.995 every tenth step, which is the same."""
    num_inference_steps: int = 32
    """Heun steps of the sampler."""
    seed: int = 0
    """Of weights, batches and noise."""
    edm: EDMConfig = DEFAULT
    """Noise levels."""

    def check(self) -> None:
        """Raise PixeltrajError where nothing could be trained like this."""
        if self.steps < 1 or self.batch < 1 or not 0 <= self.ema < 1 or self.lr <= 0:
            raise PixeltrajError("--steps and --batch must be at least 1, --lr above 0, --ema in [0, 1)")
        self.edm.check()
        noise_levels(self.edm, self.num_inference_steps)


class Diffuser:
    """`fit`, then `sample`. Fitted again, on more data, it goes on from the weights it has."""

    def __init__(self, size: int, config: DiffuserConfig, title: str, known: int = 0, flags: int = 1) -> None:
        """Random weights.

        size: D; title: how it is called in messages; known: Q; flags: how many of the numbers, the last ones, are 0 or
        1 and left as they are. Raises PixeltrajError on a bad config.
        """
        config.check()
        self.size, self.config, self.title, self.known, self.flags = size, config, title, known, flags
        with torch.random.fork_rng(devices=[]):  # torch's layers draw their weights from the global generator
            torch.manual_seed(config.seed)
            self.trained = EDM(ResidualMLP(size - known, config.width, config.depth, known), config.edm)
        self.averaged = deepcopy(self.trained).requires_grad_(False)
        self.mean, self.std = torch.zeros(size), torch.ones(size)
        self.step = 0
        """Training steps so far, of all fits."""
        self.about: dict[str, Any] = {}
        """How it was trained, JSON-able: the steps, and the loss of the averaged weights on the last fit's rows."""

    def fit(self, rows: np.ndarray, checkpoint: Checkpoint | None = None) -> None:
        """Train `config.steps` more, on rows (B, D) float32 and with their statistics.

        checkpoint: gone on from where it holds a part of this fit, and left behind for its owner to remove. Raises
        PixeltrajError where training diverges.
        """
        config = self.config
        self.mean, self.std = statistics(rows, self.flags)
        whitened = self.whiten(rows)
        optimizer = torch.optim.Adam(self.trained.parameters(), lr=config.lr, fused=True)
        done, states = checkpoint.load() if checkpoint else (0, {})
        if states:
            self.trained.load_state_dict(states["trained"])
            self.averaged.load_state_dict(states["averaged"])
            optimizer.load_state_dict(states["optimizer"])
        for i in tqdm(range(done, config.steps), desc=self.title, initial=done, total=config.steps, unit="step"):
            loss = self._train(whitened, optimizer, self.step + i, i / config.steps)
            if (i + 1) % CHECKPOINT_EVERY == 0 or i + 1 == config.steps:
                if not math.isfinite(loss.item()):
                    raise PixeltrajError(f"{self.title}'s loss is {loss.item()} at step {i + 1}; give a smaller --lr")
                if checkpoint:
                    models = {"trained": self.trained.state_dict(), "averaged": self.averaged.state_dict()}
                    checkpoint.save(i + 1, **models, optimizer=optimizer.state_dict())
        self.step += config.steps
        with torch.no_grad():
            loss = self._loss(self.averaged, whitened, torch.Generator().manual_seed(config.seed))
        self.about = {"steps": self.step, "loss": loss.item()}

    def _train(self, whitened: Tensor, optimizer: torch.optim.Optimizer, step: int, progress: float) -> Tensor:
        config = self.config
        rng = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        for group in optimizer.param_groups:
            group["lr"] = config.lr * 0.5 * (1 + math.cos(math.pi * progress))
        batch = whitened[torch.randint(len(whitened), (config.batch,), generator=rng)]
        loss = self._loss(self.trained, batch, rng)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay = min(config.ema, (1 + step) / (10 + step))  # the random weights are soon forgotten
        with torch.no_grad():
            for average, now in zip(self.averaged.parameters(), self.trained.parameters()):
                average.lerp_(now, 1 - decay)
        return loss

    def _loss(self, edm: EDM, whitened: Tensor, rng: torch.Generator) -> Tensor:
        return edm.loss(whitened[:, self.known :], rng, whitened[:, : self.known] if self.known else None)

    def sample(self, n: int, rng: torch.Generator, known: np.ndarray | None = None) -> np.ndarray:
        """(n, D) float32 rows. known (n, Q): what they begin with, to the bit; wanted where Q is not 0.

        Raises PixeltrajError where n is below 1, before any fit, and on samples that are no numbers.
        """
        if n < 1:
            raise PixeltrajError(f"{n} samples cannot be drawn; 1 is the least")
        if not self.step:
            raise PixeltrajError(f"{self.title} has learned nothing yet; fit it first")
        steps, given = self.config.num_inference_steps, None
        if known is not None:
            given = (torch.from_numpy(known) - self.mean[: self.known]) / self._scale[: self.known]
        parts = [
            self.averaged.sample(
                min(TOGETHER, n - i),
                self.size - self.known,
                steps,
                rng,
                None if given is None else given[i : i + TOGETHER],
            )
            for i in tqdm(range(0, n, TOGETHER), desc="sample", unit="batch", disable=n <= TOGETHER)
        ]
        rest = (torch.cat(parts) * self.std[self.known :] + self.mean[self.known :]).numpy()
        rows = rest if known is None else np.concatenate([known, rest], axis=1)
        if not np.isfinite(rows).all():
            raise PixeltrajError(f"{self.title}'s samples are no numbers; train it with more --steps or a smaller --lr")
        return rows

    @property
    def _scale(self) -> Tensor:
        return torch.where(self.std > 0, self.std, 1.0)

    def whiten(self, rows: np.ndarray) -> Tensor:
        """(B, D) rows -> with mean 0 and standard deviation 1; numbers that never change are 0."""
        return (torch.from_numpy(rows) - self.mean) / self._scale

    def unwhiten(self, whitened: Tensor) -> np.ndarray:
        """The inverse."""
        return (whitened * self.std + self.mean).numpy()

    def save(self, folder: Path, weights: str, config: str, task: Task, about: dict[str, Any]) -> None:
        """The weights, then the JSON that makes them count; both by name. about: what else the JSON is to say."""
        tensors = {"mean": self.mean, "std": self.std}
        for name, model in (("trained", self.trained), ("averaged", self.averaged)):
            tensors |= {f"{name}.{key}": value.contiguous() for key, value in model.state_dict().items()}
        write_whole(folder / weights, lambda beside: save_file(tensors, beside))
        said = {"fingerprint": task.fingerprint(), "config": asdict(self.config)}
        write_json(folder / config, {**said, "about": about, "step": self.step, "provenance": provenance()})

    def load_weights(self, path: Path, step: int) -> None:
        """What `save` wrote. Raises PixeltrajError where it is damaged, or of another size."""
        try:
            tensors = load_file(path)
            self.mean, self.std = tensors.pop("mean"), tensors.pop("std")
            for name, model in (("trained", self.trained), ("averaged", self.averaged)):
                part = {key.removeprefix(f"{name}."): v for key, v in tensors.items() if key.startswith(f"{name}.")}
                model.load_state_dict(part)
        except (OSError, SafetensorError, RuntimeError, KeyError) as error:
            raise PixeltrajError(f"{path} cannot be read ({error}); train it again") from error
        self.step = step


def read_config(path: Path, title: str, task: Task | None) -> tuple[dict[str, Any], Task]:
    """The JSON that `Diffuser.save` wrote, and the task. Raises PixeltrajError where it is of another task."""
    content = read_json(path, f"{title} model")
    then = content["fingerprint"]
    if task is not None and task.name != then["task"]:
        raise PixeltrajError(f"the {title} model in {path.parent} is of {then['task']}, not {task.name}")
    task = task or get_task(then["task"])
    now = json.loads(json.dumps(task.fingerprint()))
    if any(then[key] != now[key] for key in ("state", "action_size", "action_repeat")):
        raise PixeltrajError(f"the {title} model in {path.parent} is of another {task.name}; train it again")
    return content | {"config": content["config"] | {"edm": EDMConfig(**content["config"]["edm"])}}, task


def statistics(rows: np.ndarray, flags: int = 1) -> tuple[Tensor, Tensor]:
    """(D,) mean and standard deviation; of the flags, the last ones, 0 and 1; the deviation of what never changes,
    flags too, is 0, so that it is sampled as it is."""
    exact = rows.astype(np.float64)
    mean, std = exact.mean(axis=0), exact.std(axis=0)
    std[std < 1e-6 * np.maximum(1.0, np.abs(mean))] = 0.0  # float32 cannot tell it from rounding
    changing = (np.arange(len(std)) >= len(std) - flags) & (std > 0)
    mean[changing], std[changing] = 0.0, 1.0
    return torch.from_numpy(mean).float(), torch.from_numpy(std).float()
