"""Pictures of the best, the median and the worst that was imagined, above what really followed."""

from pathlib import Path

import numpy as np
from safetensors.torch import load_file

from benchmarks.imagine_config import Benchmark
from benchmarks.imagine_grids import pictures, see
from benchmarks.imagine_tuning import reader
from pixeltraj.grid import Grid
from pixeltraj.picture import draw
from pixeltraj.store import Store
from pixeltraj.trajectory import Trajectory


def draw_extremes(config: Benchmark, task: str, folder: Path) -> list[Path]:
    """TASK-kK-{best,median,worst}.png for every measured k, from the grids whose errors were measured. Ranked by the
    mean of the hand's and the object's error in the last tile."""
    store, decoder = Store.open(config.store(task)), reader(config, task)
    drawn = []
    for k in config.measured_lengths(task):
        kept = load_file(config.arrays(f"{task}-{k}"))
        rows = np.repeat(kept["rows"].numpy(), config.effort.samples, axis=0)
        order = ((kept["hand"] + kept["object"]) / 2).argsort().numpy()
        for name, which in (("best", order[0]), ("median", order[len(order) // 2]), ("worst", order[-1])):
            grid, window = kept["grids"][which : which + 1].float(), rows[which]
            reading = see(store, decoder, grid, window[:1]).readings[0]
            real = really(store, window)
            tiles = pictures(decoder.generator, Grid(k).split(grid)[0, 1:])
            assert real.frames is not None
            imagined = Trajectory(
                states=reading.states[0],
                actions=reading.actions[0],
                rewards=reading.rewards[0],
                terminations=reading.terminations[0],
                truncations=np.zeros(k - 1, dtype=bool),
                keypoints=reading.keypoints[0],
                frames=np.concatenate([real.frames[:1], tiles]),
            )
            path = folder / f"{task}-k{k}-{name}.png"
            draw([imagined], [real], store.task, path)
            drawn.append(path)
    return drawn


def really(store: Store, window: np.ndarray) -> Trajectory:
    """What followed, window (K,): past the end of an episode its last frame again and again."""
    rows, steps = window[None], window[None, :-1]
    moved = np.diff(window) > 0
    return Trajectory(
        **{name: store.windows(name, rows)[0] for name in ("states", "keypoints", "frames")},
        **{name: store.windows(name, steps)[0] for name in ("actions", "truncations")},
        rewards=store.windows("rewards", steps)[0] * moved,
        terminations=store.windows("terminations", steps)[0] & moved,
    )
