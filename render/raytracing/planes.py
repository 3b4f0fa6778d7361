"""Planes: floors and walls, whose hits follow from one equation.

Most floors only slide along themselves, under a camera that follows its robot: what does not change then is kept.
"""

import numpy as np

from pixeltraj.render.raytracing.lighting import Light, shade
from pixeltraj.render.raytracing.painting import footprint
from pixeltraj.render.raytracing.rays import Fragments, Rays, pack
from pixeltraj.render.raytracing.surfaces import Surfaces
from pixeltraj.render.raytracing.textures import Filter
from pixeltraj.render.raytracing.vectors import dot, turn


class Plane:
    """One plane."""

    def __init__(self, surfaces: Surfaces, one: int) -> None:
        self._surfaces, self._one = surfaces, one
        self._known = b""

    def paint(self, rays: Rays, found: list[Light], lit: bytes, place: np.ndarray) -> Fragments | None:
        """Its colours with the plane at (4, 3) in the camera's frame; None where it is seen from below or not at all.

        lit: changes with the lights `found`.
        """
        axes = place[1:].astype(np.float32)
        distance = np.float32(round(float(place[0] @ place[1:, 2]), 6))  # what is left of sliding
        known = axes.tobytes() + distance.tobytes() + lit
        if known != self._known:
            self._known = known
            self._look(rays, found, axes, distance)
        if not self._sample.size:
            return None
        surfaces, one = self._surfaces, self._one
        shift = (place[0] @ place[1:, :2]).astype(np.float32)
        sample, depth, colour = self._sample, self._depth, self._colour
        if self._footprint is not None:
            slide = surfaces.image_coordinates(one, shift[:, None]) + np.float32(0.5)
            colour = colour * self._footprint.fetch(self._uv - slide)
        colour = pack(colour)
        if rays.count > 1:
            colour = colour[self._pixel]
        size = surfaces.size[one, :2]
        for along in np.flatnonzero(size > 0):  # zero is without end
            low, high = shift[along] - size[along], shift[along] + size[along]
            if self._low[along] < low or self._high[along] > high:
                outside = (self._reach[along] < low) | (self._reach[along] > high)
                depth = np.where(outside, np.float32(np.inf), depth)
        return Fragments(sample, depth, colour)

    def _look(self, rays: Rays, found: list[Light], axes: np.ndarray, distance: np.float32) -> None:
        """All that does not depend on where in its own directions the plane lies."""
        surfaces, one = self._surfaces, self._one
        normal = axes[:, 2:]
        slope = dot(rays.flat, normal)
        hit = (slope < -1e-6) if distance < 0 else np.zeros(len(slope), bool)
        depth = distance / np.where(hit, slope, -1)
        hit &= depth < rays.far
        self._sample = np.flatnonzero(hit)
        if not self._sample.size:
            return
        self._depth = depth[self._sample]
        local = axes.T[:, :, None]
        self._reach = turn(local, rays.flat[:, self._sample] * self._depth)[:2]
        self._low, self._high = self._reach.min(axis=1), self._reach.max(axis=1)
        # Colours are those of the middles of the pixels that it touches.
        pixels, self._pixel = np.unique(self._sample // rays.count, return_inverse=True)
        middle = rays.middles[:, pixels]
        depth = distance / np.minimum(dot(middle, normal), -1e-6)
        point = middle * np.minimum(depth, rays.far)
        which = np.full(len(pixels), one)
        normals = np.broadcast_to(normal, point.shape)
        self._colour = shade(surfaces, found, which, point, normals)
        self._uv = surfaces.image_coordinates(one, turn(local, point))
        self._footprint: Filter | None = None
        if surfaces.texture[one] is not None:
            self._footprint = footprint(surfaces, one, axes, rays, point, normals)
