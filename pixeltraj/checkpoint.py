"""Checkpoints: a training that was killed goes on from the last one and ends as if nothing had happened."""

from pathlib import Path
from typing import Any

import torch

from pixeltraj.errors import PixeltrajError
from pixeltraj.files import write_whole
from pixeltraj.settings import changed, recorded


class Checkpoint:
    """One file with everything a training needs to go on.

    Random draws are seeded by (seed, step) everywhere, so no random state has to be kept.
    """

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        self.path = path
        self.config = recorded(config)

    def save(self, step: int, **states: Any) -> None:
        """states: state dicts of tensors, numbers and strings."""
        content = {"step": step, "config": self.config, "states": states}
        write_whole(self.path, lambda beside: torch.save(content, beside))

    def load(self) -> tuple[int, dict[str, Any]]:
        """(step, states); (0, {}) where there is none yet. Raises PixeltrajError where it belongs to another run."""
        if not self.path.exists():
            return 0, {}
        content = torch.load(self.path, weights_only=True, map_location="cpu")
        if other := changed(content["config"], self.config):
            raise PixeltrajError(
                f"{self.path} belongs to a run with another {', '.join(other)}; give another --out or remove it"
            )
        return content["step"], content["states"]

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
