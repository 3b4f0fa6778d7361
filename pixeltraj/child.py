"""Child: a spawned process that answers one request after the other, and never outlives whoever asks."""

import multiprocessing
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

from pixeltraj.errors import PixeltrajError

PATIENCE = 5.0  # seconds in which a process that was told to end has to


def start_child(work: Callable[..., None], *arguments: Any) -> tuple[Any, Any]:
    """A process that does `work(*arguments, connection)`, and this end of the connection.

    Also from within a daemonic process, as an experiment's runs are: the child sees by itself when they end
    (`answer_all`).
    """
    context = multiprocessing.get_context("spawn")  # a forked child inherits locked GL and torch threads
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(*arguments, theirs), daemon=True)
    this = multiprocessing.current_process()
    daemonic, this.daemon = this.daemon, False
    try:
        process.start()
    finally:
        this.daemon = daemonic
    theirs.close()
    return process, ours


def end_child(process: Any) -> None:
    """Ask it to end; after PATIENCE, make it."""
    process.terminate()
    process.join(PATIENCE)
    if process.is_alive():
        process.kill()
        process.join()


def obituary(process: Any) -> str:
    """What can be said of one that ended unasked."""
    return f"its process died (exit code {process.exitcode}); what it printed says why"


def answer_all(connection: Connection, begin: Callable[[], Callable[[Any], Any]]) -> None:
    """The child's work: `begin()` gives what answers requests, and each is answered, until whoever asks is gone.

    A PixeltrajError ends it, its line being the last answer.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the agent's process decides when this one ends
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # not at once: its semaphores have to be given back
    parent = multiprocessing.parent_process()
    assert parent is not None
    try:
        answer = begin()
        while connection in wait([connection, parent.sentinel]):
            connection.send(answer(connection.recv()))
    except PixeltrajError as error:
        connection.send(str(error))
    except (EOFError, BrokenPipeError, ConnectionResetError):  # whoever asked is gone
        return
