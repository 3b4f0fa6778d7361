"""Sight: what an agent that learned from a store's frames sees while it acts."""

from typing import Any, get_args

from pixeltraj.errors import PixeltrajError
from pixeltraj.render.backends import Backend, open_renderer
from pixeltraj.render.renderer import Renderer
from pixeltraj.task import Task


def draw_alike(task: Task, settings: dict[str, Any]) -> Renderer:
    """A renderer, of a simulator of its own, whose frames can be mixed with those of a store.

    settings: `Store.renderer`. Raises PixeltrajError where such frames cannot be drawn here.
    """
    if settings["backend"] not in get_args(Backend):
        raise PixeltrajError(
            f"frames of {task.name} are {settings['backend']} and cannot be drawn like that; give real data that "
            f"`pixeltraj render` drew"
        )
    renderer = open_renderer(task.make(), settings["backend"])
    if renderer.settings != settings:
        raise PixeltrajError(
            f"frames of {task.name} were drawn with {settings}, here they are drawn with {renderer.settings}: collect "
            f"and render the data here"
        )
    return renderer
