"""`--rewards task`: rewards and ends are the task's own function of what was decoded, and everything says so."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from pixeltraj.base import Base
from pixeltraj.cli import main
from pixeltraj.cli import report as report_command
from pixeltraj.cli.imagine import Config, imagine
from pixeltraj.cli.view import Config as ViewConfig
from pixeltraj.cli.view import find
from pixeltraj.decode.decoder import Decoder
from pixeltraj.decode.features import Windows
from pixeltraj.decode.own_reward import OwnRewardDecoder, Rewards
from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.cases import Case
from pixeltraj.generator import Generator
from pixeltraj.latents import store_latents
from pixeltraj.store import Store
from pixeltraj.trajectory import Trajectory

Ask = Callable[..., Config]


@pytest.fixture
def ask(store_path: Path, base_path: Path, decoder_path: Path) -> Ask:
    def config(out: Path, rewards: Rewards, task: str = "push-v3") -> Config:
        return Config(
            task=task, source=store_path, out=out, n=6, decoder=decoder_path, base=str(base_path), rewards=rewards
        )

    return config


def test_states_and_actions_stay_and_the_end_is_where_they_say(
    store: Store, base_path: Path, decoder_path: Path
) -> None:
    generator = Generator.load(Base.load(str(base_path)))
    learned, own = (kind.load(decoder_path, generator) for kind in (Decoder, OwnRewardDecoder))
    windows = Windows.read(store, [0], generator)
    starts = windows.states[:, 0].copy()
    starts[:, 14:17] = learned.read(windows.features, starts).states[:, 2, 4:7]  # the goal is where the puck is read
    before, after = learned.read(windows.features, starts), own.read(windows.features, starts)
    for name in ("states", "keypoints", "actions", "uncertainty"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
    away = np.linalg.norm(after.states[:, 1:, 4:7] - starts[:, None, 14:17], axis=-1)
    np.testing.assert_array_equal(after.terminations, away <= 0.05)
    np.testing.assert_array_equal(after.rewards, (away <= 0.05).astype(np.float32))

    row = int(away.min(axis=1).argmin())
    assert away[row].min() < 0.04, "this decoder reads too badly to be tested"
    tiles = store_latents(store, generator.base)[row : row + 5].float()[None]
    prompts = [store.task.prompt]
    (trajectory,) = own.decode(generator.grid.join(tiles), tiles[:, 0], prompts, starts[row : row + 1])
    assert trajectory.terminations.tolist() == [False] * (len(trajectory) - 1) + [True]
    assert trajectory.rewards[-1] == 1 and trajectory.rewards.sum() == 1
    assert trajectory.origin == {"rewards": "task"}


def test_the_store_says_whose_rewards_it_has(ask: Ask, tmp_path: Path) -> None:
    own, learned = (imagine(ask(tmp_path / kind, kind))[0] for kind in ("task", "learned"))
    assert own.attributes["provenance"]["rewards"] == "task"
    assert "rewards" not in learned.attributes["provenance"] and "rewards" not in learned.episodes[0]
    for trajectory in own:
        assert trajectory.origin["rewards"] == "task" and trajectory.origin["imagined"]
        assert own.task.outcome
        parts = trajectory.states[:-1], trajectory.actions, trajectory.states[1:]
        np.testing.assert_array_equal((trajectory.rewards, trajectory.terminations), own.task.outcome(*parts))
    for one, other in zip(own, learned, strict=True):  # of the same pictures
        both = min(len(one), len(other)) + 1
        np.testing.assert_array_equal(one.states[:both], other.states[:both])
    for asked in ("task", "learned"):
        imagine(ask(tmp_path / asked, asked))  # goes on where it stopped
    with pytest.raises(PixeltrajError, match="imagined in another way"):
        imagine(ask(tmp_path / "task", "learned"))
    with pytest.raises(PixeltrajError, match="imagined in another way"):
        imagine(ask(tmp_path / "learned", "task"))


def test_a_task_without_one_is_refused_before_anything_is_loaded(
    ask: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["imagine", "Ant-v5", "--out", str(tmp_path / "out"), "--decoder", "nowhere", "--rewards", "task"])
    said = capsys.readouterr().err
    assert status == 2 and "the states of Ant-v5 do not tell its reward" in said and "push-v3" in said
    assert "hammer-v3" not in said and not (tmp_path / "out").exists()


def test_the_pages_read_what_the_imagined_store_believes(
    ask: Ask, store_path: Path, base_path: Path, decoder_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part, path in (("demos", store_path), ("decoder", decoder_path)):
        (tmp_path / part).symlink_to(path)
    readers, read_real = [], report_command.read_real

    def seen(decoder: Decoder, cases: Sequence[Case]) -> list[Trajectory | None]:
        readers.append(type(decoder))
        return read_real(decoder, cases)

    monkeypatch.setattr(report_command, "read_real", seen)
    for rewards in ("task", "learned"):
        imagine(ask(tmp_path / rewards, rewards))
        report_command.report(
            report_command.Config(tmp_path, imagined=tmp_path / rewards, out=tmp_path / "page", base=str(base_path))
        )
    assert readers == [OwnRewardDecoder, Decoder]
    (shown,) = find(ViewConfig(tmp_path, base=str(base_path), rewards="task"))
    assert type(shown.whole_parts().read()[0].decoder) is OwnRewardDecoder
