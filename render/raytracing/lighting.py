"""Lighting: OpenGL's fixed light model, with which MuJoCo draws, in the frame of the camera."""

from dataclasses import dataclass

import mujoco
import numpy as np

from pixeltraj.render.raytracing.surfaces import Surfaces


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
        """For points (F, 3): unit vectors towards the light, (3,) or (F, 3), and the share of it that arrives."""
        if self.position is None or self.attenuation is None:
            return self.towards, np.ones(1, np.float32)
        towards = self.position - point
        distance = np.sqrt(np.square(towards).sum(axis=1))
        towards /= distance[:, None]
        constant, linear, quadratic = self.attenuation
        share = 1 / (constant + linear * distance + quadratic * distance * distance)
        if self.cutoff < 180:
            axis = towards @ self.towards
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
    for i in np.flatnonzero(model.light_active)[: 8 - len(found)]:  # OpenGL's eight
        ambient, diffuse, specular = (
            one[i].copy() for one in (model.light_ambient, model.light_diffuse, model.light_specular)
        )
        towards = (-rotation @ data.light_xdir[i]).astype(np.float32)
        if model.light_directional[i]:
            found.append(Light(ambient, diffuse, specular, towards))
            continue
        position = (rotation @ (data.light_xpos[i] - camera)).astype(np.float32)
        attenuation, cutoff = model.light_attenuation[i].copy(), float(model.light_cutoff[i])
        found.append(
            Light(ambient, diffuse, specular, towards, position, attenuation, cutoff, float(model.light_exponent[i]))
        )
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
    """(F, 3) colours in [0, 1] of points (F, 3) with unit normals (F, 3) on surfaces (F,), before textures."""
    view = -point / np.sqrt(np.einsum("fi,fi->f", point, point))[:, None]
    head_on = np.einsum("fi,fi->f", normal, view)
    # (F, L): the cosines between the normal, the way to the eye and the way to each light; what arrives of it.
    facing, opposite, share = (np.ones((len(point), len(found)), np.float32) for _ in range(3))
    for i, light in enumerate(found):
        towards, arriving = light.reach(point)
        pairs = "fi,i->f" if towards.ndim == 1 else "fi,fi->f"
        facing[:, i], opposite[:, i] = np.einsum(pairs, normal, towards), np.einsum(pairs, view, towards)
        share[:, i] = arriving
    ambient, diffuse, specular = (
        np.array([getattr(light, name) for light in found], np.float32).reshape(-1, 3)
        for name in ("ambient", "diffuse", "specular")
    )
    glow = surfaces.emission[which, None] + np.float32(0 if found else 0.3)  # MuJoCo's, for a scene without lights
    glow = glow + np.einsum("fl,lc->fc", share, ambient)
    colour = surfaces.rgb[which] * (glow + np.einsum("fl,lc->fc", share * np.maximum(facing, 0), diffuse))
    # The halfway vector of two unit vectors a and b has the length sqrt(2 + 2 ab).
    halfway = np.sqrt(np.maximum(2 + 2 * opposite, 1e-6))
    shine = np.maximum((head_on[:, None] + facing) / halfway, 0) ** surfaces.shininess[which, None]
    shine *= share * (facing > 0) * surfaces.specular[which, None]
    colour += np.einsum("fl,lc->fc", shine, specular)
    return np.clip(colour, 0, 1, out=colour)
