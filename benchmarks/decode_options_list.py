"""The options: what a decoder reads, and how."""

from dataclasses import dataclass
from typing import Literal

from pixeltraj.tasks import get_task

OTHERS = {"push-v3": ("push-back-v3", "coffee-push-v3")}
"""Tasks of the same keypoints and camera, on which a generic decoder is trained too."""


@dataclass(frozen=True)
class Option:
    """Each is the shipped decoder but for one thing."""

    name: str
    words: str
    """What is different."""
    input: str = "features"
    """What it reads of a grid: one of INPUTS."""
    reader: Literal["keypoints", "pixels", "direct"] = "keypoints"
    """keypoints: heat maps from features; pixels: a small CNN before them; direct: states by regression."""
    window: bool = True
    """Whether a frame is corrected by those around it, and actions come from them; else from pairs of frames."""
    fit: bool = True
    """Whether poses, where a task has any, are fitted to all keypoints of a window; else geometry, frame by frame."""
    generic: bool = False
    """Whether it is trained on several tasks: only of those in OTHERS."""
    longer: int = 1
    """How many times as many steps it gets."""

    def concerns(self, task: str) -> bool:
        """Whether it is anything but the shipped decoder there."""
        if self.generic:
            return task in OTHERS
        return self.fit or not self.window or bool(get_task(task).pose)


OPTIONS = (
    Option("shipped", "keypoints from the U-Net's last two up blocks, a window, one decoder a task"),
    Option("direct", "regression from the same features to the state: no keypoints, no geometry", reader="direct"),
    Option("single", "each frame by itself, actions from pairs of them", window=False, fit=False),
    Option("unfitted", "poses from geometry, not fitted to the window", fit=False),
    Option("latents", "the VAE's latents alone", "latents"),
    Option("generic", "trained on three tasks", generic=True),
    Option("pixels", "the VAE's picture, through a small CNN", "pictures", "pixels"),
    Option("own-pass", "features always in a pass of their own, never from the sampler's last", "own-pass"),
    Option("attention", "own pass, and cross-attention maps of the prompt's words", "attention"),
    Option("blocks-1", "own pass, the last up block only", "blocks-1"),
    Option("blocks-3", "own pass, all three up blocks", "blocks-3"),
    Option("timestep-200", "own pass, at timestep 200", "timestep-200"),
    Option("timestep-50", "own pass, at timestep 50", "timestep-50"),
    Option("generic-longer", "trained on three tasks, with three times the steps", generic=True, longer=3),
)
