"""Audit: do transitions obey the simulator?

One step: the simulator is set to s_t, a_t is applied, and what comes out is compared with s_{t+1}; beside it
stand two predictors that know nothing, "nothing moves" and another transition's action. Setting the simulator
to a state is not exact, so real transitions go through the same pipeline: their error is the floor. Where a
body lags behind its command, as Meta-World's arm does, one decision's action moves it by less than that floor
(see `action_effect`), and only the open loop can tell right actions from wrong ones: there the simulator starts
exactly at the real start and is driven by the trajectory's actions alone.
"""

from typing import Any

import numpy as np
from tqdm import tqdm

from pixeltraj.errors import PixeltrajError
from pixeltraj.simulator import Simulator
from pixeltraj.store import Store
from pixeltraj.task import Task
from pixeltraj.trajectory import Trajectory


def audit(
    simulator: Simulator,
    imagined: list[Trajectory],
    snapshots: list[np.ndarray],
    real: list[Trajectory],
    span: np.ndarray,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """All of it, JSON-able.

    imagined: trajectories, snapshots: for each the simulator state (Q,) of its start; real: pieces of held-out
    episodes, with their snapshots (`real_windows`); span (S,): range of each dimension in the training data.
    Raises PixeltrajError where there is nothing to audit, or where snapshots are missing.
    """
    starts = []
    for trajectory in real:
        if trajectory.snapshots is None:
            raise PixeltrajError("real trajectories need their simulator states: collect the store again")
        starts.append(trajectory.snapshots[0])
    if not imagined or not real or len(imagined) != len(snapshots):
        raise PixeltrajError(
            f"an audit needs imagined trajectories, as many start snapshots, and real ones; "
            f"got {len(imagined)}, {len(snapshots)} and {len(real)}"
        )
    return {
        "one_step_imagined": one_step(simulator, imagined, snapshots, span, rng),
        "one_step_real": one_step(simulator, real, starts, span, rng),
        "open_loop_imagined": open_loop(simulator, imagined, snapshots, span, rng),
        "open_loop_real": open_loop(simulator, real, starts, span, rng),
    }


def real_windows(store: Store, episodes: list[int], k: int, count: int, rng: np.random.Generator) -> list[Trajectory]:
    """Up to `count` pieces of k frames of the given episodes (shorter ones at an episode's end), drawn without
    replacement, with snapshots and without frames."""
    places = [(e, t) for e in episodes for t in range(store.episodes[e]["transitions"])]
    picked = rng.permutation(len(places))[:count]
    pieces = []
    for episode, start in sorted(places[i] for i in picked):
        whole = store.trajectory(episode)
        states, steps = slice(start, start + k), slice(start, start + k - 1)
        pieces.append(
            Trajectory(
                states=whole.states[states],
                actions=whole.actions[steps],
                rewards=whole.rewards[steps],
                terminations=whole.terminations[steps],
                truncations=whole.truncations[steps],
                keypoints=whole.keypoints[states],
                snapshots=None if whole.snapshots is None else whole.snapshots[states],
                origin={"store": store.path.name, "episode": episode, "step": start},
            )
        )
    return pieces


def one_step(
    simulator: Simulator,
    trajectories: list[Trajectory],
    snapshots: list[np.ndarray],
    span: np.ndarray,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """One-step errors of all transitions, of "nothing moves" and of shuffled actions, and whether the
    simulator rewards where the trajectory does.

    `error`: |simulator(s_t, a_t) - s_{t+1}|; `nothing_moves`: |s_t - s_{t+1}|; `shuffled_actions`:
    |simulator(s_t, a of another transition) - s_{t+1}|; `set_state`: |simulator's state right after it was
    set - s_t|; `action_effect`: |simulator(s_t, a of another transition) - simulator(s_t, a_t)|.
    """
    actions = np.concatenate([t.actions for t in trajectories])
    other = actions[another(len(actions), rng)]
    errors: dict[str, list[np.ndarray]] = {
        name: [] for name in ("error", "nothing_moves", "shuffled_actions", "set_state", "action_effect")
    }
    rewards: list[tuple[float, float]] = []
    with tqdm(total=len(actions), desc="audit, one step", unit="transition") as bar:
        for trajectory, near in zip(trajectories, snapshots):
            for t in range(len(trajectory)):
                now, after = trajectory.states[t], trajectory.states[t + 1]
                simulator.set_state(now, near)
                reached, here = simulator.state(), simulator.snapshot()
                expected, reward, *_ = simulator.step(trajectory.actions[t])
                simulator.restore(here)
                shuffled, *_ = simulator.step(other[bar.n])
                errors["error"].append(expected - after)
                errors["nothing_moves"].append(now - after)
                errors["shuffled_actions"].append(shuffled - after)
                errors["set_state"].append(reached - now)
                errors["action_effect"].append(shuffled - expected)
                rewards.append((float(trajectory.rewards[t]), reward))
                bar.update()
    result: dict[str, Any] = {"transitions": len(actions)}
    result |= {name: summary(simulator.task, np.abs(rows), span) for name, rows in errors.items()}
    result["reward"] = agreement(simulator.task, np.array(rewards))
    return result


def open_loop(
    simulator: Simulator,
    trajectories: list[Trajectory],
    snapshots: list[np.ndarray],
    span: np.ndarray,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """State errors against the simulator driven by the trajectory's actions, after 1, 2, ... steps; beside
    them those of "nothing moves" and of another trajectory's actions."""
    other = another(len(trajectories), rng)
    longest = max(len(t) for t in trajectories)
    names = ("error", "nothing_moves", "shuffled_actions")
    errors: list[dict[str, list[np.ndarray]]] = [{name: [] for name in names} for _ in range(longest)]
    rewards: list[tuple[float, float]] = []
    pairs = list(zip(trajectories, snapshots))
    for i, (trajectory, snapshot) in enumerate(tqdm(pairs, desc="audit, open loop", unit="trajectory")):
        simulator.restore(snapshot)
        start = simulator.state()
        for t, action in enumerate(trajectory.actions):
            expected, reward, terminated, *_ = simulator.step(action)
            errors[t]["error"].append(expected - trajectory.states[t + 1])
            errors[t]["nothing_moves"].append(start - expected)
            rewards.append((float(trajectory.rewards[t]), reward))
            if terminated:
                break
        simulator.restore(snapshot)
        steps = min(len(trajectory), len(trajectories[other[i]]))
        for t, action in enumerate(trajectories[other[i]].actions[:steps]):
            shuffled, _, terminated, *_ = simulator.step(action)
            errors[t]["shuffled_actions"].append(shuffled - trajectory.states[t + 1])
            if terminated:
                break
    task = simulator.task
    return {
        "trajectories": len(trajectories),
        "steps": [
            {
                "step": t + 1,
                "trajectories": len(rows["error"]),
                **{name: summary(task, np.abs(rows[name]), span) for name in names if rows[name]},
            }
            for t, rows in enumerate(errors)
            if rows["error"]
        ],
        "reward": agreement(task, np.array(rewards)),
    }


def another(count: int, rng: np.random.Generator) -> np.ndarray:
    """(count,) for each of 0..count-1 another one of them, each once; for a single one itself."""
    order = rng.permutation(count)
    result = np.empty(count, dtype=np.int64)
    result[order] = np.roll(order, 1)
    return result


def summary(task: Task, errors: np.ndarray, span: np.ndarray) -> dict[str, Any]:
    """errors (n, S) absolute -> mean and median of each dimension, in its unit and in % of its range, and
    `percent_of_range`, the mean over the dimensions that can change."""
    mean, median = errors.mean(axis=0), np.median(errors, axis=0)
    fixed = set(task.indices(task.static)) | {i for i in range(len(span)) if span[i] <= 0}
    relative = [100 * mean[i] / span[i] for i in range(len(span)) if i not in fixed]
    return {
        "percent_of_range": float(np.mean(relative)),
        "dimensions": {
            d.name: {
                "unit": d.unit,
                "mean": float(mean[i]),
                "median": float(median[i]),
                "percent_of_range": None if i in fixed else float(100 * mean[i] / span[i]),
            }
            for i, d in enumerate(task.state)
        },
    }


def agreement(task: Task, rewards: np.ndarray) -> dict[str, Any]:
    """rewards (n, 2): the trajectory's and the simulator's, side by side."""
    if task.reward == "dense":
        return {"error": float(np.abs(rewards[:, 0] - rewards[:, 1]).mean())}
    said, true = rewards[:, 0] > 0.5, rewards[:, 1] > 0.5
    both = int((said & true).sum())
    return {"trajectory": int(said.sum()), "simulator": int(true.sum()), "both": both}
