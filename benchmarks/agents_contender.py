"""Contender: an arm of the benchmark of agents, its parts named and not yet made."""

from collections.abc import Sequence
from dataclasses import dataclass

from pixeltraj.eval.recipes.recipe import Data, Side, Trial


@dataclass(frozen=True, kw_only=True)
class Contender:
    task: str
    side: Side
    against: str
    """Name of the arm that it is held against; its own where it is that one."""
    rank: int = 0
    """0 is run first."""
    made: str | None = None
    """What has to be made for it beside the data; None where that is enough. Arms may share it."""
    many: bool = False
    """Learns from the large store."""
    alone: bool = False
    """The generator's U-Net has seen nothing but the data of the side."""
    oracle: bool = False
    """The simulator with the scripted policy imagines."""
    read: bool = False
    """The same, and the arm's decoder reads from its frames what the agent is given."""
    actions_known: bool = False
    """Of what is read: all but the actions, which are the simulator's."""

    @property
    def name(self) -> str:
        return self.side.name


def needed(contenders: Sequence[Contender]) -> list[Data]:
    """The real data of contenders that learn one task, each once."""
    sides = tuple(contender.side for contender in contenders)
    return Trial(task=contenders[0].task, dataset="", panel="", sides=sides).needed()
