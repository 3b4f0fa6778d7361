"""Augmentation: S4RL (Sinha et al. 2021), the states of a batch changed a little, so that values become smooth.

Seven ways are in the paper; the six here need nothing but the batch. Zero-mean Gaussian noise does best among them
there, and is the default. The seventh (states moved along the critic's gradient) needs the agent's insides.
Two things are done otherwise. The paper averages values over several augmentations of each state; here each update
draws one, which an agent takes without knowing of it and which is the same in expectation up to the average inside the
square. And D4RL's states are of the order of 1, so the paper's noises are in raw units; here they are in parts of each
dimension's standard deviation in the offline data, and what never changes there stays as it is.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pixeltraj.errors import PixeltrajError
from pixeltraj.replay_buffer import Batch

Kind = Literal["gaussian", "uniform", "scaling", "dropout", "switch", "mixup"]
KINDS = ("gaussian", "uniform", "scaling", "dropout", "switch", "mixup")


@dataclass(frozen=True)
class Augmentation:
    """Each state and each next state is changed by a draw of its own; actions, rewards and ends stay."""

    kind: Kind = "gaussian"
    """gaussian, uniform: noise. scaling: the whole state times one number. dropout: one dimension set to its mean.
    switch: two dimensions change places. mixup: the state moves towards the next one; next states stay."""
    sigma: float = 3e-4
    """gaussian: standard deviation, in standard deviations of each dimension; the paper's."""
    alpha: float = 3e-4
    """uniform: noise in [-alpha, alpha], in the same unit; the paper's."""
    low: float = 0.8
    """scaling: least factor, of the state measured from its mean; the paper tried 0.6 and 0.8."""
    high: float = 1.2
    """scaling: greatest factor; the paper tried 1.2 and 1.4."""
    beta: float = 0.4
    """mixup: the state's share is drawn from Beta(beta, beta); the paper's."""

    def check(self) -> None:
        """Raise PixeltrajError where there is no such augmentation."""
        if self.kind not in KINDS:
            raise PixeltrajError(f"there is no augmentation {self.kind!r}; choose of {', '.join(KINDS)}")
        if self.sigma < 0 or self.alpha < 0 or self.beta <= 0 or not 0 < self.low <= self.high:
            raise PixeltrajError("wanted of an augmentation: sigma, alpha >= 0, beta > 0 and 0 < low <= high")

    def of(self, offline: Batch) -> "Augmenter":
        """What changes batches, with the statistics of the offline data. Raises PixeltrajError without any."""
        self.check()
        if not len(offline.states):
            raise PixeltrajError("an augmentation is measured by how offline states vary; give the arm stores")
        exact = offline.states.astype(np.float64)
        return Augmenter(self, exact.mean(axis=0).astype(np.float32), exact.std(axis=0).astype(np.float32))


@dataclass(frozen=True)
class Augmenter:
    """An augmentation that knows how states vary."""

    config: Augmentation
    mean: np.ndarray
    """(S,)"""
    deviation: np.ndarray
    """(S,)"""

    def __call__(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """The batch with other states and next states; the given one is left as it is."""
        if self.config.kind == "mixup":
            share = rng.beta(self.config.beta, self.config.beta, (len(batch.states), 1)).astype(np.float32)
            return batch._replace(states=share * batch.states + (1 - share) * batch.next_states)
        states, next_states = (self._changed(column, rng) for column in (batch.states, batch.next_states))
        return batch._replace(states=states, next_states=next_states)

    def _changed(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """states (B, S) -> (B, S) float32."""
        config, rows = self.config, np.arange(len(states))
        if config.kind == "gaussian":
            return states + config.sigma * self.deviation * rng.standard_normal(states.shape, np.float32)
        if config.kind == "uniform":
            noise = rng.uniform(-config.alpha, config.alpha, states.shape).astype(np.float32)
            return states + self.deviation * noise
        if config.kind == "scaling":
            factor = rng.uniform(config.low, config.high, (len(states), 1)).astype(np.float32)
            return self.mean + factor * (states - self.mean)
        changed = states.copy()
        first = rng.integers(states.shape[1], size=len(states))
        if config.kind == "dropout":
            changed[rows, first] = self.mean[first]
            return changed
        second = (first + rng.integers(1, max(2, states.shape[1]), size=len(states))) % states.shape[1]
        changed[rows, first], changed[rows, second] = states[rows, second], states[rows, first]
        return changed
