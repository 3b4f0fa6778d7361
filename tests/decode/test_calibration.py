"""Calibration: thresholds that are as precise as asked, and uncertainty as large as what is misread."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from pixeltraj.decode.calibration import calibrate, lowest_precise
from pixeltraj.decode.decoder import Reading
from pixeltraj.decode.features import Windows
from pixeltraj.decode.heads import NEAR, Heads, HeadsConfig
from pixeltraj.tasks import get_task

S, A, N, K = 17, 4, 5, 5


class Scripted:
    """Reads what it is told to in each window, by the first number of its features; a threshold and a doubt."""

    def __init__(self, readings: Reading) -> None:
        self.readings = readings
        self.heads = Heads(HeadsConfig(channels=1, keypoints=N, state=S, hidden=(), actions=A, sparse=True))

    def read(self, features: torch.Tensor, starts: np.ndarray) -> Reading:
        rows = features[:, 0, 0, 0, 0].long().numpy()
        read = Reading(**{one.name: getattr(self.readings, one.name)[rows] for one in fields(Reading)})
        over = read.ends > float(self.heads.threshold)
        return replace(read, terminations=over, uncertainty=read.uncertainty * float(self.heads.doubt))


def made(count: int, rng: np.random.Generator) -> tuple[Windows, Reading]:
    """Windows 0 .. count-1, each ending with its second transition; keypoints misread by 3 mm where 1 is stated."""
    truth = rng.normal(size=(count, K, N, 3)).astype(np.float32)
    over = np.zeros((count, K - 1), dtype=bool)
    over[:, 1] = True
    real = np.tile(np.arange(K - 1) < 2, (count, 1))
    features = torch.arange(count).float()[:, None, None, None, None].expand(-1, K, 1, 1, 1)
    rest = {"states": np.zeros((count, K, S)), "actions": np.zeros((count, K - 1, A)), "moved": np.zeros((count, 2))}
    windows = Windows(features=features, keypoints=truth, rewards=over * 1.0, terminations=over, real=real, **rest)
    stated = np.full((count, K), 0.001, dtype=np.float32)
    logits = np.where(over, 4.0, -4.0) + rng.normal(size=over.shape)
    missed = truth + 0.003 * np.sign(rng.normal(size=truth.shape))
    read = {"states": rest["states"], "actions": rest["actions"], "rewards": over * 1.0, "terminations": over}
    return windows, Reading(keypoints=missed.astype(np.float32), ends=logits, uncertainty=stated, **read)


def part(windows: Windows, rows: slice) -> Windows:
    return Windows(**{one.name: getattr(windows, one.name)[rows] for one in fields(Windows)})


def test_the_threshold_is_as_low_as_precision_allows() -> None:
    logits, truth = torch.arange(200).float(), (torch.arange(200) >= 100).float()
    assert lowest_precise(logits, truth) == 98, "98 of the 102 above it would be too few, 100 of them are 98 %"
    truth[150] = truth[160] = truth[170] = 0
    threshold = lowest_precise(logits, truth)
    above = logits >= threshold
    assert threshold > 150 and truth[above].mean() >= 0.96
    assert lowest_precise(logits, torch.zeros(200)) == float("-inf")
    assert lowest_precise(torch.tensor([3.0, 2.0, 1.0]), torch.tensor([0.0, 1.0, 0.0])) == 2.0, "one slip is forgiven"


def test_each_half_is_read_as_the_other_one_teaches() -> None:
    windows, reading = made(40, np.random.default_rng(0))
    reading.keypoints[20:] += 3 * (reading.keypoints[20:] - windows.keypoints[20:])  # the second half: 12 mm
    decoder = Scripted(reading)
    halves = [[part(windows, slice(0, 20))], [part(windows, slice(20, 40))]]
    ((both, read),) = calibrate(decoder, halves)  # type: ignore[arg-type]
    assert len(both) == 40 and torch.equal(both.features, windows.features)
    np.testing.assert_allclose(read.uncertainty[:20], 0.012, rtol=1e-3)
    np.testing.assert_allclose(read.uncertainty[20:], 0.003, rtol=1e-3)
    assert float(decoder.heads.doubt) == pytest.approx(np.sqrt((3**2 + 12**2) / 2), rel=1e-3)
    ends = reading.ends[windows.real]
    truth = windows.terminations[windows.real]
    assert (truth[ends > float(decoder.heads.threshold)]).mean() >= 0.96
    assert (read.terminations & windows.terminations).sum() >= 36


def test_without_a_second_half_nothing_is_learned() -> None:
    windows, reading = made(8, np.random.default_rng(0))
    decoder = Scripted(reading)
    decoder.heads.threshold.fill_(1.5)
    ((_, read),) = calibrate(decoder, [[windows]])  # type: ignore[arg-type]
    assert float(decoder.heads.doubt) == 1 and float(decoder.heads.threshold) == 1.5
    np.testing.assert_allclose(read.uncertainty, 0.001)


def test_a_threshold_of_training_is_never_lowered() -> None:
    windows, reading = made(40, np.random.default_rng(0))
    decoder = Scripted(reading)
    decoder.heads.threshold.fill_(4.0)
    calibrate(decoder, [[part(windows, slice(0, 20))], [part(windows, slice(20, 40))]])  # type: ignore[arg-type]
    assert float(decoder.heads.threshold) >= 4.0


def test_outcomes_see_how_far_points_are_apart() -> None:
    task = get_task("push-v3")
    names = [d.name for d in task.state]
    pair = (tuple(names.index(f"object_{a}") for a in "xyz"), tuple(names.index(f"goal_{a}") for a in "xyz"))
    assert pair in task.pairs and len(task.pairs) == 10, "hand, object, what they were before, and the goal"
    assert get_task("AntMaze_UMaze-v5").pairs == (((0, 1), (29, 30)),), "the goal has no height"
    assert get_task("HalfCheetah-v5").pairs == ()
    heads = Heads(HeadsConfig(channels=1, keypoints=N, state=S, hidden=(), actions=A, sparse=True), task.pairs)
    states = torch.zeros(2, K, S)
    states[:, 2, pair[0][0]] = 0.05
    states[:, 3, pair[1][2]] = 9.0
    apart = heads.apart(states)[..., task.pairs.index(pair)]
    assert apart[0].tolist() == pytest.approx([0, 0, 0.05 / NEAR, 10, 0])
