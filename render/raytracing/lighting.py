"""Lighting: OpenGL's fixed light model, with which MuJoCo draws, in the frame of the camera."""

from dataclasses import dataclass

import mujoco
import numpy as np

from pixeltraj.render.raytracing.surfaces import Surfaces
from pixeltraj.render.raytracing.vectors import dot, unit


@dataclass(frozen=True)
class Light:
    """One light. Positions and directions in the camera's frame: right, up, forward."""

    ambient: np.ndarray
    diffuse: np.ndarray
    specular: np.ndarray
    towards: np.ndarray
    """(3,) unit vector from the scene to a directional light."""
    position: np.ndarray | None = None
    """(3,) metres; None for a directional light."""
    attenuation: np.ndarray | None = None
    """(3,) constant, linear and quadratic."""
    cutoff: float = 180.0
    """Degrees between the axis of a spot and its edge."""
    exponent: float = 0.0
    """How fast a spot fades from its axis."""

    def reach(self, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For points (3, F): unit vectors towards the light, (3, 1) or (3, F), and the share of it that arrives."""
        if self.position is None or self.attenuation is None:
            return self.towards[:, None], np.ones(1, np.float32)
        towards = self.position[:, None] - point
        distance = np.sqrt(dot(towards, towards))
        towards /= distance
        constant, linear, quadratic = self.attenuation
        share = 1 / (constant + linear * distance + quadratic * distance * distance)
        if self.cutoff < 180:
            axis = dot(towards, self.towards[:, None])
            inside = axis >= np.float32(np.cos(np.deg2rad(self.cutoff)))
            share = share * inside * np.maximum(axis, 0) ** np.float32(self.exponent)
        return towards, share


def lights(model: mujoco.MjModel, data: mujoco.MjData, camera: np.ndarray, rotation: np.ndarray) -> list[Light]:
    """The headlight and the scene's lights, seen from a camera at (3,) with rotation (3, 3), `Camera.rotation`."""
    found = []
    head = model.vis.headlight
    if head.active:
        ambient, diffuse, specular = (np.array(one, np.float32) for one in (head.ambient, head.diffuse, head.specular))
        found.append(Light(ambient, diffuse, specular, towards=np.array([0, 0, -1], np.float32)))
    some = np.flatnonzero(model.light_active)[: 8 - len(found)]  # OpenGL's eight
    colours = zip(model.light_ambient[some], model.light_diffuse[some], model.light_specular[some])
    towards = (-data.light_xdir[some] @ rotation.T).astype(np.float32)
    positions = ((data.light_xpos[some] - camera) @ rotation.T).astype(np.float32)
    for i, colour, way, position in zip(some.tolist(), colours, towards, positions):
        if model.light_directional[i]:
            found.append(Light(*colour, way))
            continue
        attenuation, cutoff = model.light_attenuation[i].copy(), float(model.light_cutoff[i])
        found.append(Light(*colour, way, position, attenuation, cutoff, float(model.light_exponent[i])))
    return found


def signature(found: list[Light]) -> bytes:
    """Changes whenever a light does."""
    fields = ("ambient", "diffuse", "specular", "towards", "position")
    values = [getattr(light, field) for light in found for field in fields]
    return b"".join(value.tobytes() for value in values if value is not None)


def shade(
    surfaces: Surfaces,
    found: list[Light],
    which: np.ndarray,
    point: np.ndarray,
    normal: np.ndarray,
) -> np.ndarray:
    """(3, F) colours in [0, 1] of points (3, F) with unit normals (3, F) on surfaces (F,), before textures."""
    view = -unit(point)
    colour = surfaces.rgb.T.take(which, axis=1)
    if not found:
        return np.minimum(colour * (surfaces.emission.take(which) + np.float32(0.3)), 1)  # MuJoCo's glow then
    # All lights at once: numbers are (L, F), vectors and colours (3, L, F).
    ways, shares = zip(*(light.reach(point) for light in found))
    towards = np.stack(np.broadcast_arrays(*ways), axis=1)
    ambient, diffuse, specular = (
        np.array([getattr(light, name) for light in found], np.float32).T[:, :, None]
        for name in ("ambient", "diffuse", "specular")
    )
    share = np.stack(np.broadcast_arrays(*shares))
    facing = dot(normal[:, None], towards)
    dull = (ambient * share + diffuse * (share * np.maximum(facing, 0))).sum(axis=1)
    # The halfway vector of two unit vectors a and b has the length sqrt(2 + 2 ab).
    halfway = np.sqrt(np.maximum(2 + 2 * dot(view[:, None], towards), np.float32(1e-6)))
    shine = np.maximum((dot(normal, view) + facing) / halfway, 0) ** surfaces.shininess.take(which)
    bright = (specular * (shine * (share * (facing > 0)))).sum(axis=1)
    colour *= dull + surfaces.emission.take(which)
    colour += bright * surfaces.specular.take(which)
    return np.minimum(np.maximum(colour, 0), 1)
