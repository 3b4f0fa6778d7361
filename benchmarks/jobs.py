"""Stages, each in a process of its own with one thread, and each only once.

OUT/config.json         what the benchmark was asked to do
OUT/stages/NAME.json    what a finished stage measured, and the seconds and CPU-seconds that it took
OUT/logs/NAME.log       what it printed
"""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Generic, Protocol, TypeVar

import torch
from tqdm import tqdm

from pixeltraj.errors import PixeltrajError
from pixeltraj.files import read_json, write_json

POLL = 0.5  # seconds


class Job(Protocol):
    """What a benchmark is asked to do."""

    @property
    def out(self) -> Path:
        """Folder of everything that is made."""

    @property
    def at_once(self) -> int:
        """Processes at a time."""


class Benchmark(Job, Protocol):
    """One that is asked for on the command line."""

    @property
    def json(self) -> Path | None:
        """Where to write the figures."""

    def remember(self) -> None:
        """Write down what is asked. Raises PixeltrajError where something else was begun in `out`."""


J = TypeVar("J", bound=Job)
B = TypeVar("B", bound=Benchmark)


@dataclass(frozen=True)
class Stage(Generic[J]):
    name: str
    work: Callable[[J], dict[str, Any]]
    """Does it, and returns what was measured, JSON-able."""
    after: tuple[str, ...] = ()
    """Stages that have to be finished."""


def remember(out: Path, asked: dict[str, Any]) -> None:
    """Write down what is asked, JSON-able, in OUT/config.json. Raises PixeltrajError where something else was begun
    there."""
    path = out / "config.json"
    if not path.exists():
        write_json(path, asked)
    elif (before := read_json(path, "benchmark")) != asked:
        differing = ", ".join(key for key in asked if before.get(key) != asked[key])
        raise PixeltrajError(f"{out} holds a benchmark with another {differing}; give another --out or remove it")


def result(out: Path, name: str) -> Any:
    """What a finished stage measured; None where it has not finished."""
    path = out / "stages" / f"{name}.json"
    return read_json(path, "stage") if path.exists() else None


def run_stage(config: J, stage: Stage[J]) -> None:
    """In this process."""
    began = time.perf_counter()
    measured = stage.work(config)
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = {"seconds": time.perf_counter() - began, "cpu_seconds": used.ru_utime + used.ru_stime}
    write_json(config.out / "stages" / f"{stage.name}.json", measured | seconds)


def run_stages(config: J, stages: list[Stage[J]], module: str, go_on: bool = False) -> dict[str, str]:
    """All that are not finished, earlier ones of the list first; each is `python -m MODULE OUT NAME`.

    Raises PixeltrajError where one fails, once those beside it have ended. go_on: a failure keeps only those from
    running that wait for it; returns why, by the names of what failed and of what could not be begun.
    """
    waiting = [stage for stage in stages if result(config.out, stage.name) is None]
    finished = {stage.name for stage in stages} - {stage.name for stage in waiting}
    running: dict[str, tuple[subprocess.Popen[bytes], IO[bytes]]] = {}
    failed: dict[str, str] = {}
    bar = tqdm(total=len(stages), initial=len(finished), desc="stages", unit="stage")
    try:
        while running or (waiting and (go_on or not failed)):
            for stage in [s for s in waiting if set(s.after) <= finished and (go_on or not failed)]:
                if len(running) < config.at_once:
                    waiting.remove(stage)
                    running[stage.name] = _start(config, stage.name, module)
                    bar.set_postfix_str(", ".join(running))
            if not running and waiting:
                raise PixeltrajError(f"stages {[s.name for s in waiting]} wait for others that nothing makes")
            time.sleep(POLL)
            for name in [n for n, (process, _) in running.items() if process.poll() is not None]:
                process, log = running.pop(name)
                log.close()
                if process.returncode or result(config.out, name) is None:
                    failed[name] = _reason(config.out, name)
                    waiting = _without(waiting, failed) if go_on else waiting
                else:
                    finished.add(name)
                    bar.update()
    finally:
        bar.close()
        for process, log in running.values():  # interrupted
            process.terminate()
            process.wait()
            log.close()
    if failed and not go_on:
        name, why = next(iter(failed.items()))
        raise PixeltrajError(f"stage {name} failed: {why}")
    return failed


def run_benchmark(
    config: B,
    parts: list[list[Stage[B]]],
    module: str,
    report: Callable[[B], dict[str, Any]],
    table: Callable[[dict[str, Any]], str],
) -> None:
    """All stages, one part after the other; then the report is written, if it is asked for, and printed as a table."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as an interrupt does: stages end with it
    config.remember()
    for part in filter(None, parts):
        run_stages(config, part, module)
    measured = report(config)
    if config.json:
        write_json(config.json, measured)
    print(table(measured))


def _without(waiting: list[Stage[J]], failed: dict[str, str]) -> list[Stage[J]]:
    """Those that can still be begun; the others join what failed."""
    while lost := next((stage for stage in waiting if set(stage.after) & set(failed)), None):
        failed[lost.name] = f"waits for {next(name for name in lost.after if name in failed)}"
        waiting = [stage for stage in waiting if stage is not lost]
    return waiting


def _reason(out: Path, name: str) -> str:
    path = out / "logs" / f"{name}.log"
    lines = path.read_text(errors="replace").strip().splitlines() or ["it printed nothing"]
    return f"{lines[-1]}; all that it printed is in {path}"


def _start(config: Job, name: str, module: str) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    path = config.out / "logs" / f"{name}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    log = path.open("wb")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "LP_NUM_THREADS": "0"}
    command = [sys.executable, "-m", module, str(config.out), name]
    return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment), log
