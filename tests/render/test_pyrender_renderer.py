"""pyrender's pictures: the same scene from the same place, beside MuJoCo's own."""

import sys

import numpy as np
import pytest

from pixeltraj.errors import PixeltrajError
from pixeltraj.render.mujoco_renderer import MujocoRenderer
from pixeltraj.render.pyrender_renderer import PyrenderRenderer
from pixeltraj.tasks import get_task


@pytest.mark.parametrize(("task", "least"), [("push-v3", 25.0), ("HalfCheetah-v5", 20.0), ("PointMaze_UMaze-v3", 17.0)])
def test_its_pictures_are_like_mujocos(task: str, least: float) -> None:
    """dB; a mirrored, shifted or untextured scene is below."""
    simulator = get_task(task).make()
    simulator.reset(seed=0)
    with PyrenderRenderer(simulator) as ours, MujocoRenderer(simulator) as reference:
        for _ in range(3):
            simulator.step(np.full(simulator.task.action_size, 0.4))
            one, other = ours.frame(), reference.frame().astype(float)
            assert 10 * np.log10(255**2 / np.mean(np.square(one - other))) > least
            np.testing.assert_array_equal(ours.frame(), one)


def test_the_goal_is_drawn_and_follows() -> None:
    simulator = get_task("push-v3").make()
    with PyrenderRenderer(simulator) as renderer:
        for seed in range(3):
            simulator.reset(seed=seed)
            red, green, blue = np.moveaxis(renderer.frame().astype(int), -1, 0)
            rows, columns = np.nonzero((green > red + 60) & (green > blue + 60))
            goal = simulator.task.camera.project(simulator.keypoints()[-1].astype(np.float64))[:2]
            assert np.hypot(columns.mean() + 0.5 - goal[0], rows.mean() + 0.5 - goal[1]) < 1.5


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyrender", None)
    with pytest.raises(PixeltrajError, match=r"pip install 'pixeltraj\[pyrender\]'"):
        PyrenderRenderer(get_task("Hopper-v5").make())
