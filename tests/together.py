"""Fine-tunings in processes of their own, as a launcher starts them, but forked from one that has imported everything:
to import it all takes each of them eight seconds."""

import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from pixeltraj.base import Base
from pixeltraj.checkpoint import Checkpoint
from pixeltraj.cli import guarded
from pixeltraj.finetune import train
from pixeltraj.finetune.processes import Processes
from pixeltraj.finetune.train import FinetuneConfig, finetune

CHECKPOINT_EVERY = 2
HOLDS = "share of the weights:"
"""What each process prints, when it is ready to train."""


def together(
    config: FinetuneConfig, count: int = 1, environment: dict[str, str] | None = None, killed: bool = False
) -> list[int]:
    """Fine-tune in `count` processes that know each other -> their exit statuses.

    What they print goes to config.out with the suffix .log. killed: the first one gets kill -9 when it has written its
    first checkpoint.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([train.__name__])
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes: list[BaseProcess] = []
    for rank in range(count):
        own = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "ACCELERATE_USE_CPU": "true"}
        arguments = (config, own | (environment or {}) if count > 1 else {}, killed and rank == 0)
        processes.append(context.Process(target=_run, args=arguments))
        processes[-1].start()
    for process in processes:
        process.join(300)
        process.kill()
        process.join()
    return [process.exitcode or 0 for process in processes]


def _run(config: FinetuneConfig, environment: dict[str, str], killed: bool) -> None:
    log = os.open(f"{config.out}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())
    os.environ.update(environment)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # as pixeltraj.finetune does
    train.CHECKPOINT_EVERY = CHECKPOINT_EVERY  # type: ignore[misc]
    Processes.wrap = _telling(Processes.wrap)  # type: ignore[method-assign]
    if killed:
        Checkpoint.save = _deadly(Checkpoint.save)  # type: ignore[method-assign]
    sys.exit(guarded(lambda: 0 if finetune(config) else 1))


def _telling(wrap: Callable[..., Any]) -> Callable[..., Any]:
    def wrap_and_tell(processes: Processes, base: Base, text: bool) -> list[nn.Module]:
        models = wrap(processes, base, text)
        weights = [weight for model in models for weight in model.parameters()]
        held = sum((weight.to_local() if isinstance(weight, DTensor) else weight).numel() for weight in weights)
        print(f"{HOLDS} {held / sum(weight.numel() for weight in weights):.2f}", flush=True)
        return models

    return wrap_and_tell


def _deadly(save: Callable[..., None]) -> Callable[..., None]:
    def save_and_die(checkpoint: Checkpoint, step: int, **states: Any) -> None:
        save(checkpoint, step, **states)
        os.kill(os.getpid(), signal.SIGKILL)

    return save_and_die


def printed(config: FinetuneConfig) -> str:
    return Path(f"{config.out}.log").read_text()
