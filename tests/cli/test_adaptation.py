"""Adaptation: a generator learns on from what an agent lives through, in the loop and beside it."""

import os
import signal
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import pixeltraj.eval.run
from pixeltraj.cli.adaptation import Adaptation, AdaptiveImagination, AdaptiveImagineConfig
from pixeltraj.cli.imagination import ImagineConfig
from pixeltraj.cli.lesson import Lesson, drawn
from pixeltraj.cli.teacher import BackgroundTeacher
from pixeltraj.decode.train import TrainConfig, train
from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.agents.rlpd import RLPDConfig
from pixeltraj.eval.arm import Adaptive, Arm
from pixeltraj.eval.experience import Episode, Experience
from pixeltraj.eval.experiment import Experiment
from pixeltraj.eval.run import Course, Run
from pixeltraj.finetune.train import FinetuneConfig, finetune
from pixeltraj.generator import LORA_FILE
from pixeltraj.render.backends import open_renderer
from pixeltraj.replay_buffer import ReplayBufferConfig
from pixeltraj.store import Store
from pixeltraj.tasks import get_task
from tests.conftest import QUICK

COURSE = Course(steps=60, offline_updates=2, eval_every=60, eval_episodes=1, checkpoint_every=1)


@pytest.fixture(scope="module")
def lora(store_path: Path, base_path: Path, tmp_path_factory: pytest.TempPathFactory, few_windows: None) -> Path:
    out = tmp_path_factory.mktemp("adaptation") / "lora"
    finetune(FinetuneConfig(store_path, out, str(base_path), steps=2, batch=2, rank=2))
    return out


@pytest.fixture(scope="module")
def imagine(lora: Path, base_path: Path, store_path: Path) -> ImagineConfig:
    decoder = lora.parent / "decoder"
    train(TrainConfig(store_path, decoder, str(base_path), lora, k=(5,), **QUICK))
    return ImagineConfig(decoder, lora, str(base_path))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Episodes of twelve decisions."""
    task = replace(get_task("push-v3"), horizon=12)
    monkeypatch.setattr(pixeltraj.eval.run, "get_task", lambda name: task)
    yield
    torch.set_flush_denormal(False)


def arm(imagine: ImagineConfig, store: Path, **changes: object) -> Arm:
    adaptation = replace(Adaptation("td-error", every=20, steps=2, batch=2, lr=1e-2), **changes)  # type: ignore[arg-type]
    return Arm(
        "with",
        config=RLPDConfig(hidden=8, batch=8),
        stores=(store,),
        imagine=AdaptiveImagineConfig(imagine, adaptation),
        buffer=ReplayBufferConfig(imagine_batch=4),
    )


def one(arm: Arm, path: Path) -> tuple[Run, AdaptiveImagination]:
    run = Run(COURSE, "push-v3", arm, 0, path / "with-0.safetensors")
    assert isinstance(run.adaptive, AdaptiveImagination) and isinstance(run.adaptive, Adaptive)
    return run, run.adaptive


def told(adaptive: AdaptiveImagination) -> list[dict]:
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in adaptive.updates]


def test_a_lesson_is_what_its_windows_show(store_path: Path) -> None:
    """Rows of k consecutive frames; past the end of a solved episode the last one repeats; frames are the task's."""
    experience = Experience(100)
    for number, ended in enumerate((True, False)):
        states = np.arange(11, dtype=np.float32)[:, None] + 100 * number
        one = Episode.of(states, np.zeros((10, 1)), np.zeros(10), ended, np.zeros((11, 1)))
        experience.append(one, np.arange(10.0))
    wanted = [sample for sample in experience.heap if sample.step in (0, 2, 9)]
    lesson = Lesson.of(wanted, experience, (5, 10))
    assert {k: len(rows) for k, rows in lesson.windows.items()} == {5: 3 + 2, 10: 3 + 1}
    states = np.concatenate([part.states for part in lesson.parts])
    for rows, number, start in zip(lesson.windows[5], (0, 0, 0, 1, 1), (0, 2, 9, 0, 2)):
        source = experience.episodes[number].states
        np.testing.assert_array_equal(states[rows], source[np.minimum(np.arange(start, start + 5), 10)])
    assert [part.terminated for part in lesson.parts] == [True, False]
    store = Store.open(store_path)
    real, short = store.trajectory(0), Experience(10)
    whole = Episode.of(real.states, real.actions, real.rewards, True, real.snapshots)
    with open_renderer(store.task.make(), store.renderer["backend"]) as renderer:
        again = drawn(whole.part(3, 9), renderer)
    np.testing.assert_array_equal(again.frames, real.frames[3:9])
    np.testing.assert_array_equal(again.keypoints, real.keypoints[3:9])
    assert not len(Lesson.of([], short, (5,)))


def test_what_cannot_adapt_is_refused_before_anything_starts(
    imagine: ImagineConfig, store_path: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    blind = replace(arm(imagine, store_path), agent="bc", config=None)
    with pytest.raises(PixeltrajError, match="bc has no critic"):
        Experiment(task="push-v3", arms=(blind,), out=out).check()
    by_reward = arm(imagine, store_path, indicator="reward")
    replace(by_reward, agent="bc", config=None).check()
    for changes, words in (
        ({"every": 0}, "every"),
        ({"lr": 0.0}, "lr"),
        ({"frozen_share": 2.0}, "frozen share"),
        ({"drop": 1.0}, "below 1"),
        ({"indicator": "none"}, "needs an indicator"),
    ):
        with pytest.raises(PixeltrajError, match=words):
            arm(imagine, store_path, **changes).imagine(get_task("push-v3"))  # type: ignore[misc]
    assert not out.exists()


def test_the_generator_learns_on_and_a_broken_run_ends_like_the_unbroken_one(
    imagine: ImagineConfig, store_path: Path, tmp_path: Path, short: None
) -> None:
    class Stop(Exception):
        pass

    def stop(step: int) -> None:
        if step >= 48:
            raise Stop

    whole, adaptive = one(arm(imagine, store_path), tmp_path / "whole")
    frozen = {name: value.clone() for name, value in adaptive.generator.frozen.unet.state_dict().items()}
    result = whole.learn(lambda step: None)
    assert [row["decisions"] for row in adaptive.updates] == [20, 40, 60] and result.imagined > 0
    assert [row["kept"] for row in adaptive.updates] == [12, 12 - 1 + 24, 12 - 1 + 24 - 3 + 24]  # a tenth is dropped
    assert all(row["windows"] == 4 and 5 <= row["frames"] <= 20 for row in adaptive.updates)
    assert result.seconds_imagining > adaptive.seconds > 0
    assert imagine.lora is not None
    loras = [imagine.lora, *(tmp_path / "whole" / "with-0" / row["lora"] for row in adaptive.updates[-2:])]
    weights = [load_file(path / LORA_FILE) for path in loras]
    for a, b in ((weights[0], weights[1]), (weights[1], weights[2])):
        assert a.keys() == b.keys() and any(not torch.equal(a[name], b[name]) for name in a)
    after = adaptive.generator.frozen.unet.state_dict()
    assert all(torch.equal(frozen[name], after[name]) for name in frozen)
    assert adaptive.generator.updates == 3 and not list((tmp_path / "whole" / "with-0").glob("*.frames"))

    broken, _ = one(arm(imagine, store_path), tmp_path / "broken")
    with pytest.raises(Stop):
        broken.learn(stop)
    assert (tmp_path / "broken" / "with-0" / "lora-0002").is_dir()  # is newer than the checkpoint, and made again
    resumed, again = one(arm(imagine, store_path), tmp_path / "broken")
    resumed.load()
    assert resumed.step == 36 and len(again.updates) == 1 and again.generator.updates == 1
    resumed.learn(lambda step: None)
    assert resumed.curve == whole.curve and told(again) == told(adaptive)
    a, b = whole.agent.tensors(), resumed.agent.tensors()
    assert all(torch.equal(a[name], b[name]) for name in a)
    last = adaptive.updates[-1]["lora"]
    left, right = (load_file(tmp_path / name / "with-0" / last / LORA_FILE) for name in ("whole", "broken"))
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_a_process_beside_the_agent_makes_loras_until_it_dies(
    imagine: ImagineConfig, store_path: Path, tmp_path: Path, short: None
) -> None:
    run, adaptive = one(arm(imagine, store_path, indicator="reward", background=True), tmp_path)
    teacher = adaptive.teacher
    assert isinstance(teacher, BackgroundTeacher)
    while run.step < 24:
        run._episode(lambda step: None)
    assert teacher.busy and not adaptive.updates
    adaptive._take(teacher.wait())
    assert adaptive.generator.updates == 1 and (tmp_path / "with-0" / "lora-0001" / LORA_FILE).is_file()
    assert teacher.pid is not None and teacher.pid != os.getpid()
    os.kill(teacher.pid, signal.SIGKILL)
    with pytest.warns(RuntimeWarning, match=r"adapts no further.*exit code -9"):
        run._episode(lambda step: None)
        run._episode(lambda step: None)
        teacher.wait()
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        run._episode(lambda step: None)
        run._episode(lambda step: None)
    assert adaptive.generator.updates == 1 and adaptive.skipped > 0 and run.step == 60
    adaptive.close()
