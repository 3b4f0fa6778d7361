"""Framing: the camera through which states can be read best, proposed from footage of one or several tasks.

    from pixeltraj.render.footage import Footage
    from pixeltraj.render.framing import look, propose, table

    footage = [Footage.play(task, episodes=5) for task in tasks]  # or Footage.load(store), or Footage(simulator, ...)
    camera = propose(footage, margin=3.0)                         # one camera for all of them
    print(table({"present": tasks[0].camera, "proposed": camera}, footage))

A task need not be registered for that, and any camera will do for its definition, but `fovy` and `track` are kept.
Tasks that share the result as `named_camera("a name")` get it by `write_camera("a name", camera)`
(pixeltraj/tasks/cameras.py), which is what `pixeltraj camera TASK ... --write "a name"` does.

For a direction of sight, the nearest place from which every keypoint of every frame lies inside the margin has a
closed form: with t = (half a frame - margin) / focal length, a point at (r, u, f) to the right, up and forward is
inside where |r - x| <= t (f - z) and |u - y| <= t (f - z) for the camera at (x, y, z), so that
z = min over both axes of (min(r + t f) - max(r - t f)) / 2t. What is left is the direction, and its score is

    the smallest object's diameter in pixels  x  legibility  x  (1 - hidden)^4

An object's diameter is taken where it is far: nine of ten moments exceed it. Legibility says how little of the
keypoints' movement is lost along the line of sight. Of a keypoint with covariance S, read with errors R, the covariance
P = S - S (S + R)^-1 S remains unknown, and 1 - sqrt(P_aa / S_aa) is what is read of its movement along axis a. R is one
pixel across the view and ten along it; how much of what could be read if it were one pixel in all directions still is,
on the worst of the axes along which the keypoint moves, is the keypoint's legibility, and the mean over keypoints is
the camera's. A runner seen from ahead or a table seen edge-on has little of it. Hidden is the share of keypoints behind
something else, found by rays. Several tasks count by the smallest object of all of them and by the means of the rest.
The score is searched on a grid over the upper half sphere and refined to 0.5 degrees.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from pixeltraj.camera import FRAME_SIZE, Camera
from pixeltraj.errors import PixeltrajError
from pixeltraj.render.footage import Footage

AZIMUTHS = np.linspace(0.0, 360.0, 36, endpoint=False).tolist()
ELEVATIONS = np.linspace(-90.0, -5.0, 18).tolist()
REFINEMENTS = (4.0, 2.0, 1.0, 0.5)
"""Degrees between neighbours, round by round."""
DEPTH_ERROR = 10.0
"""How much worse than across the view a position is read along it."""
STILL = 0.05
"""An axis along which a keypoint spreads less than this share of the task's widest spread is not one it moves along."""
FAR = 0.1
"""Share of the moments in which an object may look smaller than its diameter says."""
CLEARNESS = 4
"""One percent of hidden keypoints costs as much as so many percent of width."""
NEARLY = 0.99
"""Directions whose scores agree to this are alike: the one nearest the tasks' present camera is taken."""
NEAREST = 2.0
"""No keypoint comes nearer to the camera than so many times the distance at which drawing is cut off."""
BATCH = 48
"""Directions whose hidden keypoints are looked for together."""
Direction = tuple[float, float]
"""Azimuth and elevation, degrees."""
_ROUNDING = 0.05  # pixels that rounding the camera to 0.1 mm may cost


@dataclass(frozen=True)
class Sight:
    """What a camera makes of one task's footage."""

    resolution: np.ndarray
    """(N,) pixels per millimetre across the view, mean over frames"""
    in_view: np.ndarray
    """(N,) share of frames in which the keypoint is in view"""
    hidden: np.ndarray
    """(N,) share of moments in which something stands before the keypoint"""
    margin: float
    """Pixels between the frame's edge and the keypoint that comes nearest to it; negative outside."""
    widths: dict[str, float]
    """Object -> its diameter in pixels that nine of ten moments exceed, by the keypoint it goes with"""
    legibility: float
    """How little of the movement is lost along the line of sight, 0 to 1"""


def look(camera: Camera, footage: Footage) -> Sight:
    """What the camera makes of the footage."""
    points = footage.keypoints
    column, row, depth = np.moveaxis(camera.project(points), -1, 0)
    edge = np.minimum.reduce([column, row, FRAME_SIZE - column, FRAME_SIZE - row])
    edge = np.where(depth > 0, edge, -np.inf)
    return Sight(
        resolution=(camera.focal / np.maximum(depth, 1e-3) / 1000).mean(axis=0),
        in_view=(edge >= 0).mean(axis=0),
        hidden=footage.hidden(camera.position[None])[0],
        margin=float(edge.min()),
        widths=_widths(camera, footage),
        legibility=_legibility(camera, footage),
    )


def propose(footage: Sequence[Footage], margin: float = 3.0, progress: bool = True) -> Camera:
    """The best camera for all of the footage, with the `fovy` and `track` that its tasks have.

    margin: pixels that every keypoint keeps from the frame's edge. Deterministic. Raises PixeltrajError where the
    tasks' cameras differ in `fovy` or `track`, or the margin leaves no room.
    """
    now = {(f.task.camera.fovy, f.task.camera.track) for f in footage}
    if len(now) != 1:
        raise PixeltrajError(f"one camera serves tasks of one fovy and track, these have {sorted(map(str, now))}")
    if not 0 <= margin < FRAME_SIZE / 2 - 1:
        raise PixeltrajError(f"--margin {margin} is not between 0 and {FRAME_SIZE // 2 - 1} pixels")
    search = _Search(footage, footage[0].task.camera, margin)
    grid = [(azimuth, elevation) for elevation in ELEVATIONS for azimuth in AZIMUTHS]
    with tqdm(total=len(grid) + 9 * len(REFINEMENTS), desc="directions", leave=False, disable=not progress) as bar:
        best = search.best(grid, bar)
        for step in REFINEMENTS:
            around = [(best[0] + i * step, best[1] + j * step) for i in (0, -1, 1) for j in (0, -1, 1)]
            around = [(a % 360.0, e) for a, e in around if ELEVATIONS[0] <= e <= ELEVATIONS[-1]]
            best = search.best(around, bar)
    return search.camera(*best)


def table(cameras: Mapping[str, Camera], footage: Sequence[Footage]) -> str:
    """What each named camera makes of each keypoint of each task, as text."""
    names = list(cameras)
    sights = [[look(camera, f) for f in footage] for camera in cameras.values()]
    rows = [(f, i, k.name) for f, film in enumerate(footage) for i, k in enumerate(film.task.keypoints)]
    labels = [f"{footage[f].task.name} {name}" for f, _, name in rows]
    first = max(map(len, labels)) + 2
    lines = [
        f"{'':{first}}" + "".join(f"{name:>30}" for name in names),
        f"{'keypoint':{first}}" + f"{'px/mm':>10}{'in view':>10}{'hidden':>10}" * len(names),
    ]
    for label, (f, i, _) in zip(labels, rows):
        cells = [(s[f].resolution[i], s[f].in_view[i], s[f].hidden[i]) for s in sights]
        lines.append(
            f"{label:{first}}" + "".join(f"{px:>10.3f}{seen:>10.1%}{hidden:>10.1%}" for px, seen, hidden in cells)
        )
    lines.append("")
    for name, seen in zip(names, sights):
        width, thing = min((width, thing) for s in seen for thing, width in s.widths.items())
        edge, legible = min(s.margin for s in seen), np.mean([s.legibility for s in seen])
        hidden = np.mean([s.hidden.mean() for s in seen])
        lines.append(
            f"{name}: smallest object ({thing}) {width:.1f} px wide, {edge:.1f} px to the edge, "
            f"legibility {legible:.2f}, hidden {hidden:.1%}, score {_score(width, legible, hidden):.2f}"
        )
    return "\n".join(lines)


class _Search:
    """Cameras by direction, and the best of some."""

    def __init__(self, footage: Sequence[Footage], now: Camera, margin: float) -> None:
        self.footage, self.now, self.top = footage, now, 0.0
        self.points = np.unique(np.concatenate([f.keypoints.reshape(-1, 3) for f in footage]), axis=0)
        self.slope = (FRAME_SIZE / 2 - margin - _ROUNDING) / now.focal
        self.near = max(NEAREST * f.near for f in footage)

    def camera(self, azimuth: float, elevation: float) -> Camera:
        """The nearest one in that direction that has every point inside the margin."""
        rotation = Camera((0.0, 0.0, 0.0), 0.0, azimuth, elevation).rotation
        right, up, forward = rotation @ self.points.T
        reach = self.slope * forward
        ends = [((across - reach).max(), (across + reach).min()) for across in (right, up)]
        place = min(float(forward.min()) - self.near, *((high - low) / (2 * self.slope) for low, high in ends))
        distance = float(forward.mean()) - place
        lookat = np.array([*((low + high) / 2 for low, high in ends), place + distance]) @ rotation
        x, y, z = (round(float(value), 4) for value in lookat)
        return Camera((x, y, z), round(float(distance), 4), azimuth, elevation, self.now.fovy, self.now.track)

    def best(self, directions: Sequence[Direction], bar: tqdm) -> Direction:
        """Of those directions whose scores are alike and highest, the one nearest the present camera's."""
        cameras = [self.camera(*direction) for direction in directions]
        widths = np.array([min(w for f in self.footage for w in _widths(c, f).values()) for c in cameras])
        legibility = np.array([np.mean([_legibility(c, f) for f in self.footage]) for c in cameras])
        bounds, scores = _score(widths, legibility, 0.0), np.zeros(len(cameras))
        order = np.argsort(-bounds, kind="stable")
        for batch in np.split(order, range(BATCH, len(order), BATCH)):
            if bounds[batch[0]] >= NEARLY * self.top:  # others cannot win, however clear their view
                positions = np.array([cameras[i].position for i in batch])
                hidden = np.mean([f.hidden(positions).mean(axis=1) for f in self.footage], axis=0)
                scores[batch] = _score(widths[batch], legibility[batch], hidden)
                self.top = max(self.top, float(scores.max()))
            bar.update(len(batch))
        alike = [i for i in range(len(scores)) if scores[i] >= NEARLY * self.top]
        return directions[max(alike, key=lambda i: float(cameras[i].rotation[2] @ self.now.rotation[2]))]


def _score(width: Any, legibility: Any, hidden: Any) -> Any:
    return width * legibility * (1.0 - hidden) ** CLEARNESS


def _widths(camera: Camera, footage: Footage) -> dict[str, float]:
    across, depth = footage.widths(camera.rotation[2])
    depth = np.maximum(depth - camera.position @ camera.rotation[2], 1e-3)
    return dict(zip(footage.objects, np.quantile(camera.focal * across / depth, FAR, axis=0).tolist()))


def _legibility(camera: Camera, footage: Footage) -> float:
    depth = np.maximum((footage.means - camera.position) @ camera.rotation[2], 1e-3)
    pixel = (depth / camera.focal)[:, None, None] ** 2
    read = []
    for along in (1.0, DEPTH_ERROR):
        noise = camera.rotation.T @ np.diag([1.0, 1.0, along**2]) @ camera.rotation * pixel
        left = footage.spread - footage.spread @ np.linalg.solve(footage.spread + noise, footage.spread)
        before, after = (np.sqrt(np.diagonal(c, axis1=1, axis2=2).clip(1e-18)) for c in (footage.spread, left))
        read.append(1.0 - after / before)
    moving = before > max(STILL * before.max(), 1e-6)
    share = np.where(moving, read[1] / read[0].clip(1e-9), 1.0).min(axis=-1)
    return float(share[moving.any(axis=-1)].mean()) if moving.any() else 1.0
