"""Ray tracing without any OpenGL: what a bare machine draws with."""

from dataclasses import dataclass

import mujoco
import numpy as np

from pixeltraj.errors import PixeltrajError
from pixeltraj.render.mesh import simplified
from pixeltraj.render.raytracing.lighting import Light, lights, signature
from pixeltraj.render.raytracing.painting import paint
from pixeltraj.render.raytracing.planes import Plane
from pixeltraj.render.raytracing.primitives import Primitives, normals
from pixeltraj.render.raytracing.rays import Canvas, Fragments, Rays, join, union
from pixeltraj.render.raytracing.sky import haze, sky
from pixeltraj.render.raytracing.surfaces import Geom, Surfaces, looks
from pixeltraj.render.raytracing.triangles import Triangles
from pixeltraj.render.renderer import Renderer
from pixeltraj.simulator import Simulator

_GRID = 2.0**14  # steps a metre: a resting object trembles by less, and is not drawn anew
CELL = 0.01
"""Metres: vertices of big meshes this near to each other are drawn as one, or within a pixel where that is more."""


@dataclass
class Layer:
    """Surfaces that move together, and what they last looked like."""

    which: np.ndarray
    caster: Primitives | Triangles | Plane
    still: bool
    alpha: float
    fragments: Fragments | None = None


class RayRenderer(Renderer):
    """MuJoCo's own picture without shadows and reflections, by casting rays.

    Whatever has not moved in the camera's frame is kept from the frame before. A layer's look depends on nothing
    but its place, so a frame is the same whatever was drawn before it.
    """

    def __init__(self, simulator: Simulator, samples: int = 1) -> None:
        """samples: rays along each side of a pixel, 1 or 2. Raises PixeltrajError on other numbers."""
        if samples not in (1, 2):
            raise PixeltrajError(f"1x1 or 2x2 rays are cast a pixel, not {samples}x{samples}: choose 1 or 2")
        super().__init__(simulator)
        self._camera, model = simulator.task.camera, simulator.model
        self._rays = Rays(self._camera, samples, model.vis.map.zfar * model.stat.extent)
        self._looks = self._lit = b""
        self._places = np.zeros((0, 4, 3))
        self.settings = {"backend": "ray" if samples == 1 else "ray-2x2", "mujoco": mujoco.__version__}

    def _draw(self, lookat: np.ndarray) -> np.ndarray:
        model, data, rotation = self.simulator.model, self.simulator.data, self._camera.rotation
        eye = lookat - self._camera.distance * rotation[2]
        fresh = looks(model)
        if fresh != self._looks:
            self._looks = fresh
            self._build(model)
        places = self._surfaces.places(data)
        seen = np.concatenate([(places[:, :1] - eye) @ rotation.T, rotation @ places[:, 1:]], axis=1)
        seen[self._rounded] = np.round(seen[self._rounded] * _GRID) / _GRID
        if not np.isfinite(seen).all():
            raise PixeltrajError("the simulator's state holds NaN or infinity: there is nothing to draw")
        found = lights(model, data, eye, rotation)
        lit = signature(found)
        moved = (seen != self._places).any(axis=(1, 2)) | (lit != self._lit)
        self._places, self._lit = seen, lit
        self._cast([layer for layer in self._layers if moved[layer.which].any()], found)
        return self._compose(eye, moved)

    def _cast(self, layers: list[Layer], found: list[Light]) -> None:
        """Look at these layers again. All their hits are painted at once, which is much faster."""
        surfaces, rays, places = self._surfaces, self._rays, self._places
        which = np.concatenate([layer.which for layer in layers]) if layers else np.zeros(0, int)
        corners = surfaces.boxes[which] @ places[which, 1:].swapaxes(1, 2) + places[which, :1]
        windows = dict(zip(which.tolist(), rays.windows(corners)))
        cast, painted = [], []
        exact = places.astype(np.float32)
        for layer in layers:
            layer.fragments = None
            if isinstance(layer.caster, Plane):
                layer.fragments = layer.caster.paint(rays, found, self._lit, places[layer.which[0]])
                continue
            covered = [window for one in layer.which.tolist() if (window := windows[one])]
            if not covered:
                continue
            if isinstance(layer.caster, Triangles):
                hits = layer.caster.cast(rays, places[layer.which], found)
            else:
                hits = layer.caster.cast(rays, union(covered), places[layer.which])
            if hits is not None:
                cast.append(hits)
                painted.append(layer)
        if not cast:
            return
        together = join(cast)
        smooth = np.flatnonzero(surfaces.mesh[together.surface] < 0)
        point = rays.flat[together.sample[smooth]] * together.depth[smooth, None]
        together.normal[smooth] = normals(surfaces, exact, together.surface[smooth], point)
        fragments = paint(together, surfaces, rays, found, exact)
        start = 0
        for layer, hits in zip(painted, cast):
            part = slice(start, start + len(hits.sample))
            layer.fragments = Fragments(fragments.sample[part], fragments.depth[part], fragments.colour[part])
            start = part.stop

    def _build(self, model: mujoco.MjModel) -> None:
        """Sort the model's surfaces into layers."""
        surfaces = self._surfaces = Surfaces(model)
        coarse = simplified(model, max(CELL, self._camera.distance / self._camera.focal))
        mesh, plane = surfaces.kind == Geom.mjGEOM_MESH, surfaces.kind == Geom.mjGEOM_PLANE
        groups = [np.array([i]) for i in np.flatnonzero(plane | ~surfaces.opaque)]
        for body in np.unique(surfaces.body):
            solid = (surfaces.body == body) & surfaces.opaque & ~plane
            groups += [np.flatnonzero(solid & kind) for kind in (mesh, ~mesh)]
        self._rounded = np.flatnonzero(~plane)
        self._layers = []
        for group in groups:
            if not group.size:
                continue
            first = group[0]
            caster: Primitives | Triangles | Plane
            if plane[first]:
                caster = Plane(surfaces, first)
            else:
                caster = Triangles(surfaces, group, coarse) if mesh[first] else Primitives(surfaces, group)
            alpha = 1.0 if surfaces.opaque[first] else float(surfaces.alpha[first])
            self._layers.append(Layer(group, caster, bool(surfaces.still[group].all()), alpha))
        self._places = np.full((len(surfaces.kind), 4, 3), np.nan)
        self._lit = b""
        self._sky = sky(model, self._camera, self._rays)
        self._base: Canvas | None = None

    def _compose(self, eye: np.ndarray, moved: np.ndarray) -> np.ndarray:
        opaque = [layer for layer in self._layers if layer.alpha == 1]
        still = [layer for layer in opaque if layer.still]
        if self._base is None or any(moved[layer.which].any() for layer in still):
            self._base = self._sky.copy()
            for layer in still:
                if layer.fragments:
                    self._base.put(layer.fragments)
            mist = haze(self.simulator.model, self.simulator.data, eye, self._camera.rotation, self._rays)
            if mist:
                self._base.blend(*mist)
        canvas = self._base.copy()
        for layer in opaque:
            if layer.fragments and not layer.still:
                canvas.put(layer.fragments)
        glass = [layer for layer in self._layers if layer.alpha < 1 and layer.fragments]
        if glass:
            nearest = sorted(glass, key=lambda layer: self._distance(layer.which[0]))
            # MuJoCo draws what is transparent twice: from the front to the back, and then the other way.
            for layer in (*nearest, *reversed(nearest)):
                assert layer.fragments is not None
                canvas.blend(layer.fragments, layer.alpha)
        return canvas.frame(self._rays.count)

    def _distance(self, one: int) -> float:
        """Metres from the camera to the nearest that surface `one` may come."""
        reach = np.linalg.norm(self._surfaces.size[one])
        return float(np.linalg.norm(self._places[one, 0]) - reach)

    def close(self) -> None:
        """Nothing is held."""
