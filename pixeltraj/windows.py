"""Windows: k consecutive frames of an episode, with redundant padding (ATraDiff, section 4.2)."""

import numpy as np

from pixeltraj.column import CHUNK
from pixeltraj.errors import PixeltrajError
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
    """(W, k) rows of the store: all windows of the given episodes, in order.

    Padded are episodes that came to an end. One that was only cut off would have gone on: its windows end with it,
    or imagination would learn to stand still anywhere. (The paper pads all.)
    """
    windows = []
    for episode in episodes:
        start, stop = int(store.offsets[episode]), int(store.offsets[episode + 1])
        rows = padded_windows(stop - start, k)
        ended = bool(store.read("terminations", start, stop)[:-1].any())
        windows.append(start + (rows if ended else rows[: max(0, stop - start - k + 1)]))
    return np.concatenate(windows) if windows else np.empty((0, k), dtype=np.int64)


def require_windows(store: Store, lengths: tuple[int, ...]) -> None:
    """Raise PixeltrajError unless there are windows of each length to train on, and held out ones."""
    for k in lengths:
        for episodes, what in zip(store.split(), ("train on", "measure with")):
            if not len(store_windows(store, k, episodes)):
                raise PixeltrajError(
                    f"{store.path} has no window of {k} frames to {what}: its episodes were cut off before they had as "
                    f"many; collect longer ones (--max-steps) or leave out --k {k}"
                )


def pooled(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(W,) a random order of windows (W, K) in which those of a few chunks stand together.

    Eight random runs of four neighbouring chunks make a pool, in which the order is random: about 1,900 windows
    from eight places of the store. Read in this order with `Store.windows`, a whole store is decoded about once,
    where single windows in an entirely random order cost a chunk each.
    """
    runs = rows[:, 0] // (CHUNK * _RUN)
    rank = rng.permutation(int(runs.max(initial=0)) + 1)
    return np.lexsort((rng.random(len(rows)), rank[runs] // _POOL))
