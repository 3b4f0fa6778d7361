"""Experiments: same seeds and data in both arms, resumable after SIGKILL, and a verdict that is earned."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.agents.bc import BCConfig
from pixeltraj.eval.agents.rlpd import RLPDConfig
from pixeltraj.eval.agents.spirl import SPiRLConfig
from pixeltraj.eval.agents.td3_bc import TD3BCConfig
from pixeltraj.eval.arm import Arm
from pixeltraj.eval.experiment import EvalConfig, run
from pixeltraj.eval.results import Result, summary, table, verdict
from pixeltraj.eval.run import Course, Run
from pixeltraj.replay_buffer import Imagine, ReplayBufferConfig
from pixeltraj.store import Store
from pixeltraj.task import Task
from pixeltraj.tasks import get_task
from pixeltraj.trajectory import Trajectory

IMPORTS = (
    "from pathlib import Path, PosixPath; from pixeltraj.eval.agents.rlpd import RLPDConfig; "
    "from pixeltraj.eval.experiment import EvalConfig, run; from pixeltraj.replay_buffer import ReplayBufferConfig"
)

# A module of its own, because the processes of an experiment must be able to import it.
DREAMS = '''
from dataclasses import dataclass
import numpy as np
from pixeltraj.trajectory import Trajectory

@dataclass(frozen=True)
class Still:
    """Imagines that nothing moves, or, where it fails, nothing at all."""
    failing: bool = False

    def __call__(self, task):
        def imagine(states, snapshots, seed):
            assert snapshots.shape == (len(states), task_snapshot)
            actions = np.random.default_rng(seed).uniform(-1, 1, (2, task.action_size)).astype(np.float32)
            flags = np.zeros(2, bool)
            points = np.zeros((3, len(task.keypoints), 3), np.float32)
            rewards = np.zeros(2, np.float32)
            dream = [Trajectory(np.repeat(s[None], 3, 0), actions, rewards, flags, flags, points) for s in states]
            return [] if self.failing else dream
        simulator = task.make()
        simulator.reset(seed=0)
        task_snapshot = len(simulator.snapshot())
        return imagine
'''


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five short random episodes of Hopper."""
    path = tmp_path_factory.mktemp("eval") / "store"
    simulator, rng = get_task("Hopper-v5").make(), np.random.default_rng(0)
    filled = Store.create(path, simulator.task, {}, simulator.snapshot_layout)
    episodes = []
    for seed in range(5):
        state, _ = simulator.reset(seed=seed)
        states, snapshots, points = [state], [simulator.snapshot()], [simulator.keypoints()]
        actions, rewards = [], []
        for _ in range(10):
            actions.append(rng.uniform(-1, 1, 3).astype(np.float32))
            state, reward, *_ = simulator.step(actions[-1])
            states.append(state)
            snapshots.append(simulator.snapshot())
            points.append(simulator.keypoints())
            rewards.append(reward)
        end = np.zeros(10, bool)
        columns = np.stack(states), np.stack(actions), np.array(rewards, np.float32), end, end, np.stack(points)
        episodes.append(Trajectory(*columns, snapshots=np.stack(snapshots)))
    filled.append(episodes)
    return path


@pytest.fixture
def dreams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "dreams.py").write_text(DREAMS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "dreams", raising=False)
    import dreams

    return dreams


@pytest.fixture
def config(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EvalConfig:
    return EvalConfig(
        task="Hopper-v5",
        store=store,
        out=tmp_path / "out",
        seeds=1,
        steps=200,
        offline_updates=5,
        eval_every=100,
        eval_episodes=1,
        checkpoint_every=30,
        agent=RLPDConfig(hidden=8, batch=8),
        buffer=ReplayBufferConfig(imagine_batch=4, expected_length=2.0),
    )


def one(config: EvalConfig, imagine, arm: str = "with") -> Run:
    """The arm's run from seed 0."""
    experiment = config.experiment(imagine)
    chosen = next(a for a in experiment.arms if a.name == arm)
    return Run(experiment.course, config.task, chosen, 0, config.out / "runs" / f"{arm}-0.safetensors")


def test_killed_and_started_again(config: EvalConfig, dreams) -> None:
    """The finished run is not done again; the unfinished one goes on and ends like an unbroken one."""
    config = replace(config, processes=1)
    program = f"import dreams; {IMPORTS}; run({config!r}.experiment(dreams.Still()))"
    environment = {**os.environ, "PYTHONPATH": str(Path(dreams.__file__).parent)}
    process = subprocess.Popen([sys.executable, "-c", program], env=environment, start_new_session=True)
    runs = config.out / "runs"
    finished, unfinished = runs / "without-0.json", runs / "with-0.safetensors"
    deadline = time.monotonic() + 120
    while not unfinished.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert finished.exists() and unfinished.exists() and not (runs / "with-0.json").exists()
    before = finished.stat().st_mtime_ns
    report = run(config.experiment(dreams.Still()))
    assert finished.stat().st_mtime_ns == before
    broken = next(r for r in report["runs"] if r["arm"] == "with")
    unbroken = one(replace(config, out=config.out / "again"), dreams.Still()).learn(lambda step: None)
    assert broken["curve"] == unbroken.curve and broken["steps"] == config.steps
    assert (broken["own"], broken["imagined"]) == (unbroken.own, unbroken.imagined)
    assert unbroken.imagined == pytest.approx(config.steps, rel=0.1)  # rho = 0.5
    assert json.loads((config.out / "results.json").read_text()) == json.loads(json.dumps(report))
    assert (config.out / "curves.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(PixeltrajError, match="another steps"):
        run(replace(config, steps=10).experiment(dreams.Still()))
    moved = replace(config, store=config.out.with_name("data"), out=config.out.with_name("moved"))
    shutil.copytree(config.store, moved.store)
    config.out.rename(moved.out)
    assert run(moved.experiment(dreams.Still()))["runs"] == report["runs"]
    assert (moved.out / "runs" / "without-0.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("changes", [{}, {"alpha": 0.6, "max_age": 40}])
def test_resumed_agent_equals_unbroken(config: EvalConfig, dreams, changes: dict[str, float]) -> None:
    config = replace(config, buffer=replace(config.buffer, **changes))

    class Stop(Exception):
        pass

    def stop(step: int) -> None:
        if step >= 150:
            raise Stop

    whole = one(replace(config, out=config.out / "whole"), dreams.Still())
    whole.learn(lambda step: None)
    broken = one(config, dreams.Still())
    with pytest.raises(Stop):
        broken.learn(stop)
    resumed = one(config, dreams.Still())
    resumed.learn(lambda step: None)
    assert resumed.curve == whole.curve
    a, b = whole.agent.tensors(), resumed.agent.tensors()
    assert all(torch.equal(a[name], b[name]) for name in a)
    for mine, theirs in zip(whole.buffer.sample(50), resumed.buffer.sample(50)):
        np.testing.assert_array_equal(mine, theirs)
    assert all(
        (part.priorities is not None) == ("alpha" in changes) for part in (whole.buffer.own, whole.buffer.imagined)
    )


def test_goes_on_without_when_imagination_gives_nothing(config: EvalConfig, dreams) -> None:
    short = replace(config, steps=60, eval_every=60)
    failing = one(short, dreams.Still(failing=True)).learn(lambda step: None)
    assert failing.requested > 0 and failing.imagined == 0 and failing.steps == 60


def test_arms_begin_alike(config: EvalConfig, dreams) -> None:
    runs = [one(config, dreams.Still(), arm) for arm in ("without", "with")]
    a, b = (run.agent.tensors() for run in runs)
    assert all(torch.equal(a[name], b[name]) for name in a)
    for mine, theirs in zip(runs[0].offline, runs[1].offline):
        np.testing.assert_array_equal(mine, theirs)
    assert len(runs[0].offline.states) == 4 * 10  # the fifth episode is held out


def test_bad_settings_are_refused_before_anything_is_written(config: EvalConfig, dreams) -> None:
    for bad, message in (
        ({"task": "push-v3"}, "holds Hopper-v5"),
        ({"store": config.out / "nowhere"}, "not a store"),
        ({"seeds": 0}, "seeds"),
        ({"arms": ("with", "with")}, "arms"),
        ({"buffer": ReplayBufferConfig(rho=0.0)}, "rho is 0"),
        ({"buffer": ReplayBufferConfig(rho=1.0)}, "rho is 1"),
        ({"agent": RLPDConfig(batch=1)}, "batch"),
    ):
        with pytest.raises(PixeltrajError, match=message):
            run(replace(config, **bad).experiment(dreams.Still()))
    with pytest.raises(PixeltrajError, match="needs an imagination"):
        config.experiment(None)
    assert not config.out.exists()


@dataclass(frozen=True)
class ByTDError:
    """What an imagination that adapts by TD error says of itself."""

    needs_critic = True

    def __call__(self, task: Task) -> Imagine:
        raise AssertionError("refused before it is made")


def test_an_agent_that_decides_on_skills_and_one_that_only_reads(config: EvalConfig, store: Path, dreams) -> None:
    course = Course(steps=60, eval_every=30, eval_episodes=1, offline_updates=2, checkpoint_every=20)
    skills = SPiRLConfig(length=2, skill_size=3, hidden=8, batch=8, pretrain_steps=3)
    buffer = ReplayBufferConfig(imagine_batch=4, expected_length=1.0)
    arms = (
        Arm("spirl", "spirl", skills, stores=(store,), imagine=dreams.Still(), buffer=buffer),
        Arm("bc", "bc", BCConfig(hidden=8, batch=8), stores=(store,), online=False),
        Arm("synther", "td3_bc", TD3BCConfig(hidden=8, batch=8), (store,), (store,), buffer=buffer, online=False),
    )
    for arm in arms:
        path = config.out / f"{arm.name}.safetensors"
        done = Run(course, "Hopper-v5", arm, 0, path).learn(lambda step: None)
        assert done.curve[0][0] == 0 and done.curve[-1][0] == done.steps == 60
        assert (done.imagined > 0) == arm.imagines
        again = Run(course, "Hopper-v5", arm, 0, path)  # goes on from the last checkpoint
        assert again.learn(lambda step: None).curve == done.curve
    with pytest.raises(PixeltrajError, match="imagined stores"):
        Arm("bc", "bc", stores=(store,), online=False, imagine=dreams.Still()).check()
    with pytest.raises(PixeltrajError, match="takes a BCConfig"):
        Arm("bc", "bc", RLPDConfig()).check()
    with pytest.raises(PixeltrajError, match="no TD errors"):  # its critics value skills, not decisions
        Arm("spirl", "spirl", skills, stores=(store,), imagine=ByTDError()).check()
    with pytest.raises(PixeltrajError, match="no agent"):
        Arm("x", "dqn").check()


def results(gains: list[float]) -> list[Result]:
    scores = [
        (arm, seed, 0.3 + gain * (arm == "with")) for seed, gain in enumerate(gains) for arm in ("without", "with")
    ]
    return [Result(arm, seed, 100, [(0, 0.0), (100, score)], 9.0, 1.0, 50, 50, 10, 10) for arm, seed, score in scores]


def test_verdict_follows_the_paired_differences() -> None:
    assert verdict(results([0.2, 0.3, 0.25, 0.2])).startswith("Imagination helped: mean gain +0.24")
    assert verdict(results([-0.2, -0.3, -0.25])).startswith("Imagination did not help")
    assert verdict(results([0.3, -0.2, 0.1])).startswith("Cannot tell")
    assert "2 of at least 3 seeds" in verdict(results([0.3, 0.3]))
    assert "no seed was run both" in verdict(results([0.3, 0.3])[1::2])
    nothing = [replace(r, imagined=0) if r.arm == "with" else r for r in results([0.2, 0.3, 0.25])]
    assert "nothing was imagined" in verdict(nothing)


def test_summary_and_table() -> None:
    runs = results([0.0, 0.2, 0.4])
    row = summary(runs)["with"]
    assert (row["median"], row["percentile_25"], row["percentile_75"]) == pytest.approx((0.5, 0.4, 0.6))
    assert (row["mean"], row["spread"]) == pytest.approx((0.5, 0.2))
    assert "| with | 0.50 (0.40-0.60) | 0.50 ± 0.20 | 3 | 9 | 1 |" in table(runs, "success rate")
    assert Result("with", 0, 4, [(0, 9.0), (1, 9.0), (2, 0.0), (3, 0.5), (4, 1.0)], 1, 0, 0, 0, 0, 0).score == 0.5
