"""Primitives: boxes and round shapes, cast by mj_multiRay, with their exact normals."""

import mujoco
import numpy as np

from pixeltraj.render.raytracing.rays import Hits, Rays, Window
from pixeltraj.render.raytracing.surfaces import Geom, Surfaces

_FAR = 1e6
_AXIS = np.array([0, 0, 1], np.float32)


class Primitives:
    """Some surfaces in a model of their own, whose geoms are put where they are wanted."""

    def __init__(self, surfaces: Surfaces, which: np.ndarray) -> None:
        self.which = which
        spec = mujoco.MjSpec()
        for one in which:
            kind, size = surfaces.kind[one], surfaces.size[one].astype(np.float64)
            if kind in (Geom.mjGEOM_CAPSULE, Geom.mjGEOM_CYLINDER):
                size = size[[0, 2, 2]]
            spec.worldbody.add_body().add_geom(type=Geom(kind), size=size)
        self._model = spec.compile()
        # mj_multiRay leaves out what lies beside the angles of a geom's corners, but a long edge bulges past them.
        self._model.geom_aabb[:] = [0, 0, 0, _FAR, _FAR, _FAR]
        self._data = mujoco.MjData(self._model)

    def cast(self, rays: Rays, window: Window, places: np.ndarray) -> Hits | None:
        """What the rays in the window hit, with the surfaces at (S', 4, 3) in the camera's frame; None: nothing.

        The normals are left to `normals`, which takes those of many casts at once.
        """
        directions = rays.directions[window].ravel()
        geom = np.empty(directions.size // 3, np.int32)
        depth = np.empty(len(geom))
        data, position = self._data, places[:, 0]
        data.xipos[1:] = data.geom_xpos[:] = position
        data.geom_xmat[:] = places[:, 1:].reshape(-1, 9)
        mujoco.mj_multiRay(self._model, data, np.zeros(3), directions, None, 1, -1, geom, depth, len(geom), _FAR)
        hit = np.flatnonzero(geom >= 0)
        if not hit.size:
            return None
        blank = np.full((hit.size, 6), -1, np.float32)
        sample = rays.numbers[window].ravel()[hit]
        return Hits(sample, depth[hit].astype(np.float32), self.which[geom[hit]], blank[:, :3], blank)


def normals(surfaces: Surfaces, places: np.ndarray, surface: np.ndarray, point: np.ndarray) -> np.ndarray:
    """(F, 3) unit vectors at points (F, 3) of surfaces (F,); all in the camera's frame, places (S, 4, 3) float32."""
    place = places[surface]
    local = np.einsum("fi,fij->fj", point - place[:, 0], place[:, 1:])
    kinds, sizes = surfaces.kind[surface], surfaces.size[surface]
    for kind in np.flatnonzero(np.bincount(kinds)):
        here = np.flatnonzero(kinds == kind)
        at, size = local[here], sizes[here]
        if kind == Geom.mjGEOM_BOX:
            at = np.abs(at / size)
            at = np.where(at == at.max(axis=1, keepdims=True), local[here], 0)
        elif kind == Geom.mjGEOM_CAPSULE:
            at[:, 2] -= np.clip(at[:, 2], -size[:, 2], size[:, 2])
        elif kind == Geom.mjGEOM_CYLINDER:
            cap = np.abs(at[:, 2]) >= size[:, 2] * np.float32(1 - 1e-5)
            at = at * np.where(cap[:, None], _AXIS, 1 - _AXIS)
        else:  # a sphere or an ellipsoid
            at = at / np.square(size)
        local[here] = at
    return unit(np.einsum("fij,fj->fi", place[:, 1:], local))


def unit(vector: np.ndarray) -> np.ndarray:
    """(F, 3) at length 1."""
    return vector / np.sqrt(np.maximum(np.einsum("fi,fi->f", vector, vector), 1e-20))[:, None]
