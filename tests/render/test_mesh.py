"""Simplified meshes: coarse where many faces are, the same shape, and the rest untouched."""

from pathlib import Path

import mujoco
import numpy as np
import pytest

from pixeltraj.errors import PixeltrajError
from pixeltraj.render.mesh import LEAST_FACES, cluster, simplified
from pixeltraj.render.mujoco_renderer import MujocoRenderer
from pixeltraj.tasks import get_task


def sphere(rings: int, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """A closed sphere of 2 rings^2 faces: (V, 3) vertices, (F, 3) faces."""
    theta, phi = np.meshgrid(np.linspace(0, np.pi, rings + 1), np.arange(rings) * 2 * np.pi / rings, indexing="ij")
    vertices = radius * np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], -1)
    i, j = np.meshgrid(np.arange(rings), np.arange(rings), indexing="ij")
    a, b = i * rings + j, i * rings + (j + 1) % rings
    quads = [np.stack([a, a + rings, b], -1), np.stack([b, a + rings, b + rings], -1)]
    return vertices.reshape(-1, 3), np.concatenate([q.reshape(-1, 3) for q in quads])


def volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    return float(np.sum(np.linalg.det(vertices[faces])) / 6)


def test_a_sphere_keeps_its_surface_with_few_faces() -> None:
    vertices, faces = sphere(100, 0.1)
    kept, points, survivors, coarse = cluster(vertices, faces, 0.02)
    assert len(coarse) == len(survivors) < len(faces) / 20
    assert set(np.unique(coarse)) <= set(kept)
    moved = vertices.copy()
    moved[kept] = points
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 0.1, atol=0.002)
    assert volume(moved, coarse) == pytest.approx(volume(vertices, faces), rel=0.12)


def test_a_flat_sheet_stays_flat_and_keeps_both_of_its_sides() -> None:
    x, y = np.meshgrid(np.linspace(0, 1, 40), np.linspace(0, 1, 40), indexing="ij")
    vertices = np.stack([x, y, np.full_like(x, 0.3)], -1).reshape(-1, 3)
    a = (np.arange(39)[:, None] * 40 + np.arange(39)).ravel()
    upper = np.concatenate([np.stack([a, a + 40, a + 1], -1), np.stack([a + 1, a + 40, a + 41], -1)])
    _, points, _, coarse = cluster(vertices, np.concatenate([upper, upper[:, ::-1]]), 0.1)
    np.testing.assert_allclose(points[:, 2], 0.3, atol=1e-9)
    once = {frozenset(face) for face in coarse.tolist()}
    assert len(coarse) == 2 * len(once)


def test_only_big_meshes_of_a_copy_change() -> None:
    model = get_task("push-v3").make().model
    before = model.mesh_face.copy(), model.mesh_facenum.copy()
    coarse = simplified(model, 0.02)
    np.testing.assert_array_equal(model.mesh_face, before[0])
    big = before[1] >= LEAST_FACES
    assert big.any() and not big.all()
    np.testing.assert_array_equal(coarse.mesh_facenum[~big], before[1][~big])
    assert coarse.mesh_facenum[big].sum() < before[1][big].sum() / 8


@pytest.mark.parametrize(("task", "least"), [("push-v3", 33.0), ("HalfCheetah-v5", 35.0)])
def test_simplified_frames_are_near_the_full_ones(task: str, least: float) -> None:
    simulator = get_task(task).make()
    errors = []
    with MujocoRenderer(simulator) as simple, MujocoRenderer(simulator, simplify=False) as full:
        for seed in range(4):
            simulator.reset(seed=seed)
            simulator.step(np.full(simulator.task.action_size, 0.5))
            frames = simple.frame().astype(float), full.frame().astype(float)
            errors.append(np.mean((frames[0] - frames[1]) ** 2))
    psnr = 10 * np.log10(255**2 / np.mean(errors))
    assert least < psnr < 60, "dB; more would mean that nothing was simplified"


def test_what_environments_edit_is_drawn() -> None:
    simulator = get_task("push-v3").make()
    simulator.reset(seed=0)
    with MujocoRenderer(simulator) as renderer:
        before = renderer.frame()
        simulator.model.geom_rgba[simulator.model.body("obj").geomadr[0]] = (0, 0, 1, 1)
        assert not np.array_equal(renderer.frame(), before)


def test_a_corrupt_mesh_is_named(tmp_path: Path) -> None:
    vertices, _ = sphere(6, 0.1)
    flat = " ".join(f"{value:.5f}" for value in vertices.ravel())
    model = mujoco.MjModel.from_xml_string(
        f'<mujoco><asset><mesh name="knob" vertex="{flat}"/></asset>'
        '<worldbody><geom type="mesh" mesh="knob"/></worldbody></mujoco>'
    )
    model.mesh_vert[3] = np.nan
    with pytest.raises(PixeltrajError, match="mesh 'knob' of the model has NaN"):
        simplified(model, 0.02)
