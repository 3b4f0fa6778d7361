"""Errors: where hand, object and goal are in imagined frames, against where the simulator really had them.

From the first frames of held-out windows in which the object moves, `samples` futures are imagined each. Errors are
distances in pixels between where a thing is read and where the simulator's keypoint projects to, in the last tile of
the grid: `goal_ok` the share of all futures with the goal within 2 px; `object_px` the median over all futures;
`hand_px_best` and `hand_px_mean` the median over the windows of the best and of the mean of its futures.

Three readers are tried on the real frames of the same windows, through the same VAE: the decoder (object and hand as
imagination gives them; the goal from each tile alone, because the decoder would take it from the start), and for
object and goal the heaviest blob of their colours in the frame, or about where the decoder sees them. The most exact
one reads.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.imagine_config import Benchmark
from benchmarks.imagine_grids import (
    THINGS,
    fit_blobs,
    imagined_grids,
    moving_windows,
    pictures,
    place,
    real_grids,
    see,
    true_pixels,
)
from benchmarks.imagine_tuning import generator, reader
from pixeltraj.decode.decoder import Decoder
from pixeltraj.files import write_whole
from pixeltraj.grid import Grid
from pixeltraj.store import Store

LEAST = 2.0
"""Pixels by which the object has to move within a window that counts."""
CLOSE = 2.0
"""Pixels within which the goal counts as kept."""
CAP = 10.0
"""Pixels: a thing that is missed by more is missed."""
RESAMPLED = 1000
"""Draws of windows with replacement, for intervals."""


def windows(config: Benchmark, store: Store, k: int) -> np.ndarray:
    """(M, K) rows from which imagination is measured."""
    count = config.effort.starts if k <= 5 else config.effort.starts // 2
    return moving_windows(store, k, count, LEAST, config.effort.seed)


Kind = Literal["decoder", "blobs", "blobs near the decoder's"]
BLOBS: tuple[Kind, ...] = ("blobs", "blobs near the decoder's")


class Reader:
    """Grids -> errors in pixels. Chooses, for object and goal, what reads real frames best."""

    def __init__(self, store: Store, decoder: Decoder, rows: np.ndarray) -> None:
        """rows (M, K): the windows on whose real frames the readers are compared."""
        self.store, self.decoder = store, decoder
        self.blobs = fit_blobs(store, decoder.generator, ("object", "goal"))
        grids = real_grids(store, decoder.generator, rows)
        self.real_frames = self.decoded(grids, rows)
        """(M, K) what the decoder misses on the real frames."""
        self.real = {name: errors[:, -1] for name, errors in self.real_frames.items()}
        """(M,) what the best reader misses in their last tiles."""
        self.compared = {name: {"decoder": trust(errors)} for name, errors in self.real.items()}
        self.chosen: dict[str, Kind] = dict.fromkeys(THINGS, "decoder")
        for (name, kind), errors in self._by_blobs(grids, rows, [(n, k) for n in self.blobs for k in BLOBS]).items():
            self.compared[name][kind] = trust(errors)
            if self.compared[name][kind] < self.compared[name][self.chosen[name]]:
                self.chosen[name], self.real[name] = kind, errors

    def decoded(self, grids: Tensor, rows: np.ndarray) -> dict[str, np.ndarray]:
        """grids (B, 4, h, w) and the windows (B, K) that they ought to show -> (B, K) pixels that the decoder misses
        each thing by."""
        seen, truth = see(self.store, self.decoder, grids, rows[:, 0]), true_pixels(self.store, rows)
        read = {name: seen.raw if name == "goal" else seen.corrected for name in THINGS}
        at = {name: place(self.store, name) for name in THINGS}
        return {name: np.linalg.norm((read[name] - truth)[:, :, at[name]], axis=-1) for name in THINGS}

    def last(self, grids: Tensor, rows: np.ndarray) -> dict[str, np.ndarray]:
        """(B,) pixels that each thing is missed by in the last tiles, by the best reader."""
        return self.best(grids, rows, self.decoded(grids, rows))

    def best(self, grids: Tensor, rows: np.ndarray, decoded: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """`last`, where what the decoder misses is known already."""
        wanted = [(name, kind) for name, kind in self.chosen.items() if kind != "decoder"]
        blobs = self._by_blobs(grids, rows, wanted)
        return {name: blobs.get((name, kind), decoded[name][:, -1]) for name, kind in self.chosen.items()}

    def _by_blobs(
        self, grids: Tensor, rows: np.ndarray, wanted: Sequence[tuple[str, Kind]]
    ) -> dict[tuple[str, Kind], np.ndarray]:
        """(B,) pixels in the last tiles, for each thing and kind of reader that is wanted."""
        if not wanted:
            return {}
        frames = pictures(self.decoder.generator, Grid(rows.shape[1]).split(grids)[:, -1])
        truth, errors = true_pixels(self.store, rows[:, -1:])[:, 0], {}
        guesses = see(self.store, self.decoder, grids, rows[:, 0]).raw[:, -1]
        for name, kind in wanted:
            at = place(self.store, name)
            read = self.blobs[name].read(frames, None if kind == "blobs" else guesses[:, at])
            errors[name, kind] = np.linalg.norm(read - truth[:, at], axis=-1)
        return errors


def trust(errors: np.ndarray) -> float:
    """By which readers are compared: the mean error, of which none counts more than CAP."""
    return float(np.minimum(errors, CAP).mean())


Errors = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Of hand, object and goal, (M, S) pixels each."""


def figures(hand: np.ndarray, thing: np.ndarray, goal: np.ndarray) -> dict[str, float]:
    """Errors (M, S) in pixels -> what the issue asks for."""
    return {
        "goal_ok": float((goal <= CLOSE).mean()),
        "object_px": float(np.median(thing)),
        "hand_px_best": float(np.median(hand.min(axis=1))),
        "hand_px_mean": float(np.median(hand.mean(axis=1))),
    }


def shaped(errors: dict[str, np.ndarray], samples: int) -> Errors:
    """(M S,) of each thing -> (M, S)."""
    hand, thing, goal = (errors[name].reshape(-1, samples) for name in THINGS)
    return hand, thing, goal


def pixel_errors(config: Benchmark, task: str, k: int) -> dict[str, Any]:
    """Of the LoRA of all lengths. Keeps the imagined grids and their errors in arrays/TASK-K."""
    effort, store = config.effort, Store.open(config.store(task))
    rows = windows(config, store, k)
    read = Reader(store, reader(config, task), rows)
    grids = imagined_grids(store, read.decoder.generator, rows, effort.samples, effort.num_inference_steps, effort.seed)
    repeated = np.repeat(rows, effort.samples, axis=0)
    decoded = read.decoded(grids, repeated)
    errors = read.best(grids, repeated, decoded)
    truth = true_pixels(store, rows)
    still = np.linalg.norm(truth[:, -1] - truth[:, 0], axis=-1)  # what is missed if nothing moves
    tensors = {"grids": grids.half(), "rows": torch.from_numpy(rows)}
    tensors |= {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in errors.items()}
    write_whole(config.arrays(f"{task}-{k}"), lambda beside: save_file(tensors, beside))
    return {
        **figures(*shaped(errors, effort.samples)),
        "real_frames": figures(*shaped(read.real, 1)),
        "nothing_moves": figures(*shaped({name: still[:, place(store, name)] for name in THINGS}, 1)),
        "reader": read.chosen,
        "readers_on_real_frames_capped_mean_px": read.compared,
        "windows": len(rows),
        "samples": effort.samples,
        "decoder_px_by_frame": {
            name: {
                "imagined": np.median(decoded[name], axis=0).tolist(),
                "real_frames": np.median(read.real_frames[name], axis=0).tolist(),
            }
            for name in THINGS
        },
    }


def one_for_all(config: Benchmark, task: str) -> dict[str, Any]:
    """The LoRA of all lengths, whose errors `pixel_errors` has kept, against one for each length alone, trained for as
    many steps; the same windows, noise and readers."""
    effort, store = config.effort, Store.open(config.store(task))
    decoder = reader(config, task)
    metrics: dict[str, Any] = {}
    for k in config.measured_lengths(task):
        rows = windows(config, store, k)
        read = Reader(store, decoder, rows)
        made = generator(config, task, str(k))
        grids = imagined_grids(store, made, rows, effort.samples, effort.num_inference_steps, effort.seed)
        alone = shaped(read.last(grids, np.repeat(rows, effort.samples, axis=0)), effort.samples)
        kept = load_file(config.arrays(f"{task}-{k}"))
        one = shaped({name: kept[name].numpy() for name in THINGS}, effort.samples)
        metrics |= {f"k{k}.{name}": row for name, row in compared(one, alone, effort.seed).items()}
    return {"worst_pct": max(row["excess_pct"] for row in metrics.values()), "metrics": metrics}


def compared(one: Errors, alone: Errors, seed: int) -> dict[str, dict[str, float]]:
    """How much worse `one` is, in percent of what `alone` reaches, with a 90 % interval over windows drawn again."""
    draws = np.random.default_rng(seed).integers(len(one[0]), size=(RESAMPLED, len(one[0])))
    again = [excess(tuple(e[d] for e in one), tuple(e[d] for e in alone)) for d in draws]
    ours, theirs = figures(*one), figures(*alone)
    return {
        name: {
            "all_lengths": ours[name],
            "alone": theirs[name],
            "excess_pct": value,
            "low_pct": float(np.percentile([row[name] for row in again], 5)),
            "high_pct": float(np.percentile([row[name] for row in again], 95)),
        }
        for name, value in excess(one, alone).items()
    }


def excess(one: tuple[np.ndarray, ...], alone: tuple[np.ndarray, ...]) -> dict[str, float]:
    """In percent; positive is worse."""
    ours, theirs = figures(*one), figures(*alone)
    signs = {name: -1.0 if name == "goal_ok" else 1.0 for name in ours}
    return {name: signs[name] * 100 * (ours[name] - theirs[name]) / max(theirs[name], 1e-6) for name in ours}
