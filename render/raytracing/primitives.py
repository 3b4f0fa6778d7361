"""Primitives: boxes and round shapes, whose hits and normals follow from equations."""

import numpy as np

from pixeltraj.camera import FRAME_SIZE
from pixeltraj.render.raytracing.rays import Hits, Rays
from pixeltraj.render.raytracing.surfaces import Geom, Surfaces
from pixeltraj.render.raytracing.vectors import turn, unit


def cast(surfaces: Surfaces, which: np.ndarray, places: np.ndarray, windows: np.ndarray, rays: Rays) -> list[Hits]:
    """All that the rays hit of surfaces (S',), whose windows are (4, S'); often several a sample, in no order.

    places (S, 4, 3) float64: of all surfaces, in the camera's frame.
    """
    order = np.argsort(surfaces.kind[which], kind="stable")
    which, windows = which[order], windows[:, order]
    one, column, row = rays.spread(windows)
    surface = which.take(one)
    place = places[which]
    start = -(place[:, :1] @ place[:, 1:])[:, 0]
    table = np.concatenate([start, place[:, 1:].reshape(-1, 9), surfaces.size[which]], axis=1)
    table = table.T.astype(np.float32).take(one, axis=1)
    start, rotation, size = table[:3], table[3:12].reshape(3, 3, -1), table[12:]
    kinds = _runs(surfaces.kind.take(surface))
    found = []
    for i in range(rays.count):
        x, y = rays.slopes(column, row, i)
        way = rotation[0] * x + rotation[1] * y + rotation[2]
        depth = np.empty(len(one), np.float32)
        for kind, run in kinds:
            depth[run] = _enter(kind, start[:, run], way[:, run], size[:, run])
        hit = np.flatnonzero(depth > 0)
        here, depth = surface.take(hit), depth.take(hit)
        normal = start.take(hit, axis=1) + depth * way.take(hit, axis=1)
        for kind, run in _runs(surfaces.kind.take(here)):
            normal[:, run] = _normal(kind, normal[:, run], surfaces.size.T[:, here[run]])
        normal = unit(turn(rotation.take(hit, axis=2), normal))
        sample = (row.take(hit) * FRAME_SIZE + column.take(hit)) * rays.count + i
        own = np.full((6, hit.size), -1, np.float32)
        found.append(Hits(sample, depth, here, normal, own))
    return found


def _runs(kinds: np.ndarray) -> list[tuple[int, slice]]:
    """The parts of sorted kinds (F,) that are equal."""
    counts = np.bincount(kinds)
    stops = np.cumsum(counts)
    return [(kind, slice(stops[kind] - counts[kind], stops[kind])) for kind in np.flatnonzero(counts).tolist()]


def _enter(kind: int, start: np.ndarray, way: np.ndarray, size: np.ndarray) -> np.ndarray:
    """(F,) where rays from `start` along `way` enter shapes of some size in the middle, all (3, F); nan: nowhere."""
    with np.errstate(all="ignore"):
        if kind == Geom.mjGEOM_BOX:
            return _within(*_between(start, way, size))
        if kind in (Geom.mjGEOM_SPHERE, Geom.mjGEOM_ELLIPSOID):
            return _quadratic(start / size, way / size, 1.0)[0]
        near, far = _quadratic(start[:2], way[:2], size[0])
        if kind == Geom.mjGEOM_CYLINDER:
            cap = _between(start[2], way[2], size[2])
            return _within(np.stack([near, cap[0]]), np.stack([far, cap[1]]))
        # Where a ray meets a capsule it also meets the sphere around that height's nearest point of its axis.
        height = start[2] + near * way[2]
        start = start.copy()
        start[2] -= np.minimum(np.maximum(height, -size[2]), size[2])
        return _quadratic(start, way, size[0])[0]


def _quadratic(start: np.ndarray, way: np.ndarray, radius: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Where rays enter and leave a ball or a disc, given (2 or 3, F)."""
    squared = np.maximum((way * way).sum(axis=0), 1e-12)
    middle = -(start * way).sum(axis=0) / squared
    nearest = start + middle * way
    half = np.sqrt((radius * radius - (nearest * nearest).sum(axis=0)) / squared)
    return middle - half, middle + half


def _between(start: np.ndarray, way: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where rays enter and leave what lies between two walls."""
    middle, half = -start / way, np.abs(size / way)
    return middle - half, middle + half


def _within(near: np.ndarray, far: np.ndarray) -> np.ndarray:
    """Where rays enter what all of N pairs of walls, (N, F) both, enclose."""
    entry = near.max(axis=0)
    return np.where(entry <= far.min(axis=0), entry, np.nan)


def _normal(kind: int, at: np.ndarray, size: np.ndarray) -> np.ndarray:
    """(3, F) of any length, at points (3, F) on shapes of size (3, F) in the middle."""
    if kind == Geom.mjGEOM_BOX:
        side = np.abs(at) - size
        return np.where(side == side.max(axis=0), at, 0)
    if kind in (Geom.mjGEOM_SPHERE, Geom.mjGEOM_ELLIPSOID):
        return at / (size * size)
    if kind == Geom.mjGEOM_CAPSULE:
        return np.stack([at[0], at[1], at[2] - np.minimum(np.maximum(at[2], -size[2]), size[2])])
    cap = np.abs(np.abs(at[2]) - size[2]) < np.abs(np.hypot(at[0], at[1]) - size[0])
    return np.where(cap, [[0], [0], [1]], [[1], [1], [0]]) * at
