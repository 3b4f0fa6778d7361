"""Windows: k consecutive frames of an episode, with redundant padding (ATraDiff, section 4.2)."""

import numpy as np

from pixeltraj.column import CHUNK
from pixeltraj.store import Store

_RUN = 4
_POOL = 8


def padded_windows(frames: int, k: int) -> np.ndarray:
    """(frames, k) indices into an episode of that many frames.

    The episode gets k more copies of its last frame; one window starts at each of its frames, so those that
    start near the end close with identical frames.
    """
    return np.minimum(np.arange(frames)[:, None] + np.arange(k), frames - 1)


def store_windows(store: Store, k: int, episodes: list[int]) -> np.ndarray:
    """(W, k) rows of the store: all padded windows of the given episodes, in order."""
    bounds = [(int(store.offsets[e]), int(store.offsets[e + 1])) for e in episodes]
    return np.concatenate([start + padded_windows(stop - start, k) for start, stop in bounds])


def pooled(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(W,) a random order of windows (W, K) in which those of a few chunks stand together.

    Eight random runs of four neighbouring chunks make a pool, in which the order is random: about 1,900 windows
    from eight places of the store. Read in this order with `Store.windows`, a whole store is decoded about once,
    where single windows in an entirely random order cost a chunk each.
    """
    runs = rows[:, 0] // (CHUNK * _RUN)
    rank = rng.permutation(int(runs.max(initial=0)) + 1)
    return np.lexsort((rng.random(len(rows)), rank[runs] // _POOL))
