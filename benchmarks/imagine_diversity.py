"""Diversity: how far apart the futures of one start are, and whether they are copies of what was trained on.

Beside imagined futures stand real ones: the demonstrator, with the noise that it was recorded with, sets out several
times from the very same simulator state.
"""

from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.imagine_config import Benchmark
from benchmarks.imagine_errors import windows
from benchmarks.imagine_grids import imagined_grids, place, real_grids, see
from benchmarks.imagine_tuning import reader
from pixeltraj.decode.decoder import Decoder
from pixeltraj.store import Store
from pixeltraj.task import Task
from pixeltraj.windows import store_windows

APART = 2.0
"""Pixels by which the hands or the objects of two futures have to differ at the end, if these are to be distinct."""
NOISE = 0.1
"""On the demonstrator's actions, as in the store."""


def diversity(config: Benchmark, task: str) -> dict[str, Any]:
    """For every measured k."""
    store, decoder = Store.open(config.store(task)), reader(config, task)
    return {f"k{k}": futures(config, store, decoder, k) for k in config.measured_lengths(task)}


def futures(config: Benchmark, store: Store, decoder: Decoder, k: int) -> dict[str, Any]:
    effort = config.effort
    every = windows(config, store, k)
    rows = every[:: max(1, len(every) // effort.diverse_starts)][: effort.diverse_starts]
    samples = effort.diverse_samples
    grids = imagined_grids(store, decoder.generator, rows, samples, effort.num_inference_steps, effort.seed + 1)
    seen = see(store, decoder, grids, np.repeat(rows[:, 0], samples))
    ours = seen.corrected[:, -1].reshape(len(rows), samples, -1, 2)
    return {
        "imagined": spread(store, ours),
        "real": spread(store, real_futures(store, rows, samples, effort.seed)),
        "starts": len(rows),
        "samples": samples,
        "copying": copying(store, decoder, every, seen.states),
    }


def spread(store: Store, ends: np.ndarray) -> dict[str, float]:
    """ends (M, S, N, 2): where the keypoints are at the end of S futures of M starts."""
    picked = ends[:, :, [place(store, name) for name in ("hand", "object")]]
    apart = np.linalg.norm(picked[:, :, None] - picked[:, None], axis=-1)  # (M, S, S, 2)
    first, second = np.triu_indices(ends.shape[1], 1)
    pairs = apart[:, first, second]
    return {
        "hand_px": float(pairs[..., 0].mean()),
        "object_px": float(pairs[..., 1].mean()),
        "distinct_pairs": float((pairs > APART).any(axis=-1).mean()),
    }


def real_futures(store: Store, rows: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """(M, K) rows -> (M, S, N, 2) pixels at the end of what the noisy demonstrator does from the first of them; where
    it is done earlier, things stay where they are."""
    simulator, rng = store.task.make(), np.random.default_rng(seed)
    simulator.reset(seed=0)
    ends = []
    for row in tqdm(rows, desc="real futures", unit="start"):
        snapshot = store.read("snapshots", int(row[0]), int(row[0]) + 1)[0]
        for _ in range(samples):
            simulator.restore(snapshot)
            for _ in range(len(row) - 1):
                action = simulator.scripted_action()
                assert action is not None
                noise = NOISE * rng.standard_normal(len(action))
                if simulator.step(np.clip(action + noise, -1, 1))[2]:
                    break
            ends.append(store.task.camera.project(simulator.keypoints())[:, :2])
    return np.array(ends).reshape(len(rows), samples, *ends[0].shape)


def copying(store: Store, decoder: Decoder, rows: np.ndarray, states: np.ndarray) -> dict[str, float]:
    """How far imagined windows (B, K, S) are from the nearest training window, and real held-out ones, rows (M, K),
    from theirs, both as the decoder reads them: medians of the root mean square over what moves, in standard
    deviations. A ratio of 1 is as new as reality is; one far below 1 would be copying."""
    k, index = rows.shape[1], told(store.task)
    training = store.windows("states", store_windows(store, k, store.split()[0]))[..., index]
    scale = training.reshape(-1, len(index)).std(axis=0).clip(min=1e-3)
    real = see(store, decoder, real_grids(store, decoder.generator, rows), rows[:, 0]).states
    imagined, truly = (np.median(nearest(part[..., index] / scale, training / scale)) for part in (states, real))
    return {"imagined": float(imagined), "real": float(truly), "ratio": float(imagined / max(truly, 1e-9))}


def told(task: Task) -> list[int]:
    """Dimensions that are read from the picture of that very moment and can change."""
    left_out = (*task.static, *task.hidden)
    return [i for i, d in enumerate(task.state) if d.name not in left_out and not d.name.startswith("previous_")]


def nearest(some: np.ndarray, training: np.ndarray) -> np.ndarray:
    """(B, K, D) and (W, K, D) -> (B,) root mean square distance to the nearest of the latter."""
    flat, others = (torch.from_numpy(part.reshape(len(part), -1).astype(np.float64)) for part in (some, training))
    return torch.cdist(flat, others).min(dim=1).values.numpy() / np.sqrt(flat.shape[1])
