"""Renderer: what all backends share."""

import subprocess
import sys

import mujoco
import numpy as np
import pytest

from pixeltraj.errors import PixeltrajError
from pixeltraj.render.backends import open_renderer
from pixeltraj.simulator import Simulator
from pixeltraj.tasks import get_task


def at(simulator: Simulator, x: float) -> Simulator:
    """The episode's first state, x metres further on."""
    simulator.reset(seed=0)
    simulator.data.qpos[0] = x
    mujoco.mj_forward(simulator.model, simulator.data)
    return simulator


def test_who_runs_far_still_runs_on_the_floor() -> None:
    simulator = get_task("HalfCheetah-v5").make()
    with open_renderer(simulator, "mujoco") as renderer:
        ((_, period),) = renderer._floors
        start, here, there = (at(simulator, x) and renderer.frame() for x in (0.0, 0.4, 0.4 + 500 * period[0]))
    assert (here == there).mean() > 0.995, "a repeat of the texture further on everything looks the same"
    assert (start[-20:] == here[-20:]).mean() < 0.9, "but the floor does pass by"


def test_several_renderers_draw_side_by_side() -> None:
    one, other = get_task("push-v3").make(), get_task("Hopper-v5").make()
    one.reset(seed=0)
    other.reset(seed=0)
    with open_renderer(one) as first:
        frame = first.frame()
        with open_renderer(other) as second:
            second.frame()
            np.testing.assert_array_equal(first.frame(), frame)
        np.testing.assert_array_equal(first.frame(), frame)


def test_without_a_gl_auto_traces_rays_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    simulator = get_task("Hopper-v5").make()
    with pytest.warns(UserWarning, match="frames are ray traced: no OpenGL"), open_renderer(simulator) as renderer:
        assert renderer.settings["backend"] == "ray"
    with pytest.raises(PixeltrajError, match="install libegl1"):
        open_renderer(simulator, "mujoco")


def test_a_sequence_is_drawn_as_the_task_it_is_at() -> None:
    simulator = get_task("sequence-v0").make()
    simulator.reset(seed=0, options={"task": "coffee-push-v3"})
    snapshot = simulator.snapshot()
    with open_renderer(simulator) as renderer:
        frame = renderer.frame()
        simulator.reset(seed=0)
        assert not np.array_equal(renderer.frame(), frame)
        np.testing.assert_array_equal(renderer.frames([snapshot])[0], frame)
        alone = simulator.current  # type: ignore[attr-defined]
        with open_renderer(alone) as other:
            np.testing.assert_array_equal(other.frame(), frame)


LEFT_OPEN = """
import weakref
owner = type("Owner", (), {})()
weakref.finalize(owner, print)  # finalizers have their place at the exit before there is OpenGL: it must not go first
from pixeltraj.render.backends import open_renderer
from pixeltraj.tasks import get_task
simulator = get_task("HalfCheetah-v5").make()
simulator.reset(seed=0)
renderer = open_renderer(simulator, "mujoco")
"""


def test_a_program_may_leave_a_renderer_open() -> None:
    done = subprocess.run([sys.executable, "-c", LEFT_OPEN], capture_output=True, text=True)
    assert done.returncode == 0 and "Error" not in done.stderr, done.stderr
