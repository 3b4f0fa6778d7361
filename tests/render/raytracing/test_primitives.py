"""Primitives: where rays hit shapes, beside MuJoCo's own ray casting."""

import mujoco
import numpy as np

from pixeltraj.camera import FRAME_SIZE, Camera
from pixeltraj.render.raytracing.primitives import cast
from pixeltraj.render.raytracing.rays import Rays, join, nearest
from pixeltraj.render.raytracing.surfaces import Surfaces

SHAPES = """
<mujoco><worldbody>
  <geom type="box" size="0.1 0.2 0.05" pos="-0.6 0.5 2" euler="20 30 40"/>
  <geom type="sphere" size="0.2" pos="0 0.5 2"/>
  <geom type="ellipsoid" size="0.1 0.2 0.05" pos="0.6 0.5 2" euler="20 30 40"/>
  <geom type="capsule" size="0.1 0.2" pos="-0.6 -0.2 2" euler="70 20 0"/>
  <geom type="cylinder" size="0.1 0.2" pos="0 -0.2 2" euler="-40 10 0"/>
  <geom type="cylinder" size="0.2 0.001" pos="0.6 -0.2 2" euler="-40 10 0"/>
  <geom type="capsule" size="0.05 0.5" pos="0 -0.6 2" euler="0 90 0"/>
  <geom type="box" size="0.3 0.3 0.3" pos="0 0 -2"/>
</worldbody></mujoco>
"""


def test_shapes_are_hit_where_mujoco_says() -> None:
    model = mujoco.MjModel.from_xml_string(SHAPES)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    surfaces = Surfaces(model)
    rays = Rays(Camera((0.0, 0.0, 0.0), 1.0, 90.0, 0.0), 2, 100.0)
    places, which = surfaces.places(data), np.arange(model.ngeom)
    corners = np.einsum("sij,jcs->ics", places[:, 1:], surfaces.boxes) + places[:, 0].T[:, None]
    hits, _ = nearest(join(cast(surfaces, which, places, rays.windows(corners), rays)), np.zeros_like(which))

    geom, depth = np.empty(rays.flat.shape[1], np.int32), np.empty(rays.flat.shape[1])
    ways = rays.directions.ravel()
    model.geom_aabb[:, 3:] = 1e3  # what is beside the angles of a geom's corners is left out otherwise
    mujoco.mj_multiRay(model, data, np.zeros(3), ways, None, 1, -1, geom, depth, len(geom), 1e3)
    drawn = np.full(len(geom), -1)
    drawn[hits.sample] = hits.surface
    assert set(hits.surface) == set(range(7)), "all but the one behind the camera"
    assert (drawn != geom).sum() <= 4, "but for the last bit at an outline"

    same = hits.surface == geom[hits.sample]
    np.testing.assert_allclose(hits.depth[same], depth[hits.sample[same]], atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(hits.normal, axis=0), 1, atol=1e-5)
    assert (np.einsum("if,if->f", hits.normal, rays.flat[:, hits.sample]) < 1e-3).all(), "towards the camera"
    # A normal is how the depth of its surface changes from sample to sample: seen inside of the flat box's face.
    flat = np.flatnonzero(same & (hits.surface == 0))
    sides = np.abs(places[0, 1:].T @ hits.normal[:, flat])
    assert (sides.max(axis=0) > 1 - 1e-5).all()


def test_a_window_holds_all_samples_between_its_edges() -> None:
    rays = Rays(Camera((0.0, 0.0, 0.0), 1.0, 90.0, 0.0), 1, 100.0)
    edges = (np.array([3.4, 3.6, -9.0, 90.0]), np.array([5.5, 5.6, -9.0, 1.0]))
    windows = rays.cover(*edges, np.array([4.6, 4.4, 500.0, 99.0]), np.array([5.5, 5.7, 500.0, 2.0]))
    which, column, row = rays.spread(windows)
    first = which == 0
    assert list(zip(column[first], row[first])) == [(3, 5), (4, 5)], "their middles lie on the edge or inside"
    assert not np.isin([1, 3], which).any()
    assert (which == 2).sum() == FRAME_SIZE**2
