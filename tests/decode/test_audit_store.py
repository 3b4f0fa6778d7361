"""The audit of a store: what was corrupted is found out, in the figure that it belongs to and in no other."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from pixeltraj.decode.audit import real_windows
from pixeltraj.decode.audit_store import AuditConfig, audit_store
from pixeltraj.decode.examination import examine
from pixeltraj.errors import PixeltrajError
from pixeltraj.render.collect import CollectConfig, collect
from pixeltraj.store import Store
from pixeltraj.tasks import get_task
from pixeltraj.trajectory import Trajectory

Corrupt = Callable[[int, Trajectory], None]
Audited = tuple[dict[str, Any], dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def cheetahs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("real") / "HalfCheetah-v5"
    collect(CollectConfig("HalfCheetah-v5", path, policy="random", noise=0.0, episodes=10, max_steps=20))
    return path


@pytest.fixture(scope="module")
def pushes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("real") / "push-v3"
    collect(CollectConfig("push-v3", path, episodes=5))
    return path


def imagine(real_path: Path, path: Path, count: int, corrupt: Corrupt | None = None, origins: bool = True) -> Store:
    """A store of imagined trajectories that are the real ones but for what `corrupt` does to them."""
    real = Store.open(real_path)
    store = Store.create(path, real.task, {"imagined": True}, {})
    drawn = real_windows(real, real.split()[1], 5, 3 * count, np.random.default_rng(7))
    pieces = [piece for piece in drawn if len(piece) == 4][:count]
    for i, piece in enumerate(pieces):
        piece.snapshots = None
        piece.origin = {k: v for k, v in piece.origin.items() if k != "store"} if origins else {}
        if corrupt:
            corrupt(i, piece)
    store.append(pieces)
    return store


def audited(real: Path, store: Store, out: Path, **more: Any) -> Audited:
    found = audit_store(AuditConfig(store=store.path, real=real, out=out, **more))
    assert json.loads((out / "audit.json").read_text()) == json.loads(json.dumps(found))
    return found, load_file(out / "transitions.safetensors")


def spoil(store: Store, name: str, row: int, value: float) -> None:
    """Write what no command would: `Store.append` refuses NaN."""
    column = store._columns[name]
    values = column.read(0, store.frame_count)
    values[row] = value
    column.write(0, values)


def test_real_transitions_pass(cheetahs: Path, tmp_path: Path) -> None:
    store = imagine(cheetahs, tmp_path / "imagined", 12)
    found, rows = audited(cheetahs, store, tmp_path / "audit")
    made, n = found["imagined"], store.frame_count - len(store)
    assert found["summary"]["one_step"] < 1e-4 < 1 < found["summary"]["one_step_static"]
    assert made["action_residual"]["mean"] < 1e-4
    assert made["refused"] == made["diverged"] == made["reward"]["wrong"] == made["termination"]["wrong"] == 0
    assert made["violations"]["either"] <= 0.05 * n, "bounds are what 99 % of real transitions keep"
    assert made["open_loop"]["steps"][-1]["error"]["percent_of_range"] < 1e-4
    assert made["coherence"]["mean"] == pytest.approx(found["real"]["coherence"]["mean"], rel=0.5)
    shapes = {"error": (n, 17), "error_pct": (n,), "action_residual": (n, 6), "violation": (n,), "diverged": (n,)}
    assert {name: rows[name].shape for name in shapes} == shapes
    assert rows["reward_wrong"].dtype == rows["violation"].dtype == rows["refused"].dtype == bool
    places = [(e, t) for e, row in enumerate(store.episodes) for t in range(row["transitions"])]
    assert list(zip(rows["episode"].tolist(), rows["step"].tolist())) == places
    again, _ = audited(cheetahs, store, tmp_path / "again")
    assert again["imagined"] == made, "same seed, same figures"


def test_a_flipped_action_is_found_in_that_dimension(cheetahs: Path, tmp_path: Path) -> None:
    def flip(_: int, trajectory: Trajectory) -> None:
        trajectory.actions[:, 2] *= -1

    store = imagine(cheetahs, tmp_path / "imagined", 12, flip)
    found, rows = audited(cheetahs, store, tmp_path / "audit")
    residual, claimed = rows["action_residual"], np.concatenate([t.actions for t in store])
    assert residual[:, 2] == pytest.approx(-2 * claimed[:, 2], abs=0.3)
    means = [row["mean"] for row in found["imagined"]["action_residual"]["dimensions"]]
    assert means[2] > 0.7 and max(means[:2] + means[3:]) < 0.1 * means[2]
    assert found["summary"]["one_step"] > 1 and found["imagined"]["violations"]["either"] <= 2
    signed = found["imagined"]["one_step"]["error"]["dimensions"]["bfoot_velocity"]["mean"]
    assert signed == pytest.approx(np.abs(rows["error"][:, 13]).mean(), rel=1e-3)


def test_nan_and_absurdity_are_counted_and_in_no_average(cheetahs: Path, tmp_path: Path) -> None:
    store = imagine(cheetahs, tmp_path / "imagined", 10)
    for episode, step, value in ((3, 2, np.nan), (5, 4, 1e12), (6, 2, 1e3)):
        spoil(store, "states", int(store.offsets[episode]) + step, value)
    found, rows = audited(cheetahs, store, tmp_path / "audit")
    made = found["imagined"]
    places = [(int(rows["episode"][i]), int(rows["step"][i])) for i in np.flatnonzero(rows["refused"])]
    assert places == [(3, 1), (3, 2), (5, 3), (6, 1), (6, 2)], "the transitions into and out of them"
    assert made["refused"] == 5 and made["diverged"] == 0 == rows["diverged"].sum()
    floats = (rows["error"].T, rows["error_pct"], rows["action_residual"].T)
    assert all(np.isnan(part[..., rows["refused"]]).all() for part in floats)
    assert np.nanmax(rows["error_pct"]) < 1e-3 and found["summary"]["one_step"] < 1e-4
    assert made["violations"]["transitions"] == made["reward"]["compared"] == 35
    assert made["open_loop"]["trajectories"] == made["coverage"]["trajectories"]["imagined"] == 7


def test_a_simulator_that_diverges_is_said_to(cheetahs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    simulator = get_task("HalfCheetah-v5").make()
    store = imagine(cheetahs, tmp_path / "imagined", 2)
    near = [Store.open(cheetahs).read("snapshots", 0, 1)[0]] * 2
    assert not examine(simulator, list(store), near).diverged.any()
    simulator.model.opt.timestep = 2.0  # seconds: no integrator stands that
    examined = examine(simulator, list(store), near)
    assert examined.diverged.sum() >= 4 and not examined.refused.any()
    assert np.isnan(examined.expected[examined.diverged]).all()
    assert not (tmp_path / "MUJOCO_LOG.TXT").exists()


def test_rewards_made_up_are_found(cheetahs: Path, tmp_path: Path) -> None:
    def praise(i: int, trajectory: Trajectory) -> None:
        trajectory.rewards = trajectory.rewards + np.float32(i == 2)
        trajectory.terminations[-1] = i == 4

    found, rows = audited(cheetahs, imagine(cheetahs, tmp_path / "imagined", 8, praise), tmp_path / "audit")
    assert set(rows["episode"][rows["reward_wrong"]].tolist()) == {2} and rows["reward_wrong"].sum() >= 3
    assert np.argwhere(rows["termination_wrong"]).size == 1 == found["imagined"]["termination"]["wrong"]
    assert found["summary"]["one_step"] < 1e-4


def test_a_joint_beyond_its_limit_is_found(cheetahs: Path, tmp_path: Path) -> None:
    def bend(i: int, trajectory: Trajectory) -> None:
        trajectory.states[2, 7] += 1.5 * (i == 1)

    found, rows = audited(cheetahs, imagine(cheetahs, tmp_path / "imagined", 8, bend), tmp_path / "audit")
    hit = (rows["episode"] == 1) & np.isin(rows["step"], [1, 2])
    assert rows["violation"][hit].all() and found["imagined"]["violations"]["joint_limits"] >= 2
    assert found["imagined"]["violations"]["worst_joint_excess"] > 0.5


def test_a_moved_goal_and_a_sunken_object_are_found(pushes: Path, tmp_path: Path) -> None:
    def corrupt(i: int, trajectory: Trajectory) -> None:
        if i == 0:
            trajectory.states[1:, 14] += 0.05
            trajectory.keypoints[1:, 4, 0] += 0.05
        if i == 1:
            trajectory.states[2, 6] -= 0.03

    store = imagine(pushes, tmp_path / "imagined", 6, corrupt)
    found, rows = audited(pushes, store, tmp_path / "audit")
    made, drift = found["imagined"], found["imagined"]["static_drift"]
    steps = np.array([row["transitions"] for row in store.episodes])
    assert drift["dimensions"]["goal_x"]["mean"] == pytest.approx(0.05 * steps[0] / steps.sum(), rel=1e-3)
    assert drift["keypoints_mm"] == {
        "goal": {"mean": pytest.approx(50 * steps[0] / steps.sum(), rel=1e-3), "max": pytest.approx(50, rel=1e-3)}
    }
    assert found["real"]["static_drift"]["keypoints_mm"]["goal"]["max"] == 0
    assert made["reward"]["compared"] == steps.sum() - (steps[0] - 1), "the simulator keeps the goal it was given"
    hit = (rows["episode"] == 1) & np.isin(rows["step"], [1, 2])
    assert rows["violation"][hit].all() and rows["violation"][~hit].sum() <= 2
    assert made["violations"]["contacts"] >= 2 > made["violations"]["joint_limits"]
    assert made["violations"]["deepest_mm"] > 20
    assert rows["error_pct"][hit].min() > 2 * np.median(rows["error_pct"][~hit])
    assert found["bounds"]["penetration_mm"] < 20


def test_trajectories_of_no_origin_are_set_near_real_states(cheetahs: Path, tmp_path: Path) -> None:
    store = imagine(cheetahs, tmp_path / "imagined", 8)
    bare = imagine(cheetahs, tmp_path / "bare", 8, lambda i, t: t.keypoints.fill(0), origins=False)
    found, _ = audited(cheetahs, store, tmp_path / "audit", synther=bare.path)
    other = found["synther"]
    assert other["open_loop"] is other["coherence"] is None
    assert found["summary"]["one_step_synther"] < 1e-4, "only the root's x is another, which no state tells"
    alone, _ = audited(cheetahs, bare, tmp_path / "alone", n=4)
    assert alone["imagined"]["trajectories"] == 4 and alone["summary"]["one_step_real"] < 1e-4


def test_what_does_not_fit_is_said_first(cheetahs: Path, pushes: Path, tmp_path: Path) -> None:
    def refused(match: str, **given: Any) -> None:
        with pytest.raises(PixeltrajError, match=match):
            audit_store(AuditConfig(**{"store": good.path, "real": cheetahs, "out": tmp_path / "audit", **given}))
        assert not (tmp_path / "audit").exists()

    def origin(**change: Any) -> Corrupt:
        return lambda i, t: t.origin.update(change) if i == 1 else None

    good = imagine(cheetahs, tmp_path / "good", 3)
    refused("--n must be at least 1", n=0)
    refused("was collected in the simulator, so there is nothing to audit", store=cheetahs)
    refused("holds push-v3, not HalfCheetah-v5", real=pushes)
    refused("holds no simulator states", real=good.path)
    refused("set out from episode 10, .* has 10", store=imagine(cheetahs, tmp_path / "a", 3, origin(episode=10)).path)
    refused("set out from step 21 of", store=imagine(cheetahs, tmp_path / "b", 3, origin(step=21)).path)
    refused("does not begin in the state", store=imagine(cheetahs, tmp_path / "c", 3, origin(episode=0)).path)
    refused("is empty", store=Store.create(tmp_path / "empty", good.task, {}, {}).path)
    refused("holds push-v3", synther=imagine(pushes, tmp_path / "d", 2).path)
    refused("is not a store|no store|make one", store=tmp_path / "nowhere")
