"""Keeping: the scores by which `pixeltraj imagine --keep` and an agent's imagination tell good transitions from bad."""

from collections.abc import Sequence

import numpy as np

from pixeltraj.decode.cycle import cycle_mismatch
from pixeltraj.decode.decoder import Decoder as TrainedDecoder
from pixeltraj.decode.one_step import one_step_errors
from pixeltraj.errors import PixeltrajError
from pixeltraj.imaginer import Decoder
from pixeltraj.keep import Keep, Tally
from pixeltraj.render.renderer import Renderer
from pixeltraj.trajectory import Trajectory


class Keeper:
    """Scores trajectories that were imagined together and keeps what `Keep` says.

    `tally` counts what was kept since it was made.
    """

    def __init__(self, keep: Keep, decoder: Decoder, renderer: Renderer | None = None) -> None:
        """renderer: what draws frames like those that the decoder was trained on; wanted for the cycle check.

        Raises PixeltrajError where what a score needs is missing.
        """
        if "cycle" in keep.wanted and renderer is None:
            raise PixeltrajError("keep.cycle draws states again and needs a renderer")
        if "audit" in keep.wanted and not isinstance(decoder, TrainedDecoder):
            raise PixeltrajError("keep.audit needs a decoder of `pixeltraj decode train`, which knows how states vary")
        self.keep, self.decoder, self.renderer, self.tally = keep, decoder, renderer, Tally()
        self._simulator = renderer.simulator if renderer else decoder.task.make() if "audit" in keep.wanted else None

    @property
    def needs_frames(self) -> bool:
        """Whether trajectories have to come with their imagined frames."""
        return "cycle" in self.keep.wanted

    @property
    def needs_snapshots(self) -> bool:
        """Whether the simulator's state at each start is asked for."""
        return bool(self.keep.wanted.keys() & {"cycle", "audit"})

    def __call__(self, trajectories: list[Trajectory], near: Sequence[np.ndarray]) -> list[Trajectory]:
        """What is kept of trajectories that were imagined together, from the snapshots near (B, Q)."""
        kept = self.keep.apply(trajectories, self.scores(trajectories, near))
        self.tally.add(trajectories, kept)
        return kept

    def scores(self, trajectories: list[Trajectory], near: Sequence[np.ndarray]) -> dict[str, list[np.ndarray]]:
        """For each score that is wanted, (T,) for each trajectory; those of a frame count for the transition into it.
        The same states give the same scores, whatever the simulator did before."""
        found: dict[str, list[np.ndarray]] = {}
        if "uncertainty" in self.keep.wanted:
            found["uncertainty"] = [stated(trajectory) for trajectory in trajectories]
        if "cycle" in self.keep.wanted and self.renderer:
            found["cycle"] = [told[1:] for told in cycle_mismatch(self.renderer, trajectories, near)]
        if "audit" in self.keep.wanted and self._simulator and isinstance(self.decoder, TrainedDecoder):
            scale = self.decoder.heads.state_std.cpu().numpy()
            found["audit"] = one_step_errors(self._simulator, trajectories, near, scale)
        return found

    def close(self) -> None:
        if self.renderer:
            self.renderer.close()


def stated(trajectory: Trajectory) -> np.ndarray:
    """(T,) what the decoder expects to have misread in the frame that each transition leads to."""
    if trajectory.uncertainty is None:
        raise PixeltrajError("the decoder states no uncertainty; keep.uncertainty cannot be asked for")
    return np.where(np.isfinite(trajectory.states[1:]).all(axis=1), trajectory.uncertainty[1:], np.inf)
