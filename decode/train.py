"""Training of a decoder on the real frames of a store, and on the same as the generator paints them.

Two phases: first the keypoint head on single tiles; then, on the keypoints it gives, all other heads.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from pixeltraj.base import Base
from pixeltraj.checkpoint import Checkpoint
from pixeltraj.decode.calibration import calibrate, lowest_precise
from pixeltraj.decode.decoder import CONFIG, Decoder, Reading, carried, fit_of, known_states, pin
from pixeltraj.decode.demonstrator import Demonstrator
from pixeltraj.decode.features import Windows
from pixeltraj.decode.fit import Fit
from pixeltraj.decode.heads import Heads, HeadsConfig, keypoint_loss
from pixeltraj.decode.measurement import errors, r2
from pixeltraj.decode.motion import Motion
from pixeltraj.diffuser import DiffuserConfig
from pixeltraj.errors import PixeltrajError
from pixeltraj.files import provenance
from pixeltraj.generator import Generator
from pixeltraj.sight import MakeSight
from pixeltraj.store import Store
from pixeltraj.task import Task
from pixeltraj.windows import require_windows, store_windows

CHECKPOINT_EVERY = 100
ACTIONS_CHECKPOINT = "actions.checkpoint"
ACTIONS_LR = 1e-3
"""Of the diffusion model of actions: few steps on little data."""
ENDS = 2
"""Windows of each episode that are read besides, because they show its end."""


@dataclass(frozen=True)
class TrainConfig:
    store: Annotated[Path, tyro.conf.Positional]
    """Rendered store; every fifth episode is held out and measured on."""
    out: Path
    """Folder of the decoder: new, or one that an interrupted run of the same command left."""
    base: str | None = None
    """Diffusers folder, single file or hub id; the embedded base if not given."""
    lora: Path | None = None
    """Folder that finetune wrote: the decoder reads that generator's grids only."""
    k: tuple[int, ...] | None = None
    """Frames in the grids that are read; all that the generator was trained for if not given."""
    steps: int = 1500
    """Steps of the keypoint head."""
    head_steps: int = 2000
    """Steps of the other heads, after it, and of the diffusion model of actions (`--actions sampled`)."""
    batch: int = 32
    """Tiles a step of the keypoint head; windows of five frames a step of the others are twice as many."""
    lr: float = 4e-3
    """Peak learning rate of the keypoint head, half of it of the others; a cosine to zero."""
    noise: float = 0.1
    """Deviation of the noise that a second copy of the latents gets, which have deviation 1, before the generator
    reconstructs it."""
    move: int = 4
    """Pixels by which further copies of the frames are moved."""
    copies: int = 4
    """How many of them; each has every so-manieth window."""
    scatter: int = 600
    """Windows that are drawn anew with things elsewhere, where the task says what can be moved: what no demonstrator
    showed is read better then. 0 for none."""
    windows: int = 2500
    """Windows of each kind at most; of a larger store every second, third, ..."""
    jitter: float = 0.5
    """How much of another window's reading errors keypoints get while the other heads train: held-out ones are read
    less well."""
    seed: int = 0
    """Of weights, noise and batches."""

    def settings(self) -> dict[str, Any]:
        """What a run has to share with one that it goes on from."""
        return {key: value for key, value in asdict(self).items() if key != "out"}


def train(config: TrainConfig, sight: MakeSight | None = None) -> Decoder:
    """Train, or go on training; measure; save.

    sight: draws the windows to `scatter` (`pixeltraj.cli.sight.draw_alike`); without it there are none. Raises
    PixeltrajError where the store, the base or the LoRA cannot be used, or where `out` holds a finished decoder.
    """
    if (config.out / CONFIG).exists():
        raise PixeltrajError(f"{config.out} holds a decoder already; give another --out or remove it")
    store = Store.open(config.store)
    generator = Generator.load(Base.load(config.base), config.lora)
    return train_on(store, generator, config, sight)


def train_on(store: Store, generator: Generator, config: TrainConfig, sight: MakeSight | None = None) -> Decoder:
    """`train`, with store and generator at hand."""
    task = store.task
    store.require_frames()
    generator.embed(list(task.prompts))  # a prompt that is too long is told before anything is computed
    training, heldout = store.split()
    generators = [generator.at(k) for k in config.k or generator.lengths]
    require_windows(store, tuple(g.k for g in generators))
    scatter = config.scatter if sight and task.movable and store.attributes["snapshot_layout"] else 0
    asked = config.settings() | {"generator": generator.identity, "scatter": scatter}
    checkpoint = Checkpoint(config.out / "train.checkpoint", asked)
    step, states = checkpoint.load()
    every = -(-len(store_windows(store, generators[0].k, training)) // config.windows)
    strides = [every * g.grid.rows for g in generators]  # windows overlap: fewer long ones hold as many tiles
    seed, noise, copies = config.seed, config.noise, config.copies
    clean = [Windows.read(store, training, g, stride=n, seed=seed, ends=ENDS) for g, n in zip(generators, strides)]
    noisy = [Windows.read(store, training, g, noise, True, 0, n, seed, None, ENDS) for g, n in zip(generators, strides)]
    moved = [
        Windows.read(store, training, generators[0], noise, False, config.move, every * copies, seed + i)
        for i in range(1, copies + 1)
    ]
    scattered: list[Windows] = []
    if sight and scatter:
        scattered.append(Windows.scattered(store, training, generators[0], sight, scatter, noise, seed))
    heads = make_heads(task, clean[0], config)
    total = config.steps + config.head_steps
    phases = {"keypoints": list(heads.keypoint.parameters())}
    phases["heads"] = [p for name, p in heads.named_parameters() if not name.startswith("keypoint.")]
    optimizers = {name: torch.optim.AdamW(p, lr=config.lr, weight_decay=1e-2) for name, p in phases.items()}
    if states:
        heads.load_state_dict(states["heads"])
        for name, optimizer in optimizers.items():
            optimizer.load_state_dict(states[f"optimizer of {name}"])
    locate, behave = KeypointPhase(task, [[*clean, *noisy], moved, scattered], heads), None
    fit, elsewhere = fit_of(task, heads), list[BehaviourPhase]()
    bar = tqdm(range(step, total), desc="decoder", initial=step, total=total, unit="step")
    for step in bar:
        rng = np.random.default_rng([config.seed, step])
        first = step < config.steps
        if not first and behave is None:
            elsewhere = [BehaviourPhase(task, [windows], heads, fit) for windows in scattered]
            behave = [BehaviourPhase(task, [one, other], heads, fit) for one, other in zip(clean, noisy)]
        progress = step / config.steps if first else (step - config.steps) / config.head_steps
        optimizer = optimizers["keypoints" if first else "heads"]
        for group in optimizer.param_groups:
            group["lr"] = config.lr * schedule(progress) * (1.0 if first else 0.5)
        if behave is None:
            loss = locate.loss(rng, config.batch)
        else:
            phase, length = behave[step % len(behave)], generators[step % len(behave)].grid.rows
            loss = phase.loss(rng, max(1, 2 * config.batch // length), config.jitter)
            loss = sum((other.loss(rng, config.batch, config.jitter) for other in elsewhere), loss)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(phases["keypoints" if first else "heads"], 1.0)
        optimizer.step()
        if step % 20 == 0:
            bar.set_postfix(loss=f"{loss.item():.4f}")
        if (step + 1) % CHECKPOINT_EVERY == 0:
            kept = {f"optimizer of {name}": optimizer.state_dict() for name, optimizer in optimizers.items()}
            checkpoint.save(step + 1, heads=heads.state_dict(), **kept)
    behave = behave or [BehaviourPhase(task, [one, other], heads, fit) for one, other in zip(clean, noisy)]
    choose_threshold(heads, behave, config)
    decoder = Decoder(task, generator, heads, tuple(g.k for g in generators))
    span = np.ptp(clean[0].states.reshape(-1, task.state_size), axis=0)
    del clean, noisy, moved, scattered, locate, behave
    few = -(-len(store_windows(store, generators[0].k, heldout)) // config.windows)
    halves = [
        [Windows.read(store, half, g, stride=few * g.grid.rows) for g in generators]
        for half in (heldout[::2], heldout[1::2])
        if half
    ]
    demonstrator = learn_actions(store, training, config)
    metrics = [
        errors(task, reading, windows, span) | {"sampled_action_r2": sampled_r2(demonstrator, reading, windows)}
        for windows, reading in calibrate(decoder, halves)
    ]
    decoder.about = {
        "metrics": metrics[0] | {"by_k": {str(g.k): one for g, one in zip(generators, metrics)}},
        "provenance": provenance(
            config={key: str(value) for key, value in asdict(config).items()},
            steps=total,
            store=str(store.path),
            renderer=store.renderer,
            episodes={"training": len(training), "held out": len(heldout)},
        ),
    }
    demonstrator.save(config.out)
    decoder.save(config.out)
    for path in (checkpoint.path, config.out / ACTIONS_CHECKPOINT):
        path.unlink(missing_ok=True)
    return decoder


def learn_actions(store: Store, training: list[int], config: TrainConfig) -> Demonstrator:
    """What the store's agent does, of the episodes of these numbers."""
    settings = DiffuserConfig(steps=config.head_steps, lr=ACTIONS_LR, seed=config.seed)
    demonstrator = Demonstrator(store.task, settings)
    trajectories = map(store.trajectory, training)
    demonstrator.fit(trajectories, Checkpoint(config.out / ACTIONS_CHECKPOINT, config.settings()))
    return demonstrator


def sampled_r2(demonstrator: Demonstrator, reading: Reading, windows: Windows) -> list[float]:
    """Share of the variance of real actions that a sample tells, for each action dimension."""
    actions = demonstrator(reading.states, torch.Generator().manual_seed(0))
    return r2(actions[windows.real], windows.actions[windows.real])


def schedule(progress: float) -> float:
    """Factor on the learning rate for a share in [0, 1) of a phase: warm-up, then a cosine to zero."""
    return min(1.0, 0.05 + 20 * progress) * 0.5 * (1 + math.cos(math.pi * progress))


def make_heads(task: Task, windows: Windows, config: TrainConfig) -> Heads:
    """Fresh weights, and the statistics of the training windows."""
    with torch.random.fork_rng(devices=[]):  # torch's layers draw their weights from the global generator
        torch.manual_seed(config.seed)
        heads = Heads(
            HeadsConfig(
                channels=windows.features.shape[2],
                keypoints=len(task.keypoints),
                state=task.state_size,
                hidden=tuple(task.indices(task.hidden)),
                actions=task.action_size,
                sparse=task.reward == "sparse",
            ),
            task.pairs,
        )
    some = windows.features[:: max(1, len(windows) // 200)].float()
    head = heads.keypoint
    head.mean.copy_(some.mean(dim=(0, 1, 3, 4)))
    head.std.copy_(some.std(dim=(0, 1, 3, 4)).clamp(min=1e-3))
    depth = task.camera.project(windows.keypoints)[..., 2].reshape(-1, len(task.keypoints))
    head.depth_mean.copy_(torch.from_numpy(depth.mean(axis=0)))
    head.depth_std.copy_(torch.from_numpy(depth.std(axis=0).clip(min=0.005)))
    points = windows.keypoints.reshape(-1, *windows.keypoints.shape[2:])
    heads.keypoint_mean.copy_(torch.from_numpy(points.mean(axis=0)))
    heads.keypoint_std.copy_(torch.from_numpy(points.std(axis=0).clip(min=0.005)))
    states = windows.states.reshape(-1, task.state_size)
    change = np.diff(windows.states, axis=1)[windows.real]
    heads.state_mean.copy_(torch.from_numpy(states.mean(axis=0)))
    heads.state_std.copy_(torch.from_numpy(states.std(axis=0).clip(min=0.01)))
    heads.change_mean.copy_(torch.from_numpy(change.mean(axis=0)))
    heads.change_std.copy_(torch.from_numpy(change.std(axis=0).clip(min=0.002)))
    if task.reward == "dense":
        rewards = windows.rewards[windows.real]
        heads.reward_mean.copy_(torch.tensor(float(rewards.mean())))
        heads.reward_std.copy_(torch.tensor(float(max(rewards.std(), 1e-3))))
    motion = Motion.of(windows.states[:, :-1][windows.real], windows.states[:, 1:][windows.real])
    heads.motion.copy_(torch.from_numpy(motion.matrix))
    heads.motion_error.copy_(torch.from_numpy(motion.covariance))
    return heads


class KeypointPhase:
    """Single tiles and where their keypoints are; as many in each batch of every kind that there is."""

    def __init__(self, task: Task, kinds: list[list[Windows]], heads: Heads) -> None:
        """kinds: as they are, moved, scattered."""
        self.head, self.focal = heads.keypoint, task.camera.focal
        self.kinds = [(windows, _targets(task, windows)) for windows in kinds if windows]

    def loss(self, rng: np.random.Generator, batch: int) -> Tensor:
        tiles, targets, deep = [], [], []
        for i in range(batch):
            windows, target = self.kinds[i % len(self.kinds)]
            copy = int(rng.integers(len(windows)))
            window, frame = int(rng.integers(len(windows[copy]))), int(rng.integers(target[copy].shape[1]))
            tiles.append(windows[copy].features[window, frame])
            targets.append(target[copy][window, frame])
            deep.append(float(not windows[copy].moved[window].any()))
        stacked = torch.stack(tiles).float()
        with torch.autocast(stacked.device.type, torch.bfloat16):
            pixels, heat = self.head(stacked)
        return keypoint_loss(pixels.float(), heat.float(), torch.stack(targets), self.focal, torch.tensor(deep))


def _targets(task: Task, copies: list[Windows]) -> list[Tensor]:
    """For each copy (W, K, N, 3): column and row in the frame as it was moved, depth."""
    targets = []
    for windows in copies:
        pixels = task.camera.project(windows.keypoints)
        pixels[..., :2] += windows.moved[:, None, None]
        targets.append(torch.from_numpy(pixels).float())
    return targets


class BehaviourPhase:
    """Windows as the trained keypoint head reads them, and what happened in them."""

    def __init__(self, task: Task, copies: list[Windows], heads: Heads, fit: Fit) -> None:
        self.task, self.heads, self.fit, self.truth = task, heads, fit, copies[0]
        self.keypoints, self.pooled = [], []
        for windows in copies:
            with torch.no_grad():
                read = [heads.locate(part) for part in windows.features.split(32)]
            self.keypoints.append(task.camera.unproject(torch.cat([r[0] for r in read]).numpy()))
            self.pooled.append(torch.cat([r[1] for r in read]))
        self.missed = [read - self.truth.keypoints for read in self.keypoints]
        everywhere = np.concatenate([missed.reshape(-1, *missed.shape[2:]) for missed in self.missed])
        heads.misread.copy_(torch.from_numpy(np.sqrt(np.square(everywhere).mean(axis=0)).clip(min=1e-4)))
        self.points = torch.from_numpy(self.truth.keypoints)
        self.real = torch.from_numpy(self.truth.real)
        self.actions = torch.from_numpy(self.truth.actions)
        self.over = torch.from_numpy(self.truth.terminations).float()
        self.rewards = torch.from_numpy(self.truth.rewards)
        self.states = torch.from_numpy(self.truth.states)
        self.weight = self._success_weight()

    def _success_weight(self) -> float:
        """Ends are rare: they count more, but not so much that they are seen everywhere."""
        positives = float(self.over.sum())
        return min(3.0, float(self.real.sum()) / max(positives, 1.0))

    def refined(self, copy: int, rows: np.ndarray, jitter: np.ndarray | float = 0.0) -> tuple[Tensor, Tensor]:
        """Keypoints (B, K, N, 3) of some windows and their uncertainty (B, K, N), both in metres."""
        keypoints, starts = self.keypoints[copy][rows] + jitter, self.truth.states[rows, 0]
        keypoints = carried(self.task, keypoints, pin(self.task, keypoints[:, :1], starts))
        return self.heads.refined(torch.from_numpy(keypoints).float(), self.pooled[copy][rows])

    def known(self, keypoints: Tensor, spread: Tensor, rows: np.ndarray) -> Tensor:
        """(B, K, S) states of some windows as far as their keypoints tell."""
        starts, points = self.truth.states[rows, 0], keypoints.detach().numpy().astype(np.float64)
        return torch.from_numpy(self.fit(known_states(self.task, points, starts), points, spread.detach().numpy()))

    def loss(self, rng: np.random.Generator, batch: int, jitter: float) -> Tensor:
        rows = rng.integers(len(self.states), size=batch)
        copy = int(rng.integers(len(self.keypoints)))
        others = rng.integers(len(self.states), size=batch)
        keypoints, spread = self.refined(copy, rows, jitter * self.missed[copy][others])
        heads, index, real = self.heads, list(self.heads.config.hidden), self.real[rows]
        refined = refinement_loss(keypoints[:, 1:], spread[:, 1:], self.points[rows, 1:], heads.misread)
        if not real.any():  # nothing is known but where things are
            return refined
        states, pooled = self.known(keypoints, spread, rows), self.pooled[copy][rows]
        filled = heads.fill(states, pooled)
        actions, outcome = heads.act(filled.detach(), pooled)
        loss = functional.huber_loss(actions[real], self.actions[rows][real], delta=0.5)
        loss = loss + refined
        loss = loss + functional.binary_cross_entropy_with_logits(
            outcome[..., -1], self.over[rows], pos_weight=torch.tensor(self.weight)
        )
        if not heads.config.sparse:
            target = (self.rewards[rows] - heads.reward_mean) / heads.reward_std
            loss = loss + functional.huber_loss(outcome[..., 0][real], target[real])
        if index:
            error = (filled - self.states[rows])[:, 1:, index] / heads.state_std[index]
            loss = loss + functional.huber_loss(error[real], torch.zeros_like(error[real]))
        return loss

    @torch.no_grad()
    def outcomes(self, rng: np.random.Generator, jitter: float) -> tuple[Tensor, Tensor]:
        """Logits of all training transitions, and whether each of them was an end."""
        logits, truth = [], []
        for copy, pooled in enumerate(self.pooled):
            others = rng.permutation(len(self.states))
            for rows in np.array_split(np.arange(len(self.states)), max(1, len(self.states) // 64)):
                keypoints, spread = self.refined(copy, rows, jitter * self.missed[copy][others[rows]])
                states = self.heads.fill(self.known(keypoints, spread, rows), pooled[rows])
                logits.append(self.heads.act(states, pooled[rows])[1][..., -1].flatten())
                truth.append(self.over[rows].flatten())
        return torch.cat(logits), torch.cat(truth)


def refinement_loss(keypoints: Tensor, spread: Tensor, truth: Tensor, misread: Tensor) -> Tensor:
    """Huber error of refined keypoints (B, K, N, 3) in units of what was misread before, and the likelihood of that
    error under the uncertainty (B, K, N) that was stated for it, which does not bend the keypoints themselves."""
    missed = keypoints - truth
    error = functional.huber_loss(missed / misread, torch.zeros_like(missed), delta=1.0)
    squared = missed.detach().square().mean(dim=-1)
    return error + 0.1 * (spread.log() + squared / (2 * spread.square())).mean()


def choose_threshold(heads: Heads, phases: list[BehaviourPhase], config: TrainConfig) -> None:
    """The lowest logit above which the training transitions are ends, and ends are likelier than not (`weight` has
    moved the logits)."""
    rng = np.random.default_rng([config.seed, 3])
    logits, truth = (torch.cat(parts) for parts in zip(*(phase.outcomes(rng, config.jitter) for phase in phases)))
    likelier = torch.tensor(math.log(max(phase.weight for phase in phases)))
    none = torch.tensor(float("inf"))  # what was never seen is not read either
    heads.threshold.copy_(torch.maximum(lowest_precise(logits, truth), likelier) if truth.any() else none)
