"""Dynamics: what is imagined against the simulator, fed the decoded actions.

Beside imagined trajectories stand the real ones of the same starts, read from their own frames by the same decoder:
their error is what reading alone costs.
"""

from typing import Any

import numpy as np
import torch

from benchmarks.imagine_config import Benchmark
from benchmarks.imagine_grids import real_grids
from benchmarks.imagine_tuning import reader
from pixeltraj.decode.audit import one_step, open_loop
from pixeltraj.decode.decoder import Decoder
from pixeltraj.decode.yardstick import span_of
from pixeltraj.imaginer import Imaginer, Start
from pixeltraj.latents import store_latents
from pixeltraj.store import Store
from pixeltraj.task import Task
from pixeltraj.trajectory import Trajectory
from pixeltraj.windows import store_windows

FEWER_LONG = 3
"""One-step errors of so many times fewer trajectories are measured where k is above 10: they are that much longer."""


def starts(store: Store, k: int, count: int, seed: int) -> np.ndarray:
    """(M, K) rows: up to `count` windows of held-out episodes, drawn without replacement."""
    rows = store_windows(store, k, store.split()[1])
    return rows[np.sort(np.random.default_rng(seed).permutation(len(rows))[:count])]


def imagined(config: Benchmark, store: Store, decoder: Decoder, rows: np.ndarray) -> list[Trajectory]:
    """One trajectory from the first frame of each window (M, K), as `pixeltraj imagine` makes them."""
    imaginer = Imaginer(decoder.generator.at(rows.shape[1]), decoder, config.effort.num_inference_steps)
    first = rows[:, :1]
    states, frames = store.windows("states", first)[:, 0], store.windows("frames", first)[:, 0]
    rng = torch.Generator().manual_seed(config.effort.seed)
    return imaginer.imagine([Start(state, frame) for state, frame in zip(states, frames)], rng)


def really(store: Store, decoder: Decoder, rows: np.ndarray) -> list[Trajectory]:
    """The same windows (M, K), read from their real frames."""
    grids = real_grids(store, decoder.generator, rows)
    first = store_latents(store, decoder.generator.base)[torch.from_numpy(rows[:, 0])].float()
    return decoder.decode(grids, first, [store.task.prompt] * len(rows), store.windows("states", rows[:, :1])[:, 0])


def dynamics(config: Benchmark, task: str) -> dict[str, Any]:
    store, decoder = Store.open(config.store(task)), reader(config, task)
    measured = {"one_step": one_step_errors(config, store, decoder)}
    return measured | (angles(config, store, decoder) if task in config.runners else {})


def one_step_errors(config: Benchmark, store: Store, decoder: Decoder) -> dict[str, Any]:
    """One-step errors in percent of each dimension's range, imagined over real, for every measured k."""
    ranges, simulator, measured = span_of(store), store.task.make(), {}
    for k in decoder.lengths:
        count = config.effort.audited if k <= 10 else -(-config.effort.audited // FEWER_LONG)
        rows = starts(store, k, count, config.effort.seed)
        near = list(store.windows("snapshots", rows[:, :1])[:, 0])
        errors = {}
        for name, trajectories in (
            ("imagined", imagined(config, store, decoder, rows)),
            ("real", really(store, decoder, rows)),
        ):
            rng = np.random.default_rng(config.effort.seed)
            checked = one_step(simulator, trajectories, near, ranges, rng)
            errors[name] = {key: checked[key]["percent_of_range"] for key in ("error", "nothing_moves")}
            errors[name]["transitions"] = checked["transitions"]
        ratio = errors["imagined"]["error"] / max(errors["real"]["error"], 1e-9)
        measured[f"k{k}"] = {"ratio": ratio, "percent_of_range": errors}
    return measured


def angles(config: Benchmark, store: Store, decoder: Decoder) -> dict[str, Any]:
    """Mean absolute error of the joint angles, rad, over all steps of every measured k: the simulator is restored to
    the start's snapshot and fed the decoded actions."""
    ranges, simulator, measured = span_of(store), store.task.make(), {}
    for k in decoder.lengths:
        rows = starts(store, k, config.effort.starts, config.effort.seed)
        near = list(store.windows("snapshots", rows[:, :1])[:, 0])
        found: dict[str, float] = {}
        for name, trajectories in (
            ("imagined", imagined(config, store, decoder, rows)),
            ("real_frames", really(store, decoder, rows)),
        ):
            rng = np.random.default_rng(config.effort.seed)
            rolled = open_loop(simulator, trajectories, near, ranges, rng)["steps"]
            found[name] = mean_angle(store.task, rolled, "error")
            if name == "imagined":
                found["nothing_moves"] = mean_angle(store.task, rolled, "nothing_moves")
                found["last_step"] = mean_angle(store.task, rolled[-1:], "error")
        measured[f"k{k}"] = {"angle_rad": found.pop("imagined"), **found, "trajectories": len(rows)}
    return {"angle_rad": max(row["angle_rad"] for row in measured.values()), "by_k": measured}


def mean_angle(task: Task, rolled: list[dict[str, Any]], which: str) -> float:
    """Of what `open_loop` gives for each step, over all dimensions in rad, weighted by trajectories."""
    names = [d.name for d in task.state if d.unit == "rad"]
    means = [np.mean([step[which]["dimensions"][name]["mean"] for name in names]) for step in rolled]
    return float(np.average(means, weights=[step["trajectories"] for step in rolled]))
