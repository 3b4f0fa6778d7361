"""Batch: trajectories that `pixeltraj imagine` imagines at once, and the same as bytes, from machine to machine."""

import json
from dataclasses import dataclass, fields

import numpy as np
from safetensors.numpy import load, save

from pixeltraj.keep import Tally
from pixeltraj.trajectory import Trajectory


@dataclass(frozen=True)
class Batch:
    kept: list[Trajectory]
    """Of those that were imagined."""
    tally: Tally
    """How much that is."""
    following: int
    """The start that the next batch goes on from."""

    def to_bytes(self) -> bytes:
        arrays: dict[str, np.ndarray] = {}
        for i, trajectory in enumerate(self.kept):
            values = {part.name: getattr(trajectory, part.name) for part in fields(trajectory)}
            arrays |= {f"{i}.{name}": v for name, v in values.items() if isinstance(v, np.ndarray)}
        said = {
            "origins": [trajectory.origin for trajectory in self.kept],
            "tally": [self.tally.imagined, self.tally.kept],
            "following": self.following,
        }
        arrays["said"] = np.frombuffer(json.dumps(said).encode(), np.uint8)
        return save({name: np.ascontiguousarray(value) for name, value in arrays.items()})

    @classmethod
    def from_bytes(cls, content: bytes) -> "Batch":
        arrays = load(content)
        said = json.loads(arrays.pop("said").tobytes())
        parts: list[dict[str, np.ndarray]] = [{} for _ in said["origins"]]
        for key, value in arrays.items():
            number, name = key.split(".")
            parts[int(number)][name] = value
        kept = [Trajectory(**values, origin=origin) for values, origin in zip(parts, said["origins"])]
        return cls(kept, Tally(*said["tally"]), said["following"])
