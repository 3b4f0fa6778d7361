"""Collection: a policy acts in the simulator, and what happens goes into a store."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from tqdm import tqdm

from pixeltraj.errors import PixeltrajError
from pixeltraj.files import provenance
from pixeltraj.render.policies import Policy, make_policy
from pixeltraj.simulator import Simulator
from pixeltraj.store import Store
from pixeltraj.tasks import get_task
from pixeltraj.trajectory import Trajectory

COMMIT_EVERY = 5
"""Episodes between two commits to the store: what a kill can cost at most."""


@dataclass(frozen=True)
class CollectConfig:
    task: tyro.conf.Positional[str]
    """Name of the task."""
    out: Path
    """The store: a new one, or one that an interrupted run of the same command left."""
    policy: str = "scripted"
    """scripted, random or sb3:PATH."""
    episodes: int = 25
    """Episodes in the finished store. Every fifth is held out from all training."""
    noise: float = 0.1
    """Standard deviation of Gaussian noise on the actions (Meta-World's demonstrators are deterministic)."""
    seed: int = 0
    """Episode i starts from seed + i."""
    max_steps: int | None = None
    """Cut episodes after so many decisions; the task's horizon if not given."""


def collect(config: CollectConfig) -> Store:
    """Fill the store, going on where an interrupted run stopped. Deterministic in the configuration."""
    if config.episodes < 1 or config.noise < 0:
        raise PixeltrajError("--episodes must be at least 1 and --noise at least 0")
    simulator = get_task(config.task).make()
    policy = make_policy(config.policy, simulator)
    how = {"policy": config.policy, "noise": config.noise, "seed": config.seed, "max_steps": config.max_steps}
    if config.out.exists():
        store = Store.open(config.out, simulator.task)
        before = {key: store.attributes["provenance"].get(key) for key in how}
        if before != how:
            raise PixeltrajError(f"{config.out} was collected with {before}, not {how}; give another --out")
    else:
        store = Store.create(config.out, simulator.task, provenance(**how), simulator.snapshot_layout)
    pending: list[Trajectory] = []
    bar = tqdm(range(len(store), config.episodes), desc=f"collect {config.task}", unit="episode")
    for episode in bar:
        pending.append(rollout(simulator, policy, config, config.seed + episode))
        if len(pending) == COMMIT_EVERY:
            store.append(pending)
            pending = []
    store.append(pending)
    return store


def rollout(simulator: Simulator, policy: Policy, config: CollectConfig, seed: int) -> Trajectory:
    """One episode from its seed."""
    rng = np.random.default_rng([seed, 1])  # apart from the stream that the episode's start is drawn from
    state, _ = simulator.reset(seed=seed)
    states, snapshots, keypoints = [state], [simulator.snapshot()], [simulator.keypoints()]
    actions: list[np.ndarray] = []
    rewards, terminations, truncations = [], [], []
    limit = config.max_steps or simulator.task.horizon
    while True:
        action = policy(simulator, state, rng) + config.noise * rng.standard_normal(simulator.task.action_size)
        action = np.clip(action, -1.0, 1.0).astype(np.float32)
        state, reward, terminated, truncated, _ = simulator.step(action)
        truncated = truncated or (not terminated and len(actions) + 1 >= limit)
        states.append(state)
        snapshots.append(simulator.snapshot())
        keypoints.append(simulator.keypoints())
        actions.append(action)
        rewards.append(reward)
        terminations.append(terminated)
        truncations.append(truncated)
        if terminated or truncated:
            break
    return Trajectory(
        states=np.stack(states),
        actions=np.stack(actions),
        rewards=np.array(rewards, dtype=np.float32),
        terminations=np.array(terminations),
        truncations=np.array(truncations),
        keypoints=np.stack(keypoints),
        snapshots=np.stack(snapshots),
        origin={"seed": seed, "policy": config.policy, "noise": config.noise},
    )
