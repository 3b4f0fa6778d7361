"""Rays: the picture that OpenGL draws, on a machine that has none."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pixeltraj.errors import PixeltrajError
from pixeltraj.render.mujoco_renderer import MujocoRenderer
from pixeltraj.render.raytracing.ray_renderer import RayRenderer
from pixeltraj.simulator import Simulator
from pixeltraj.tasks import get_task


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean(np.square(one.astype(float) - other))))


def play(simulator: Simulator, seeds: tuple[int, ...] = (0,), decisions: int = 6) -> list[np.ndarray]:
    """Snapshots of a moving robot."""
    snapshots = []
    for seed in seeds:
        simulator.reset(seed=seed)
        for action in np.random.default_rng(seed).uniform(-1, 1, (decisions, simulator.task.action_size)):
            simulator.step(action)
            snapshots.append(simulator.snapshot())
    return snapshots


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("HalfCheetah-v5", 36),  # a floor that slides under the camera
        ("sweep-into-v3", 32),  # meshes, textures with coordinates of their own, sites
        ("shelf-place-v3", 32),
        ("FrankaKitchen-v1", 27),  # a spot light
        ("AntMaze_UMaze-v5", 33),
        ("PointMaze_Medium-v3", 32),
        ("AdroitHandRelocate-v1", 31),  # a transparent goal
    ],
)
def test_rays_show_what_opengl_draws_of_the_full_model(name: str, least: float) -> None:
    simulator = get_task(name).make()
    snapshots = play(simulator)[1::2]
    with RayRenderer(simulator, samples=2) as ours, MujocoRenderer(simulator, simplify=False) as reference:
        drawn, expected = ours.frames(snapshots), reference.frames(snapshots)
    assert drawn.shape == expected.shape and drawn.dtype == np.uint8
    assert min(psnr(*pair) for pair in zip(drawn, expected)) > least
    assert psnr(np.roll(drawn, 1, axis=2), expected) < psnr(drawn, expected) - 3, "blind to a shift by one pixel"


def test_one_ray_a_pixel_is_the_same_picture_with_rougher_edges() -> None:
    simulator = get_task("sweep-into-v3").make()
    snapshots = play(simulator, decisions=2)
    with RayRenderer(simulator, samples=1) as rough, RayRenderer(simulator, samples=2) as fine:
        assert rough.settings != fine.settings
        assert 25 < psnr(rough.frames(snapshots), fine.frames(snapshots)) < 45
    with pytest.raises(PixeltrajError, match="choose 1 or 2"):
        RayRenderer(simulator, samples=3)


@pytest.mark.parametrize("name", ["push-v3", "Hopper-v5", "FrankaKitchen-v1"])
@pytest.mark.parametrize("samples", [1, 2])
def test_a_frame_does_not_depend_on_what_was_drawn_before(name: str, samples: int) -> None:
    simulator = get_task(name).make()
    snapshots = play(simulator, seeds=(0, 1))
    with RayRenderer(simulator, samples=samples) as renderer:
        forwards = renderer.frames(snapshots)
        backwards = renderer.frames(snapshots[::-1])[::-1]
    np.testing.assert_array_equal(forwards, backwards)
    other = get_task(name).make()
    other.reset(seed=9)
    with RayRenderer(other, samples=samples) as renderer:
        np.testing.assert_array_equal(renderer.frames(snapshots[-1:])[0], forwards[-1])


def test_the_object_and_the_goal_are_where_the_camera_says() -> None:
    simulator = get_task("push-v3").make()
    names = [keypoint.name for keypoint in simulator.task.keypoints]
    with RayRenderer(simulator, samples=2) as renderer:
        for seed in range(3):  # the goal moves: what was kept of the frame before is not used
            simulator.reset(seed=seed)
            frame = renderer.frame().astype(int)
            places = simulator.task.camera.project(simulator.keypoints()).astype(int)[:, :2]
            (column, row), (goal_column, goal_row) = places[names.index("object")], places[names.index("goal")]
            red, green, blue = frame[row, column]
            assert red > 2 * max(green, blue), "the puck is red"
            red, green, blue = frame[goal_row, goal_column]
            assert green > 2 * max(red, blue), "the goal, a site, is green"


def test_edited_colours_are_noticed_and_transparent_things_shine_through() -> None:
    simulator = get_task("HalfCheetah-v5").make()
    simulator.reset(seed=0)
    torso = simulator.model.geom("torso").id
    frames = []
    with RayRenderer(simulator, samples=2) as ours, MujocoRenderer(simulator, simplify=False) as reference:
        for rgba in ((0.8, 0.6, 0.4, 1.0), (0.0, 0.0, 1.0, 1.0), (0.0, 0.0, 1.0, 0.4), (0.0, 0.0, 1.0, 0.0)):
            simulator.model.geom_rgba[torso] = rgba
            frames.append(ours.frame())
            assert psnr(frames[-1], reference.frame()) > 36
    blue = [int((frame[..., 2] > frame[..., 0].astype(int) + 40).sum()) for frame in frames]
    assert blue[1] > 50 and blue[0] == blue[3] == 0 and not np.array_equal(frames[1], frames[2])


def test_states_without_numbers_are_refused() -> None:
    simulator = get_task("HalfCheetah-v5").make()
    simulator.reset(seed=0)
    simulator.data.qpos[2] = np.nan
    with RayRenderer(simulator, samples=2) as renderer, pytest.raises(PixeltrajError, match="NaN"):
        renderer.frame()


WITHOUT_GL = """
import sys
from pathlib import Path
sys.modules["OpenGL"] = None
import numpy as np
from pixeltraj.render.raytracing.ray_renderer import RayRenderer
from pixeltraj.tasks import get_task
for name in ("HalfCheetah-v5", "push-v3"):
    simulator = get_task(name).make()
    simulator.reset(seed=0)
    with RayRenderer(simulator, samples=2) as renderer:
        np.save(sys.argv[1] + name, renderer.frame())
libraries = open("/proc/self/maps").read()
assert not any(name in libraries for name in ("libGL", "libEGL", "libOSMesa")), "a GL library was loaded"
"""


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="libraries are listed on Linux only")
def test_no_gl_library_is_needed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_GL, f"{tmp_path}/"]
    subprocess.run(command, check=True, env={**os.environ, "MUJOCO_GL": "disabled"})
    for name in ("HalfCheetah-v5", "push-v3"):
        simulator = get_task(name).make()
        simulator.reset(seed=0)
        with RayRenderer(simulator, samples=2) as renderer:
            np.testing.assert_array_equal(np.load(f"{tmp_path}/{name}.npy", allow_pickle=False), renderer.frame())
