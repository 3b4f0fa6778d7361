"""Painting: hits -> colours. Each surface is shaded once a pixel, as in OpenGL's multisampling."""

import numpy as np

from pixeltraj.render.raytracing.lighting import Light, shade
from pixeltraj.render.raytracing.rays import Fragments, Hits, Rays, pack
from pixeltraj.render.raytracing.surfaces import Surfaces
from pixeltraj.render.raytracing.textures import Filter
from pixeltraj.render.raytracing.vectors import dot, turn, unit


def paint(hits: Hits, surfaces: Surfaces, rays: Rays, found: list[Light], places: np.ndarray) -> Fragments:
    """Colours of the hits under the lights `found`; places (S, 4, 3) float32 of all surfaces in the camera's frame."""
    point = rays.flat.take(hits.sample, axis=1) * hits.depth
    normal, own, which = hits.normal, hits.own, hits.surface
    count = None
    if rays.count > 1:  # neighbours of one pixel and one surface are one
        pixel, lit = hits.sample // rays.count, own[3] >= 0
        same = (pixel[1:] == pixel[:-1]) & (which[1:] == which[:-1]) & (lit[1:] == lit[:-1])
        start = np.flatnonzero(np.r_[True, ~same])
        count = np.diff(np.append(start, len(which)))
        which = which[start]
        point, normal, own = (np.add.reduceat(each, start, axis=1) / count for each in (point, normal, own))
        point, normal, own = (each.astype(np.float32) for each in (point, normal, own))
    normal = unit(normal)
    colour = shade(surfaces, found, which, point, normal)
    at_corners = np.flatnonzero(own[3] >= 0)
    colour[:, at_corners] = own[3:, at_corners]
    for one in np.flatnonzero(np.bincount(which)).tolist():
        if surfaces.texture[one] is not None:
            here = np.flatnonzero(which == one)
            parts = (each.take(here, axis=1) for each in (point, normal, own))
            colour[:, here] *= _texture(surfaces, one, places[one], rays, *parts)
    packed = pack(colour)
    return Fragments(hits.sample, hits.depth, packed if count is None else np.repeat(packed, count))


def footprint(
    surfaces: Surfaces, one: int, axes: np.ndarray, rays: Rays, point: np.ndarray, normal: np.ndarray
) -> Filter | None:
    """How to read the image on surface `one` (axes (3, 3) in the camera's frame) at points (3, F)."""
    texture = surfaces.texture[one]
    if texture is None or texture.cube:
        return None
    steps = (turn(axes.T[:, :, None], step) for step in _steps(rays, point, normal))
    return texture.image_filter(*(surfaces.image_coordinates(one, step) for step in steps))


def _steps(rays: Rays, point: np.ndarray, normal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far points (3, F) move on their surface to the next pixel on the right, and to the next below."""
    depth = point[2]
    slope = normal[:2] / np.minimum(dot(normal, point), -1e-3 * depth)
    right, below = -point * slope[0], point * slope[1]
    right[0] += 1
    below[1] -= 1
    scale = depth / np.float32(rays.focal)
    return right * scale, below * scale


def _texture(
    surfaces: Surfaces, one: int, place: np.ndarray, rays: Rays, point: np.ndarray, normal: np.ndarray, own: np.ndarray
) -> np.ndarray:
    """(3, F) colours of the texture of surface `one` at points (3, F)."""
    texture = surfaces.texture[one]
    assert texture is not None
    if surfaces.own_uv[one]:
        if texture.cube:  # MuJoCo gives it texture coordinates, which a cube does not have
            return np.ones_like(point)
        lengths = (np.sqrt(dot(step, step)) for step in _steps(rays, point, normal))
        across = (np.stack([own[2] * length, np.zeros_like(length)]) for length in lengths)
        return texture.image_filter(*across).fetch(own[:2])
    axes = place[1:]
    local = turn(axes.T[:, :, None], point - place[0, :, None])
    if texture.cube:
        steps = (turn(axes.T[:, :, None], step) for step in _steps(rays, point, normal))
        return texture.around(*(surfaces.cube_direction(one, each) for each in (local, *steps)))
    found = footprint(surfaces, one, axes, rays, point, normal)
    assert found is not None
    return found.fetch(surfaces.image_coordinates(one, local) - np.float32(0.5))
