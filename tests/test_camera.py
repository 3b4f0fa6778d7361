"""Camera: its map of points to pixels inverts, and agrees with what the renderer draws."""

import mujoco
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixeltraj.camera import FRAME_SIZE, Camera
from pixeltraj.render.backends import open_renderer
from pixeltraj.tasks import get_task

METAWORLD = ("push-v3", "sweep-into-v3", "coffee-push-v3", "push-wall-v3", "door-open-v3", "drawer-close-v3")
RUNNERS = ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Ant-v5")
MAZES = ("PointMaze_UMaze-v3", "PointMaze_Large-v3", "AntMaze_UMaze-v5", "AntMaze_Large-v5")
IN_VIEW = (*METAWORLD, *RUNNERS, *MAZES)
number = st.floats(-3, 3)
cameras = st.builds(
    Camera,
    lookat=st.tuples(number, number, number),
    distance=st.floats(0.2, 5),
    azimuth=st.floats(-360, 360),
    elevation=st.floats(-89, 89),
    fovy=st.floats(10, 120),
)


@given(cameras, st.tuples(st.floats(0, FRAME_SIZE), st.floats(0, FRAME_SIZE), st.floats(0.05, 10)))
def test_unproject_inverts_project(camera: Camera, pixel: tuple[float, float, float]) -> None:
    np.testing.assert_allclose(camera.project(camera.unproject(np.array(pixel))), pixel, atol=1e-6)


@given(cameras)
def test_the_lookat_is_in_the_middle_at_its_distance(camera: Camera) -> None:
    expected = [FRAME_SIZE / 2, FRAME_SIZE / 2, camera.distance]
    np.testing.assert_allclose(camera.project(np.array(camera.lookat)), expected, atol=1e-6)


@given(cameras)
def test_up_is_up_and_right_is_right(camera: Camera) -> None:
    centre = np.array(camera.lookat)
    assert camera.project(centre + np.array([0, 0, 0.01]))[1] < FRAME_SIZE / 2
    turned = np.cross(camera.rotation[2], [0, 0, 1])  # to the right of where the camera looks
    assert camera.project(centre + 0.01 * turned)[0] > FRAME_SIZE / 2


@pytest.mark.parametrize(
    ("task", "keypoint"),
    [(name, "object") for name in METAWORLD]
    + [("push-v3", "goal"), ("HalfCheetah-v5", "front_toe"), ("HalfCheetah-v5", "head"), ("Hopper-v5", "toe")]
    + [("Ant-v5", "torso"), ("AdroitHandHammer-v1", "forearm"), ("FrankaKitchen-v1", "kettle_base")],
)
def test_a_projected_keypoint_lands_on_the_thing_drawn(task: str, keypoint: str) -> None:
    """What changes in the frame when the thing is made invisible is where the thing was drawn."""
    simulator = get_task(task).make()
    model = simulator.model
    index = next(i for i, k in enumerate(simulator.task.keypoints) if k.name == keypoint)
    point = simulator.task.keypoints[index]
    simulator.reset(seed=0)
    for _ in range(5):
        scripted = simulator.scripted_action()
        simulator.step(np.full(simulator.task.action_size, 0.3) if scripted is None else scripted)
    with open_renderer(simulator) as renderer:
        column, row, _ = simulator.task.camera.project(simulator.keypoints()[index].astype(np.float64))
        shown = renderer.frame().astype(int)
        if point.kind == "site":
            model.site_rgba[model.site(point.target).id, 3] = 0
        else:
            body = model.body(point.target).id if point.kind == "body" else model.geom(point.target).bodyid[0]
            for geom in range(model.ngeom):
                if _hangs_from(model, int(model.geom_bodyid[geom]), int(body)):
                    model.geom_rgba[geom, 3], model.geom_matid[geom] = 0, -1
        hidden = renderer.frame().astype(int)
    rows, columns = np.nonzero(np.abs(shown - hidden).max(axis=-1) > 12)
    assert len(rows) > 4, "nothing was drawn there"
    assert len(rows) < 0.3 * FRAME_SIZE**2
    nearest = np.hypot(columns + 0.5 - column, rows + 0.5 - row).min()
    assert nearest < 1.5, f"{keypoint} is projected {nearest:.1f} pixels away from what is drawn"


def test_the_green_goal_of_push_is_where_it_is_projected() -> None:
    simulator = get_task("push-v3").make()
    with open_renderer(simulator) as renderer:
        for seed in range(5):
            simulator.reset(seed=seed)
            red, green, blue = np.moveaxis(renderer.frame().astype(int), -1, 0)
            rows, columns = np.nonzero((green > red + 60) & (green > blue + 60))
            centre = np.array([columns.mean() + 0.5, rows.mean() + 0.5])
            goal = simulator.task.camera.project(simulator.keypoints()[-1].astype(np.float64))[:2]
            assert np.linalg.norm(centre - goal) < 1.0


@pytest.mark.parametrize("task", IN_VIEW)
def test_all_keypoints_of_a_demonstration_stay_in_view(task: str) -> None:
    simulator = get_task(task).make()
    rng = np.random.default_rng(0)
    for seed in range(2):
        simulator.reset(seed=seed)
        for _ in range(simulator.task.horizon // 5):
            pixels = simulator.task.camera.project(simulator.keypoints().astype(np.float64))
            assert (pixels[:, :2] > 0).all() and (pixels[:, :2] < FRAME_SIZE).all()
            scripted = simulator.scripted_action()
            size = simulator.task.action_size
            ended = simulator.step(rng.uniform(-1, 1, size) if scripted is None else scripted)[2:4]
            if any(ended):
                break


def _hangs_from(model: mujoco.MjModel, body: int, ancestor: int) -> bool:
    while body not in (0, ancestor):
        body = int(model.body_parentid[body])
    return body == ancestor
