"""Arms: who learns from what in each part of the benchmark of agents, and what makes that."""

from dataclasses import replace
from pathlib import Path

from benchmarks.agents_config import Part
from benchmarks.agents_contender import Contender
from benchmarks.agents_online import adaptation, online
from benchmarks.agents_read_oracle import ReadOracle
from benchmarks.agents_runners import locomotion, offline
from benchmarks.imagine_unseen import train_from_scratch
from pixeltraj.cli.imagination import ImagineConfig
from pixeltraj.cli.preparing import Preparation
from pixeltraj.eval.arm import Arm
from pixeltraj.eval.oracle import Oracle
from pixeltraj.eval.recipes.recipe import Data

GIVEN = "given"


def contenders(part: Part, setting: str) -> list[Contender]:
    """In the order in which they matter."""
    if part.name in ("locomotion", "offline"):
        return (locomotion if part.name == "locomotion" else offline)(setting, part.scale())
    return (online if part.name == "online" else adaptation)(setting)


def preparation(part: Part, setting: str, contender: Contender) -> Preparation:
    """Makes what the contender needs. Arms of one setting share a folder, but for other data or another base."""
    folder, scale, base = part.out / "parts" / setting, part.scale(), part.base
    if contender.many:
        folder, scale = folder / "many", replace(scale, episodes=part.effort.many_episodes)
    if contender.alone:
        folder, base = folder / "alone", str(own_base(part, setting))
    return Preparation(scale, folder, given(part, setting), base)


def given(part: Part, setting: str) -> Path:
    """Folder of stores that a trained policy fills."""
    return part.out / "parts" / setting / GIVEN


def own_base(part: Part, setting: str) -> Path:
    return part.out / "parts" / setting / "alone" / "base"


def store_of(part: Part, setting: str, contender: Contender, data: Data) -> Path:
    """Drawn at once: nothing writes into the store while runs read it."""
    return preparation(part, setting, contender).data(data, drawn=True)


def make(part: Part, setting: str, contender: Contender) -> Arm:
    """All that the contender needs is there afterwards; what an interrupted run left is taken up."""
    if contender.alone:
        store = store_of(part, setting, contender, contender.side.data[0])
        train_from_scratch(part.base, store, own_base(part, setting), part.effort.scratch_steps)
    arm = preparation(part, setting, contender).arm(contender.side)
    if contender.read:
        assert isinstance(arm.imagine, ImagineConfig)
        return replace(arm, imagine=ReadOracle(arm.imagine, contender.actions_known))
    return replace(arm, imagine=Oracle()) if contender.oracle else arm
