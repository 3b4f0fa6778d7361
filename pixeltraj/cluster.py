"""Cluster: shards of work, shared out by Ray Data to workers on any number of machines (extra `ray`).

What is done to a shard depends on nothing but the shard, and is whole or not there at all: a worker that dies is
replaced and its shard done again, with the same outcome. All machines need this pixeltraj, and paths have to lead to
the same files on all of them; relative ones start where the command was given.
"""

import json
import logging
import os
import platform
import shutil
import socket
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pixeltraj.errors import PixeltrajError

ATTEMPTS = 3
"""Workers that one shard may cost."""
QUIET = {"RAY_BACKEND_LOG_LEVEL": "fatal"}
OURS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nobody is told of it
    "RAY_worker_niceness": "0",  # the workers are what it is there for
}
"""What a Ray that is started here is told by the environment."""
_LONGEST = 24
"""Characters of a folder in which the names of Ray's sockets are still short enough."""
_PATIENCE = 10
"""Seconds in which an address has to answer; Ray itself waits for many minutes."""

Work = Callable[[int], bytes]
"""Does one shard, and tells what came of it."""


def require_cluster(cluster: str | None, workers: int | None) -> None:
    """Raise PixeltrajError where workers are asked for that nobody has."""
    if workers is not None and workers < 1:
        raise PixeltrajError("--workers must be at least 1")
    if workers and not cluster:
        raise PixeltrajError("--workers are those of a --cluster; give one (`--cluster local` starts it)")


def over_shards(
    cluster: str, workers: int | None, make: Callable[..., Work], arguments: tuple[Any, ...], shards: Sequence[int]
) -> Iterator[bytes]:
    """What make(*arguments) tells of each shard, in their order; each worker calls `make` once.

    cluster: the address of a Ray, auto for the one that runs here, local for one that ends with the iteration.
    workers: one for each of its CPUs if None. Raises PixeltrajError and OSError as a worker does, and PixeltrajError
    where there is no Ray or where one shard costs ATTEMPTS workers.
    """
    if shards:
        with connected(cluster, workers):
            yield from _answers(workers, make, arguments, shards)


@contextmanager
def connected(cluster: str, cpus: int | None = None) -> Iterator[None]:
    """A Ray to work with for as long as this lasts; one that this process is connected to already is left alone.

    cpus: of one that is started here.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise PixeltrajError(f"--cluster needs Ray ({error}): pip install 'pixeltraj[ray]'") from error
    if ray.is_initialized():
        yield
        return
    with ExitStack() as stack:
        how: dict[str, Any] = {}
        stack.enter_context(_set(QUIET))
        if cluster == "local":
            stack.enter_context(_set(OURS))
            folder = _short_folder()
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            how = {"num_cpus": cpus or _usable_cpus(), "include_dashboard": False, "_temp_dir": str(folder)}
        stack.callback(ray.shutdown)
        try:
            _require_answer(cluster)
            ray.init(cluster, logging_level=logging.ERROR, log_to_driver=False, **how)
        except Exception as error:  # it has no class of its own for them
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            if how:
                raise PixeltrajError(f"Ray does not start here ({reason}); try again when less runs here") from error
            fix = "start one with `ray start --head`, set RAY_AUTH_MODE=token if it wants one, or use --cluster local"
            raise PixeltrajError(f"no Ray answers at {cluster} ({reason}); {fix}") from error
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        yield


@contextmanager
def _set(variables: dict[str, str]) -> Iterator[None]:
    """Environment variables that are set meanwhile, where the user has not set them."""
    ours = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


def _short_folder() -> Path:
    """A new one for Ray's files."""
    usual = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix="pixeltraj-", dir=usual if len(usual) <= _LONGEST else "/tmp"))


def _usable_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _require_answer(cluster: str) -> None:
    """Raise OSError where nothing answers at an address of HOST:PORT."""
    host, _, port = cluster.rpartition(":")
    if host and port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), _PATIENCE).close()


def _answers(
    workers: int | None, make: Callable[..., Work], arguments: tuple[Any, ...], shards: Sequence[int]
) -> Iterator[bytes]:
    import ray

    hire = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Office).remote
    office: Any = hire([ray.put((Path.cwd(), make, arguments))])
    data = ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=len(shards))
    data.context.execution_options.preserve_order = True
    data.context.enable_progress_bars = False
    data.context.max_consecutive_actor_init_deaths = ATTEMPTS
    data.context.execution_no_progress_timeout_s = -1  # a shard takes as long as it takes
    size = min(workers or int(ray.cluster_resources().get("CPU", 1)), len(shards))
    answers = data.map_batches(
        _Worker,
        fn_constructor_args=[office],
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=size),
        num_cpus=1,
    )
    try:
        for batch in answers.iter_batches(batch_size=1, batch_format="pyarrow"):
            if failure := batch["failure"][0].as_py():
                kind, *what = json.loads(failure)
                raise OSError(*what) if kind == "OSError" else PixeltrajError(*what)
            yield batch["answer"][0].as_py()
    finally:
        ray.kill(office)


class _Office:
    """Knows what is to be done and how often each shard was begun: an actor of its own, which outlives the workers."""

    def __init__(self, what: list[Any]) -> None:
        """what: a reference to the folder, `make` and its arguments, in a list, so that it stays one."""
        self._what = what
        self._begun: Counter[int] = Counter()

    def what(self) -> list[Any]:
        return self._what

    def begin(self, shard: int) -> int:
        """How often the shard has been begun, this time included."""
        self._begun[shard] += 1
        return self._begun[shard]


class _Worker:
    """What Ray Data calls with one shard after the other."""

    def __init__(self, office: Any) -> None:
        self._office = office
        self._work: Work | None = None

    def __call__(self, batch: Any) -> Any:
        import pyarrow

        shard, answer, failure = batch["shard"][0].as_py(), b"", ""
        try:
            answer = self._do(shard)
        except PixeltrajError as error:
            failure = json.dumps(["PixeltrajError", str(error)])
        except OSError as error:
            failure = json.dumps(["OSError", error.errno, error.strerror, error.filename and str(error.filename)])
        return pyarrow.table({"answer": pyarrow.array([answer], pyarrow.binary()), "failure": [failure]})

    def _do(self, shard: int) -> bytes:
        import ray

        if ray.get(self._office.begin.remote(shard)) > ATTEMPTS:
            raise PixeltrajError(f"shard {shard} cost {ATTEMPTS} workers: give each more memory, with fewer --workers")
        if self._work is None:  # not before, so that what kills it is counted
            folder, make, arguments = ray.get(ray.get(self._office.what.remote())[0])
            if not folder.is_dir():
                raise PixeltrajError(f"{folder} is not there on {platform.node()}: all machines have to share it")
            os.chdir(folder)
            self._work = make(*arguments)
        return self._work(shard)
