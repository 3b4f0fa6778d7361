"""stable-baselines3: a replay buffer that imagines, for any of its off-policy agents and sb3-contrib's.

    options = {"imagination": ImagineConfig(decoder=Path("runs/decoder")), "task": "push-v3", "rho": 0.5}
    model = SAC("MlpPolicy", env, replay_buffer_class=ImaginedReplayBuffer, replay_buffer_kwargs=options)
    model.learn(10_000, callback=ReportImagination())

The environment is one of `pixeltraj.environments`, alone or in a vector.
"""

from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from pixeltraj.background import MakeImagine
from pixeltraj.errors import PixeltrajError
from pixeltraj.imagined_part import ImaginedPart
from pixeltraj.replay_buffer import Imagine, ReplayBufferConfig
from pixeltraj.task import Task

try:
    from stable_baselines3.common.buffers import ReplayBuffer
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.type_aliases import ReplayBufferSamples
    from stable_baselines3.common.vec_env import VecNormalize
except ImportError as error:
    raise PixeltrajError("stable-baselines3 is not installed: pip install 'pixeltraj[sb3]'") from error


class ImaginedReplayBuffer(ReplayBuffer):
    """Algorithm 1. The agent's own transitions lie in stable-baselines3's arrays, as ever; `imagined` holds the others.

    Timeouts, VecNormalize and the device are treated alike in both parts. What `model.save_replay_buffer` writes has
    both; it has the imagination too where that is a `BackgroundImagination`, or is given as what makes it (a
    `MakeImagine`, with `task`), as it has to be for `model.save`. Any other is set again after loading, as
    `model.replay_buffer.imagined.imagination`. Transitions of n steps and HerReplayBuffer's goals are not imagined.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        device: torch.device | str = "auto",
        n_envs: int = 1,
        *,
        imagination: Imagine | MakeImagine | None = None,
        task: Task | str | None = None,
        rho: float = 0.5,
        expected_length: float = 4.0,
        imagine_batch: int = 16,
        imagined_capacity: int | None = None,
        max_age: int | None = None,
        snapshots: bool = True,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        """imagination, task, snapshots: see `ImaginedPart`. rho, expected_length, imagine_batch, imagined_capacity,
        max_age: see `ReplayBufferConfig`. seed: if None it follows from the agent's. options: stable-baselines3's own.

        Raises PixeltrajError where spaces are not those of the task, or rho is not in [0, 1).
        """
        for name, space in (("observations", observation_space), ("actions", action_space)):
            if not isinstance(space, spaces.Box) or len(space.shape) != 1:
                raise PixeltrajError(
                    f"the environment's {name} are {space}; only flat vectors are imagined, neither HerReplayBuffer's "
                    f"dictionaries nor images: use gymnasium.make('pixeltraj/TASK')"
                )
        super().__init__(buffer_size, observation_space, action_space, device, n_envs, **options)
        if seed is None:
            seed = int(np.random.randint(2**31))  # noqa: NPY002, stable-baselines3 seeds this one
        self.imagined = ImaginedPart(
            ReplayBufferConfig(rho, expected_length, buffer_size, imagine_batch, imagined_capacity, max_age),
            self.obs_shape[0],
            self.action_dim,
            np.random.default_rng(seed),
            imagination,
            task,
            snapshots,
        )

    def add(
        self,
        obs: np.ndarray,
        next_obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """Take a step of each environment, and have imagined what is due to it."""
        super().add(obs, next_obs, action, reward, done, infos)
        for i, info in enumerate(infos):
            terminated = bool(done[i]) and not info.get("TimeLimit.truncated", False)
            self.imagined.store(obs[i], action[i], float(reward[i]), next_obs[i], terminated, info.get("snapshot"))

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> ReplayBufferSamples:
        """Each transition is imagined with probability rho, once there are imagined ones."""
        imagined = self.imagined.draw(batch_size)
        if imagined is None:
            return super().sample(batch_size, env)
        own: Any = super().sample(batch_size - len(imagined.rewards), env)
        columns: tuple[Any, ...] = (
            self._normalize_obs(imagined.states, env),
            imagined.actions,
            self._normalize_obs(imagined.next_states, env),
            imagined.terminations[:, None],
            self._normalize_reward(imagined.rewards[:, None], env),
        )
        pairs = zip(own[: len(columns)], columns, strict=True)
        return ReplayBufferSamples(*(torch.cat([a, self.to_torch(b).to(a.dtype)]) for a, b in pairs))

    def reset(self) -> None:
        """Forget all transitions, real and imagined."""
        super().reset()
        self.imagined.forget()


class ReportImagination(BaseCallback):
    """Logs `ImaginedPart.statistics` after every rollout, as imagination/share and so on."""

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        buffer = getattr(self.model, "replay_buffer", None)
        if not isinstance(buffer, ImaginedReplayBuffer):
            raise PixeltrajError("there is nothing to report; give the agent replay_buffer_class=ImaginedReplayBuffer")
        for name, value in buffer.imagined.statistics().items():
            self.logger.record(f"imagination/{name}", value)
