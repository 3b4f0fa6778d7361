"""Every task as a Gymnasium environment.

    import gymnasium
    import pixeltraj.environments

    env = gymnasium.make("pixeltraj/push-v3")

Importing this module registers them, as Gymnasium asks of a package; nothing else in pixeltraj imports it. In one
line, which also works in Gymnasium's worker processes: `gymnasium.make("pixeltraj.environments:pixeltraj/push-v3")`.
`env.unwrapped` is the task's `Simulator`, and every info has its snapshot.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import WrapperSpec

from pixeltraj.errors import PixeltrajError
from pixeltraj.simulator import Simulator
from pixeltraj.tasks import TASKS, get_task

NAMESPACE = "pixeltraj"


def make(task: str) -> Simulator:
    """The simulator of the task of that name. Raises PixeltrajError where there is none."""
    return get_task(task).make()


class Snapshots(gymnasium.Wrapper, gymnasium.utils.RecordConstructorArgs):
    """Puts the simulator's state after each step and reset into the info: `snapshot`, (Q,) float64.

    There a replay buffer finds it even where a vector of environments has been reset behind its back. It takes a few
    microseconds. Raises PixeltrajError where the environment within is no `Simulator`.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        gymnasium.utils.RecordConstructorArgs.__init__(self)
        super().__init__(env)
        if not isinstance(env.unwrapped, Simulator):
            raise PixeltrajError(f"{env} is none of pixeltraj's: use gymnasium.make('{NAMESPACE}/TASK')")
        self._simulator = env.unwrapped

    def reset(self, **options: Any) -> tuple[np.ndarray, dict[str, Any]]:
        state, info = self.env.reset(**options)
        return state, info | {"snapshot": self._simulator.snapshot()}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        state, reward, terminated, truncated, info = self.env.step(action)
        return state, reward, terminated, truncated, info | {"snapshot": self._simulator.snapshot()}


def register() -> None:
    """Tell Gymnasium of every task there is: `pixeltraj/NAME`. Those it knows already are left alone."""
    snapshots = WrapperSpec(Snapshots.__name__, f"{__name__}:{Snapshots.__name__}", {})
    for name in TASKS:
        if f"{NAMESPACE}/{name}" not in gymnasium.registry:
            gymnasium.register(
                f"{NAMESPACE}/{name}",
                entry_point=f"{__name__}:make",
                additional_wrappers=(snapshots,),
                kwargs={"task": name},
            )


register()
