"""Transitions: a ring of them in arrays, one part of a replay buffer."""

import numpy as np

from pixeltraj.errors import PixeltrajError


class Transitions:
    """The newest `capacity` of those appended, but for those that were dropped before."""

    def __init__(self, capacity: int, state_size: int, action_size: int) -> None:
        self.capacity = capacity
        # Zeros, because the operating system hands them out only as they are written.
        self.columns = {
            "states": np.zeros((capacity, state_size), np.float32),
            "actions": np.zeros((capacity, action_size), np.float32),
            "rewards": np.zeros(capacity, np.float32),
            "next_states": np.zeros((capacity, state_size), np.float32),
            "terminations": np.zeros(capacity, bool),
        }
        self.appended = 0
        """Transitions so far, the dropped ones included."""
        self.dropped = 0
        """Of the first, how many are not drawn any more although there is room for them."""
        self.weights: np.ndarray | None = None
        """(capacity,) float32; None until the first are appended, then 1 for those without."""
        self.priorities: np.ndarray | None = None
        """(capacity,) float32; None until the first are told, then for new ones the greatest that there is."""
        self._summed: np.ndarray | None = None
        self._even = 0.0
        """What all rows weigh together without priorities, when they were summed."""

    def __len__(self) -> int:
        """Those that can be drawn."""
        return self.appended - max(self.dropped, self.appended - self.capacity)

    @property
    def filled(self) -> int:
        """Rows of the arrays that hold something."""
        return min(self.appended, self.capacity)

    def rows_at(self, places: np.ndarray) -> np.ndarray:
        """places (B,) in [0, 1) -> (B,) rows: uniform places give rows in proportion to their weights and
        priorities."""
        if self.weights is None and self.priorities is None:
            oldest = self.appended - len(self)
            return (oldest + (places * len(self)).astype(np.int64)) % self.capacity
        summed = self._sums()
        rows = np.searchsorted(summed, places * summed[-1], side="right")
        return np.minimum(rows, self.filled - 1)

    def excess(self, rows: np.ndarray) -> np.ndarray:
        """(B,) how many times as often these rows are drawn as if there were no priorities."""
        if self.priorities is None or not len(rows):
            return np.ones(len(rows))
        summed = self._sums()
        return self.priorities[rows].astype(np.float64) * self._even / summed[-1]

    def append(self, *rows: np.ndarray, weights: np.ndarray | None = None) -> None:
        """rows: states (n, S), actions (n, A), rewards (n,), next_states (n, S), terminations (n,); weights (n,).

        Raises PixeltrajError, and takes nothing, where shapes do not fit, numbers are not finite or weights not above
        0.
        """
        if weights is not None and not (
            weights.shape == (len(rows[0]),) and np.isfinite(weights).all() and (weights > 0).all()
        ):
            raise PixeltrajError(f"transitions have weights {weights.shape}; give each one above 0, or drop it")
        for (name, column), new in zip(self.columns.items(), rows, strict=True):
            if new.shape != (len(rows[0]), *column.shape[1:]):
                raise PixeltrajError(f"transitions have {name} {new.shape}, wanted (n, *{column.shape[1:]})")
            if not np.isfinite(new).all():
                raise PixeltrajError(f"transitions have NaN or infinite {name}; mend whatever made them")
        kept = slice(-self.capacity, None)
        count = len(rows[0])
        places = (self.appended + np.arange(count)[kept]) % self.capacity
        for column, new in zip(self.columns.values(), rows):
            column[places] = new[kept]
        if self.weights is None and weights is not None:
            self.weights = np.ones(self.capacity, np.float32)
        if self.weights is not None:
            self.weights[places] = 1.0 if weights is None else weights[kept]
        if self.priorities is not None:
            self.priorities[places] = self.priorities[: self.filled].max()
        self._summed = None
        self.appended += count

    def drop(self, before: int) -> None:
        """Do not draw any more of the first `before` that were appended."""
        self.dropped, self._summed = max(self.dropped, before), None

    def prioritise(self, rows: np.ndarray, priorities: np.ndarray) -> None:
        """Draw these rows (B,) in proportion to these numbers (B,), above 0."""
        if not len(rows):
            return
        if self.priorities is None:
            self.priorities = np.full(self.capacity, priorities.max(), np.float32)
        self.priorities[rows], self._summed = priorities, None

    def _sums(self) -> np.ndarray:
        """(filled,) what the rows up to each weigh together."""
        if self._summed is None:
            shares = self._shares()
            self._even = float(shares.sum())
            self._summed = np.cumsum(shares if self.priorities is None else shares * self.priorities[: self.filled])
        return self._summed

    def _shares(self) -> np.ndarray:
        """(filled,) float64, the weights: nothing for those that were dropped."""
        shares = np.ones(self.filled) if self.weights is None else self.weights[: self.filled].astype(np.float64)
        first = self.appended - self.filled
        shares[np.arange(first, self.appended - len(self)) % self.capacity] = 0.0
        return shares

    def state_dict(self) -> dict[str, np.ndarray]:
        saved = {name: column[: self.filled] for name, column in self.columns.items()}
        for name in ("weights", "priorities"):
            if (values := getattr(self, name)) is not None:
                saved[name] = values[: self.filled]
        return {**saved, "appended": np.array(self.appended), "dropped": np.array(self.dropped)}

    def load_state_dict(self, saved: dict[str, np.ndarray]) -> None:
        """Inverse of `state_dict`, for a ring of the same capacity."""
        self.appended, self.dropped, self._summed = int(saved["appended"]), int(saved.get("dropped", 0)), None
        for name, column in self.columns.items():
            column[: self.filled] = saved[name]
        for name in ("weights", "priorities"):
            values = np.ones(self.capacity, np.float32) if name in saved else None
            if values is not None:
                values[: self.filled] = saved[name]
            setattr(self, name, values)
