"""Triangles: meshes, whose every face is tested against the rays of the few pixels it may cover.

mj_multiRay tells neither the face it hit nor that face's normal, and tests each ray against a whole mesh: to go from
faces to rays took a quarter of its time on a robot arm.
"""

from functools import lru_cache

import mujoco
import numpy as np

from pixeltraj.camera import FRAME_SIZE
from pixeltraj.render.raytracing.lighting import Light, shade
from pixeltraj.render.raytracing.rays import Hits, Rays
from pixeltraj.render.raytracing.surfaces import Surfaces
from pixeltraj.render.raytracing.vectors import turn

_SHARP = 0.8  # MuJoCo draws corners sharper than this (cosine) flat
_BROAD = 0.05  # metres
_NEAR = 1e-2  # metres; faces nearer than this are left out


class Triangles:
    """The faces of all mesh surfaces."""

    def __init__(self, surfaces: Surfaces, which: np.ndarray, model: mujoco.MjModel) -> None:
        self._surfaces = surfaces
        meshes = [_mesh(model, surfaces.mesh[one]) for one in which]
        self._points = {one: np.ascontiguousarray(mesh[0].T) for one, mesh in zip(which.tolist(), meshes)}
        starts = np.cumsum([0] + [len(mesh[1]) for mesh in meshes[:-1]])
        self._numbered = {
            one: (mesh[1].T, start + np.arange(len(mesh[1])))
            for one, mesh, start in zip(which.tolist(), meshes, starts)
        }
        self._normals = np.concatenate([mesh[2] for mesh in meshes]).transpose(2, 1, 0).copy()
        """(3, 3, T), components before corners"""
        self._uv: np.ndarray | None = None
        if surfaces.own_uv[which].any():
            self._uv = np.concatenate([mesh[3] for mesh in meshes]).transpose(2, 1, 0).copy()
        self._density = np.concatenate([mesh[4] for mesh in meshes])
        # OpenGL lights corners only. It shows where a lamp shines on a face that is not small.
        lamps = bool((~model.light_directional[model.light_active.astype(bool)].astype(bool)).any())
        edges = [mesh[0][mesh[1]] - mesh[0][np.roll(mesh[1], 1, axis=1)] for mesh in meshes]
        length = np.concatenate([np.sqrt(np.square(edge).sum(axis=2)).max(axis=1) for edge in edges])
        self._broad = lamps & (length > _BROAD)
        self._owner = np.repeat(which, [len(mesh[1]) for mesh in meshes])
        self._gathered = lru_cache(maxsize=8)(self._gather)

    def _gather(self, which: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """The faces of surfaces: corners (3, T) as numbers of their points, one after another; their own numbers."""
        starts = np.cumsum([0] + [self._points[one].shape[1] for one in which[:-1]])
        faces = [self._numbered[one][0] + start for one, start in zip(which, starts)]
        return np.concatenate(faces, axis=1), np.concatenate([self._numbered[one][1] for one in which])

    def cast(self, rays: Rays, which: np.ndarray, places: np.ndarray, found: list[Light]) -> Hits | None:
        """All that the rays hit of surfaces (S',), as `primitives.cast` finds it; places (S, 4, 3) float32."""
        chosen = tuple(which.tolist())
        faces, numbers = self._gathered(chosen)
        point = np.concatenate(
            [places[one, 1:] @ self._points[one] + places[one, 0, :, None] for one in chosen], axis=1
        )
        depth = point[2]
        inverse = 1 / np.where(depth < _NEAR, np.nan, depth)
        half, focal = np.float32(FRAME_SIZE / 2), np.float32(rays.focal)
        column, row = half + focal * point[0] * inverse, half - focal * point[1] * inverse
        x, y = [column.take(one) for one in faces], [row.take(one) for one in faces]
        # Twice the area; rows run downwards, so that front faces run clockwise.
        area = (x[2] - x[0]) * (y[1] - y[0]) - (x[1] - x[0]) * (y[2] - y[0])
        front = np.flatnonzero(area > 1e-9)
        x, y = [one.take(front) for one in x], [one.take(front) for one in y]
        windows = rays.cover(_least(x), _least(y), _most(x), _most(y))
        some = np.flatnonzero(windows[2] * windows[3])
        if not some.size:
            return None
        windows, seen = windows[:, some], front[some]
        left, top = windows[:2].astype(np.float32)
        x0, x1, x2 = (one[some] - left for one in x)
        y0, y1, y2 = (one[some] - top for one in y)
        # Weights of the three corners (barycentric), linear in the picture: across * column + down * row + rest.
        linear = np.stack(
            [y1 - y2, y2 - y0, y0 - y1]
            + [x2 - x1, x0 - x2, x1 - x0]
            + [x1 * y2 - x2 * y1, x2 * y0 - x0 * y2, x0 * y1 - x1 * y0]
        )
        linear *= -1 / area[seen]
        pair, columns, rows = rays.spread(windows)
        across, down, rest = linear.take(pair, axis=1).reshape(3, 3, -1)
        pixel = rows * FRAME_SIZE + columns
        x_by, y_by = columns.astype(np.float32) - left[pair], rows.astype(np.float32) - top[pair]
        inside = []
        for i, offset in enumerate(rays.offsets):
            weight = across * (x_by + offset[0]) + down * (y_by + offset[1]) + rest
            hit = np.flatnonzero(weight.min(axis=0) >= 0)
            inside.append((seen[pair[hit]], pixel[hit] * rays.count + i, weight[:, hit]))
        face, sample, weight = (np.concatenate(each, axis=-1) for each in zip(*inside))
        if not face.size:
            return None
        # Dividing by depth makes them right in perspective; their sum is then 1 / depth.
        weight *= inverse[faces[:, face]]
        nearness = weight.sum(axis=0)
        weight /= nearness
        number = numbers[face]
        owner = self._owner[number]
        own = np.full((6, len(face)), -1, np.float32)
        rotation = places[:, 1:].transpose(1, 2, 0).take(owner, axis=2)
        normal = turn(rotation, turn(self._normals.take(number, axis=2), weight))
        if self._uv is not None:
            own[:2] = turn(self._uv.take(number, axis=2), weight)
            own[2] = self._density[number]
        broad = np.flatnonzero(self._broad[number])
        if broad.size:
            corners = self._lit_corners(number[broad], point[:, faces[:, face[broad]]], places, found)
            own[3:, broad] = turn(corners, weight[:, broad])
        return Hits(sample, 1 / nearness, owner, normal, own)

    def _lit_corners(
        self, number: np.ndarray, points: np.ndarray, places: np.ndarray, found: list[Light]
    ) -> np.ndarray:
        """(3, 3, F) the colours of the corners of faces (F,), which are at (3, 3, F): components before corners."""
        each, first, back = np.unique(number, return_index=True, return_inverse=True)
        owner = self._owner[each]
        rotation = places[:, 1:].transpose(1, 2, 0).take(owner, axis=2)
        colours = [
            shade(self._surfaces, found, owner, points[:, c, first], turn(rotation, self._normals[:, c, each]))
            for c in range(3)
        ]
        return np.stack(colours, axis=1)[:, :, back]


def _least(of: list[np.ndarray]) -> np.ndarray:
    return np.minimum(np.minimum(of[0], of[1]), of[2])


def _most(of: list[np.ndarray]) -> np.ndarray:
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
