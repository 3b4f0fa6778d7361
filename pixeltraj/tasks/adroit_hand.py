"""The Adroit hand: a forearm, a wrist of two joints and 22 joints of five fingers, as a chain of bones.

`Hand.fit` reads its joints from keypoints by least squares. The bones repeat the lengths and axes of the MuJoCo model,
so that a decoder needs no simulator; the tests compare the two.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pixeltraj.task import Keypoint

_X, _Y, _Z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
_HERE = (0.0, 0.0, 0.0)
_ROUNDS = 40  # ten are enough from anywhere but the oddest postures
# Radians or metres by which a joint may leave its range: MuJoCo's limits are springs, and a door pushes hard.
_USUAL, _UTMOST = 0.2, 1.5
_CHUNK = 256  # frames fitted at once, for the sake of memory

_PALM = ("wrist", "ffknuckle", "mfknuckle", "rfknuckle", "lfmetacarpal", "thbase")  # whose origins no finger moves

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Bone:
    """What one joint moves."""

    joint: str
    body: str
    """The body that the joint belongs to; several joints of one body follow one another."""
    parent: str | None
    """Body it hangs from; None: the hand's base."""
    offset: Point
    """Where the joint sits in its parent, metres."""
    axis: Point
    """Which it turns about or slides along."""
    range: tuple[float, float]
    """Radians, or metres where it slides."""
    slides: bool = False
    turned: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
    """Rest orientation in its parent, quaternion (w, x, y, z)."""


@dataclass(frozen=True)
class Hand:
    """Bones and where they begin."""

    bones: tuple[Bone, ...]
    euler: Point
    """The base's orientation: radians about x, the turned y, the twice turned z."""
    base: Point = (0.0, -0.7, 0.2)
    """Metres."""

    def forward(self, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """joints (F, J) -> where each bone is: positions (F, J, 3) metres, rotations (F, J, 3, 3)."""
        count = len(joints)
        positions = np.empty((count, len(self.bones), 3))
        rotations = np.empty((count, len(self.bones), 3, 3))
        for j, bone in enumerate(self.bones):
            parent = self._parents[j]
            base = np.broadcast_to(np.array(self.base), (count, 3)), np.broadcast_to(self._start, (count, 3, 3))
            position, rotation = base if parent < 0 else (positions[:, parent], rotations[:, parent])
            positions[:, j] = position + rotation @ np.array(bone.offset)
            rotation = rotation @ self._rest[j]
            if bone.slides:
                positions[:, j] += joints[:, j, None] * (rotation @ self._axes[j])
                rotations[:, j] = rotation
            else:
                rotations[:, j] = rotation @ _turn(self._axes[j], joints[:, j])
        return positions, rotations

    def points(self, joints: np.ndarray, keypoints: Sequence[Keypoint]) -> np.ndarray:
        """joints (F, J) -> (F, N, 3) metres in the world, of keypoints on the hand's bodies."""
        return self._reach(*self.forward(joints), *self._places(keypoints))

    def fit(self, points: np.ndarray, keypoints: Sequence[Keypoint]) -> np.ndarray:
        """(F, N, 3) metres, of keypoints on the hand's bodies -> (F, J) the joints that come nearest to them all.

        Levenberg-Marquardt from the middle of every joint's range, all frames at once; first with the keypoints that
        no finger moves, so that the palm is right when the fingers are looked for.
        """
        points = np.asarray(points, dtype=np.float64)
        middle = np.mean([bone.range for bone in self.bones], axis=1)
        joints = np.tile(middle, (len(points), 1))
        firm = [i for i, k in enumerate(keypoints) if k.target in _PALM and not any(k.offset)]
        firm += [i for i, k in enumerate(keypoints) if k.target == "forearm"]
        whole = list(range(len(keypoints)))
        for chosen, slack in ((firm, _UTMOST), (whole, _USUAL), (whole, _UTMOST)):
            some = [keypoints[c] for c in chosen]
            for i in range(0, len(points), _CHUNK):
                part = slice(i, i + _CHUNK)
                joints[part] = self._descend(joints[part], points[part][:, chosen], some, slack)
        return joints

    def _descend(
        self, start: np.ndarray, points: np.ndarray, keypoints: Sequence[Keypoint], slack: float
    ) -> np.ndarray:
        """The joints (F, J) that a descent from start (F, J) ends at, no further than slack outside their ranges."""
        bones, offsets = self._places(keypoints)
        moves = self._ancestry[bones]  # (N, J) whether a joint moves a keypoint
        slides = np.array([bone.slides for bone in self.bones])
        low, high = np.array([bone.range for bone in self.bones]).T + np.array([[-slack], [slack]])
        joints = np.clip(start, low, high)
        damping = np.full(len(points), 1e-5)  # square metres, against lever arms of 8 mm and more
        where = self.forward(joints)
        miss = points - self._reach(*where, bones, offsets)
        for _ in range(_ROUNDS):
            axes = np.einsum("fjab,jb->fja", where[1], self._axes)
            levers = (points - miss)[:, :, None] - where[0][:, None]  # (F, N, J, 3)
            slopes = np.where(slides[:, None], axes[:, None], np.cross(axes[:, None], levers)) * moves[..., None]
            slopes = slopes.transpose(0, 1, 3, 2).reshape(len(points), -1, len(low))  # (F, 3 N, J)
            curvature = slopes.transpose(0, 2, 1) @ slopes + damping[:, None, None] * np.eye(len(low))
            step = np.linalg.solve(curvature, slopes.transpose(0, 2, 1) @ miss.reshape(len(points), -1, 1))[..., 0]
            trial = np.clip(joints + step, low, high)
            there = self.forward(trial)
            left = points - self._reach(*there, bones, offsets)
            better = np.square(left).sum((1, 2)) < np.square(miss).sum((1, 2))
            damping = np.where(better, damping / 5, np.minimum(damping * 5, 1.0))
            joints[better], miss[better] = trial[better], left[better]
            where[0][better], where[1][better] = there[0][better], there[1][better]
            if np.abs(step).max(initial=0.0) < 1e-8:
                break
        return joints

    def _places(self, keypoints: Sequence[Keypoint]) -> tuple[list[int], np.ndarray]:
        last: dict[str | int, int] = {bone.body: j for j, bone in enumerate(self.bones)}
        return [last[k.target] for k in keypoints], np.array([k.offset for k in keypoints])

    def _reach(self, positions: np.ndarray, rotations: np.ndarray, bones: list[int], offsets: np.ndarray) -> np.ndarray:
        return positions[:, bones] + np.einsum("fnab,nb->fna", rotations[:, bones], offsets)

    @cached_property
    def _start(self) -> np.ndarray:
        x, y, z = (_turn(np.array(axis), np.array(angle)) for axis, angle in zip((_X, _Y, _Z), self.euler))
        return x @ y @ z

    @cached_property
    def _axes(self) -> np.ndarray:
        axes = np.array([bone.axis for bone in self.bones])
        return axes / np.linalg.norm(axes, axis=1, keepdims=True)

    @cached_property
    def _rest(self) -> np.ndarray:
        return np.stack([quaternion_rotation(bone.turned) for bone in self.bones])

    @cached_property
    def _parents(self) -> list[int]:
        last: dict[str | None, int] = {None: -1}
        parents = []
        for j, bone in enumerate(self.bones):
            parents.append(last[bone.body] if bone.body in last else last[bone.parent])
            last[bone.body] = j
        return parents

    @cached_property
    def _ancestry(self) -> np.ndarray:
        """(J, J) whether the bone of the row hangs from that of the column, or is it."""
        hangs = np.eye(len(self.bones), dtype=bool)
        for j, parent in enumerate(self._parents):
            if parent >= 0:
                hangs[j] |= hangs[parent]
        return hangs


def _turn(axis: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Unit axis (3,), angle (...) radians -> (..., 3, 3), by Rodrigues' formula."""
    x, y, z = axis
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    angle = np.asarray(angle)[..., None, None]
    return np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * (cross @ cross)


def quaternion_rotation(quaternion: Sequence[float]) -> np.ndarray:
    """(w, x, y, z), of any length -> (3, 3)."""
    w, x, y, z = np.asarray(quaternion, dtype=np.float64) / np.linalg.norm(quaternion)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + 2.0 * w * cross + 2.0 * (cross @ cross)


def arm(**ranges: tuple[float, float]) -> tuple[Bone, ...]:
    """The joints that carry the forearm: ARTx, ARTy, ARTz slide, ARRx, ARRy, ARRz turn."""
    axes = {"x": _X, "y": _Y, "z": _Z}
    return tuple(
        Bone(name, "forearm", None, _HERE, axes[name[3]], span, slides=name[2] == "T") for name, span in ranges.items()
    )


def _finger(name: str, knuckle: Point, palm: str = "palm") -> tuple[Bone, ...]:
    low, upper, bend = name.upper(), 0.436, (0.0, 1.571)
    return (
        Bone(f"{low}J3", f"{name}knuckle", palm, knuckle, _Y, (-upper, upper)),
        Bone(f"{low}J2", f"{name}proximal", f"{name}knuckle", _HERE, _X, bend),
        Bone(f"{low}J1", f"{name}middle", f"{name}proximal", (0.0, 0.0, 0.045), _X, bend),
        Bone(f"{low}J0", f"{name}distal", f"{name}middle", (0.0, 0.0, 0.025), _X, bend),
    )


FINGERS = (
    *_finger("ff", (0.033, 0.0, 0.095)),
    *_finger("mf", (0.011, 0.0, 0.099)),
    *_finger("rf", (-0.011, 0.0, 0.095)),
    Bone("LFJ4", "lfmetacarpal", "palm", (-0.017, 0.0, 0.044), (0.570977, 0.0, 0.820966), (0.0, 0.698)),
    *_finger("lf", (-0.017, 0.0, 0.044), palm="lfmetacarpal"),
    Bone(
        "THJ4",
        "thbase",
        "palm",
        (0.034, -0.009, 0.029),
        (0.0, 0.0, -1.0),
        (-1.047, 1.047),
        turned=(0.923956, 0.0, 0.382499, 0.0),
    ),
    Bone("THJ3", "thproximal", "thbase", _HERE, _X, (0.0, 1.309)),
    Bone("THJ2", "thhub", "thproximal", (0.0, 0.0, 0.038), _X, (-0.262, 0.262)),
    Bone("THJ1", "thmiddle", "thhub", _HERE, _Y, (-0.524, 0.524)),
    Bone("THJ0", "thdistal", "thmiddle", (0.0, 0.0, 0.032), _Y, (-1.571, 0.0)),
)
"""Forefinger, middle, ring and little finger, thumb: in the order of the model's joints."""


def bones(carried: tuple[Bone, ...] = ()) -> tuple[Bone, ...]:
    """All of a hand's bones, on an arm of these joints. Without one the wrist sits on a fixed forearm."""
    wrist = (
        Bone("WRJ1", "wrist", "forearm" if carried else None, (0.0, 0.0, 0.396), _Y, (-0.524, 0.175)),
        Bone("WRJ0", "palm", "wrist", (0.0, 0.0, 0.034), _X, (-0.785, 0.611)),
    )
    return carried + wrist + FINGERS


GRASP = Keypoint("grasp", "body", "palm", offset=(0.007, -0.05, 0.07))
"""What the environments call the palm's position: a point before it. Not itself a thing to be seen."""

FOREARM = Keypoint("forearm", "body", "forearm", offset=(0.0, 0.0, 0.3))
"""Tells an arm's joints from the wrist's."""


def _finger_keypoints(name: str) -> tuple[Keypoint, ...]:
    return (
        Keypoint(f"{name}_knuckle", "body", f"{name}knuckle"),
        # The finger's side: where it points straight away from the palm, its joints in a line do not tell J3.
        Keypoint(f"{name}_side", "body", f"{name}proximal", offset=(0.009, 0.0, 0.0225)),
        Keypoint(f"{name}_middle", "body", f"{name}middle"),
        Keypoint(f"{name}_distal", "body", f"{name}distal"),
        Keypoint(f"{name}_tip", "body", f"{name}distal", offset=(0.0, 0.0, 0.026)),
    )


KEYPOINTS = (
    Keypoint("wrist", "body", "wrist"),
    *(keypoint for name in ("ff", "mf", "rf") for keypoint in _finger_keypoints(name)),
    Keypoint("lf_base", "body", "lfmetacarpal"),
    *_finger_keypoints("lf"),
    Keypoint("th_base", "body", "thbase"),
    Keypoint("th_side", "body", "thproximal", offset=(-0.013, 0.0, 0.019)),
    Keypoint("th_hub", "body", "thhub"),
    Keypoint("th_distal", "body", "thdistal"),
    Keypoint("th_tip", "body", "thdistal", offset=(0.0, 0.0, 0.0275)),
)
"""Every joint of the hand, and the side of each finger: (27,) enough to tell all 24 joints in any posture."""
