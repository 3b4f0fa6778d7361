"""pyrender: the scene carried over into a physically based rasteriser (extra `pyrender`, which installs the fork
pyrender2: pyrender itself cannot live beside MuJoCo's EGL)."""

import weakref
from typing import Any

import mujoco
import numpy as np

from pixeltraj.camera import FRAME_SIZE
from pixeltraj.errors import PixeltrajError
from pixeltraj.render.gl import GLContext, create_context
from pixeltraj.render.mesh import simplified
from pixeltraj.render.mujoco_renderer import CELL
from pixeltraj.render.raytracing.lighting import Light, lights
from pixeltraj.render.raytracing.rays import Rays
from pixeltraj.render.raytracing.sky import sky
from pixeltraj.render.raytracing.surfaces import Geom, Surfaces, looks
from pixeltraj.render.renderer import Renderer
from pixeltraj.simulator import Simulator

GAMMA = 2.2
"""pyrender computes in linear light and shows its power 1 / GAMMA; MuJoCo's colours are what is shown."""
FACING = 0.55
"""Share of all light that falls on a surface, for which both sums of light agree; Meta-World's scenes look alike."""
SIDES = 16
"""Around a round shape."""
ENDLESS = 50.0
"""Metres from the middle to the edge of a plane without a size."""


class PyrenderRenderer(Renderer):
    """Meshes, shapes, textures and lights of the model as pyrender's: close to MuJoCo's pictures, not equal."""

    def __init__(self, simulator: Simulator) -> None:
        """Raises PixeltrajError where pyrender is not installed or finds no OpenGL."""
        super().__init__(simulator)
        platform, self._gl = create_context(FRAME_SIZE)  # before pyrender, whose own contexts end all others
        try:
            import pyrender
            import pyrender.renderer
        except ImportError as error:
            self._gl.free()
            raise PixeltrajError(f"no pyrender ({error}); pip install 'pixeltraj[pyrender]'") from error
        self._pyrender = pyrender
        self._canvas = pyrender.renderer.Renderer(FRAME_SIZE, FRAME_SIZE)
        self._close = weakref.finalize(self, _free, self._gl, self._canvas)
        self._model = simplified(simulator.model, CELL)
        self._looks = b""
        self.settings = {
            "backend": "pyrender",
            "mujoco": mujoco.__version__,
            "gl": platform,
            "cell": CELL,
            "sides": SIDES,
        }

    def _draw(self, lookat: np.ndarray) -> np.ndarray:
        model, data = self.simulator.model, self.simulator.data
        camera = self.simulator.task.camera
        rotation = camera.rotation
        position = lookat - camera.distance * rotation[2]
        if (now := looks(model)) != self._looks:
            self._build(model)
            self._looks = now
        pose = np.eye(4)
        pose[:3, :3] = np.stack([rotation[0], rotation[1], -rotation[2]], axis=1)  # OpenGL looks along -z
        pose[:3, 3] = position
        self._scene.set_pose(self._eye, pose)
        for node, (centre, *turn) in zip(self._nodes, self._surfaces.places(data)):
            placed = np.eye(4)
            placed[:3, :3], placed[:3, 3] = np.array(turn), centre
            self._scene.set_pose(node, placed)
        self._light(lights(model, data, position, rotation), pose, camera.distance)
        self._gl.make_current()
        colour, depth = self._canvas.render(self._scene, self._pyrender.RenderFlags.OFFSCREEN)
        return np.where((depth > 0)[..., None], colour, self._sky).astype(np.uint8)

    def _build(self, model: mujoco.MjModel) -> None:
        """A scene of the model's surfaces, a camera and, later, lights."""
        camera = self.simulator.task.camera
        rays = Rays(camera, 1, model.vis.map.zfar * model.stat.extent)
        self._surfaces = surfaces = Surfaces(model)
        self._sky = sky(model, camera, rays).frame(1)
        self._scene = scene = self._pyrender.Scene(bg_color=self._sky.mean(axis=(0, 1)) / 255)
        self._eye = scene.add(self._pyrender.PerspectiveCamera(np.deg2rad(camera.fovy), znear=0.01, zfar=200.0))
        self._nodes = [scene.add(self._mesh(one)) for one in range(len(surfaces.kind))]
        self._lamps: list[Any] = []

    def _mesh(self, one: int) -> Any:
        """Surface `one` as pyrender's mesh, in its own frame."""
        surfaces = self._surfaces
        if surfaces.mesh[one] >= 0:
            corners, normals, uv = mesh_corners(self._model, int(surfaces.mesh[one]))
        else:
            corners, normals = shape_corners(int(surfaces.kind[one]), surfaces.size[one].astype(np.float64))
            uv = None
        texture, image = surfaces.texture[one], None
        rgb = surfaces.rgb[one].astype(np.float64)
        if texture is not None and texture.cube and surfaces.kind[one] != Geom.mjGEOM_BOX:
            rgb = rgb * texture.mean
        elif texture is not None:
            image = self._pyrender.Texture(source=np.ascontiguousarray(texture.finest), source_channels="RGB")
            if texture.cube:
                uv = cube_coordinates(surfaces.cube_direction(one, corners.T).T, normals)
            elif uv is None:
                uv = surfaces.image_coordinates(one, corners.T).T - 0.5
            uv = uv * [1, -1] + [0, 1]  # pyrender's images begin at the bottom
        material = self._pyrender.MetallicRoughnessMaterial(
            baseColorFactor=(*rgb**GAMMA, surfaces.alpha[one]),
            baseColorTexture=image,
            emissiveFactor=tuple(np.sqrt(surfaces.emission[one] * rgb**GAMMA)),  # the shader squares it
            metallicFactor=0.0,
            roughnessFactor=1.0 - 0.5 * float(surfaces.specular[one]),
            alphaMode="OPAQUE" if surfaces.opaque[one] else "BLEND",
        )
        primitive = self._pyrender.Primitive(
            positions=corners, normals=normals, texcoord_0=uv if image else None, material=material
        )
        return self._pyrender.Mesh([primitive])

    def _light(self, found: list[Light], eye: np.ndarray, distance: float) -> None:
        """Put the scene's lights where they are now; positional ones are as bright as MuJoCo's at `distance`."""
        for node in self._lamps:
            self._scene.remove_node(node)
        # Light adds up in what is shown there and in what is emitted here: scale so that the sum looks the same.
        total = max(float(sum(light.diffuse.mean() + light.ambient.mean() for light in found)), 1e-6)
        scale = (FACING * total) ** (GAMMA - 1)
        self._scene.ambient_light = scale * sum((light.ambient for light in found), np.zeros(3))
        self._lamps = []
        for light in found:
            place, flip = np.eye(4), np.array([1.0, 1.0, -1.0])  # right, up, backward
            place[:3, :3] = _turn(light.towards * flip)
            strength = np.pi * scale * float(light.diffuse.max())
            colour = light.diffuse / max(float(light.diffuse.max()), 1e-6)
            if light.position is None:
                lamp = self._pyrender.DirectionalLight(color=colour, intensity=strength)
            else:
                place[:3, 3] = light.position * flip
                to_middle = float(np.linalg.norm(light.position - np.array([0, 0, distance])))
                strength *= to_middle**2  # pyrender's light falls with the square, MuJoCo's as the model says
                edge = np.deg2rad(min(light.cutoff, 89.0))
                lamp = self._pyrender.SpotLight(
                    color=colour, intensity=strength, innerConeAngle=0.8 * edge, outerConeAngle=edge
                )
            self._lamps.append(self._scene.add(lamp, pose=eye @ place))

    def close(self) -> None:
        self._close()


def _free(gl: GLContext, canvas: Any) -> None:
    gl.make_current()
    canvas.delete()
    gl.free()


def mesh_corners(model: mujoco.MjModel, mesh: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """(3 F, 3) corners, (3 F, 3) normals and, where it has them, (3 F, 2) texture coordinates of a mesh's faces."""
    rows = slice(model.mesh_faceadr[mesh], model.mesh_faceadr[mesh] + model.mesh_facenum[mesh])
    corners = model.mesh_vert[model.mesh_vertadr[mesh] + model.mesh_face[rows].ravel()]
    normals = model.mesh_normal[model.mesh_normaladr[mesh] + model.mesh_facenormal[rows].ravel()]
    start = int(model.mesh_texcoordadr[mesh])
    uv = model.mesh_texcoord[start + model.mesh_facetexcoord[rows].ravel()] if start >= 0 else None
    return corners, normals, uv


def shape_corners(kind: int, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(3 F, 3) corners and normals of a primitive of half sizes (3,), metres."""
    import trimesh

    if kind == Geom.mjGEOM_PLANE:
        x, y = (half if half > 0 else ENDLESS for half in size[:2])
        corners = np.array([(-x, -y, 0), (x, -y, 0), (x, y, 0), (-x, -y, 0), (x, y, 0), (-x, y, 0)])
        return corners, np.tile([0.0, 0.0, 1.0], (6, 1))
    if kind == Geom.mjGEOM_BOX:
        shape, smooth = trimesh.creation.box(extents=2 * size), False
    elif kind == Geom.mjGEOM_CYLINDER:
        shape, smooth = trimesh.creation.cylinder(size[0], height=2 * size[2], sections=SIDES), False
    elif kind == Geom.mjGEOM_CAPSULE:
        shape, smooth = trimesh.creation.capsule(2 * size[2], size[0], count=[SIDES, SIDES]), True
    else:  # a sphere or an ellipsoid
        shape, smooth = trimesh.creation.uv_sphere(1.0, count=[SIDES, SIDES]), True
        shape.apply_scale(size)
    if kind == Geom.mjGEOM_CAPSULE:
        shape.apply_translation(-shape.bounds.mean(axis=0))
    corners = shape.triangles.reshape(-1, 3)
    flat = np.repeat(shape.face_normals, 3, axis=0)
    return corners, shape.vertex_normals[shape.faces].reshape(-1, 3) if smooth else flat


def cube_coordinates(direction: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """(F, 2) where directions (F, 3) from the middle of a box meet the image on the side of normals (F, 3)."""
    axis = np.abs(normals).argmax(axis=1)
    major = np.take_along_axis(direction, axis[:, None], axis=1)[:, 0]
    sign = np.sign(major)
    x, y, z = direction.T
    across = np.choose(axis, [-z * sign, x, x * sign])
    down = np.choose(axis, [-y, z * sign, -y])
    return np.stack([across, down], axis=1) / (2 * np.abs(major)[:, None]) + 0.5


def _turn(backward: np.ndarray) -> np.ndarray:
    """(3, 3) a rotation whose third column is `backward`: lights shine along -z."""
    side = np.cross([0.0, 1.0, 0.0] if abs(backward[1]) < 0.9 else [1.0, 0.0, 0.0], backward)
    side /= np.linalg.norm(side)
    return np.stack([side, np.cross(backward, side), backward], axis=1)
