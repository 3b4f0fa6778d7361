"""Windows: k consecutive frames of an episode, with redundant padding (ATraDiff, section 4.2)."""

import numpy as np

from pixeltraj.store import Store


def padded_windows(frames: int, k: int) -> np.ndarray:
    """(frames, k) indices into an episode of that many frames.

    The episode gets k more copies of its last frame; one window starts at each of its frames, so those that
    start near the end close with identical frames.
    """
    return np.minimum(np.arange(frames)[:, None] + np.arange(k), frames - 1)


def store_windows(store: Store, k: int, episodes: list[int]) -> np.ndarray:
    """(W, k) rows of the store: all padded windows of the given episodes, in order."""
    starts = [int(store.offsets[e]) for e in episodes]
    return np.concatenate(
        [start + padded_windows(store.episodes[e]["frames"], k) for start, e in zip(starts, episodes)]
    )
