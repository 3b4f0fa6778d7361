"""Surfaces: all that MuJoCo draws of a model by default, geoms and sites alike, and how each is to look."""

import mujoco
import numpy as np

from pixeltraj.errors import PixeltrajError
from pixeltraj.render.raytracing.textures import Texture

Geom = mujoco.mjtGeom
_CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)
_UNSET = np.array([0.5, 0.5, 0.5, 1], np.float32)  # the colour that gives way to the material's
_DRAWN_GROUPS = 3  # MuJoCo's viewer shows groups 0, 1 and 2
_OPAQUE = 0.995
_MATERIALS = ("mat_rgba", "mat_emission", "mat_specular", "mat_shininess", "mat_texid", "mat_texrepeat")
_LOOKS = ("geom_rgba", "geom_size", "geom_matid", "site_rgba", "site_size", "site_matid", *_MATERIALS)


class Surfaces:
    """Geoms of groups 0-2, then sites of groups 0-2, without the invisible ones: arrays of S rows."""

    def __init__(self, model: mujoco.MjModel) -> None:
        rows = [_Row(model, "geom", i) for i in range(model.ngeom)]
        rows += [_Row(model, "site", i) for i in range(model.nsite)]
        rows = [row for row in rows if row.drawn]
        odd = {Geom(row.kind).name for row in rows if row.kind in (Geom.mjGEOM_HFIELD, Geom.mjGEOM_SDF)}
        if odd:
            raise PixeltrajError(f"the ray renderer does not draw {', '.join(odd)}; use --renderer mujoco")
        self.geoms = np.array([row.index for row in rows if row.owner == "geom"], np.int64)
        self.sites = np.array([row.index for row in rows if row.owner == "site"], np.int64)
        self.kind = np.array([row.kind for row in rows])
        self.mesh = np.array([row.mesh for row in rows])
        self.body = np.array([row.body for row in rows])
        self.still = model.body_weldid[self.body] == 0  # a mocap body is its own weld
        self.still &= model.body_mocapid[self.body] < 0
        self.own_uv = (self.mesh >= 0) & (np.append(model.mesh_texcoordadr, -1)[self.mesh] >= 0)
        self.size = np.array([row.size for row in rows], np.float32)
        self.rgb = np.array([row.rgba[:3] for row in rows], np.float32)
        self.alpha = np.array([row.rgba[3] for row in rows], np.float32)
        self.opaque = self.alpha >= _OPAQUE
        self.emission = np.array([row.emission for row in rows], np.float32)
        self.specular = np.array([row.specular for row in rows], np.float32)
        self.shininess = np.array([row.shininess for row in rows], np.float32) * 128
        self.repeat = np.array([row.repeat for row in rows], np.float32)
        self.uniform = np.array([row.uniform for row in rows])
        self.boxes = self._boxes(model)
        textures = {i: Texture(model, i) for i in {row.texture for row in rows} if i >= 0}
        self.texture = [textures.get(row.texture) for row in rows]

    def places(self, data: mujoco.MjData) -> np.ndarray:
        """(S, 4, 3) float64: position, then the three rows of the rotation, in the world."""
        position = np.concatenate([data.geom_xpos[self.geoms], data.site_xpos[self.sites]])
        rotation = np.concatenate([data.geom_xmat[self.geoms], data.site_xmat[self.sites]])
        return np.concatenate([position[:, None], rotation.reshape(-1, 3, 3)], axis=1)

    def _boxes(self, model: mujoco.MjModel) -> np.ndarray:
        """(3, 8, S): corners that enclose each surface, in its own frame."""
        reach = self.size.astype(np.float64)
        round_ended = self.kind == Geom.mjGEOM_CAPSULE
        reach[round_ended, 2] += reach[round_ended, 0]
        middle = np.zeros_like(reach)
        mesh = np.flatnonzero(self.mesh >= 0)  # always a geom, and those come first
        middle[mesh], reach[mesh] = np.split(model.geom_aabb[self.geoms[mesh]], 2, axis=1)
        return (middle[:, None] + _CORNERS * reach[:, None]).T.copy()

    def image_coordinates(self, one: int, point: np.ndarray) -> np.ndarray:
        """(2, F) of points (3, F) in the frame of surface `one`; linear, so it maps steps too (but for -0.5)."""
        scale = 0.5 * self.repeat[one]
        if not self.uniform[one]:
            size = self.size[one, :2]
            scale = scale / np.where(size > 0, size, 1)
        return point[:2] * (scale * np.array([1, -1], np.float32))[:, None]

    def cube_direction(self, one: int, point: np.ndarray) -> np.ndarray:
        """(3, F) for points (3, F) in the frame of surface `one`; linear."""
        whole = self.kind[one] in (Geom.mjGEOM_MESH, Geom.mjGEOM_PLANE)
        if whole == bool(self.uniform[one]):
            size = self.size[one, :, None]
            return point * size if whole else point / np.maximum(size, 1e-9)
        return point


def looks(model: mujoco.MjModel) -> bytes:
    """Changes whenever a surface has changed its size or its colour."""
    return b"".join(getattr(model, name).tobytes() for name in _LOOKS)


class _Row:
    """One geom or site of the model."""

    def __init__(self, model: mujoco.MjModel, owner: str, index: int) -> None:
        def field(name: str) -> np.ndarray:
            return getattr(model, f"{owner}_{name}")[index]

        self.owner, self.index, self.kind, self.body = owner, index, int(field("type")), int(field("bodyid"))
        self.rgba, material = field("rgba").copy(), int(field("matid"))
        default = material >= 0 and np.array_equal(self.rgba, _UNSET)
        if default:
            self.rgba = model.mat_rgba[material].copy()
        self.drawn = np.clip(field("group"), 0, 5) < _DRAWN_GROUPS and self.rgba[3] > 0
        self.mesh = int(model.geom_dataid[index]) if owner == "geom" else -1
        # What MuJoCo gives a surface without a material.
        self.emission, self.specular, self.shininess = 0.0, 0.5, 0.5
        self.texture, self.repeat, self.uniform = -1, np.ones(2), False
        if material >= 0:
            self.emission, self.specular = model.mat_emission[material], model.mat_specular[material]
            self.shininess = model.mat_shininess[material]
            self.texture = int(model.mat_texid[material, mujoco.mjtTextureRole.mjTEXROLE_RGB])
            self.repeat, self.uniform = model.mat_texrepeat[material], bool(model.mat_texuniform[material])
        x, y, z = field("size")
        self.size = {
            int(Geom.mjGEOM_SPHERE): (x, x, x),
            int(Geom.mjGEOM_CAPSULE): (x, x, y),
            int(Geom.mjGEOM_CYLINDER): (x, x, y),
        }.get(self.kind, (x, y, z))
