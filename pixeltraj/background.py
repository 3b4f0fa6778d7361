"""BackgroundImagination: imagination in a process of its own, for which the agent never waits.

    with BackgroundImagination(ImagineConfig(decoder=Path("runs/decoder")), "push-v3") as imagination:
        buffer = ReplayBuffer(config, task.state_size, task.action_size, rng, imagination)

A call leaves its request in a bounded queue and takes what earlier requests have brought meanwhile. Which results
come at which call is a matter of timing: runs with a background process do not repeat, unless they `wait`.
"""

import sys
import threading
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

from pixeltraj.child import PATIENCE, answer_all, end_child, obituary, start_child
from pixeltraj.errors import PixeltrajError
from pixeltraj.replay_buffer import Imagine
from pixeltraj.task import Task
from pixeltraj.tasks import get_task
from pixeltraj.trajectory import Trajectory

MakeImagine = Callable[[Task], Imagine]
"""What makes an imagination, in the process that is to use it: a function at the top of a module, or a dataclass that
is called, as `pixeltraj.cli.imagination.ImagineConfig` is."""


@dataclass(frozen=True)
class BackgroundConfig:
    queue: int = 4
    """Requests that may wait for the process; one more drops the oldest."""
    max_age: int = 32
    """A result is stale, and is dropped, when more requests than that have been made since its own."""
    wait: bool = False
    """Every call waits for its own result: as reproducible as imagination inside the loop, and as slow."""
    threads: int = 1
    """PyTorch's threads in the process."""

    def check(self) -> None:
        """Raise PixeltrajError on a setting that cannot be."""
        for name in ("queue", "max_age", "threads"):
            if getattr(self, name) < 1:
                raise PixeltrajError(f"{name} of background imagination is {getattr(self, name)}; give at least 1")


@dataclass
class Counters:
    """What became of the trajectories that were asked for; what is still pending is none of the last five."""

    requested: int = 0
    """Asked for."""
    received: int = 0
    """Imagined and handed over."""
    dropped: int = 0
    """Never imagined: the queue was full."""
    stale: int = 0
    """Imagined too late, and not handed over."""
    missing: int = 0
    """Asked for, but imagination gave fewer."""
    lost: int = 0
    """Under way when the process ended or the run was saved, or asked for after it had died."""
    worker_seconds: float = 0.0
    """Wall-clock time in which the process imagined."""
    worker_cpu_seconds: float = 0.0
    """Processor time of the process, loading included."""
    wall_seconds: float = 0.0
    """Wall-clock time since the process was started."""


class Request(NamedTuple):
    number: int
    states: np.ndarray
    snapshots: np.ndarray
    seed: int


class Result(NamedTuple):
    number: int
    asked: int
    trajectories: list[Trajectory]


class BackgroundImagination:
    """Any imagination, made by `make(task)` in a spawned process: pixeltraj.replay_buffer.Imagine.

    The process is started by the first call (or by `with`), and ends with `close`, with this object, with the
    program, or when the program is killed. Where it dies by itself a warning says so once, and from then on nothing
    is imagined. It can be pickled: what is under way is lost and counted, and the copy starts a process of its own.
    As with every spawned process, a script has to begin its work below `if __name__ == "__main__":`.
    """

    def __init__(self, make: MakeImagine, task: Task | str, config: BackgroundConfig | None = None) -> None:
        """Raises PixeltrajError on an unknown task or a bad configuration."""
        self.make, self.config = make, config or BackgroundConfig()
        self.task = get_task(task) if isinstance(task, str) else task
        self.config.check()
        self._counters, self._number = Counters(), 0
        self._worker: _Worker | None = None
        self._warned: set[str] = set()

    def __call__(self, states: np.ndarray, snapshots: np.ndarray, seed: int) -> list[Trajectory]:
        """Ask for trajectories from these states, and take those of earlier requests that are ready by now.

        states (B, S) float32; snapshots (B, Q) float64. Returns at once, unless the configuration says `wait`.
        """
        worker, count = self.start(), self._counters
        self._number += 1
        count.requested += len(states)
        request = Request(self._number, states, snapshots, seed)
        count.dropped += worker.ask(request)
        if self.config.wait:
            worker.wait_for(request.number)
        trajectories: list[Trajectory] = []
        for result in worker.take():
            if self._number - result.number > self.config.max_age:
                count.stale += result.asked
                continue
            count.received += len(result.trajectories)
            count.missing += result.asked - len(result.trajectories)
            trajectories += result.trajectories
            if not result.trajectories:
                self._warn(f"nothing was imagined from {result.asked} states; the agent goes on with what there is")
        if worker.failure:
            self._warn(f"nothing is imagined any more, the agent goes on without: {worker.failure}")
        return trajectories

    def _warn(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            warnings.warn(message, RuntimeWarning, stacklevel=3)

    def start(self) -> "_Worker":
        """Start the process, unless it runs or has died."""
        if self._worker is None:
            self._worker = _Worker(self.make, self.task, self.config)
            self._end = weakref.finalize(self, self._worker.close)
        return self._worker

    @property
    def pending(self) -> int:
        """Trajectories that are waiting, being imagined, or ready to be taken."""
        return self._worker.pending if self._worker else 0

    @property
    def ready(self) -> int:
        """Trajectories that were asked for and that the next call takes."""
        return self._worker.ready if self._worker else 0

    @property
    def pid(self) -> int | None:
        """Of the process, where there is one."""
        return self._worker.pid if self._worker else None

    @property
    def alive(self) -> bool:
        """Whether the process has been started and can still imagine."""
        return self._worker is not None and self._worker.failure is None

    @property
    def counters(self) -> Counters:
        """Up to now. requested = received + dropped + stale + missing + lost + `pending`."""
        worker, so_far = self._worker, self._counters
        if worker is None:
            return replace(so_far)
        return replace(
            so_far,
            lost=so_far.lost + worker.lost,
            worker_seconds=so_far.worker_seconds + worker.seconds,
            worker_cpu_seconds=so_far.worker_cpu_seconds + worker.cpu_seconds,
            wall_seconds=so_far.wall_seconds + time.perf_counter() - worker.began,
        )

    def statistics(self) -> dict[str, float]:
        """The counters by name, and `worker_share`: of the wall-clock time, what the process imagined."""
        counters = self.counters
        share = counters.worker_seconds / counters.wall_seconds if counters.wall_seconds else 0.0
        return {**asdict(counters), "pending": self.pending, "worker_share": share}

    def close(self) -> None:
        """End the process; what is under way is lost and counted. A later call starts another one."""
        if self._worker is None:
            return
        self._end()
        self._counters, self._worker, self._warned = self.counters, None, set()

    def __enter__(self) -> "BackgroundImagination":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        counters = self.counters
        counters.lost += self.pending
        unstarted: dict[str, Any] = {"_counters": counters, "_worker": None, "_warned": set()}
        return {name: value for name, value in self.__dict__.items() if name != "_end"} | unstarted


class _Worker:
    """The process, and the thread of this process that hands it one request after the other."""

    def __init__(self, make: MakeImagine, task: Task, config: BackgroundConfig) -> None:
        self.failure: str | None = None
        """Why nothing is imagined any more."""
        self.lost, self.seconds, self.cpu_seconds, self.began = 0, 0.0, 0.0, time.perf_counter()
        self._queue = config.queue
        self._waiting: deque[Request] = deque()
        self._under_way: Request | None = None
        self._ready: list[Result] = []
        self._changed = threading.Condition()
        self._process, self._connection = start_child(_work, make, task, config.threads)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def ask(self, request: Request) -> int:
        """Queue it -> how many trajectories were dropped for it."""
        dropped = 0
        with self._changed:
            if self.failure:
                self.lost += len(request.states)
                return 0
            self._waiting.append(request)
            while len(self._waiting) > self._queue:
                dropped += len(self._waiting.popleft().states)
            self._changed.notify_all()
        return dropped

    def take(self) -> list[Result]:
        """What is ready."""
        with self._changed:
            ready, self._ready = self._ready, []
        return ready

    def wait_for(self, number: int) -> None:
        """Until the request of that number is ready, or never will be."""
        with self._changed:
            self._changed.wait_for(lambda: self.failure or any(result.number == number for result in self._ready))

    @property
    def ready(self) -> int:
        with self._changed:
            return sum(result.asked for result in self._ready)

    @property
    def pending(self) -> int:
        with self._changed:
            return self._unanswered() + sum(result.asked for result in self._ready)

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def close(self) -> None:
        with self._changed:
            self.failure = self.failure or "it was closed"
            self._changed.notify_all()
        self._process.terminate()
        self._thread.join()
        with self._changed:
            self.lost += sum(result.asked for result in self._ready)
            self._ready = []
        self._connection.close()

    def _serve(self) -> None:
        """The thread: ends when the process does, or when there is no more use for it."""
        while (request := self._next()) is not None:
            try:
                self._connection.send(request[1:])
                answer = self._connection.recv()
            except (EOFError, OSError):  # the process has ended
                answer = None
            if not isinstance(answer, tuple):
                self._fail(answer)
                break
            trajectories, seconds, cpu_seconds = answer
            with self._changed:
                self.seconds, self.cpu_seconds = self.seconds + seconds, cpu_seconds
                self._under_way = None
                self._ready.append(Result(request.number, len(request.states), trajectories))
                self._changed.notify_all()
        end_child(self._process)

    def _next(self) -> Request | None:
        """The request to be imagined next, once there is one; None when there will be none."""
        with self._changed:
            while not self._waiting and not self.failure:
                # Once a second, for a process that dies between two requests is to be noticed too.
                if not self._changed.wait(1.0) and not self._process.is_alive():
                    break
            if self.failure or not self._waiting:
                self._give_up(self.failure or obituary(self._process))
                return None
            self._under_way = self._waiting.popleft()
            return self._under_way

    def _fail(self, message: str | None) -> None:
        if message is None and self.failure is None:  # for its exit code; whoever closes does not want to know
            self._process.join(PATIENCE)
        with self._changed:
            self._give_up(self.failure or message or obituary(self._process))

    def _give_up(self, failure: str) -> None:
        self.failure = failure
        self.lost += self._unanswered()
        self._waiting.clear()
        self._under_way = None
        self._changed.notify_all()

    def _unanswered(self) -> int:
        requests = [*self._waiting, *([self._under_way] if self._under_way else [])]
        return sum(len(request.states) for request in requests)


def _work(make: MakeImagine, task: Task, threads: int, connection: Connection) -> None:
    """The process. Answers each request with (trajectories, seconds, processor seconds so far)."""

    def begin() -> Callable[[Any], Any]:
        imagine = make(task)
        if "torch" in sys.modules:  # whoever imagines without it is not made to wait for it
            sys.modules["torch"].set_num_threads(threads)

        def answer(asked: tuple[np.ndarray, np.ndarray, int]) -> tuple[list[Trajectory], float, float]:
            began = time.perf_counter()
            trajectories = imagine(*asked)
            return trajectories, time.perf_counter() - began, time.process_time()

        return answer

    answer_all(connection, begin)
