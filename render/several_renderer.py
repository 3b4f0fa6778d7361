"""Several models behind one simulator, each drawn by a renderer of its own."""

from collections.abc import Callable

import numpy as np

from pixeltraj.render.renderer import Renderer
from pixeltraj.simulator import Simulator
from pixeltraj.tasks.multitask import MultitaskSimulator


class SeveralRenderer(Renderer):
    """Draws whichever task a multitask or sequence simulator is at; the others' renderers are opened when needed."""

    simulator: MultitaskSimulator

    def __init__(self, simulator: MultitaskSimulator, open_one: Callable[[Simulator], Renderer]) -> None:
        super().__init__(simulator)
        self._open = open_one
        self._renderers: dict[int, Renderer] = {}
        self.settings = self._current().settings

    def _current(self) -> Renderer:
        index = self.simulator.index
        if index not in self._renderers:
            self._renderers[index] = self._open(self.simulator.simulator(index))
        return self._renderers[index]

    def _draw(self, lookat: np.ndarray) -> np.ndarray:
        return self._current()._draw(lookat)

    def close(self) -> None:
        for renderer in self._renderers.values():
            renderer.close()
