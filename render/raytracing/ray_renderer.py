"""Ray tracing without any OpenGL: what a bare machine draws with."""

from dataclasses import dataclass

import mujoco
import numpy as np

from pixeltraj.errors import PixeltrajError
from pixeltraj.render.mesh import simplified
from pixeltraj.render.raytracing import primitives
from pixeltraj.render.raytracing.lighting import Light, lights, signature
from pixeltraj.render.raytracing.painting import paint
from pixeltraj.render.raytracing.planes import Plane
from pixeltraj.render.raytracing.rays import Canvas, Fragments, Rays, join, nearest
from pixeltraj.render.raytracing.sky import haze, sky
from pixeltraj.render.raytracing.surfaces import Geom, Surfaces, looks
from pixeltraj.render.raytracing.triangles import Triangles
from pixeltraj.render.raytracing.vectors import turn
from pixeltraj.render.renderer import Renderer
from pixeltraj.simulator import Simulator

_GRID = 2.0**14  # steps a metre: a resting object trembles by less, and is not drawn anew
CELL = 0.01
"""Metres: vertices of big meshes this near to each other are drawn as one, or within a pixel where that is more."""


@dataclass
class Layer:
    """Surfaces that move together, and what they last looked like."""

    which: np.ndarray
    number: int
    plane: Plane | None
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
        self._base: Canvas | None = None
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
        seen[self._rounded] = np.rint(seen[self._rounded] * _GRID) / _GRID
        if not np.isfinite(seen).all():
            raise PixeltrajError("the simulator's state holds NaN or infinity: there is nothing to draw")
        found = lights(model, data, eye, rotation)
        lit = signature(found)
        changed = (seen != self._places).reshape(len(seen), -1).any(axis=1)
        self._places = seen
        moved = self._layers
        if lit == self._lit:
            moved = [self._layers[i] for i in np.flatnonzero(np.bincount(self._layer_of[changed])).tolist()]
        self._lit = lit
        self._cast(moved, found)
        if self._base is None or any(layer.still for layer in moved):
            self._base = self._background(eye)
        return self._compose(self._base.copy())

    def _cast(self, layers: list[Layer], found: list[Light]) -> None:
        """Look at these layers again. All their hits are found and painted at once, which is much faster."""
        surfaces, rays, places = self._surfaces, self._rays, self._places
        exact = places.astype(np.float32)
        solids = []
        for layer in layers:
            layer.fragments = None
            if layer.plane is None:
                solids.append(layer)
            else:
                layer.fragments = layer.plane.paint(rays, found, self._lit, places[layer.which[0]])
        if not solids:
            return
        which = np.concatenate([layer.which for layer in solids])
        position, rotation = places[which, 0].T[:, None], places[which, 1:].transpose(1, 2, 0)[:, :, None]
        windows = rays.windows(turn(rotation, surfaces.boxes.take(which, axis=2)) + position)
        covered = (windows[2] > 0) & (windows[3] > 0)
        which, windows = which[covered], windows[:, covered]
        mesh = surfaces.mesh[which] >= 0
        cast = primitives.cast(surfaces, which[~mesh], places, windows[:, ~mesh], rays)
        if self._triangles and mesh.any() and (faces := self._triangles.cast(rays, which[mesh], exact, found)):
            cast.append(faces)
        if not cast:
            return
        hits, layer_of = nearest(join(cast), self._layer_of)
        fragments = paint(hits, surfaces, rays, found, exact)
        ends = np.searchsorted(layer_of, np.arange(len(self._layers) + 1)).tolist()
        for layer in solids:
            part = slice(*ends[layer.number : layer.number + 2])
            if part.start < part.stop:
                layer.fragments = Fragments(fragments.sample[part], fragments.depth[part], fragments.colour[part])

    def _build(self, model: mujoco.MjModel) -> None:
        """Sort the model's surfaces into layers."""
        surfaces = self._surfaces = Surfaces(model)
        coarse = simplified(model, max(CELL, self._camera.distance / self._camera.focal))
        mesh, plane = surfaces.kind == Geom.mjGEOM_MESH, surfaces.kind == Geom.mjGEOM_PLANE
        groups = [np.array([i]) for i in np.flatnonzero(plane | ~surfaces.opaque)]
        solid = surfaces.opaque & ~plane
        groups += [np.flatnonzero(solid & (surfaces.body == body)) for body in np.unique(surfaces.body[solid])]
        self._rounded = np.flatnonzero(~plane)
        self._triangles = Triangles(surfaces, np.flatnonzero(mesh), coarse) if mesh.any() else None
        self._layer_of = np.zeros(len(surfaces.kind), int)
        self._layers = []
        for number, group in enumerate(groups):
            first = group[0]
            self._layer_of[group] = number
            alpha = 1.0 if surfaces.opaque[first] else float(surfaces.alpha[first])
            floor = Plane(surfaces, first) if plane[first] else None
            self._layers.append(Layer(group, number, floor, bool(surfaces.still[group].all()), alpha))
        self._places = np.full((len(surfaces.kind), 4, 3), np.nan)
        self._lit = b""
        self._sky = sky(model, self._camera, self._rays)
        self._base = None

    def _background(self, eye: np.ndarray) -> Canvas:
        """The sky and what stands still before it, in haze."""
        canvas = self._sky.copy()
        canvas.put([layer.fragments for layer in self._layers if layer.fragments and layer.still and layer.alpha == 1])
        mist = haze(self.simulator.model, self.simulator.data, eye, self._camera.rotation, self._rays)
        if mist:
            canvas.blend(*mist)
        return canvas

    def _compose(self, canvas: Canvas) -> np.ndarray:
        canvas.put(
            [layer.fragments for layer in self._layers if layer.fragments and not layer.still and layer.alpha == 1]
        )
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
