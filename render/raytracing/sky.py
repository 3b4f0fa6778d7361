"""Sky: what is behind everything, and MuJoCo's haze where an infinite plane meets it."""

import mujoco
import numpy as np

from pixeltraj.camera import Camera
from pixeltraj.render.raytracing.rays import PIXELS, Canvas, Fragments, Rays, pack
from pixeltraj.render.raytracing.textures import Texture
from pixeltraj.render.raytracing.vectors import turn

_REACH = 0.7  # of the far plane: where MuJoCo puts the sky


def sky(model: mujoco.MjModel, camera: Camera, rays: Rays) -> Canvas:
    """An empty frame: the skybox, black where there is none."""
    far = np.float32(model.vis.map.zfar * model.stat.extent)
    depth = np.full(PIXELS * rays.count, far, np.float32)
    box = np.flatnonzero(model.tex_type == mujoco.mjtTexture.mjTEXTURE_SKYBOX)
    if not box.size:
        return Canvas(depth, np.zeros(PIXELS * rays.count, np.uint32))
    rotation = camera.rotation.astype(np.float32)
    turned = rotation[:, [0, 2, 1]] * np.array([1, 1, -1], np.float32)  # the box lies on its side
    direction = turn(turned.T[:, :, None], rays.middles)
    steps = (step[:, None] / np.float32(rays.focal) for step in (turned[0], -turned[1]))
    colour = Texture(model, int(box[0])).around(direction, *steps)
    return Canvas(depth, np.repeat(pack(colour), rays.count))


def haze(
    model: mujoco.MjModel, data: mujoco.MjData, camera: np.ndarray, rotation: np.ndarray, rays: Rays
) -> tuple[Fragments, np.ndarray] | None:
    """The haze at the horizon and how dense it is, (F,) in [0, 1], from a camera at (3,); None without any.

    It is a ring-shaped wall that leans outwards: from the first infinite plane, at a share (1 - haze) of the
    sky's distance, up to the camera's height at the sky itself; dense in between, thin at both ends.
    """
    infinite = (model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE) & (model.geom_size[:, :2] == 0).all(axis=1)
    if not infinite.any() or not (model.tex_type == mujoco.mjtTexture.mjTEXTURE_SKYBOX).any():
        return None
    plane = int(np.flatnonzero(infinite)[0])
    axes = data.geom_xmat[plane].reshape(3, 3)
    reach = _REACH * model.vis.map.zfar * model.stat.extent
    height = (camera - data.geom_xpos[plane]) @ axes[:, 2] / reach
    thick = float(model.vis.map.haze)
    if height <= 0:
        return None
    direction = rays.directions.reshape(-1, 3) @ (rotation @ axes)
    fall = np.maximum(-direction[:, 2], 1e-12)
    level = np.hypot(direction[:, 0], direction[:, 1])
    down = 1 / (thick + height * level / fall)  # 0 at the camera's height, 1 on the plane
    sample = np.flatnonzero((direction[:, 2] < 0) & (down <= 1))
    steep = np.arctan2(1, thick)
    densest = np.sqrt(0.5) * thick * np.sin(steep) / np.sin(0.75 * np.pi - steep)
    up = 1 - down[sample]
    density = np.where(up < densest, up / densest, (1 - up) / (1 - densest)).astype(np.float32)
    depth = (reach * height * down[sample] / fall[sample]).astype(np.float32)
    colour = np.broadcast_to(np.array(model.vis.rgba.haze[:3], np.float32)[:, None], (3, len(sample)))
    return Fragments(sample, depth, pack(colour)), density
