"""Imagination in a process of its own: never waited for, every trajectory accounted for, and no process left behind."""

import importlib
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
import warnings
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from pixeltraj.background import BackgroundConfig, BackgroundImagination
from pixeltraj.errors import PixeltrajError
from pixeltraj.replay_buffer import ReplayBuffer, ReplayBufferConfig
from pixeltraj.tasks import get_task

HERE = Path(__file__).parent
TASK = get_task("HalfCheetah-v5")
Arrays = tuple[np.ndarray, np.ndarray]


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(HERE))
    return importlib.import_module("oracle").Oracle


@pytest.fixture(scope="module")
def starts() -> Arrays:
    """48 states (48, S) and snapshots (48, Q) of one episode."""
    simulator = TASK.make()
    states, snapshots = [simulator.reset(seed=0)[0]], [simulator.snapshot()]
    rng = np.random.default_rng(0)
    for _ in range(47):
        states.append(simulator.step(rng.uniform(-1, 1, TASK.action_size))[0])
        snapshots.append(simulator.snapshot())
    return np.stack(states), np.stack(snapshots)


def part(starts: Arrays, number: int, size: int = 4) -> tuple[np.ndarray, np.ndarray, int]:
    rows = slice(number * size, number * size + size)
    return starts[0][rows], starts[1][rows], number


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def gone(pid: int) -> bool:
    """Neither running nor waiting to be asked how it ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def check_sum(imagination: BackgroundImagination) -> dict[str, float]:
    told = imagination.statistics()
    parts = ("received", "dropped", "stale", "missing", "lost", "pending")
    assert told["requested"] == sum(told[name] for name in parts), told
    return told


def test_waiting_gives_exactly_what_imagination_inside_the_loop_gives(oracle: Any, starts: Arrays) -> None:
    inside = oracle()(TASK)
    with BackgroundImagination(oracle(), "HalfCheetah-v5", BackgroundConfig(wait=True)) as imagination:
        for number in range(3):
            for mine, theirs in zip(inside(*part(starts, number)), imagination(*part(starts, number)), strict=True):
                np.testing.assert_array_equal(mine.states, theirs.states)
                np.testing.assert_array_equal(mine.rewards, theirs.rewards)
        told = check_sum(imagination)
        assert told["received"] == 12 and 0 < told["worker_seconds"] < told["wall_seconds"]
        assert 0 < told["worker_share"] < 1 and told["worker_cpu_seconds"] > 0
        process = imagination.pid
        assert process is not None and not gone(process)
    assert gone(process) and not imagination.alive


def test_a_full_queue_drops_the_oldest_and_nothing_waits(oracle: Any, starts: Arrays, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with BackgroundImagination(oracle(gate=gate), TASK, BackgroundConfig(queue=2)) as imagination:
        # Nothing can be imagined yet: a call that waited for it would not come back.
        assert [imagination(*part(starts, number)) for number in range(8)] == [[]] * 8
        told = check_sum(imagination)
        assert told["pending"] in (8, 12) and told["dropped"] == 32 - told["pending"]  # two wait, one may be under way
        gate.touch()
        until(lambda: imagination.ready == imagination.pending)
        newest = imagination(*part(starts, 8))[-4:]
        np.testing.assert_array_equal(np.stack([t.states[0] for t in newest]), part(starts, 7)[0])
        check_sum(imagination)


def test_stale_results_are_counted_and_not_handed_over(oracle: Any, starts: Arrays, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with BackgroundImagination(oracle(gate=gate), TASK, BackgroundConfig(queue=8, max_age=2)) as imagination:
        for number in range(4):
            imagination(*part(starts, number))
        gate.touch()
        until(lambda: imagination.ready == 16)
        fresh = imagination(*part(starts, 4))  # the fifth request: those of the first two are 4 and 3 requests old
        np.testing.assert_array_equal(np.stack([t.states[0] for t in fresh]), starts[0][8:16])
        told = check_sum(imagination)
        assert (told["received"], told["stale"]) == (8, 8)


def test_an_agent_goes_on_without_a_process_that_was_killed(oracle: Any, starts: Arrays) -> None:
    imagination = BackgroundImagination(oracle(), TASK)
    imagination(*part(starts, 0))
    process = imagination.pid
    assert process is not None
    until(lambda: imagination.ready)
    os.kill(process, signal.SIGKILL)
    until(lambda: not imagination.alive and gone(process))  # noticed without being asked; no zombie is left
    with pytest.warns(RuntimeWarning, match=r"goes on without: its process died \(exit code -9\)"):
        assert len(imagination(*part(starts, 1))) == 4  # what it had imagined before
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert imagination(*part(starts, 2)) == []
    assert check_sum(imagination)["lost"] == 8
    imagination.close()
    assert check_sum(imagination)["lost"] == 8


@pytest.mark.parametrize(
    ("failure", "words"), [("no decoder at runs/no", "no decoder at runs/no"), ("crash", "code 1")]
)
def test_what_went_wrong_in_the_process_is_said(oracle: Any, starts: Arrays, failure: str, words: str) -> None:
    with (
        BackgroundImagination(oracle(failure=failure), TASK, BackgroundConfig(wait=True)) as imagination,
        pytest.warns(RuntimeWarning, match=words),
    ):
        assert imagination(*part(starts, 0)) == []
    assert check_sum(imagination)["lost"] == 4


def test_fewer_than_asked_for_are_missing(oracle: Any, starts: Arrays) -> None:
    with BackgroundImagination(oracle(per_state=0), TASK, BackgroundConfig(wait=True)) as imagination:
        with pytest.warns(RuntimeWarning, match="nothing was imagined from 4 states"):
            assert imagination(*part(starts, 0)) == []
        assert check_sum(imagination)["missing"] == 4
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert imagination(*part(starts, 1)) == []


def test_what_is_under_way_is_lost_and_counted_when_saved_or_closed(
    oracle: Any, starts: Arrays, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    imagination = BackgroundImagination(oracle(gate=gate), TASK)
    imagination(*part(starts, 0))
    copy = pickle.loads(pickle.dumps(imagination))
    assert check_sum(imagination)["pending"] == 4
    assert (check_sum(copy)["lost"], copy.pid) == (4, None)
    process = imagination.pid
    imagination.close()
    assert check_sum(imagination)["lost"] == 4 and process is not None and gone(process)
    gate.touch()
    imagination(*part(starts, 1))  # and another one is started, which does not outlive its owner
    until(partial(lambda owner: owner().ready == 4, weakref.ref(imagination)))
    process = imagination.pid
    del imagination
    assert process is not None and gone(process)


SCRIPT = """
import sys, time
from oracle import Oracle
from pixeltraj.background import BackgroundImagination

if __name__ == "__main__":
    imagination = BackgroundImagination(Oracle(), "HalfCheetah-v5")
    imagination.start()
    print(imagination.pid, flush=True)
    time.sleep(1000 if sys.argv[1] == "hangs" else 0)
"""


@pytest.mark.parametrize("end", ["hangs", "leaves"])
def test_the_process_ends_with_the_program_even_a_killed_one(tmp_path: Path, end: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command, surroundings = [sys.executable, str(script), end], os.environ | {"PYTHONPATH": str(HERE)}
    program = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=surroundings)
    assert program.stdout is not None
    process = int(program.stdout.readline())
    if end == "hangs":
        program.kill()
    assert program.wait() == (-signal.SIGKILL if end == "hangs" else 0)
    # Where the first process of a machine adopts nobody, an orphan's end stays to be asked for.
    until(lambda: gone(process) or psutil.Process(process).status() == psutil.STATUS_ZOMBIE)


def test_it_starts_within_a_process_that_ends_with_another(
    oracle: Any, starts: Arrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runs of an experiment are such processes, which multiprocessing would not let have children."""
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)  # type: ignore[attr-defined]
    with BackgroundImagination(oracle(), TASK, BackgroundConfig(wait=True)) as imagination:
        assert len(imagination(*part(starts, 0))) == 4
        assert multiprocessing.current_process().daemon


def test_a_replay_buffer_takes_it_as_it_is(oracle: Any) -> None:
    rng, simulator = np.random.default_rng(0), TASK.make()
    with BackgroundImagination(oracle(), TASK, BackgroundConfig(queue=64)) as imagination:
        config = ReplayBufferConfig(rho=0.5, expected_length=4.0, imagine_batch=4)
        buffer = ReplayBuffer(config, TASK.state_size, TASK.action_size, rng, imagination)
        state, _ = simulator.reset(seed=0)
        for i in range(200):
            action = rng.uniform(-1, 1, TASK.action_size)
            next_state, reward, terminated, _, _ = simulator.step(action)
            buffer.store(state, action, reward, next_state, terminated, simulator.snapshot())
            state = next_state
            if i == 100:
                until(lambda: imagination.ready == imagination.pending > 0)
        assert len(buffer.imagined) == 4 * buffer.received > 0
        assert buffer.received == check_sum(imagination)["received"]
        assert buffer.sample(64).imagined.any()


@pytest.mark.parametrize("bad", [{"queue": 0}, {"max_age": 0}, {"threads": 0}])
def test_impossible_settings_are_refused(oracle: Any, bad: dict[str, int]) -> None:
    with pytest.raises(PixeltrajError, match=next(iter(bad))):
        BackgroundImagination(oracle(), TASK, BackgroundConfig(**bad))
    with pytest.raises(PixeltrajError, match="did you mean"):
        BackgroundImagination(oracle(), "HalfCheetah-v4")
