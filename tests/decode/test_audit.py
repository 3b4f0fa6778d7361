"""The audit: real trajectories pass it, and ones that do not obey the simulator are found out."""

import json
from dataclasses import replace

import numpy as np
import pytest

from pixeltraj.decode.audit import another, audit, one_step, open_loop, real_windows
from pixeltraj.errors import PixeltrajError
from pixeltraj.simulator import Simulator
from pixeltraj.store import Store
from pixeltraj.tasks import get_task
from pixeltraj.trajectory import Trajectory


def episode(simulator: Simulator, seed: int, steps: int) -> Trajectory:
    rng = np.random.default_rng(seed)
    states, keypoints, snapshots = [simulator.reset(seed=seed)[0]], [simulator.keypoints()], [simulator.snapshot()]
    actions, rewards, terminations = [], [], []
    for _ in range(steps):
        scripted = simulator.scripted_action()
        action = rng.uniform(-1, 1, simulator.task.action_size) if scripted is None else scripted
        action = action.astype(np.float32)
        state, reward, terminated, *_ = simulator.step(action)
        actions.append(action)
        states.append(state)
        rewards.append(reward)
        terminations.append(terminated)
        keypoints.append(simulator.keypoints())
        snapshots.append(simulator.snapshot())
        if terminated:
            break
    return Trajectory(
        states=np.stack(states),
        actions=np.stack(actions),
        rewards=np.array(rewards, dtype=np.float32),
        terminations=np.array(terminations),
        truncations=np.zeros(len(actions), dtype=bool),
        keypoints=np.stack(keypoints),
        snapshots=np.stack(snapshots),
    )


@pytest.fixture(scope="module")
def push(tmp_path_factory: pytest.TempPathFactory) -> tuple[Simulator, Store]:
    task = get_task("push-v3")
    simulator = task.make()
    store = Store.create(tmp_path_factory.mktemp("store") / "push", task, {}, simulator.snapshot_layout)
    store.append([episode(simulator, seed, 40) for seed in range(5)])
    return simulator, store


def span(store: Store) -> np.ndarray:
    return np.ptp(store.read("states", 0, store.frame_count), axis=0)


def test_real_transitions_obey_the_simulator(push: tuple[Simulator, Store]) -> None:
    simulator, store = push
    real = real_windows(store, [0, 1, 2, 3, 4], 5, 8, np.random.default_rng(0))
    starts = [t.snapshots[0] for t in real]
    result = one_step(simulator, real, starts, span(store), np.random.default_rng(0))
    share = {name: result[name]["percent_of_range"] for name in ("error", "nothing_moves", "set_state")}
    assert share["error"] < 0.75 * share["nothing_moves"], share
    loop = open_loop(simulator, real, starts, span(store), np.random.default_rng(0))
    last = loop["steps"][-1]
    assert last["step"] == 4 and last["error"]["percent_of_range"] == 0, "the start is exact, and so is all else"
    assert last["shuffled_actions"]["percent_of_range"] > 0.5
    assert last["nothing_moves"]["percent_of_range"] > 0.5


def test_wrong_actions_are_found_out_where_states_are_exact() -> None:
    task = get_task("HalfCheetah-v5")
    simulator = task.make()
    real = [episode(simulator, seed, 8) for seed in range(4)]
    starts = [t.snapshots[0] for t in real]
    result = one_step(simulator, real, starts, np.ones(task.state_size), np.random.default_rng(0))
    own, other, still = (result[name]["percent_of_range"] for name in ("error", "shuffled_actions", "nothing_moves"))
    assert own < 0.01 * other and own < 0.01 * still


def test_trajectories_that_disobey_are_found_out(push: tuple[Simulator, Store]) -> None:
    simulator, store = push
    rng = np.random.default_rng(0)
    real = real_windows(store, store.split()[1], 5, 4, rng)
    jumping = []
    for t in real:
        drift = np.zeros_like(t.states)
        drift[:, 0] = 0.05 * np.arange(len(drift))
        jumping.append(replace(t, states=t.states + drift, rewards=np.ones_like(t.rewards), snapshots=None))
    result = audit(simulator, jumping, [t.snapshots[0] for t in real], real, span(store), rng)
    imagined, floor = result["one_step_imagined"], result["one_step_real"]
    assert imagined["error"]["percent_of_range"] > 2 * floor["error"]["percent_of_range"]
    for row in result["open_loop_imagined"]["steps"]:
        drift = row["error"]["dimensions"]["hand_x"]["mean"]
        assert drift == pytest.approx(0.05 * row["step"], abs=1e-4)
    claimed = result["open_loop_imagined"]["reward"]
    assert claimed["both"] == claimed["simulator"] == 0 < claimed["trajectory"], "rewards made up are counted"
    assert json.loads(json.dumps(result)) == result
    with pytest.raises(PixeltrajError, match="an audit needs"):
        audit(simulator, jumping, [], real, span(store), rng)


def test_shuffling_never_keeps_an_action() -> None:
    for count in (2, 3, 50):
        order = another(count, np.random.default_rng(0))
        assert sorted(order) == list(range(count)) and (order != np.arange(count)).all()
