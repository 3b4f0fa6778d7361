"""Framing: proposed cameras show every keypoint, closely, from where nothing hides it and nothing is foreshortened."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest

from pixeltraj.camera import Camera
from pixeltraj.errors import PixeltrajError
from pixeltraj.render.backends import open_renderer
from pixeltraj.render.footage import MOMENTS, Footage
from pixeltraj.render.framing import look, propose, table
from pixeltraj.simulator import Simulator
from pixeltraj.store import Store
from pixeltraj.task import Dimension, Keypoint, Task
from pixeltraj.tasks import get_task

ABOVE = Camera(lookat=(0.0, 0.0, 0.0), distance=2.0, azimuth=90.0, elevation=-45.0)
FREE = "<mujoco><worldbody>{still}<body name='ball'><freejoint/>{thing}</body></worldbody></mujoco>"
BALL = "<geom name='skin' type='sphere' size='0.05' rgba='1 0 0 1'/>"
WALL = "<geom type='box' size='0.01 5 5' pos='0.2 0 0' rgba='0 1 0 {alpha}'/>"


@dataclass(frozen=True, kw_only=True)
class FreeTask(Task):
    """Whatever hangs on the free body 'ball'."""

    xml: str
    name: str = "free"
    prompt: str = "go where you like"
    camera: Camera = ABOVE
    keypoints: tuple[Keypoint, ...] = (Keypoint("ball", "body", "ball"),)
    state: tuple[Dimension, ...] = tuple(Dimension(axis, "m") for axis in "xyz")
    action_size: int = 3
    action_repeat: int = 1
    horizon: int = 10
    reward: Any = "dense"

    def make(self) -> "FreeSimulator":
        return FreeSimulator(self)

    def state_from_keypoints(self, keypoints: np.ndarray, start: np.ndarray) -> np.ndarray:
        return keypoints[..., 0, :]


class FreeSimulator(Simulator):
    """An action is where the body goes."""

    def __init__(self, task: FreeTask) -> None:
        super().__init__(task)
        self.model = mujoco.MjModel.from_xml_string(task.xml)
        self.data = mujoco.MjData(self.model)
        self.snapshot_layout = {"place": 7}

    def state(self) -> np.ndarray:
        return self.data.qpos[:3].astype(np.float32)

    def snapshot(self) -> np.ndarray:
        return self.data.qpos.copy()

    def restore(self, snapshot: np.ndarray) -> None:
        self.data.qpos[:] = snapshot
        mujoco.mj_forward(self.model, self.data)

    def set_state(self, state: np.ndarray, near: np.ndarray) -> None:
        self.data.qpos[:3] = state

    def _reset(self, seed: int) -> None:
        mujoco.mj_resetData(self.model, self.data)

    def _decide(self, action: np.ndarray) -> tuple[float, bool, dict[str, Any]]:
        self.data.qpos[:3] = action
        return 0.0, False, {}


def film(places: np.ndarray, thing: str = BALL, still: str = "", **fields: Any) -> Footage:
    """Of a body that is at each of places (F, 3) once."""
    simulator = FreeTask(xml=FREE.format(still=still, thing=thing), **fields).make()
    places = np.asarray(places, dtype=np.float64)
    snapshots = np.concatenate([places, np.tile([1.0, 0.0, 0.0, 0.0], (len(places), 1))], axis=-1)
    return Footage(simulator, np.repeat(places[:, None], len(simulator.task.keypoints), axis=1), snapshots)


def cloud(*widths: float) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (60, 3)) * widths


@pytest.mark.parametrize("name", ["push-v3", "Hopper-v5"])
def test_all_is_in_view_and_as_near_as_the_margin_allows(name: str) -> None:
    footage = [Footage.play(get_task(name), episodes=2)]
    for margin in (0.0, 6.0):
        camera = propose(footage, margin, progress=False)
        assert camera.track == footage[0].task.camera.track
        seen = look(camera, footage[0])
        assert margin <= seen.margin < margin + 0.2
        assert (seen.in_view == 1).all()
    assert propose(footage, margin, progress=False) == camera


def test_several_tasks_fit_into_one_view() -> None:
    both = [film(cloud(0.1, 0.1, 0.1) + [x, 0, 0]) for x in (-0.5, 0.5)]
    camera = propose(both, progress=False)
    assert min(look(camera, each).margin for each in both) == pytest.approx(3.0, abs=0.15)
    alone = propose(both[:1], progress=False)
    assert alone.distance < camera.distance and look(alone, both[1]).margin < 0


def test_widths_are_those_of_the_drawn_object() -> None:
    footage = film(np.array([[0.1, 0.2, 0.0]]))
    for camera in (replace(ABOVE, distance=0.6), replace(ABOVE, elevation=-10.0, azimuth=200.0, distance=1.0)):
        with open_renderer(replace(footage.task, camera=camera).make()) as renderer:
            red = renderer.frames(footage.snapshots)[0].astype(int)
        area = np.count_nonzero(red[..., 0] - red[..., 1] > 10)
        width = look(camera, footage).widths["ball"]
        assert width == pytest.approx(2 * np.sqrt(area / np.pi), rel=0.05)


def test_resolution_is_what_a_millimetre_measures_in_the_frame() -> None:
    footage = film(np.array([[0.1, 0.2, 0.0]]))
    moved = ABOVE.project(np.array([0.1, 0.2, 0.0]) + 0.001 * ABOVE.rotation[0]) - ABOVE.project(
        footage.keypoints[0, 0]
    )
    assert look(ABOVE, footage).resolution[0] == pytest.approx(moved[0], rel=1e-6)


def test_what_stands_before_a_keypoint_hides_it_and_its_own_body_does_not() -> None:
    footage = film(np.zeros((1, 3)), still=WALL.format(alpha=1))
    sides = np.array([[2.0, 0, 0.1], [-2.0, 0, 0.1]])
    np.testing.assert_array_equal(footage.hidden(sides), [[1.0], [0.0]])
    glass = film(np.zeros((1, 3)), still=WALL.format(alpha=0.3))
    np.testing.assert_array_equal(glass.hidden(sides), [[0.0], [0.0]])


def test_the_proposal_looks_past_the_wall() -> None:
    behind = replace(ABOVE, azimuth=180.0)  # looks along -x, through the wall
    places = cloud(0.1, 0.1, 0.1)
    free = propose([film(places, camera=behind)], progress=False)
    walled = film(places, still=WALL.format(alpha=1), camera=behind)
    assert look(free, walled).hidden.mean() == 1
    assert look(propose([walled], progress=False), walled).hidden.mean() == 0


@pytest.mark.parametrize("axis", range(3))
def test_movement_in_a_plane_is_seen_face_on(axis: int) -> None:
    widths = [0.3, 0.3, 0.3]
    widths[axis] = 0.0
    camera = propose([film(cloud(*widths), camera=replace(ABOVE, azimuth=45.0))], progress=False)
    assert abs(camera.rotation[2, axis]) > 0.85


def test_looking_along_a_movement_is_illegible() -> None:
    footage = film(cloud(0.3, 0.0, 0.3))
    sights = [look(replace(ABOVE, azimuth=azimuth, elevation=-5.0), footage) for azimuth in (0.0, 45.0, 90.0)]
    legibility = [seen.legibility for seen in sights]
    assert legibility == sorted(legibility)
    assert legibility[0] < 0.6 < 0.95 < legibility[2] <= 1
    assert look(ABOVE, film(np.zeros((3, 3)))).legibility == 1  # nothing moves, nothing is lost


def test_the_smallest_free_object_counts_not_the_arm_that_pushes_it() -> None:
    assert Footage.play(get_task("push-v3"), episodes=1).objects == ["object"]
    runner = Footage.play(get_task("Hopper-v5"), episodes=1)
    assert runner.objects == ["root", "hip", "knee", "ankle"]  # the toe is on the ankle's body
    goal = Keypoint("goal", "site", "goal")
    still = film(cloud(0.1, 0.1, 0.1), still="<site name='goal' size='0.02'/>", keypoints=(goal,))
    assert still.objects == ["goal"]  # nothing moves: the mark is what has to be seen
    assert look(ABOVE, still).widths["goal"] == pytest.approx(0.04 * ABOVE.focal / 2, rel=0.1)


def test_a_store_is_footage(store_path: Path) -> None:
    store = Store.open(store_path)
    footage = Footage.load(store_path)
    np.testing.assert_array_equal(footage.keypoints, store.read("keypoints", 0, store.frame_count))
    assert len(footage.snapshots) == MOMENTS < store.frame_count


def test_what_holds_no_simulator_states_is_refused(tmp_path: Path) -> None:
    task = get_task("push-v3")
    store = Store.create(tmp_path / "imagined", task, {}, {})
    with pytest.raises(PixeltrajError, match="is empty; fill it"):
        Footage.load(store.path)
    with pytest.raises(PixeltrajError, match="play at least one episode"):
        Footage.play(task, episodes=0)


def test_tasks_that_cannot_share_a_camera_are_refused() -> None:
    places = cloud(0.1, 0.1, 0.1)
    with pytest.raises(PixeltrajError, match="one camera serves tasks of one fovy and track"):
        propose([film(places), film(places, camera=replace(ABOVE, fovy=60.0))])
    for margin in (-1.0, 41.5, float("nan")):
        with pytest.raises(PixeltrajError, match="is not between 0 and 41 pixels"):
            propose([film(places)], margin)


def test_the_table_tells_each_keypoint_and_camera() -> None:
    footage = film(cloud(0.1, 0.1, 0.1))
    text = table({"present": ABOVE, "proposed": propose([footage], progress=False)}, [footage])
    (row,) = [line for line in text.splitlines() if line.startswith("free ball")]
    assert float(row.split()[2]) < float(row.split()[5])  # pixels per millimetre
    assert "present: smallest object (ball)" in text and "proposed: smallest object (ball)" in text
