"""Measurement: what a decoder misreads on windows that nothing was trained on."""

from dataclasses import fields
from typing import Any

import numpy as np

from pixeltraj.decode.decoder import Decoder, Reading
from pixeltraj.decode.features import Windows
from pixeltraj.task import Task


def measure(decoder: Decoder, windows: Windows, span: np.ndarray) -> dict[str, Any]:
    """`errors` of what the decoder reads in windows that nothing was trained on."""
    return errors(decoder.task, read_windows(decoder, windows), windows, span)


def read_windows(decoder: Decoder, windows: Windows) -> Reading:
    """What the decoder reads in all of them."""
    parts = np.array_split(np.arange(len(windows)), max(1, len(windows) // 32))
    read = [decoder.read(windows.features[rows], windows.states[rows, 0]) for rows in parts]
    return Reading(**{one.name: np.concatenate([getattr(part, one.name) for part in read]) for one in fields(Reading)})


def errors(task: Task, reading: Reading, windows: Windows, span: np.ndarray) -> dict[str, Any]:
    """Where a reading of some windows is wrong, over frames 1.. (frame 0 is known) without padding.

    span (S,): range of each dimension over the training frames.
    """
    states, keypoints, actions, rewards = reading.states, reading.keypoints, reading.actions, reading.rewards
    over, uncertainty, real = reading.terminations, reading.uncertainty, windows.real
    wrong = np.abs(states - windows.states)[:, 1:][real].mean(axis=0)
    moving = np.abs(windows.states[:, 1:] - windows.states[:, :1])[real].mean(axis=0)
    apart = (keypoints - windows.keypoints)[:, 1:][real]
    missed, stated = np.linalg.norm(apart, axis=-1), uncertainty[:, 1:][real]
    truth = windows.actions[real]
    metrics: dict[str, Any] = {
        "windows": len(windows),
        "state": {
            d.name: {
                "unit": d.unit,
                "error": float(wrong[i]),
                "percent_of_range": float(100 * wrong[i] / span[i]) if span[i] > 0 else None,
                "error_if_nothing_moved": float(moving[i]),
            }
            for i, d in enumerate(task.state)
        },
        "keypoint_mm": {k.name: float(1000 * missed[:, i].mean()) for i, k in enumerate(task.keypoints)},
        "uncertainty": calibration(stated, np.sqrt(np.square(apart).mean(axis=(1, 2)))),
        "action_r2": r2(actions[real], truth),
        "action_error": [float(value) for value in np.abs(actions[real] - truth).mean(axis=0)],
        "termination": detection(over[real], windows.terminations[real]),
    }
    if task.reward == "sparse":
        metrics["reward"] = detection(rewards[real] > 0.5, windows.rewards[real] > 0.5)
    else:
        gap = rewards[real] - windows.rewards[real]
        metrics["reward"] = {
            "error": float(np.abs(gap).mean()),
            "r2": float(1 - (gap**2).mean() / max(windows.rewards[real].var(), 1e-9)),
        }
    return metrics


def r2(told: np.ndarray, truth: np.ndarray) -> list[float]:
    """Share of the variance that is told of each column of (n, A)."""
    spread = np.maximum(((truth - truth.mean(axis=0)) ** 2).mean(axis=0), 1e-9)
    return [float(value) for value in 1 - ((told - truth) ** 2).mean(axis=0) / spread]


def detection(read: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Precision and recall of bools; None where there is nothing to count."""
    hits = int((read & truth).sum())
    return {
        "positives": int(truth.sum()),
        "read": int(read.sum()),
        "precision": hits / int(read.sum()) if read.any() else None,
        "recall": hits / int(truth.sum()) if truth.any() else None,
    }


def calibration(stated: np.ndarray, missed: np.ndarray) -> dict[str, float]:
    """Uncertainty (n,) that was stated and errors (n,) that were made, both root mean square along an axis in metres:
    how far they agree on the whole, and whether the frames of which little was claimed are those misread (Spearman's
    rank correlation)."""
    ranks = [np.argsort(np.argsort(values)).astype(np.float64) for values in (stated, missed)]
    return {
        "stated_mm": float(1000 * np.sqrt(np.square(stated).mean())),
        "missed_mm": float(1000 * np.sqrt(np.square(missed).mean())),
        "rank_correlation": float(np.corrcoef(ranks[0], ranks[1])[0, 1]) if min(np.ptp(r) for r in ranks) > 0 else 0.0,
    }
