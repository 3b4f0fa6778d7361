"""The fit: its kinematics are the simulator's, its equations those of what it minimises, its poses nearer the truth."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from pixeltraj.decode.decoder import known_states
from pixeltraj.decode.fit import Fit
from pixeltraj.decode.kinematics import Kinematics
from pixeltraj.decode.motion import Motion
from pixeltraj.decode.violations import penetration
from pixeltraj.simulator import Simulator
from pixeltraj.task import Task
from pixeltraj.tasks import TASKS, get_task

NAMES = ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Ant-v5", "AntMaze_UMaze-v5", "FrankaKitchen-v1")
K = 5


@dataclass
class Played:
    """What some episodes of a task were; the last ones cut into windows."""

    simulator: Simulator
    motion: Motion
    fit: Fit
    states: np.ndarray
    """(B, K, S)"""
    keypoints: np.ndarray
    """(B, K, N, 3)"""

    @property
    def task(self) -> Task:
        return self.simulator.task

    def read(self, keypoints: np.ndarray) -> np.ndarray:
        return known_states(self.task, keypoints, self.states[:, 0])

    def noisy(self, size: float) -> np.ndarray:
        noise = size * np.random.default_rng(1).standard_normal(self.keypoints.shape)
        noise[:, 0] = 0.0  # frame 0 is known
        return self.keypoints + noise

    def spread(self, size: float) -> np.ndarray:
        return np.full(self.keypoints.shape[:-1], size)


def play(name: str, episodes: int = 8, decisions: int = 40) -> Played:
    simulator, rng, whole = get_task(name).make(), np.random.default_rng(0), []
    for seed in range(episodes):
        states, keypoints = [simulator.reset(seed=seed)[0]], [simulator.keypoints()]
        for _ in range(decisions):
            scripted = simulator.scripted_action()
            noise = rng.uniform(-1, 1, simulator.task.action_size)
            state, _, terminated, *_ = simulator.step(noise if scripted is None else scripted + 0.3 * noise)
            states.append(state)
            keypoints.append(simulator.keypoints())
            if terminated:
                break
        whole.append((np.array(states), np.array(keypoints)))
    first = [states for states, _ in whole[: episodes // 2]]
    motion = Motion.of(np.concatenate([s[:-1] for s in first]), np.concatenate([s[1:] for s in first]))
    parts = [
        (states[t : t + K], keypoints[t : t + K])
        for states, keypoints in whole[episodes // 2 :]
        for t in range(0, len(states) - K + 1, 4)
    ]
    return Played(simulator, motion, Fit(simulator.task, motion), *(np.stack(part) for part in zip(*parts)))


@pytest.fixture(scope="module", params=NAMES)
def played(request: pytest.FixtureRequest) -> Played:
    return play(request.param, **({"episodes": 4, "decisions": 20} if "Kitchen" in request.param else {}))


@pytest.fixture(scope="module")
def cheetah() -> Played:
    return play("HalfCheetah-v5")


def missed(played: Played, states: np.ndarray) -> float:
    """Mean error of the pose in the frames that are not known."""
    return float(np.abs(states - played.states)[:, 1:, played.fit.pose].mean())


def test_kinematics_are_the_simulators(played: Played) -> None:
    kinematics, pose = played.fit.kinematics, played.fit.pose
    placed = kinematics.place(played.states[:, -1, pose].astype(np.float64))
    np.testing.assert_allclose(placed.points, played.keypoints[:, -1, kinematics.told], atol=2e-5)
    still = sorted(set(range(len(played.task.keypoints))) - set(kinematics.told))
    assert [played.task.keypoints[i].name for i in still] == (["goal"] if "Maze" in played.task.name else [])


def test_derivatives_are_those_of_the_kinematics(played: Played) -> None:
    kinematics, pose = played.fit.kinematics, played.fit.pose
    at = played.states[:3, 2, pose].astype(np.float64)
    for part in kinematics.quaternions:
        at[:, part] /= np.linalg.norm(at[:, part], axis=-1, keepdims=True)
    placed, step = kinematics.place(at), 1e-6
    for i in range(len(pose)):
        ahead, behind = (kinematics.place(at + sign * step * np.eye(len(pose))[i]) for sign in (1, -1))
        np.testing.assert_allclose((ahead.points - behind.points) / (2 * step), placed.moving[..., i], atol=1e-6)
        climb = (ahead.clearance - behind.clearance) / (2 * step)
        np.testing.assert_allclose(climb, placed.rising[..., i], atol=1e-6)


@pytest.mark.parametrize("name", ["HalfCheetah-v5", "Ant-v5"])
def test_clearance_is_how_deep_feet_are_in_the_floor(name: str) -> None:
    simulator, kinematics = get_task(name).make(), Kinematics(get_task(name))
    simulator.reset(seed=0)
    height = 1 if name == "HalfCheetah-v5" else 2
    simulator.data.qpos[height] -= 0.5
    simulator.restore(simulator.snapshot())
    placed = kinematics.place(simulator.data.qpos[None, kinematics.first :])
    assert penetration(simulator) > 0.1
    assert -placed.clearance.min() == pytest.approx(penetration(simulator), abs=1e-6)


def test_the_equations_are_those_of_what_is_minimised(cheetah: Played) -> None:
    fit, rng = cheetah.fit, np.random.default_rng(0)
    start = cheetah.states[:2, 0][:, fit.dims].astype(np.float64)
    path = cheetah.states[:2, 1:][..., fit.dims] + 0.3 * rng.standard_normal((2, K - 1, len(fit.dims)))
    path[..., 0] -= 0.3  # into the floor, where that counts too
    rest = np.ones((2, 1)) @ fit.drift
    target, weight = cheetah.keypoints[:2, 1:].astype(np.float64), rng.uniform(20, 100, (2, K - 1, 10))
    system = fit._system(path, start, rest, target, weight)
    for t, i in ((0, 0), (1, 3), (3, 7), (2, 12)):
        moved = [path.copy(), path.copy()]
        for copy, step in zip(moved, (1e-6, -1e-6)):
            copy[:, t, i] += step
        costs = [fit._system(copy, start, rest, target, weight).cost for copy in moved]
        np.testing.assert_allclose((costs[0] - costs[1]) / -4e-6, system.right[:, t, i], rtol=1e-4, atol=1e-3)


def test_true_keypoints_give_the_true_state(played: Played) -> None:
    fitted = played.fit(played.read(played.keypoints), played.keypoints, played.spread(1e-4))
    assert missed(played, fitted) < 2e-3


def test_misread_keypoints_give_truer_states_than_geometry(played: Played) -> None:
    keypoints, spread = played.noisy(0.02), played.spread(0.02)
    read = played.read(keypoints)
    assert missed(played, played.fit(read, keypoints, spread)) < 0.7 * missed(played, read)


def test_only_the_pose_of_later_frames_changes(played: Played) -> None:
    fit, keypoints = played.fit, played.noisy(0.02)
    read = played.read(keypoints)
    before = read.copy()
    fitted = fit(read, keypoints, played.spread(0.02))
    np.testing.assert_array_equal(read, before)
    np.testing.assert_array_equal(fitted[:, 0], played.states[:, 0])
    others = [i for i in range(played.task.state_size) if i not in fit.pose]
    np.testing.assert_array_equal(fitted[..., others], read[..., others])
    for part in fit.kinematics.quaternions:
        pose = fitted[..., fit.pose][..., part]
        np.testing.assert_allclose(np.linalg.norm(pose, axis=-1), 1.0, atol=1e-4)


def test_a_window_is_fitted_alike_among_others_and_alone(cheetah: Played) -> None:
    fit, keypoints, spread = cheetah.fit, cheetah.noisy(0.02), cheetah.spread(0.02)
    read = cheetah.read(keypoints)
    together = fit(read, keypoints, spread)
    np.testing.assert_allclose(fit(read[3:4], keypoints[3:4], spread[3:4]), together[3:4], atol=1e-5)


def test_feet_do_not_sink_into_the_floor_and_joints_keep_their_limits(cheetah: Played) -> None:
    fit, keypoints = cheetah.fit, cheetah.keypoints.copy()
    toes = [i for i, k in enumerate(cheetah.task.keypoints) if k.name.endswith("_toe")]
    keypoints[:, 1:, toes, 2] -= 0.15
    read = cheetah.read(keypoints)
    fitted = fit(read, keypoints, cheetah.spread(0.05))

    def placed(states: np.ndarray) -> tuple[float, float]:
        poses = states[:, 1:, fit.pose].reshape(-1, len(fit.pose)).astype(np.float64)
        beyond = poses - np.clip(poses, fit.kinematics.low, fit.kinematics.high)
        return float(-fit.kinematics.place(poses).clearance.min()), float(np.abs(beyond).max())

    assert placed(read)[0] > 0.08 and placed(read)[1] > 0.3
    assert placed(fitted)[0] < 0.05 and placed(fitted)[1] < 0.1


def test_a_keypoint_that_was_not_understood_does_not_lead_astray(cheetah: Played) -> None:
    fit, keypoints, spread = cheetah.fit, cheetah.noisy(0.005), cheetah.spread(0.005)
    keypoints[:, 2, 3] += 0.5  # a knee
    read = cheetah.read(keypoints)
    assert missed(cheetah, fit(read, keypoints, spread)) < 0.25 * missed(cheetah, read)


def test_a_body_that_rolls_over_turns_on_where_geometry_leaps_by_a_full_turn(cheetah: Played) -> None:
    simulator, task = cheetah.simulator, cheetah.task
    simulator.reset(seed=0)
    states, keypoints = [], []
    for turned in (3.0, 3.1, 3.2, 3.3, 3.4):
        simulator.data.qpos[1:3] = 1.0, turned
        simulator.data.qvel[2] = 2.0
        states.append(simulator.state())
        keypoints.append(simulator.keypoints())
    points, rooty = np.array(keypoints)[None], task.indices(("rooty",))[0]
    read = known_states(task, points, np.array(states)[:1])
    assert read[0, -1, rooty] < 0
    fitted = cheetah.fit(read, points, np.full(points.shape[:-1], 1e-3))
    np.testing.assert_allclose(fitted[0, :, rooty], [3.0, 3.1, 3.2, 3.3, 3.4], atol=0.01)


def test_what_cannot_be_fitted_keeps_its_states(cheetah: Played) -> None:
    fit, keypoints, spread = cheetah.fit, cheetah.noisy(0.02), cheetah.spread(0.02)
    read, sound = cheetah.read(keypoints), fit(cheetah.read(keypoints), keypoints, spread)
    keypoints[0, 2, 3, 0] = np.nan
    spread[1, 3, 0] = np.inf
    fitted = fit(read, keypoints, spread)
    np.testing.assert_array_equal(fitted[:2], read[:2])
    np.testing.assert_allclose(fitted[2:], sound[2:], atol=1e-5)
    np.testing.assert_array_equal(fit(read[:, :1], keypoints[:, :1], spread[:, :1]), read[:, :1])


def test_a_task_whose_geometry_is_exact_keeps_its_states() -> None:
    task = get_task("push-v3")
    states = np.random.default_rng(0).standard_normal((2, K, task.state_size)).astype(np.float32)
    points = np.zeros((2, K, len(task.keypoints), 3))
    np.testing.assert_array_equal(Fit(task, Motion.of(states[0], states[1]))(states, points, points[..., 0]), states)


def test_poses_are_the_last_coordinates_of_the_configuration() -> None:
    fitted = {name for name, task in TASKS.items() if task.pose}
    assert fitted >= set(NAMES) and not any(name.startswith(("push", "PointMaze")) for name in fitted)
    for name in fitted:
        names = [d.name for d in TASKS[name].state]
        assert set(TASKS[name].pose) <= set(names) - set(TASKS[name].hidden) - set(TASKS[name].static)


def test_motion_recovers_a_linear_map_and_how_much_it_does_not_tell() -> None:
    rng = np.random.default_rng(0)
    matrix = np.eye(3) + 0.1 * rng.standard_normal((3, 3))
    before = 5 + rng.standard_normal((4000, 3))
    after = before @ matrix + [1.0, 0.0, -1.0] + rng.standard_normal((4000, 3)) * [0.1, 0.2, 0.3]
    motion = Motion.of(before, after)
    np.testing.assert_allclose(motion.matrix[:3], matrix, atol=0.02)
    np.testing.assert_allclose(np.sqrt(np.diag(motion.covariance)), [0.1, 0.2, 0.3], rtol=0.05)


def test_what_never_changed_in_the_data_is_foreseen_to_stay_wherever_it_is() -> None:
    rng = np.random.default_rng(0)
    before = np.column_stack([rng.standard_normal(200), np.full(200, 0.5) + 1e-7 * rng.standard_normal(200)])
    motion = Motion.of(before, before + 0.1 * rng.standard_normal((200, 2)) * [1, 0])
    foreseen = np.array([0.0, 0.9, 1.0]) @ motion.matrix
    np.testing.assert_allclose(foreseen, [0.0, 0.9], atol=0.03)


def test_motion_keeps_a_window_together_where_keypoints_say_little(cheetah: Played) -> None:
    keypoints, spread = cheetah.noisy(0.05), cheetah.spread(0.05)
    read, told = cheetah.read(keypoints), cheetah.motion
    loose = replace(told, covariance=1e4 * told.covariance)
    alone = missed(cheetah, Fit(cheetah.task, loose)(read, keypoints, spread))
    assert missed(cheetah, cheetah.fit(read, keypoints, spread)) < 0.8 * alone
