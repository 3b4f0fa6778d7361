"""Cycle check: decoded states are drawn again and held against the imagined frames that they were read from.

No dynamics is asked: the mismatch tells what was misread, or imagined so blurred that nothing could be read.

Imagined frames come out of a VAE, so that whole frames differ by their blur above all. What tells wrong states from
right ones is the surroundings of the keypoints, compared by structural similarity (SSIM, Wang et al. 2004): it forgives
what blur does to brightness and contrast, and not a limb that is elsewhere.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from pixeltraj.camera import FRAME_SIZE
from pixeltraj.decode.examination import quiet, visit
from pixeltraj.decode.violations import joint_excess
from pixeltraj.errors import PixeltrajError
from pixeltraj.simulator import Simulator
from pixeltraj.trajectory import Trajectory

RADIUS = 4
"""Pixels around a keypoint that are compared: squares of 9 x 9."""
BENT = 0.1
"""Part of its range by which a joint may be past its limit; MuJoCo's limits give way a little in real data too."""
_BRIGHTNESS, _STRUCTURE = 0.01**2, 0.03**2  # the constants that keep SSIM's two factors from dividing by zero


class Drawing(Protocol):
    """What draws a simulator as it stands: pixeltraj.render.Renderer."""

    simulator: Simulator

    def frame(self) -> np.ndarray:
        """(84, 84, 3) uint8"""


def cycle_mismatch(
    drawing: Drawing, trajectories: Sequence[Trajectory], near: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """For each trajectory (T+1,): how little each decoded state looks like its imagined frame, from 0 (alike) to 2.

    Frame 0 is known: 0. Infinite where the simulator cannot be brought to the state, or a joint is bent by more than
    BENT past its limit. near: for each the snapshot (Q,) from which `Simulator.set_state` takes what states leave open.
    Leaves the simulator anywhere. Raises PixeltrajError on trajectories without frames.
    """
    return [_of_trajectory(drawing, t, snapshot) for t, snapshot in zip(trajectories, near, strict=True)]


def _of_trajectory(drawing: Drawing, trajectory: Trajectory, near: np.ndarray) -> np.ndarray:
    if trajectory.frames is None:
        raise PixeltrajError("the cycle check needs the imagined frames; imagine with frames=True")
    result = np.full(len(trajectory.states), np.inf)
    result[0] = 0.0
    with quiet():
        for t in range(1, len(result)):
            drawn = redrawn(drawing, trajectory.states[t], near)
            if drawn is not None:
                pixels = drawing.simulator.task.camera.project(trajectory.keypoints[t])
                result[t] = mismatch(drawn, trajectory.frames[t], pixels)
    return result


def redrawn(drawing: Drawing, state: np.ndarray, near: np.ndarray) -> np.ndarray | None:
    """(84, 84, 3) uint8: a state (S,) near a snapshot (Q,) of its episode; None where there can be no such frame."""
    simulator = drawing.simulator
    sound = visit(simulator, state, near) is None and joint_excess(simulator) <= BENT
    return drawing.frame() if sound else None


def mismatch(drawn: np.ndarray, imagined: np.ndarray, pixels: np.ndarray) -> float:
    """drawn, imagined (84, 84, 3) uint8; pixels (N, >= 2): column and row of each keypoint -> one minus their SSIM
    around the keypoints, mean over keypoints and colours. Keypoints out of view count at the frame's edge."""
    place = np.clip(np.nan_to_num(pixels[:, :2]), 0, FRAME_SIZE - 1).astype(np.int64)
    across = np.arange(2 * RADIUS + 1)
    columns, rows = place[:, 0, None, None] + across, place[:, 1, None, None] + across[:, None]

    def around(frame: np.ndarray) -> np.ndarray:
        padded = np.pad(frame, ((RADIUS, RADIUS), (RADIUS, RADIUS), (0, 0)), mode="edge")
        return padded[rows, columns].reshape(len(place), -1, 3) / 255  # (N, P, 3)

    a, b = around(drawn), around(imagined)
    mean_a, mean_b = a.mean(axis=1), b.mean(axis=1)
    shared = (a * b).mean(axis=1) - mean_a * mean_b
    brightness = (2 * mean_a * mean_b + _BRIGHTNESS) / (mean_a**2 + mean_b**2 + _BRIGHTNESS)
    structure = (2 * shared + _STRUCTURE) / (a.var(axis=1) + b.var(axis=1) + _STRUCTURE)
    return float(1 - (brightness * structure).mean())
