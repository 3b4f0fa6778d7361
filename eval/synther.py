"""SynthER (Lu et al. 2023): a diffusion model of single transitions, without pictures, goals or time.

The baseline, as the paper describes it: (s, a, r, s', terminal) in one vector, every number but the terminal with
mean 0 and standard deviation 1; an EDM with a residual MLP; nothing conditions it, and nothing holds s and s'
together but what it has learned. What a CPU made differ from the paper's setting stands in `SyntherConfig`.
"""

import hashlib
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
from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.edm import DEFAULT, EDM, EDMConfig, ResidualMLP, noise_levels
from pixeltraj.files import provenance, read_json, write_json, write_whole
from pixeltraj.replay_buffer import Batch
from pixeltraj.store import Store
from pixeltraj.task import Task
from pixeltraj.tasks import get_task
from pixeltraj.trajectory import Trajectory

WEIGHTS, CONFIG = "synther.safetensors", "synther.json"
CHECKPOINT_EVERY = 1000
TOGETHER = 1000
"""Transitions that are sampled at once."""


@dataclass(frozen=True, kw_only=True)
class SyntherConfig:
    """The paper trains 100,000 steps of 256 to 1024 transitions at width 1024 to 2048, and samples in 128 steps."""

    steps: int = 10_000
    """Training steps."""
    width: int = 256
    """Of the residual MLP."""
    depth: int = 6
    """Its blocks, as in the paper."""
    lr: float = 3e-4
    """Peak learning rate of Adam, the paper's; a cosine to zero. With so few steps 1e-3 fits small data closer."""
    batch: int = 256
    """Transitions a step."""
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


class Synther:
    """`fit`, then `sample`. Fitted again, on more data, it goes on from the weights it has; the paper starts anew
    each time, which is a new Synther."""

    def __init__(self, task: Task, config: SyntherConfig) -> None:
        """Random weights. Raises PixeltrajError on a bad config."""
        config.check()
        self.task, self.config = task, config
        self.size = 2 * task.state_size + task.action_size + 2
        """Numbers of a transition."""
        with torch.random.fork_rng(devices=[]):  # torch's layers draw their weights from the global generator
            torch.manual_seed(config.seed)
            self.trained = EDM(ResidualMLP(self.size, config.width, config.depth), config.edm)
        self.averaged = deepcopy(self.trained).requires_grad_(False)
        self.mean, self.std = torch.zeros(self.size), torch.ones(self.size)
        self.step = 0
        """Training steps so far, of all fits."""
        self.about: dict[str, Any] = {}
        """How it was trained, JSON-able: the last fit's transitions, and the loss of the averaged weights on them."""

    def fit(self, data: Batch, checkpoint: Checkpoint | None = None) -> None:
        """Train `config.steps` more, on these transitions and with their statistics.

        checkpoint: gone on from where it holds a part of this fit, and left behind for its owner to remove. Raises
        PixeltrajError without transitions, and where training diverges.
        """
        rows, config = vectors(data), self.config
        if not len(rows):
            raise PixeltrajError("SynthER has no transitions to learn from; collect some")
        self.mean, self.std = statistics(rows)
        whitened = self.whiten(rows)
        optimizer = torch.optim.Adam(self.trained.parameters(), lr=config.lr, fused=True)
        done, states = checkpoint.load() if checkpoint else (0, {})
        if states:
            self.trained.load_state_dict(states["trained"])
            self.averaged.load_state_dict(states["averaged"])
            optimizer.load_state_dict(states["optimizer"])
        for i in tqdm(range(done, config.steps), desc="synther", initial=done, total=config.steps, unit="step"):
            loss = self._train(whitened, optimizer, self.step + i, i / config.steps)
            if (i + 1) % CHECKPOINT_EVERY == 0 or i + 1 == config.steps:
                if not math.isfinite(loss.item()):
                    raise PixeltrajError(f"SynthER's loss is {loss.item()} at step {i + 1}; give a smaller --lr")
                if checkpoint:
                    models = {"trained": self.trained.state_dict(), "averaged": self.averaged.state_dict()}
                    checkpoint.save(i + 1, **models, optimizer=optimizer.state_dict())
        self.step += config.steps
        with torch.no_grad():
            loss = self.averaged.loss(whitened, torch.Generator().manual_seed(config.seed))
        self.about = {"transitions": len(rows), "digest": digest(data), "steps": self.step, "loss": loss.item()}

    def _train(self, whitened: Tensor, optimizer: torch.optim.Optimizer, step: int, progress: float) -> Tensor:
        config = self.config
        rng = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        for group in optimizer.param_groups:
            group["lr"] = config.lr * 0.5 * (1 + math.cos(math.pi * progress))
        batch = whitened[torch.randint(len(whitened), (config.batch,), generator=rng)]
        loss = self.trained.loss(batch, rng)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay = min(config.ema, (1 + step) / (10 + step))  # the random weights are soon forgotten
        with torch.no_grad():
            for average, now in zip(self.averaged.parameters(), self.trained.parameters()):
                average.lerp_(now, 1 - decay)
        return loss

    def sample(self, n: int, rng: torch.Generator) -> Batch:
        """n transitions. Raises PixeltrajError where n is below 1, before any fit, and on samples that are no numbers.

        Actions are clipped to [-1, 1]. Sparse rewards are 0 or 1, whichever is nearer, and 1 terminates; otherwise
        the terminal number terminates above 0.5, and rewards are as they were sampled.
        """
        if n < 1:
            raise PixeltrajError(f"{n} transitions cannot be sampled; 1 is the least")
        if not self.step:
            raise PixeltrajError("SynthER has learned nothing yet; fit it first")
        steps = self.config.num_inference_steps
        parts = [
            self.averaged.sample(min(TOGETHER, n - i), self.size, steps, rng)
            for i in tqdm(range(0, n, TOGETHER), desc="sample", unit="batch", disable=n <= TOGETHER)
        ]
        rows = self.unwhiten(torch.cat(parts))
        if not np.isfinite(rows).all():
            raise PixeltrajError("SynthER's samples are no numbers; train it with more --steps or a smaller --lr")
        ends = np.cumsum([self.task.state_size, self.task.action_size, 1, self.task.state_size])
        states, actions, rewards, next_states, terminal = np.split(rows, ends, axis=1)
        rewards, terminations = rewards[:, 0], terminal[:, 0] > 0.5
        if self.task.reward == "sparse":
            terminations = rewards > 0.5
            rewards = terminations.astype(np.float32)
        return Batch(states, actions.clip(-1, 1), rewards, next_states, terminations, np.full(n, True))

    def whiten(self, rows: np.ndarray) -> Tensor:
        """(B, D) transitions -> with mean 0 and standard deviation 1; numbers that never change are 0."""
        return (torch.from_numpy(rows) - self.mean) / torch.where(self.std > 0, self.std, 1.0)

    def unwhiten(self, whitened: Tensor) -> np.ndarray:
        """The inverse."""
        return (whitened * self.std + self.mean).numpy()

    def save(self, folder: Path) -> None:
        """The weights, then the JSON that makes them count."""
        tensors = {"mean": self.mean, "std": self.std}
        for name, model in (("trained", self.trained), ("averaged", self.averaged)):
            tensors |= {f"{name}.{key}": value.contiguous() for key, value in model.state_dict().items()}
        write_whole(folder / WEIGHTS, lambda beside: save_file(tensors, beside))
        about = {"about": self.about, "step": self.step, "provenance": provenance()}
        write_json(folder / CONFIG, {"fingerprint": self.task.fingerprint(), "config": asdict(self.config), **about})

    @classmethod
    def load(cls, folder: Path, task: Task | None = None) -> "Synther":
        """What `save` wrote. Raises PixeltrajError where it is of another task, or damaged."""
        content = read_json(folder / CONFIG, "SynthER model")
        then = content["fingerprint"]
        if task is not None and task.name != then["task"]:
            raise PixeltrajError(f"the SynthER model in {folder} is of {then['task']}, not {task.name}")
        task = task or get_task(then["task"])
        now = json.loads(json.dumps(task.fingerprint()))
        if any(then[key] != now[key] for key in ("state", "action_size", "action_repeat")):
            raise PixeltrajError(f"the SynthER model in {folder} is of another {task.name}; train it again")
        synther = cls(task, SyntherConfig(**content["config"] | {"edm": EDMConfig(**content["config"]["edm"])}))
        try:
            tensors = load_file(folder / WEIGHTS)
            synther.mean, synther.std = tensors.pop("mean"), tensors.pop("std")
            for name, model in (("trained", synther.trained), ("averaged", synther.averaged)):
                part = {key.removeprefix(f"{name}."): v for key, v in tensors.items() if key.startswith(f"{name}.")}
                model.load_state_dict(part)
        except (OSError, SafetensorError, RuntimeError, KeyError) as error:
            raise PixeltrajError(f"{folder / WEIGHTS} cannot be read ({error}); train it again") from error
        synther.step, synther.about = content["step"], content["about"]
        return synther


def vectors(data: Batch) -> np.ndarray:
    """(B, 2 S + A + 2) float32: state, action, reward, next state, termination."""
    ends = data.rewards[:, None], data.next_states, data.terminations[:, None]
    return np.concatenate([data.states, data.actions, *ends], axis=1, dtype=np.float32)


def statistics(rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """(D,) mean and standard deviation; of the terminal, the last one, 0 and 1; the deviation of what never changes
    is 0, so that it is sampled as it is."""
    exact = rows.astype(np.float64)
    mean, std = exact.mean(axis=0), exact.std(axis=0)
    std[std < 1e-6 * np.maximum(1.0, np.abs(mean))] = 0.0  # float32 cannot tell it from rounding
    mean[-1], std[-1] = 0.0, 1.0
    return torch.from_numpy(mean).float(), torch.from_numpy(std).float()


def transitions(store: Store, episodes: list[int]) -> Batch:
    """All of these episodes of a store, in order."""
    first = np.concatenate([np.arange(store.offsets[e], store.offsets[e + 1] - 1) for e in episodes])
    read = {name: store.read(name, 0, store.frame_count) for name in ("states", "actions", "rewards", "terminations")}
    states, actions, rewards, terminations = read.values()
    return Batch(
        states[first],
        actions[first],
        rewards[first],
        states[first + 1],
        terminations[first],
        np.full(len(first), False),
    )


def trajectories(data: Batch, task: Task) -> list[Trajectory]:
    """Each transition as an episode of its own, as a store takes them. Keypoints are zeros: SynthER knows none."""
    keypoints = np.zeros((2, len(task.keypoints), 3), dtype=np.float32)
    return [
        Trajectory(
            states=np.stack([data.states[i], data.next_states[i]]),
            actions=data.actions[i : i + 1],
            rewards=data.rewards[i : i + 1],
            terminations=data.terminations[i : i + 1],
            truncations=np.zeros(1, dtype=bool),
            keypoints=keypoints,
            origin={"synthetic": "synther"},
        )
        for i in range(len(data.states))
    ]


def digest(data: Batch) -> str:
    """16 hex digits that tell these transitions from others."""
    return hashlib.sha256(vectors(data).tobytes()).hexdigest()[:16]
