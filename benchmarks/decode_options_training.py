"""A decoder of any option, trained as the shipped one is (`pixeltraj.decode.train`) on windows that are at hand.

Shapes: B batch, K frames, C channels, L = 12 latents a tile, V values of a frame.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.decode_options_direct import DirectHead, DirectPhase, DirectTask
from benchmarks.decode_options_list import Option
from benchmarks.decode_options_windows import Lesson
from pixeltraj.decode.calibration import joined
from pixeltraj.decode.decoder import Decoder, fit_of
from pixeltraj.decode.features import Windows
from pixeltraj.decode.heads import Heads, HeadsConfig, KeypointHead, WindowHead
from pixeltraj.decode.train import BehaviourPhase, KeypointPhase, TrainConfig, choose_threshold, make_heads, schedule
from pixeltraj.generator import Generator
from pixeltraj.task import Task

ENCODED = 96
"""Channels into which the CNN turns a picture: as many as two up blocks of the embedded base have."""


class Pairs(nn.Module):
    """A window head that is shown two frames at a time. In the place of `Heads.action` and its like."""

    def __init__(self, head: WindowHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, values: Tensor, changes: Tensor, pooled: Tensor) -> Tensor:
        """values, changes (B, K, V), pooled (B, K, C) -> (B, K-1, outputs)."""
        last = changes[:, -1:].expand(-1, changes.shape[1] - 1, -1)  # nothing is known of what follows a pair
        pairs = [torch.stack([x[:, :-1], x[:, 1:]], dim=2).flatten(0, 1) for x in (values, pooled)]
        moved = torch.stack([changes[:, :-1], last], dim=2).flatten(0, 1)
        return self.head(pairs[0], moved, pairs[1]).unflatten(0, (len(values), -1))[:, :, 0]


class PixelHead(nn.Module):
    """A small CNN makes features of pictures, a keypoint head reads them. In the place of `Heads.keypoint`."""

    mean: Tensor
    std: Tensor

    def __init__(self, seen: KeypointHead, config: HeadsConfig) -> None:
        """seen: one with the statistics of the pictures and of the depths."""
        super().__init__()
        self.register_buffer("mean", seen.mean)
        self.register_buffer("std", seen.std)
        layers: list[nn.Module] = [nn.PixelShuffle(8)]
        for before, after in ((3, ENCODED // 4), (ENCODED // 4, ENCODED // 2), (ENCODED // 2, ENCODED)):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
        self.encoder = nn.Sequential(*layers, nn.Conv2d(ENCODED, ENCODED, 3, padding=1))
        self.head = KeypointHead(replace(config, channels=ENCODED))
        self.head.depth_mean.copy_(seen.depth_mean)
        self.head.depth_std.copy_(seen.depth_std)

    def normalise(self, features: Tensor) -> Tensor:
        return (features.float() - self.mean[:, None, None]) / self.std[:, None, None]

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 192, L, L) -> what `KeypointHead` gives."""
        return self.head(self.encoder(self.normalise(features)))


def option_heads(option: Option, task: Task, windows: Windows, config: TrainConfig) -> Heads:
    """Fresh weights; windows give the statistics."""
    heads = make_heads(task, windows, config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed + 1)
        if option.reader == "direct":
            heads.keypoint = DirectHead(heads.keypoint, heads.config.width)  # type: ignore[assignment]
        elif option.reader == "pixels":
            heads.keypoint = PixelHead(heads.keypoint, heads.config)  # type: ignore[assignment]
    if not option.window:
        heads.refine.requires_grad_(False)  # untrained it corrects nothing
        for name in ("action", "outcome", "hidden"):
            if getattr(heads, name) is not None:
                setattr(heads, name, Pairs(getattr(heads, name)))
    return heads


def read_task(option: Option, task: Task, windows: Windows) -> Task:
    """The task as a decoder of the option knows it; windows: those that it is trained on."""
    if option.reader == "direct":
        return DirectTask.of(task, windows)
    return task if option.fit else replace(task, pose=())


def shown(task: Task, windows: Windows) -> Windows:
    """As the task has its keypoints."""
    return task.shown(windows) if isinstance(task, DirectTask) else windows


class Phase(Protocol):
    def loss(self, rng: np.random.Generator, batch: int) -> Tensor:
        """Of one batch."""


def option_decoder(
    option: Option, task: Task, generator: Generator, lessons: list[Lesson], config: TrainConfig
) -> Decoder:
    """lessons: the task's own, then those of others. A decoder whose task may be a DirectTask."""
    own = read_task(option, task, lessons[0].clean)
    kinds = [[shown(own, kind) for kind in (lesson.clean, lesson.noisy)] for lesson in lessons]
    clean = [pair[0] for pair in kinds]
    heads = option_heads(option, own, joined(clean) if len(clean) > 1 else clean[0], config)
    still, moved = [windows for pair in kinds for windows in pair], [lesson.moved for lesson in lessons]
    direct = isinstance(own, DirectTask)
    locate: Phase = DirectPhase(own, still, heads) if direct else KeypointPhase(own, [still, moved], heads)
    located = list(heads.keypoint.parameters())
    others = [p for name, p in heads.named_parameters() if not name.startswith("keypoint.") and p.requires_grad]
    descend(located, lambda rng, _: locate.loss(rng, config.batch), config.steps, config, 0)
    fit = fit_of(own, heads)
    behave = [BehaviourPhase(own, pair, heads, fit) for pair in kinds]

    def behaved(rng: np.random.Generator, step: int) -> Tensor:
        return behave[step % len(behave)].loss(rng, 2 * config.batch, config.jitter)

    descend(others, behaved, config.head_steps, config, config.steps)
    choose_threshold(heads, behave, config)
    return Decoder(own, generator, heads, (generator.k,))


def descend(
    parameters: list[nn.Parameter],
    loss: Callable[[np.random.Generator, int], Tensor],
    steps: int,
    config: TrainConfig,
    before: int,
) -> None:
    """`steps` steps of AdamW on one phase; before: steps that were made in phases before it."""
    lr = config.lr if before == 0 else config.lr / 2
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=1e-2)
    for step in tqdm(range(steps), desc="decoder", unit="step"):
        for group in optimizer.param_groups:
            group["lr"] = lr * schedule(step / steps)
        value = loss(np.random.default_rng([config.seed, before + step]), before + step)
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
