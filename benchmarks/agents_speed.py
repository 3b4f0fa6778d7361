"""Updates of each agent in a CPU-second, beside torchrl's and Stable-Baselines3's: `python -m benchmarks.agents_speed`.

Batch 256, two hidden layers of 256, states of 11 and actions of 3 numbers (Hopper), one thread. Everybody's turns are
interleaved, and the median turn counts, so that other work on the machine bears on all alike. Torchrl and
Stable-Baselines3 are wanted (`pip install torchrl stable-baselines3`). Prints a Markdown table and JSON:

    agents.NAME.updates_per_cpu_s   ours, float32
    agents.NAME.bf16                the same in bfloat16
    agents.NAME.torchrl             torchrl's loss, where it has one
    agents.NAME.sb3                 Stable-Baselines3's `model.train` on a filled buffer, where it has one
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
import tyro
from tqdm import tqdm

from pixeltraj.eval.agents.catalogue import AGENTS, OF_STATES, make_agent
from pixeltraj.files import provenance, write_json
from pixeltraj.replay_buffer import Batch

STATES, ACTIONS, BATCH, HIDDEN = 11, 3, 256, 256
TURN = 1.0  # CPU-seconds
COLUMNS = {"updates_per_cpu_s": "ours", "bf16": "ours, bf16", "torchrl": "torchrl", "sb3": "SB3"}


@dataclass(frozen=True)
class Config:
    json: Path | None = None
    """Where to write the figures."""
    agents: tuple[str, ...] = OF_STATES
    """Which ones."""
    turns: int = 5
    """Turns of a CPU-second that each gets."""


def main(config: Config) -> None:
    torch.set_num_threads(1)
    agents = measured(config.agents, config.turns)
    print(table(agents))
    report = {"agents": agents, "provenance": provenance(batch=BATCH, hidden=HIDDEN, turns=config.turns)}
    if config.json:
        write_json(config.json, report)


def measured(names: Sequence[str], turns: int) -> dict[str, dict[str, float]]:
    """agent -> column -> updates in a CPU-second, the median of the turns."""
    batch = random_batch(np.random.default_rng(0))
    contenders: dict[tuple[str, str], Callable[[], Any]] = {}
    for name in names:
        contenders |= {(name, column): update for column, update in updates(name, batch).items()}
    rates: dict[tuple[str, str], list[float]] = {key: [] for key in contenders}
    for _ in range(turns):
        for key, update in tqdm(contenders.items(), desc="turn", unit="contender"):
            rates[key].append(rate(update))
    agents: dict[str, dict[str, float]] = {name: {} for name in names}
    for (name, column), found in rates.items():
        agents[name][column] = float(np.median(found))
    return agents


def updates(name: str, batch: Batch) -> dict[str, Callable[[], Any]]:
    """One update of each implementation of an agent, by column."""
    from benchmarks.agents_peers import TorchRL

    def ours(bf16: bool) -> Callable[[], Any]:
        agent_config = replace(AGENTS[name][1](), batch=BATCH, hidden=HIDDEN, bf16=bf16)
        agent = make_agent(name, batch, torch.Generator().manual_seed(0), agent_config)
        if name == "spirl":  # its actions are skills
            skills = np.random.default_rng(0).normal(size=(BATCH, agent_config.skill_size)).astype(np.float32)
            return lambda: agent.update(batch._replace(actions=skills))
        return lambda: agent.update(batch)

    found = {"updates_per_cpu_s": ours(False), "bf16": ours(True)}
    if name in TorchRL.NAMES:
        peer = TorchRL(name, STATES, ACTIONS)
        found["torchrl"] = lambda: peer.update(batch)
    if name in ("sac", "redq"):
        model = baseline(batch, critics=10 if name == "redq" else 2)
        found["sb3"] = lambda: model.train(gradient_steps=1, batch_size=BATCH)
    return found


def baseline(batch: Batch, critics: int) -> Any:
    """Stable-Baselines3's SAC with a filled buffer. It has no REDQ; ten critics stand for it."""
    from stable_baselines3 import SAC
    from stable_baselines3.common.logger import configure

    environment = Spaces()
    shape = {"net_arch": [HIDDEN, HIDDEN], "n_critics": critics}
    model = SAC("MlpPolicy", environment, buffer_size=10_000, policy_kwargs=shape, device="cpu")
    model.set_logger(configure(None, []))
    buffer: Any = model.replay_buffer
    for row in range(len(batch.states)):
        buffer.add(
            *(column[row][None] for column in (batch.states, batch.next_states, batch.actions)),
            batch.rewards[row : row + 1],
            batch.terminations[row : row + 1],
            [{}],
        )
    return model


class Spaces(gymnasium.Env[np.ndarray, np.ndarray]):
    """An environment for its spaces' sake."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (STATES,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (ACTIONS,), np.float32)


def random_batch(rng: np.random.Generator) -> Batch:
    return Batch(
        states=rng.normal(size=(BATCH, STATES)).astype(np.float32),
        actions=rng.uniform(-1, 1, (BATCH, ACTIONS)).astype(np.float32),
        rewards=rng.random(BATCH).astype(np.float32),
        next_states=rng.normal(size=(BATCH, STATES)).astype(np.float32),
        terminations=rng.random(BATCH) < 0.01,
        imagined=np.zeros(BATCH, bool),
    )


def rate(update: Callable[[], Any]) -> float:
    """Calls in a CPU-second. The first turn warms up by as much as it measures."""
    update()
    began, count = time.process_time(), 0
    while (used := time.process_time() - began) < TURN:
        update()
        count += 1
    return count / used


def table(agents: dict[str, dict[str, float]]) -> str:
    lines = [f"| | {' | '.join(COLUMNS.values())} |", "|---|" + "---|" * len(COLUMNS)]
    for name, measured in agents.items():
        cells = (f"{measured[column]:.0f}" if column in measured else "" for column in COLUMNS)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(tyro.cli(Config))
