"""All tasks, by name. A new task is an entry in one of the files here; a new suite is a file."""

from difflib import get_close_matches

from pixeltraj.errors import PixeltrajError
from pixeltraj.task import Task
from pixeltraj.tasks import adroit, ant, antmaze, kitchen, locomotion, metaworld, multitask, pointmaze, sequence

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        *metaworld.TASKS,
        *multitask.TASKS,
        *sequence.TASKS,
        *locomotion.TASKS,
        *ant.TASKS,
        *antmaze.TASKS,
        *pointmaze.TASKS,
        *kitchen.TASKS,
        *adroit.TASKS,
    )
}


def get_task(name: str) -> Task:
    """The task of that name. Raises PixeltrajError, naming the nearest ones, where there is none."""
    if name in TASKS:
        return TASKS[name]
    near = get_close_matches(name, TASKS, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(TASKS)}"
    raise PixeltrajError(f"unknown task {name!r}: {hint}")
