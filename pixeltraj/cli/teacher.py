"""Teachers: update a generator's LoRA while the agent waits, or in a process of their own."""

import threading
import warnings
import weakref
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch

from pixeltraj.child import PATIENCE, answer_all, end_child, obituary, start_child
from pixeltraj.cli.lesson import Lesson, Teaching, teach
from pixeltraj.render.backends import Backend, open_renderer
from pixeltraj.render.renderer import Renderer
from pixeltraj.tasks import get_task


class Request(NamedTuple):
    lesson: Lesson
    start: Path | None
    """The LoRA to go on from."""
    out: Path
    """Where the new one goes."""
    seed: int


class Taught(NamedTuple):
    lora: Path
    facts: dict[str, Any]
    """What `teach` tells of it."""


class Teacher(Protocol):
    @property
    def busy(self) -> bool:
        """Whether nothing can be asked now: the last lesson is still being taught, or there will be no more."""

    def ask(self, request: Request) -> None:
        """Teach it; not while it is busy."""

    def answer(self) -> Taught | None:
        """What came of the last lesson, once."""

    def close(self) -> None:
        """Give back what it holds."""


class WaitingTeacher:
    """Teaches at once, on the renderer that it is given: the agent waits."""

    busy = False

    def __init__(self, teaching: Teaching, renderer: Renderer) -> None:
        self.teaching, self.renderer = teaching, renderer
        self._taught: Taught | None = None

    def ask(self, request: Request) -> None:
        self._taught = Taught(request.out, _taught(request, self.teaching, self.renderer))

    def answer(self) -> Taught | None:
        taught, self._taught = self._taught, None
        return taught

    def close(self) -> None:
        """The renderer is whose it was."""


class BackgroundTeacher:
    """Teaches in a spawned process, which begins with the first lesson and ends with this one's.

    Where it dies a warning says so, once, and nothing more is taught.
    """

    def __init__(self, teaching: Teaching, task: str, backend: Backend) -> None:
        """task: its name; backend: of the renderer."""
        self._work = teaching, task, backend
        self._process: Any = None
        self._connection: Any = None
        self._asked: Request | None = None
        self._failed = False

    @property
    def busy(self) -> bool:
        return self._asked is not None or self._failed

    @property
    def pid(self) -> int | None:
        """Of the process, where there is one."""
        return self._process.pid if self._process else None

    def ask(self, request: Request) -> None:
        if self._process is None:
            self._process, self._connection = start_child(_serve, *self._work)
            self._end = weakref.finalize(self, end_child, self._process)
        self._asked = request
        # From a thread: whoever is still loading does not read yet, and a pipe holds little.
        threading.Thread(target=_send, args=(self._connection, request), daemon=True).start()

    def answer(self) -> Taught | None:
        return self._receive() if self._asked and self._connection.poll() else None

    def wait(self) -> Taught | None:
        """The same, waiting for it; None where nothing was asked, or it died."""
        return self._receive() if self._asked else None

    def _receive(self) -> Taught | None:
        assert self._asked is not None
        try:
            answer = self._connection.recv()
        except (EOFError, OSError):  # the process has ended
            answer = None
        if not isinstance(answer, dict):
            self._fail(answer)
            return None
        lora, self._asked = self._asked.out, None
        return Taught(lora, answer)

    def _fail(self, reason: str | None) -> None:
        self._process.join(PATIENCE)
        why = reason or obituary(self._process)
        warnings.warn(
            f"the generator adapts no further, the agent goes on with it as it is: {why}", RuntimeWarning, stacklevel=4
        )
        self._asked, self._failed = None, True

    def close(self) -> None:
        if self._process is not None:
            self._end()
            self._connection.close()
            self._process = self._asked = None


def _send(connection: Any, request: Request) -> None:
    try:
        connection.send(request)
    except OSError:  # the process has ended, as whoever waits for its answer will see
        return


def _taught(request: Request, teaching: Teaching, renderer: Renderer) -> dict[str, Any]:
    return teach(request.lesson, teaching, renderer, request.start, request.out, request.seed)


def _serve(teaching: Teaching, task: str, backend: Backend, connection: Connection) -> None:
    """The process. Answers each request with its facts."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)

    def begin() -> Callable[[Any], Any]:
        renderer = open_renderer(get_task(task).make(), backend)
        return lambda request: _taught(request, teaching, renderer)

    answer_all(connection, begin)
