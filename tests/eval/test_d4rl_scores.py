"""Normalised scores against D4RL's published references."""

import pytest

from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.d4rl_scores import normalised
from pixeltraj.tasks import TASKS, get_task


def test_random_is_0_and_expert_100() -> None:
    assert normalised("HalfCheetah-v5", -280.178953) == pytest.approx(0.0)
    assert normalised("HalfCheetah-v5", 12135.0) == pytest.approx(100.0)
    assert normalised("AntMaze_UMaze-v5", 0.85) == pytest.approx(85.0)
    assert normalised("FrankaKitchen-mixed-v1", 3.0) == pytest.approx(75.0)


@pytest.mark.parametrize("name", ["HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Ant-v5"])
def test_episodes_are_as_long_as_those_of_the_references(name: str) -> None:
    task = get_task(name)
    assert task.horizon * task.action_repeat == 1000


def test_no_reference_is_said_not_guessed() -> None:
    # Meta-World has a hammer and doors too
    for task in ("push-v3", "sequence-v0", "AdroitHandPen-v1", "PointMaze_UMaze-v3", "FrankaKitchen-v1", "hammer-v3"):
        assert normalised(task, 1.0) is None
    assert sum(normalised(task, 1.0) is not None for task in TASKS) == 3 + 1 + 6 + 1
    with pytest.raises(PixeltrajError, match="unknown task"):
        normalised("Hoper-v5", 1.0)
