"""Footage: moments of a task, before any camera: where its keypoints were, and what stood around them."""

from pathlib import Path

import mujoco
import numpy as np
from tqdm import tqdm

from pixeltraj.errors import PixeltrajError
from pixeltraj.render.collect import CollectConfig, rollout
from pixeltraj.render.policies import make_policy
from pixeltraj.simulator import Simulator
from pixeltraj.store import Store
from pixeltraj.task import Keypoint, Task

MOMENTS = 40
"""Simulator states of a footage at which sight is tested; keypoints count at every frame."""
OPAQUE = 0.5
"""What is less opaque hides nothing."""
_DRAWN = np.array([1, 1, 1, 0, 0, 0], dtype=np.uint8)  # the geom groups that renderers show
_CORNERS = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, 8).T
_BALL = 0.005  # metres: radius of the mark of a keypoint that has none


class Footage:
    """Points are metres from the camera's anchor, as everywhere; sizes are half axes of ellipsoids, metres.

    An object is what a keypoint is fixed to and what can move: the geom it names, or all drawn geoms of its rigid
    body. It counts as the ellipsoid in the box around it. Where some of them are driven by motors and some are not
    (an arm and a puck), those that are not are the objects; a runner's are its links. Where there is none at all, the
    marks of the keypoints' sites are.
    """

    means: np.ndarray
    """(N, 3) where each keypoint is on average"""
    spread: np.ndarray
    """(N, 3, 3) covariance of each keypoint's position"""
    near: float
    """What is nearer to the camera is not drawn, metres"""
    objects: list[str]
    """The first keypoint on each object"""

    def __init__(self, simulator: Simulator, keypoints: np.ndarray, snapshots: np.ndarray) -> None:
        """keypoints (F, N, 3) of every frame; snapshots (F, Q), of which up to `MOMENTS` are kept.

        Raises PixeltrajError where there are none.
        """
        if not len(keypoints) or not len(snapshots):
            raise PixeltrajError(f"no states of {simulator.task.name} to look at; play at least one episode")
        self.simulator, self.task = simulator, simulator.task
        self.keypoints = np.asarray(keypoints, dtype=np.float64)
        self.means = self.keypoints.mean(axis=0)
        apart = self.keypoints - self.means
        self.spread = np.einsum("fni,fnj->nij", apart, apart) / len(apart)
        self.snapshots = snapshots[_spread_out(len(snapshots))]
        simulator.restore(self.snapshots[0])  # resets edit the model: look at it as it was played
        self.near = float(simulator.model.vis.map.znear * simulator.model.stat.extent)
        self._own = [_own_geoms(simulator.model, k) for k in self.task.keypoints]
        self._slack = np.array([self._thickness(k, own) for k, own in zip(self.task.keypoints, self._own)])
        self._find_objects()

    @classmethod
    def play(cls, task: Task, episodes: int = 5, policy: str | None = None, seed: int = 0) -> "Footage":
        """Episodes of 'scripted', 'random' or 'sb3:PATH'; without a policy, the scripted one where there is one."""
        simulator = task.make()
        if policy is None:
            simulator.reset(seed=seed)
            policy = "random" if simulator.scripted_action() is None else "scripted"
        act = make_policy(policy, simulator)
        config = CollectConfig(task.name, Path(), policy=policy)
        seeds = tqdm(range(seed, seed + episodes), desc=f"play {task.name}", unit="episode", leave=False)
        played = [rollout(simulator, act, config, each) for each in seeds]
        snapshots = [t.snapshots for t in played if t.snapshots is not None]
        if not played:
            raise PixeltrajError(f"no states of {task.name} to look at; play at least one episode")
        return cls(simulator, np.concatenate([t.keypoints for t in played]), np.concatenate(snapshots))

    @classmethod
    def load(cls, path: Path) -> "Footage":
        """All episodes of a collected store. Raises PixeltrajError where it holds no simulator states."""
        store = Store.open(path)
        store.require_episodes()
        if not store.attributes["snapshot_layout"]:
            raise PixeltrajError(f"{path} holds imagined trajectories, no simulator states; give a collected store")
        snapshots = [store.read("snapshots", i, i + 1) for i in _spread_out(store.frame_count)]
        return cls(store.task.make(), store.read("keypoints", 0, store.frame_count), np.concatenate(snapshots))

    def widths(self, forward: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Seen along forward (3,): diameters (M, O) of discs as large as the objects look, metres, and their
        centres' depths (M, O) from the anchor."""
        a, b, c = self.sizes.T
        across = np.einsum("moij,i->moj", self.turns, forward) * np.stack([b * c, a * c, a * b], axis=-1)
        return 2 * np.sqrt(np.linalg.norm(across, axis=-1)), self.centres @ forward

    def hidden(self, positions: np.ndarray) -> np.ndarray:
        """Cameras at (D, 3), metres from the anchor -> (D, N): share of the moments in which something stands
        between the camera and the keypoint. The keypoint's own object does not hide it, nor does what covers it
        by less than that object's thickness (a joint lies inside two links)."""
        model, data = self.simulator.model, self.simulator.data
        count = len(self._own)
        hits, distances = np.empty(count, dtype=np.int32), np.empty(count)
        hidden = np.zeros((len(positions), count))
        groups, clear = model.geom_group.copy(), _alpha(model) < OPAQUE
        for snapshot in self.snapshots:
            self.simulator.restore(snapshot)
            anchor, points = self.simulator.anchor(), self.simulator.keypoints().astype(np.float64)
            model.geom_group[clear] = mujoco.mjNGROUP - 1  # rays leave these out
            for i, position in enumerate(positions):
                along = points - position
                lengths = np.linalg.norm(along, axis=-1)
                rays = (along / lengths[:, None]).ravel()
                eye = position + anchor
                mujoco.mj_multiRay(model, data, eye, rays, _DRAWN, 1, -1, hits, distances, count, mujoco.mjMAXVAL)
                covered = (distances >= 0) & (distances < lengths - self._slack)
                hidden[i] += [c and hit not in own for c, hit, own in zip(covered, hits, self._own)]
            model.geom_group[:] = groups
        return hidden / len(self.snapshots)

    def _thickness(self, keypoint: Keypoint, own: frozenset[int]) -> float:
        model = self.simulator.model
        return 1.5 * float(_box(model, self.simulator.data, own)[1].min()) if own else _mark(model, keypoint)

    def _find_objects(self) -> None:
        model, data = self.simulator.model, self.simulator.data
        moving: dict[frozenset[int], str] = {}
        for keypoint, own in zip(self.task.keypoints, self._own):
            if own and model.body_weldid[model.geom_bodyid[min(own)]]:
                moving.setdefault(own, keypoint.name)
        driven = _driven_trees(model)
        passive = {own: k for own, k in moving.items() if model.body_rootid[model.geom_bodyid[min(own)]] not in driven}
        moving = passive or moving
        if not moving:
            self._find_marks()
            return
        self.objects = list(moving.values())
        boxes = [_box(model, data, own) for own in moving]
        bodies = [model.geom_bodyid[min(own)] for own in moving]
        middles, self.sizes = (np.array(part) for part in zip(*boxes))
        centres, turns = [], []
        for snapshot in self.snapshots:
            self.simulator.restore(snapshot)
            turns.append(data.xmat[bodies].reshape(-1, 3, 3))
            centre = data.xpos[bodies] + np.einsum("oij,oj->oi", turns[-1], middles)
            centres.append(centre - self.simulator.anchor())
        self.centres, self.turns = np.array(centres), np.array(turns)

    def _find_marks(self) -> None:
        """Objects where no keypoint is on a moving geom: balls the size of their sites, of moving ones if there are."""
        model, keypoints = self.simulator.model, self.task.keypoints
        bodies = [_body(model, k) for k in keypoints]
        radii = np.array([_mark(model, k) for k in keypoints])
        moving = model.body_weldid[bodies] > 0
        chosen = np.flatnonzero(moving | ~moving.any())
        self.objects = [keypoints[i].name for i in chosen]
        self.sizes = np.repeat(radii[chosen, None], 3, axis=1)
        self.centres = self.keypoints[:, chosen]
        self.turns = np.tile(np.eye(3), (*self.centres.shape[:2], 1, 1))


def _spread_out(count: int) -> list[int]:
    """Up to `MOMENTS` of so many frames."""
    return np.linspace(0, count - 1, min(MOMENTS, count)).round().astype(int).tolist()


def _body(model: mujoco.MjModel, keypoint: Keypoint) -> int:
    """The body that the keypoint is fixed to."""
    element = getattr(model, keypoint.kind)(keypoint.target)
    return int(element.id if keypoint.kind == "body" else element.bodyid[0])


def _mark(model: mujoco.MjModel, keypoint: Keypoint) -> float:
    """Radius of the site that the keypoint is, or of the largest on its body, metres."""
    if keypoint.kind == "site":
        return float(model.site(keypoint.target).size.max())
    body = _body(model, keypoint)
    return max([float(model.site_size[i].max()) for i in range(model.nsite) if model.site_bodyid[i] == body] or [_BALL])


def _own_geoms(model: mujoco.MjModel, keypoint: Keypoint) -> frozenset[int]:
    """Drawn geoms that are the keypoint's object; none for a site of the world."""
    if keypoint.kind == "geom":
        return frozenset([int(model.geom(keypoint.target).id)])
    body = _body(model, keypoint)
    if body == 0:
        return frozenset()
    rigid = model.body_weldid[model.geom_bodyid] == model.body_weldid[body]
    mine = rigid if model.body_weldid[body] else model.geom_bodyid == body
    return frozenset(np.flatnonzero(mine & (model.geom_group < 3) & (_alpha(model) > 0)).tolist())


def _alpha(model: mujoco.MjModel) -> np.ndarray:
    """(geoms,) how opaque each is drawn: its own colour where it has one, else its material's."""
    material = np.where(model.geom_matid < 0, 1.0, np.r_[model.mat_rgba[:, 3], 1.0][model.geom_matid])
    plain = (model.geom_rgba == np.array([0.5, 0.5, 0.5, 1.0], dtype=np.float32)).all(axis=-1)
    return np.where(plain, material, model.geom_rgba[:, 3])


def _driven_trees(model: mujoco.MjModel) -> set[int]:
    """Root bodies of the kinematic trees in which a motor turns a joint."""
    kind = mujoco.mjtTrn
    joints = model.actuator_trnid[np.isin(model.actuator_trntype, [kind.mjTRN_JOINT, kind.mjTRN_JOINTINPARENT]), 0]
    wrapped = model.wrap_objid[model.wrap_type == mujoco.mjtWrap.mjWRAP_JOINT]  # by tendons
    return set(model.body_rootid[model.jnt_bodyid[np.r_[joints, wrapped].astype(int)]].tolist())


def _box(model: mujoco.MjModel, data: mujoco.MjData, geoms: frozenset[int]) -> tuple[np.ndarray, np.ndarray]:
    """Middle (3,) and half axes (3,) of the box around the geoms, in the frame of the first one's body."""
    body = model.geom_bodyid[min(geoms)]
    corners = []
    for geom in geoms:
        points = model.geom_aabb[geom, :3] + _CORNERS * model.geom_aabb[geom, 3:]
        world = data.geom_xpos[geom] + points @ data.geom_xmat[geom].reshape(3, 3).T
        corners.append((world - data.xpos[body]) @ data.xmat[body].reshape(3, 3))
    low, high = np.min(np.concatenate(corners), axis=0), np.max(np.concatenate(corners), axis=0)
    return (low + high) / 2, (high - low) / 2
