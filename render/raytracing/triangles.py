"""Triangles: meshes, whose every face is tested against the rays of the few pixels it may cover.

mj_multiRay tells neither the face it hit nor that face's normal, and tests each ray against a whole mesh: to go from
faces to rays took a quarter of its time on a robot arm.
"""

import mujoco
import numpy as np

from pixeltraj.camera import FRAME_SIZE
from pixeltraj.render.raytracing.lighting import Light, shade
from pixeltraj.render.raytracing.rays import PIXELS, Hits, Rays
from pixeltraj.render.raytracing.surfaces import Surfaces

_SHARP = 0.8  # MuJoCo draws corners sharper than this (cosine) flat
_BROAD = 0.05  # metres
_LAST = FRAME_SIZE - 0.5
_NEAR = 1e-2  # metres; faces nearer than this are left out


class Triangles:
    """The faces of some mesh surfaces."""

    def __init__(self, surfaces: Surfaces, which: np.ndarray, model: mujoco.MjModel) -> None:
        self.which, self._surfaces = which, surfaces
        meshes = [_mesh(model, surfaces.mesh[one]) for one in which]
        self._points = [mesh[0] for mesh in meshes]
        starts = np.cumsum([0] + [len(mesh[0]) for mesh in meshes[:-1]])
        self._faces = np.concatenate([mesh[1] + start for mesh, start in zip(meshes, starts)]).T.copy()
        self._normals = np.concatenate([mesh[2] for mesh in meshes])
        self._uv = np.concatenate([mesh[3] for mesh in meshes]) if surfaces.own_uv[which].any() else None
        self._density = np.concatenate([mesh[4] for mesh in meshes])
        # OpenGL lights corners only. It shows where a lamp shines on a face that is not small.
        lamps = bool((~model.light_directional[model.light_active.astype(bool)].astype(bool)).any())
        edges = [mesh[0][mesh[1]] - mesh[0][np.roll(mesh[1], 1, axis=1)] for mesh in meshes]
        length = np.concatenate([np.sqrt(np.square(edge).sum(axis=2)).max(axis=1) for edge in edges])
        self._broad = lamps & (length > _BROAD)
        self._owner = np.repeat(np.arange(len(which)), [len(mesh[1]) for mesh in meshes])

    def cast(self, rays: Rays, places: np.ndarray, found: list[Light]) -> Hits | None:
        """What the rays hit, with the surfaces at (S', 4, 3) in the camera's frame; None where all miss."""
        places = places.astype(np.float32)
        points = [local @ place[1:].T + place[0] for local, place in zip(self._points, places)]
        point = points[0] if len(points) == 1 else np.concatenate(points)
        inverse = 1 / np.maximum(point[:, 2], _NEAR)
        half, focal = np.float32(FRAME_SIZE / 2), np.float32(rays.focal)
        column, row = half + focal * point[:, 0] * inverse, half - focal * point[:, 1] * inverse
        inverse[point[:, 2] < _NEAR] = np.nan
        a, b, c = self._faces
        x, y = (column[a], column[b], column[c]), (row[a], row[b], row[c])
        # Twice the area; rows run downwards, so that front faces run clockwise.
        area = (x[2] - x[0]) * (y[1] - y[0]) - (x[1] - x[0]) * (y[2] - y[0])
        left, top = np.maximum(_least(x), 0), np.maximum(_least(y), 0)
        right, bottom = np.minimum(_most(x), _LAST), np.minimum(_most(y), _LAST)
        seen = np.flatnonzero(
            (area > 1e-9) & (left <= right) & (top <= bottom) & (inverse[a] + inverse[b] + inverse[c] > 0)
        )
        if not seen.size:
            return None
        left, top = left[seen].astype(np.int32), top[seen].astype(np.int32)
        wide, high = right[seen].astype(np.int32) - left + 1, bottom[seen].astype(np.int32) - top + 1
        x0, x1, x2 = (one[seen] - left.astype(np.float32) for one in x)
        y0, y1, y2 = (one[seen] - top.astype(np.float32) for one in y)
        # Weights of the three corners (barycentric), linear in the picture: across * column + down * row + rest.
        unit = -1 / area[seen]
        across = np.stack([y1 - y2, y2 - y0, y0 - y1]) * unit
        down = np.stack([x2 - x1, x0 - x2, x1 - x0]) * unit
        rest = np.stack([x1 * y2 - x2 * y1, x2 * y0 - x0 * y2, x0 * y1 - x1 * y0]) * unit
        # Each face with each pixel of its rectangle.
        count = wide * high
        face = np.repeat(np.arange(len(seen)), count)
        place = np.arange(len(face)) - np.repeat(np.cumsum(count) - count, count)
        rows = place // wide[face]
        columns = place - rows * wide[face]
        across_by, down_by = columns.astype(np.float32), rows.astype(np.float32)
        pixel = (top[face] + rows) * FRAME_SIZE + left[face] + columns
        inside = np.ones((rays.count, len(face)), bool)
        for corner in range(3):
            weight = across[corner][face] * across_by + down[corner][face] * down_by + rest[corner][face]
            for i, (x, y) in enumerate(rays.offsets):
                inside[i] &= weight >= -(across[corner] * x + down[corner] * y)[face]
        which, pair = np.nonzero(inside)
        if not pair.size:
            return None
        face = face[pair]
        sample = pixel[pair] * rays.count + which
        offset = rays.offsets[which]
        across_by, down_by = across_by[pair] + offset[:, 0], down_by[pair] + offset[:, 1]
        # Dividing by depth makes them right in perspective; their sum is then 1 / depth.
        corners = inverse[self._faces[:, seen]]
        across, down, rest = across * corners, down * corners, rest * corners
        nearness = across.sum(axis=0)[face] * across_by + down.sum(axis=0)[face] * down_by + rest.sum(axis=0)[face]
        nearest = np.zeros(PIXELS * rays.count, np.float32)
        np.maximum.at(nearest, sample, nearness)
        first = np.full(PIXELS * rays.count, -1, np.int32)
        front = np.flatnonzero(nearness == nearest[sample])
        first[sample[front]] = front
        sample = np.flatnonzero(first >= 0)
        chosen = first[sample]
        face, nearness, across_by, down_by = face[chosen], nearness[chosen], across_by[chosen], down_by[chosen]
        weight = (across[:, face] * across_by + down[:, face] * down_by + rest[:, face]) / nearness
        face = seen[face]
        owner = self._owner[face]
        normal = np.einsum("cf,fci->fi", weight, self._normals[face])
        normal = np.einsum("fij,fj->fi", places[owner, 1:], normal)
        own = np.full((len(face), 6), -1, np.float32)
        if self._uv is not None:
            own[:, :2] = np.einsum("cf,fci->fi", weight, self._uv[face])
            own[:, 2] = self._density[face]
        broad = np.flatnonzero(self._broad[face])
        if broad.size:
            corners = self._lit_corners(face[broad], point, places, found)
            own[broad, 3:] = np.einsum("cf,cfi->fi", weight[:, broad], corners)
        return Hits(sample, 1 / nearness, self.which[owner], normal, own)

    def _lit_corners(self, face: np.ndarray, point: np.ndarray, places: np.ndarray, found: list[Light]) -> np.ndarray:
        """(3, F, 3) the colours of the corners of faces (F,), with points (V, 3) in the camera's frame."""
        each, back = np.unique(face, return_inverse=True)
        owner = self._owner[each]
        normal = np.einsum("fij,fcj->cfi", places[owner, 1:], self._normals[each])
        colours = [
            shade(self._surfaces, found, self.which[owner], point[self._faces[corner, each]], normal[corner])
            for corner in range(3)
        ]
        return np.stack(colours)[:, back]


def _least(of: tuple[np.ndarray, ...]) -> np.ndarray:
    return np.minimum(np.minimum(of[0], of[1]), of[2])


def _most(of: tuple[np.ndarray, ...]) -> np.ndarray:
    return np.maximum(np.maximum(of[0], of[1]), of[2])


def _mesh(model: mujoco.MjModel, mesh: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Points (V, 3), faces (T, 3), their corners' normals (T, 3, 3) and texture coordinates (T, 3, 2), density (T,)."""
    start, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
    points = model.mesh_vert[start : start + count]
    rows = slice(model.mesh_faceadr[mesh], model.mesh_faceadr[mesh] + model.mesh_facenum[mesh])
    faces = model.mesh_face[rows].astype(np.int64)
    normals = model.mesh_normal[model.mesh_normaladr[mesh] + model.mesh_facenormal[rows]]
    corners = points[faces]
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(flat, axis=1)
    flat = (flat / np.maximum(area, 1e-20)[:, None])[:, None]
    uv = np.zeros((len(faces), 3, 2), np.float32)
    density = np.zeros(len(faces), np.float32)
    if model.mesh_texcoordadr[mesh] >= 0:
        uv = model.mesh_texcoord[model.mesh_texcoordadr[mesh] + model.mesh_facetexcoord[rows]]
        one, two = uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]
        density = np.sqrt(np.abs(one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0]) / np.maximum(area, 1e-12))
    else:
        normals = np.where((normals * flat).sum(axis=-1, keepdims=True) < _SHARP, flat, normals)
    kept = area > 0
    return points, faces[kept], normals[kept].astype(np.float32), uv[kept], density[kept].astype(np.float32)
