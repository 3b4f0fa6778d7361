"""Every task as a Gymnasium environment.

    import gymnasium
    import pixeltraj.environments

    env = gymnasium.make("pixeltraj/push-v3")

Importing this module registers them, as Gymnasium asks of a package; nothing else in pixeltraj imports it. In one
line, which also works in Gymnasium's worker processes: `gymnasium.make("pixeltraj.environments:pixeltraj/push-v3")`.
`env.unwrapped` is the task's `Simulator`.
"""

import gymnasium

from pixeltraj.simulator import Simulator
from pixeltraj.tasks import TASKS, get_task

NAMESPACE = "pixeltraj"


def make(task: str) -> Simulator:
    """The simulator of the task of that name. Raises PixeltrajError where there is none."""
    return get_task(task).make()


def register() -> None:
    """Tell Gymnasium of every task there is: `pixeltraj/NAME`. Those it knows already are left alone."""
    for name in TASKS:
        if f"{NAMESPACE}/{name}" not in gymnasium.registry:
            gymnasium.register(f"{NAMESPACE}/{name}", entry_point=f"{__name__}:make", kwargs={"task": name})


register()
