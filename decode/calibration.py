"""Calibration of a decoder on episodes that it was not trained on: how sure it may be, and what counts as an end."""

from dataclasses import fields
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from pixeltraj.decode.decoder import Decoder, Reading
from pixeltraj.decode.features import Windows
from pixeltraj.decode.heads import Heads
from pixeltraj.decode.measurement import read_windows

PRECISION = 0.98
"""Of the ends that are read, the share that should be ends."""
Part = list[tuple[Windows, Reading]]
"""Windows of some episodes, for each k, and what was read in them."""
T = TypeVar("T", Windows, Reading)


def calibrate(decoder: Decoder, halves: list[list[Windows]]) -> list[tuple[Windows, Reading]]:
    """Calibrate a decoder on the windows of two halves of the held-out episodes, for each k one.

    Returns, for each k, all of them and what is read in them when each half is read by what the other one taught:
    what is measured was not calibrated on. With no second half nothing is learned.
    """
    heads, trained = decoder.heads, decoder.heads.threshold.clone()
    before: list[Part] = [[(windows, read_windows(decoder, windows)) for windows in half] for half in halves]
    after: list[Part] = []
    for i, half in enumerate(halves):
        _learn(heads, trained, [pair for j, part in enumerate(before) if j != i for pair in part])
        after.append([(windows, read_windows(decoder, windows)) for windows in half])
    if len(halves) > 1:
        _learn(heads, trained, [pair for part in before for pair in part])
    return [(joined([w for w, _ in parts]), joined([r for _, r in parts])) for parts in zip(*after)]


def _learn(heads: Heads, trained: Tensor, part: Part) -> None:
    """trained: the threshold that the training windows ask for."""
    if not part:
        return
    real = [windows.real for windows, _ in part]
    apart = [np.square(r.keypoints - w.keypoints).mean(axis=(-2, -1))[:, 1:][m] for (w, r), m in zip(part, real)]
    stated = [np.square(reading.uncertainty[:, 1:][m]) for (_, reading), m in zip(part, real)]
    likeliest = np.mean(np.concatenate(apart) / np.concatenate(stated).clip(min=1e-12))  # if errors are Gaussian
    heads.doubt.fill_(float(np.sqrt(likeliest)))
    logits = torch.from_numpy(np.concatenate([reading.ends[m] for (_, reading), m in zip(part, real)]))
    truth = torch.from_numpy(np.concatenate([windows.terminations[m] for (windows, _), m in zip(part, real)]))
    heads.threshold.copy_(torch.maximum(trained, lowest_precise(logits, truth.float())))


def lowest_precise(logits: Tensor, truth: Tensor) -> Tensor:
    """The lowest of logits (n,) down to which PRECISION of the transitions are ends (truth: 0 or 1); the first that is
    not is forgiven, or a few ends could never be precise. -inf where there is no end to choose by."""
    if not bool(truth.any()):
        return torch.tensor(float("-inf"))
    order = logits.sort(descending=True)
    wrong = (1.0 - truth[order.indices]).cumsum(0)
    allowed = ((1 - PRECISION) * torch.arange(1, len(wrong) + 1)).clamp(min=1.0)
    return order.values[: int((wrong <= allowed).nonzero().max()) + 1].min()


def joined(parts: list[T]) -> T:
    """One behind the other."""
    columns: dict[str, Any] = {}
    for field in fields(parts[0]):
        values = [getattr(part, field.name) for part in parts]
        columns[field.name] = torch.cat(values) if isinstance(values[0], Tensor) else np.concatenate(values)
    return type(parts[0])(**columns)
