"""D4RL's normalised scores: 0 is a random policy's return, 100 an expert's, as published with its datasets.

The references are those of D4RL's table (its `infos.py`), which every paper that reports normalised returns uses, and
they belong to its v2 environments. Minari gives references of its own for the v5 ones, measured with other policies:
scores of the two must not be mixed, and none of Minari's are used here.
"""

from dataclasses import dataclass

from pixeltraj.tasks import get_task


@dataclass(frozen=True)
class Reference:
    """Returns of whole episodes."""

    random: float
    expert: float


REFERENCES = {
    "halfcheetah": Reference(-280.178953, 12135.0),
    "hopper": Reference(-20.272305, 3234.3),
    "walker2d": Reference(1.629008, 4592.3),
    "ant": Reference(-325.6, 3879.7),
    "antmaze": Reference(0.0, 1.0),
    "kitchen": Reference(0.0, 4.0),
    "pen": Reference(96.262799, 3076.8331017826877),
    "hammer": Reference(-274.856578, 12794.134825156867),
    "door": Reference(-56.512833, 2880.5693087298737),
    "relocate": Reference(-6.425911, 4233.877797728884),
}
"""By D4RL's word for the environment."""
WORDS = {
    "HalfCheetah-v5": "halfcheetah",
    "Hopper-v5": "hopper",
    "Walker2d-v5": "walker2d",
    "Ant-v5": "ant",
    "FrankaKitchen-mixed-v1": "kitchen",
    "AdroitHandPen-v1": "pen",
    "AdroitHandHammer-v1": "hammer",
    "AdroitHandDoor-v1": "door",
    "AdroitHandRelocate-v1": "relocate",
}
"""D4RL's word for our tasks, but for its mazes. FrankaKitchen-v1 is not there: it has seven subtasks, D4RL's four."""
DENSE = ("pen", "hammer", "door", "relocate")
"""D4RL's returns of these are dense rewards: they say nothing of a task that pays for success."""


def reference(task: str) -> Reference | None:
    """Of one of our tasks; None where D4RL has nothing to compare with. Raises PixeltrajError for an unknown task."""
    sparse = get_task(task).reward == "sparse"
    word = "antmaze" if task.startswith("AntMaze") else WORDS.get(task)
    return None if word is None or (sparse and word in DENSE) else REFERENCES[word]


def normalised(task: str, score: float) -> float | None:
    """100 (return - random) / (expert - random); None where D4RL has no reference for the task.

    score: mean return of whole episodes, which have as many simulator steps as D4RL's.
    """
    known = reference(task)
    if known is None:
        return None
    return 100.0 * (score - known.random) / (known.expert - known.random)
