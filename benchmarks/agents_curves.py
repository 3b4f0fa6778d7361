"""Do the agents learn as well as other libraries' do? `python -m benchmarks.agents_curves online` or `offline`.

online   SAC and REDQ beside Stable-Baselines3's SAC and torchrl's losses: same environment, steps, settings and seeds
         (`online --help`).
offline  the offline agents beside torchrl's losses, on the same store and batches: `offline STORE`. A store of
         medium quality comes from `pixeltraj collect Hopper-v5 --policy sb3:FILE --noise 0.3 --out STORE`.

OUT/NAME-SEED.json is a finished run, which is not done again. Prints a Markdown table: the mean return of the policy's
mode over the last half of the evaluations, and their standard deviation over seeds.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
import torch
import tyro
from tqdm import tqdm

from benchmarks.jobs import remember
from pixeltraj.eval.agents.agent import no_data
from pixeltraj.eval.agents.catalogue import AGENTS, make_agent
from pixeltraj.files import read_json, write_json
from pixeltraj.replay_buffer import Batch, ReplayBuffer, ReplayBufferConfig
from pixeltraj.store import Store
from pixeltraj.tasks import get_task

BATCH = 256
WARMUP = 100  # random decisions, as in Stable-Baselines3
AUTHORS = "authors-diffusion_ql"
EVALUATION_SEEDS = 1_000_000_000
Curve = list[tuple[int, float]]


@dataclass(frozen=True)
class Online:
    env: str = "Pendulum-v1"
    """Gymnasium's id."""
    out: Path = Path("runs/benchmarks/agents-online")
    """Folder of the finished runs."""
    agents: tuple[str, ...] = ("sac", "redq", "sb3", "torchrl-sac", "torchrl-redq")
    """Which ones: ours, torchrl-NAME, or sb3, which is Stable-Baselines3's SAC."""
    steps: int = 3000
    """Steps in the environment."""
    updates_per_step: int = 1
    """Of each agent."""
    learning_rate: float = 1e-3
    """Of each agent; what Stable-Baselines3's own settings for Pendulum say."""
    eval_every: int = 300
    """Steps between evaluations."""
    eval_episodes: int = 10
    """Episodes of an evaluation."""
    seeds: int = 2
    """Runs of each agent."""


@dataclass(frozen=True)
class Offline:
    store: Annotated[Path, tyro.conf.Positional]
    """Transitions to learn from; all but its held-out episodes."""
    task: str = "Hopper-v5"
    """The store's."""
    out: Path = Path("runs/benchmarks/agents-offline")
    """Folder of the finished runs."""
    agents: tuple[str, ...] = ("td3_bc", "iql", "bc", "diffusion_ql", "torchrl-td3_bc", "torchrl-iql", "torchrl-bc")
    """Which ones: ours, or torchrl-NAME; cql too, which is slow, and authors-diffusion_ql."""
    authors: Path | None = None
    """A copy of github.com/Zhendong-Wang/Diffusion-Policies-for-Offline-RL, for authors-diffusion_ql."""
    updates: int = 5000
    """Of each agent."""
    eval_every: int = 1000
    """Updates between evaluations."""
    eval_episodes: int = 10
    """Episodes of an evaluation."""
    seeds: int = 2
    """Runs of each agent."""


def main(config: Online | Offline) -> None:
    torch.set_num_threads(1)
    if isinstance(config, Offline) and AUTHORS in config.agents and config.authors is None:
        raise SystemExit(f"{AUTHORS} needs --authors FOLDER, a copy of the authors' repository")
    asked = {key: value for key, value in asdict(config).items() if key not in ("out", "agents", "seeds", "authors")}
    remember(config.out, {key: str(value) for key, value in asked.items()})
    learn: Callable[[Any, str, int], Curve] = learn_online if isinstance(config, Online) else learn_offline
    curves: dict[str, list[Curve]] = {}
    for seed in range(config.seeds):
        for name in config.agents:
            path = config.out / f"{name}-{seed}.json"
            if not path.exists():
                write_json(path, learn(config, name, seed))
            curves.setdefault(name, []).append(read_json(path, "learning curve"))
    print(table(curves))


# Online


def learn_online(config: Online, name: str, seed: int) -> Curve:
    environment, arena = (gym.wrappers.RescaleAction(gym.make(config.env), -1.0, 1.0) for _ in range(2))
    if name == "sb3":
        return _baseline(config, environment, arena, seed)
    states, actions = _sizes(environment)
    agent = _learner(config, name, seed, states, actions)
    rng = np.random.default_rng(seed)
    buffer = ReplayBuffer(ReplayBufferConfig(rho=0.0), states, actions, rng)
    curve: Curve = []
    state, over = np.zeros(0), True
    for step in tqdm(range(1, config.steps + 1), desc=f"{name}-{seed}", unit="step"):
        if over:
            state, _ = environment.reset(seed=seed if step == 1 else None)
        explore = np.asarray(state, np.float32)
        action = rng.uniform(-1, 1, actions) if step <= WARMUP else agent.act(explore, explore=True)
        next_state, reward, terminated, truncated, _ = environment.step(np.asarray(action, np.float32))
        buffer.store(explore, action, float(reward), next_state, terminated)
        state, over = next_state, terminated or truncated
        for _ in range(config.updates_per_step if step > WARMUP else 0):
            agent.update(buffer.sample(BATCH))
        if step % config.eval_every == 0:
            curve.append((step, mean_return(arena, lambda s: agent.act(s, explore=False), config.eval_episodes)))
    return curve


def _learner(config: Online, name: str, seed: int, states: int, actions: int) -> Any:
    if name.startswith("torchrl-"):
        return _peer(name, seed, states, actions, config.learning_rate)
    settings = replace(AGENTS[name][1](), learning_rate=config.learning_rate, batch=BATCH)
    if name == "redq":
        settings = replace(settings, actor_every=config.updates_per_step)
    return make_agent(name, no_data(states, actions), torch.Generator().manual_seed(seed), settings)


def _peer(name: str, seed: int, states: int, actions: int, learning_rate: float = 3e-4) -> Any:
    from benchmarks.agents_peers import TorchRL

    torch.manual_seed(seed)
    return TorchRL(name.removeprefix("torchrl-"), states, actions, learning_rate)


def _baseline(config: Online, environment: gym.Env, arena: gym.Env, seed: int) -> Curve:
    from stable_baselines3 import SAC

    updates, rate = config.updates_per_step, config.learning_rate
    model = SAC("MlpPolicy", environment, rate, seed=seed, device="cpu", gradient_steps=updates)
    curve: Curve = []
    for step in tqdm(range(config.eval_every, config.steps + 1, config.eval_every), desc=f"sb3-{seed}"):
        model.learn(config.eval_every, reset_num_timesteps=False)
        policy = lambda s: model.predict(s, deterministic=True)[0]  # noqa: E731
        curve.append((step, mean_return(arena, policy, config.eval_episodes)))
    return curve


def _sizes(environment: gym.Env) -> tuple[int, int]:
    """Of states and of actions."""
    return environment.observation_space.shape[0], environment.action_space.shape[0]  # type: ignore[index]


# Offline


def _authors(folder: Path, seed: int, states: int, actions: int) -> Any:
    from benchmarks.agents_authors import AuthorsDiffusionQL

    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002, it is what their code draws from
    return AuthorsDiffusionQL(folder, states, actions)


def learn_offline(config: Offline, name: str, seed: int) -> Curve:
    """Ours and torchrl's see the same batches, normalised."""
    task = get_task(config.task)
    store = Store.open(config.store, task)
    data = Batch.of(store.trajectory(episode) for episode in store.split()[0])
    mean, deviation = data.states.mean(axis=0), data.states.std(axis=0) + 1e-3
    normal = [(states - mean) / deviation for states in (data.states, data.next_states)]
    data = data._replace(states=normal[0], next_states=normal[1])
    if name.startswith("torchrl-"):
        agent: Any = _peer(name, seed, task.state_size, task.action_size)
    elif name == AUTHORS:
        assert config.authors
        agent = _authors(config.authors, seed, task.state_size, task.action_size)
    else:
        agent = make_agent(name, data, torch.Generator().manual_seed(seed), replace(AGENTS[name][1](), batch=BATCH))
    rng, arena = np.random.default_rng(seed), task.make()
    curve: Curve = []
    for update in tqdm(range(1, config.updates + 1), desc=f"{name}-{seed}", unit="update"):
        rows = rng.integers(len(data.states), size=BATCH)
        agent.update(data.at(rows))
        if update % config.eval_every == 0:
            policy = lambda s: agent.act(((s - mean) / deviation).astype(np.float32), explore=False)  # noqa: E731
            curve.append((update, mean_return(arena, policy, config.eval_episodes)))
    return curve


def mean_return(arena: gym.Env, policy: Callable[[np.ndarray], np.ndarray], episodes: int) -> float:
    total = 0.0
    for episode in range(episodes):
        state, _ = arena.reset(seed=EVALUATION_SEEDS + episode)
        over = False
        while not over:
            state, reward, terminated, truncated, _ = arena.step(policy(np.asarray(state, np.float32)))
            total, over = total + float(reward), terminated or truncated
    return total / episodes


def table(curves: dict[str, list[Curve]]) -> str:
    """A row for each agent: every evaluation's mean over seeds, then the last half's."""
    steps = [step for step, _ in next(iter(curves.values()))[0]]
    lines = [f"| | {' | '.join(map(str, steps))} | last half |", "|---" * (len(steps) + 2) + "|"]
    for name, runs in curves.items():
        returns = np.array([[score for _, score in run] for run in runs])  # (seeds, evaluations)
        late = returns[:, returns.shape[1] // 2 :].mean(axis=1)
        cells = [f"{score:.0f}" for score in returns.mean(axis=0)]
        lines.append(f"| {name} | {' | '.join(cells)} | {late.mean():.0f} ± {late.std():.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(
        tyro.cli(
            Annotated[Online, tyro.conf.subcommand("online")] | Annotated[Offline, tyro.conf.subcommand("offline")],
        )
    )
