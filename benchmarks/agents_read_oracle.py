"""Oracle that is read: it tells what the decoder alone costs an agent.

The simulator goes on with the scripted policy (`pixeltraj.eval.oracle`), its frames are drawn, and the arm's own
decoder reads states, actions and rewards from them. Between it and the oracle lies reading; between it and imagination,
what the generator makes of the future. Where only states are read, actions are the oracle's own.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import torch

from pixeltraj.cli.imagination import ImagineConfig
from pixeltraj.eval.oracle import Oracle, SimulatedImagination
from pixeltraj.imaginer import Imaginer
from pixeltraj.pruner import prune, shortened
from pixeltraj.render.renderer import Renderer
from pixeltraj.task import Task
from pixeltraj.trajectory import Trajectory


@dataclass(frozen=True)
class ReadOracle:
    """Makes an imagination of a task (`pixeltraj.eval.arm.Arm.imagine`)."""

    parts: ImagineConfig
    """Whose decoder reads, of images of one length."""
    actions_known: bool = False
    """Whether actions are the oracle's own."""
    oracle: Oracle = field(default_factory=Oracle)

    def __call__(self, task: Task) -> "ReadImagination":
        imaginer, wanted = self.parts.read()
        return ReadImagination(self, self.oracle(task), imaginer, self.parts.renderer(task, wanted))


class ReadImagination:
    """states and snapshots in, trajectories out: pixeltraj.replay_buffer.Imagine."""

    def __init__(
        self, config: ReadOracle, oracle: SimulatedImagination, imaginer: Imaginer, renderer: Renderer
    ) -> None:
        self.config, self.oracle, self.imaginer, self.renderer = config, oracle, imaginer, renderer

    @torch.no_grad()
    def __call__(self, states: np.ndarray, snapshots: np.ndarray, seed: int) -> list[Trajectory]:
        task, generator = self.imaginer.task, self.imaginer.generator
        truth = self.oracle(states, snapshots, seed)
        frames = np.stack([self._drawn(true) for true in truth])  # (B, K, 84, 84, 3)
        tiles = generator.base.encode(frames.reshape(-1, *frames.shape[2:])).unflatten(0, frames.shape[:2])
        prompts = [task.prompt_of(state, snapshot) for state, snapshot in zip(states, snapshots)]
        starts = np.asarray(states, np.float32)
        read = self.imaginer.decoder.decode(generator.grid.join(tiles), tiles[:, 0], prompts, starts)
        if self.config.actions_known:
            read = [known(trajectory, true) for trajectory, true in zip(read, truth, strict=True)]
        return [prune(trajectory, task) for trajectory in read]

    def _drawn(self, trajectory: Trajectory) -> np.ndarray:
        """(K, 84, 84, 3) uint8: what ended stands still, as in the images that the generator is trained on."""
        assert trajectory.snapshots is not None
        frames = self.renderer.frames(trajectory.snapshots)[: self.imaginer.generator.k]
        return np.concatenate([frames, np.repeat(frames[-1:], self.imaginer.generator.k - len(frames), axis=0)])

    def close(self) -> None:
        self.renderer.close()


def known(read: Trajectory, true: Trajectory) -> Trajectory:
    """What was read, as far as the other goes, with its actions."""
    read = shortened(read, min(len(read), len(true)))
    return replace(read, actions=true.actions[: len(read)])
