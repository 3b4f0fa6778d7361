"""Episodes of the environments themselves, as other people's scripts record them."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import gymnasium_robotics
import numpy as np
import pytest

gym.register_envs(gymnasium_robotics)

Episode = dict[str, Any]
"""T+1 observations, qpos, qvel (and the goals of dict observations); T actions, rewards, terminals, timeouts"""
Record = Callable[..., list[Episode]]


@pytest.fixture(scope="session")
def record() -> Record:
    """(environment, episodes, steps, hold, **options of gym.make): smooth random actions, each held `hold` steps."""

    def recorded(name: str, episodes: int, steps: int, hold: int = 1, **options: Any) -> list[Episode]:
        environment = gym.make(name, max_episode_steps=steps, **options)
        rng = np.random.default_rng(0)
        found = []
        for seed in range(episodes):
            columns: dict[str, list[Any]] = {}

            def look(observation: Any, columns: dict[str, list[Any]] = columns) -> None:
                data = environment.unwrapped.data  # type: ignore[attr-defined]
                parts = observation if isinstance(observation, dict) else {"observation": observation}
                for key, value in {**parts, "qpos": data.qpos.copy(), "qvel": data.qvel.copy()}.items():
                    columns.setdefault(key, []).append(value)

            look(environment.reset(seed=seed)[0])
            shape = environment.action_space.shape
            assert shape is not None
            action = np.zeros(shape)
            ended = False
            while not ended:
                if len(columns.get("actions", ())) % hold == 0:
                    action = np.clip(0.7 * action + 0.5 * rng.standard_normal(shape), -1, 1).astype(np.float32)
                observation, reward, terminal, timeout, _ = environment.step(action)
                look(observation)
                for key, value in zip(
                    ("actions", "rewards", "terminals", "timeouts"), (action, reward, terminal, timeout)
                ):
                    columns.setdefault(key, []).append(value)
                ended = terminal or timeout
            found.append({key: stack(values) for key, values in columns.items()})
        environment.close()
        return found

    return recorded


def stack(values: list[Any]) -> Any:
    if isinstance(values[0], dict):
        return {key: stack([value[key] for value in values]) for key in values[0]}
    return np.array(values)
