"""torchrl: a replay buffer that imagines, between any of its collectors and any of its off-policy losses.

env = wrap(gymnasium.make("pixeltraj/push-v3"))
buffer = ImaginedReplayBuffer(100_000, ImagineConfig(decoder=Path("runs/decoder")), "push-v3", batch_size=256)
for data in Collector(env, policy, frames_per_batch=50, total_frames=10_000):
    buffer.extend(data)
    loss(buffer.sample())
"""

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import torch

from pixeltraj.background import MakeImagine
from pixeltraj.errors import PixeltrajError
from pixeltraj.imagined_part import ImaginedPart
from pixeltraj.replay_buffer import Imagine, ReplayBufferConfig
from pixeltraj.simulator import Simulator
from pixeltraj.task import Task
from pixeltraj.tasks import get_task

try:
    from tensordict import TensorDict, TensorDictBase
    from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer, Unbounded
    from torchrl.envs import GymWrapper, default_info_dict_reader
except ImportError as error:
    raise PixeltrajError("torchrl is not installed: pip install 'pixeltraj[torchrl]'") from error

KEYS = ("observation", "action", *(("next", name) for name in ("observation", "reward", "done", "terminated")))
"""What is kept of each transition and comes with each sample; with a sample also `imagined`, (B, 1) bool."""
SNAPSHOT = ("next", "snapshot")


def wrap(env: gymnasium.Env, **options: Any) -> GymWrapper:
    """An environment of `pixeltraj.environments` as torchrl's, with the simulator's state as `snapshot` beside every
    observation. options: GymWrapper's own. Raises PixeltrajError on any other environment."""
    if not isinstance(env.unwrapped, Simulator):
        raise PixeltrajError(f"{env} is none of pixeltraj's environments: use gymnasium.make('pixeltraj/TASK')")
    size = sum(env.unwrapped.snapshot_layout.values())
    wrapped = GymWrapper(env, **options)
    wrapped.set_info_dict_reader(default_info_dict_reader(["snapshot"], [Unbounded((size,), dtype=torch.float64)]))
    return wrapped


class ImaginedReplayBuffer:
    """Algorithm 1. The agent's own transitions lie in `own`, a torchrl buffer; `imagined` holds the others.

    Takes and gives TensorDicts of torchrl's standard keys (`KEYS`); whatever else a collector brings is left out.
    Observations have to be the task's states: transforms that change them belong behind the buffer. Neither part is
    prioritised.
    """

    def __init__(
        self,
        capacity: int,
        imagination: Imagine | MakeImagine | None,
        task: Task | str,
        *,
        rho: float = 0.5,
        expected_length: float = 4.0,
        imagine_batch: int = 16,
        imagined_capacity: int | None = None,
        max_age: int | None = None,
        batch_size: int | None = None,
        device: torch.device | str = "cpu",
        snapshots: bool = True,
        seed: int | None = None,
    ) -> None:
        """capacity: of the own transitions. imagination, snapshots: see `ImaginedPart`. rho, expected_length,
        imagine_batch, imagined_capacity, max_age: see `ReplayBufferConfig`. batch_size, device: of samples. seed: if
        None it follows from torch's.

        Raises PixeltrajError on an unknown task, and where rho is not in [0, 1).
        """
        self.task = get_task(task) if isinstance(task, str) else task
        self.batch_size, self.device = batch_size, torch.device(device)
        seed = int(torch.randint(2**31, ()).item()) if seed is None else seed
        self.imagined = ImaginedPart(
            ReplayBufferConfig(rho, expected_length, capacity, imagine_batch, imagined_capacity, max_age),
            self.task.state_size,
            self.task.action_size,
            np.random.default_rng(seed),
            imagination,
            self.task,
            snapshots,
        )
        self.own = TensorDictReplayBuffer(storage=LazyTensorStorage(capacity))

    def extend(self, data: TensorDictBase) -> torch.Tensor:
        """Take transitions of any batch shape, and have imagined what is due to them -> their places in `own`.

        Raises PixeltrajError where keys are lacking or have the shapes of another task.
        """
        flat = data.reshape(-1)
        self._check(flat)
        observation, action, next_observation, reward, _, terminated = (flat.get(key).cpu().numpy() for key in KEYS)
        snapshots = flat.get(SNAPSHOT, None)
        snapshots = [None] * len(flat) if snapshots is None else snapshots.cpu().numpy()
        places = self.own.extend(flat.select(*KEYS).cpu())
        rows = zip(observation, action, reward[:, 0], next_observation, terminated[:, 0], snapshots)
        for state, act, paid, next_state, over, snapshot in rows:
            self.imagined.store(state, act, float(paid), next_state, bool(over), snapshot)
        return places

    def add(self, data: TensorDictBase) -> torch.Tensor:
        """Take one transition."""
        return self.extend(data.reshape(1))

    def sample(self, batch_size: int | None = None) -> TensorDictBase:
        """Each transition is imagined with probability rho, once there are imagined ones.

        Raises PixeltrajError while there is none at all, and where neither here nor at first a size was given.
        """
        size = self.batch_size if batch_size is None else batch_size
        if size is None:
            raise PixeltrajError("the replay buffer does not know how much to sample; give batch_size")
        if not len(self.own):
            raise PixeltrajError("the replay buffer is empty; extend it before sampling")
        imagined, parts = self.imagined.draw(size), []
        count = 0 if imagined is None else len(imagined.rewards)
        if count < size:
            own = self.own.sample(size - count).select(*KEYS)
            parts.append(own.set("imagined", torch.zeros(size - count, 1, dtype=torch.bool)))
        if imagined is not None:
            terminated = torch.from_numpy(imagined.terminations)[:, None]
            following = {
                "observation": torch.from_numpy(imagined.next_states),
                "reward": torch.from_numpy(imagined.rewards)[:, None],
                "done": terminated,
                "terminated": terminated.clone(),
            }
            columns: dict[str, Any] = {
                "observation": torch.from_numpy(imagined.states),
                "action": torch.from_numpy(imagined.actions),
                "next": following,
                "imagined": torch.ones(count, 1, dtype=torch.bool),
            }
            parts.append(TensorDict(columns, [count]))
        return torch.cat(parts).to(self.device)

    def __len__(self) -> int:
        """Own transitions."""
        return len(self.own)

    def __iter__(self) -> Iterator[TensorDictBase]:
        """Samples without end."""
        while True:
            yield self.sample()

    @property
    def sampler(self) -> Any:
        """Of the own transitions."""
        return self.own.sampler

    def empty(self) -> None:
        """Forget all transitions, real and imagined."""
        self.own.empty()
        self.imagined.forget()

    def state_dict(self) -> dict[str, Any]:
        """All that a run needs to go on where it was, but for torch's own random state. `torch.save` takes it, and
        `torch.load(..., weights_only=True)` gives it back."""
        imagined = {name: torch.tensor(value) for name, value in self.imagined.state_dict().items()}
        return {"own": self.own.state_dict(), "imagined": imagined}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Inverse of `state_dict`, for a buffer made with the same arguments."""
        self.own.load_state_dict(saved["own"])
        self.imagined.load_state_dict({name: value.numpy() for name, value in saved["imagined"].items()})

    def _check(self, flat: TensorDictBase) -> None:
        there = flat.keys(include_nested=True)
        if lacking := [key for key in KEYS if key not in there]:
            raise PixeltrajError(f"transitions have no {lacking[0]}; collect them from {__name__}.wrap(env)")
        wanted = {"observation": self.task.state_size, "action": self.task.action_size}
        for name, size in wanted.items():
            if flat[name].shape[1:] != (size,):
                shape = tuple(flat[name].shape[1:])
                raise PixeltrajError(f"transitions have {name} {shape}, {self.task.name} has ({size},)")
