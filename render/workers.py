"""Workers: processes that draw one store together.

They share nothing but the store: each takes a chunk that nobody draws, draws it, and looks for the next. What a
worker that dies was drawing falls free, and another takes it.
"""

import json
import multiprocessing
import signal
from collections import Counter
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pixeltraj.errors import PixeltrajError
from pixeltraj.render.backends import Backend
from pixeltraj.render.drawing import draw_missing
from pixeltraj.store import CHUNK, Store

_NOTHING_YET = -1


@dataclass
class Worker:
    """A process, the row it is drawing, and what it has to say when it fails."""

    process: BaseProcess
    row: Any
    failure: Connection

    @classmethod
    def start(cls, path: Path, backend: Backend) -> "Worker":
        context = multiprocessing.get_context("spawn")  # a fork would share GL contexts
        row = context.Value("q", _NOTHING_YET, lock=False)
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(path, backend, row, there), daemon=True)
        process.start()
        there.close()
        return cls(process, row, here)

    def stop(self) -> None:
        self.process.terminate()
        self.process.join()
        self.failure.close()

    def outcome(self) -> int:
        """After its end: its exit status, minus the signal where one killed it. Raises what it raised."""
        self.process.join()
        if self.failure.poll():
            try:
                kind, *what = json.loads(self.failure.recv_bytes())
            except EOFError:
                pass
            else:
                raise OSError(*what) if kind == "OSError" else PixeltrajError(*what)
        assert self.process.exitcode is not None
        return self.process.exitcode


def draw_in_parallel(store: Store, backend: Backend, workers: int, bar: tqdm) -> None:
    """Draw all that is missing. Raises PixeltrajError where a chunk has cost two workers, or one of them does."""
    deaths: Counter[int] = Counter()
    crew = [Worker.start(store.path, backend) for _ in range(workers)]
    try:
        while crew:
            wait([worker.process.sentinel for worker in crew], timeout=0.2)
            bar.update(store.rendered - bar.n)
            for worker in [worker for worker in crew if not worker.process.is_alive()]:
                crew.remove(worker)
                status = worker.outcome()
                worker.failure.close()
                if status == 0:
                    continue
                row = worker.row.value
                deaths[row // CHUNK] += 1
                if status > 0 or deaths[row // CHUNK] == 2:  # a fault of the code would only repeat itself
                    raise PixeltrajError(_told(store, row, status))
                crew.append(Worker.start(store.path, backend))
    finally:
        for worker in crew:
            worker.stop()


def _told(store: Store, row: int, status: int) -> str:
    if row == _NOTHING_YET:
        return (
            f"a process that was to render {store.path} ended with status {status} before it began; --workers 1 does "
            f'without (a script of your own that renders has to do so under `if __name__ == "__main__":`)'
        )
    episode, step = store.place(row)
    where = f"at episode {episode}, step {step}"
    if status > 0:
        return f"a process that rendered {store.path} failed {where}; what it printed above tells why"
    return (
        f"a process that rendered {store.path} was killed by {signal.Signals(-status).name} {where}, the second one in "
        f"that chunk: give it more memory or fewer --workers, or collect the store without that state"
    )


def _work(path: Path, backend: Backend, row: Any, failure: Connection) -> None:
    """What a worker does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted too, and ends its workers

    def at(now: int) -> None:
        row.value = now

    parent = multiprocessing.parent_process()
    try:
        for _ in draw_missing(Store.open(path), backend, at):
            if parent is not None and not parent.is_alive():
                return
    except PixeltrajError as error:
        _tell(failure, "PixeltrajError", str(error))
    except OSError as error:
        _tell(failure, "OSError", error.errno, error.strerror, error.filename and str(error.filename))


def _tell(failure: Connection, *what: object) -> None:
    failure.send_bytes(json.dumps(what).encode())
    failure.close()
