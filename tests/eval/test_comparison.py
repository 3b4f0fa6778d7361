"""The table and the picture of a recipe's trials; results of any arms; the tidy table."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixeltraj.errors import PixeltrajError
from pixeltraj.eval import tidy_table
from pixeltraj.eval.comparison import Finished, averaged, paper_mean, plot, ratio, table
from pixeltraj.eval.recipes import get_recipe
from pixeltraj.eval.recipes.recipe import Data, Recipe, Side, Trial
from pixeltraj.eval.results import Result, differences, verdict

DATA = Data("push-v3")
RECIPE = Recipe(name="one", shows="Something", differs="it is small", steps=100, trials=lambda scale: [])


def result(arm: str, seed: int, *scores: float, seconds: float = 3600.0) -> Result:
    curve = [(100 * i, score) for i, score in enumerate(scores)]
    return Result(arm, seed, curve[-1][0], curve, seconds, 1.0, 50, 50, 10, 10)


def finished(task: str = "push-v3", panel: str = "Push", **curves: tuple[float, ...]) -> Finished:
    """Three seeds that differ by .02."""
    sides = tuple(Side(name=arm, agent="rlpd", data=(DATA,)) for arm in curves)
    trial = Trial(task=task, dataset="scripted", panel=panel, sides=sides, paper={next(iter(curves)): 0.57})
    runs = [result(a, seed, *(s + 0.02 * seed for s in c)) for a, c in curves.items() for seed in range(3)]
    return Finished(trial, tuple(runs))


def test_table() -> None:
    one = finished(plain=(0.0, 0.1, 0.8, 0.8, 0.8), better=(0.0, 0.9, 0.9, 0.9, 0.9), worse=(0.0, 0.0, 0.1, 0.2, 0.1))
    text = table(RECIPE, [one])
    assert "| push-v3 | scripted | plain | 0.82 (0.81-0.83) | 0.57 |  | 200 |  |" in text
    assert (
        "| push-v3 | scripted | better | 0.92 (0.91-0.93) |  | 1.00 (1.00 to 1.00) | 100 | 0.50 (0.50 to 0.50) |"
        in text
    )
    assert (
        "| push-v3 | scripted | worse | 0.15 (0.14-0.16) |  | 0.00 (0.00 to 0.00) | never | ? (2.00 to inf) |" in text
    )
    assert "| Push | better | 0.92 (0.90 to 0.94) |  |" in text
    assert "Unlike the paper: it is small." in text
    assert ratio(one, "better").high == pytest.approx(0.5)


def test_dense_scores_are_normalised() -> None:
    one = finished("HalfCheetah-v5", "halfcheetah", plain=(0.0, 12135.0, 12135.0, 12135.0))
    assert one.scores("plain", hours=False) == pytest.approx(100.0, abs=0.01)
    assert averaged([one], "plain")[0][0] == (0, pytest.approx(100 * 280.178953 / 12415.178953))


def test_a_sequence_counts_by_the_share_of_its_subtasks() -> None:
    one = finished("sequence-v0", "Sequence", plain=(0.0, 7.0, 7.0, 7.0))
    assert one.scores("plain", hours=False)[0] == pytest.approx(7 / 8)
    assert one.reached("plain")[0] == 100


def test_a_panel_averages_its_trials() -> None:
    both = [finished(plain=(0.0, 0.2)), finished("coffee-push-v3", plain=(0.0, 0.6))]
    assert [score for _, score in averaged(both, "plain")[0]] == pytest.approx([0.0, 0.4])
    assert paper_mean(both, "plain") == pytest.approx(0.57)
    assert paper_mean(both, "other") is None


def test_pictures(tmp_path: Path) -> None:
    trials = [finished(panel=f"panel {i}", plain=(0.0, 0.5), better=(0.0, 0.9)) for i in range(5)]
    plot(RECIPE, trials, tmp_path / "curves.png")
    plot(get_recipe("table4-hours"), trials[:1], tmp_path / "hours.png")
    for name, widest in (("curves.png", 4 * 4.2 * 120), ("hours.png", 4.2 * 120)):
        picture = np.asarray(Image.open(tmp_path / name).convert("RGB"))
        assert picture.shape[1] == pytest.approx(widest, abs=2)
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50


def test_arms_are_held_against_their_own_agent() -> None:
    sides = [Side(name=name, agent=name[:3], data=(DATA,)) for name in ("sac", "iql", "sac+x", "iql+x")]
    one = Finished(Trial(task="push-v3", dataset="x", panel="x", sides=tuple(sides)), ())
    assert [one.against(name) for name in one.arms] == ["sac", "iql", "sac", "iql"]


def test_hours_are_compared_where_the_recipe_says_so() -> None:
    one = finished(plain=(0.0, 0.5), slower=(0.0, 0.5))
    slow = [result("slower", seed, 0.0, 0.5, seconds=7200.0) for seed in range(3)]
    text = table(get_recipe("table4-hours"), [Finished(one.trial, (*one.runs("plain"), *slow))])
    assert "| push-v3 | scripted | slower | 2.00 (2.00-2.00) |" in text


def test_any_arms_are_held_against_the_first_one() -> None:
    runs = [
        result(arm, seed, 0.0, 0.3 + gain + 0.01 * seed * (gain > 0))
        for arm, gain in (("b", 0.0), ("a", 0.2), ("c", -0.1))
        for seed in range(3)
    ]
    found = differences(runs)
    assert list(found) == ["a", "c"]
    assert found["a"]["mean"] == pytest.approx(0.21) and found["c"]["mean"] == pytest.approx(-0.1)
    said = verdict(runs)
    assert said.startswith("A helped: mean gain +0.21") and "C did not help: mean gain -0.10" in said
    assert "one arm" in verdict(runs[:3])


def test_tidy_table(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="the extra `experiments`")
    runs = [result("plain", 0, 0.0, 0.5), result("better", 0, 0.0, 0.9)]
    rows = tidy_table.rows("table9", "Push", "push-v3", "scripted", runs)
    rows += tidy_table.rows("table9", "Ant", "AntMaze_UMaze-v5", "scripted", runs)
    tidy_table.write(tmp_path / "results.parquet", rows)
    again = tidy_table.read(tmp_path / "results.parquet")
    assert again == rows and len(rows) == 8
    assert (again[3]["arm"], again[3]["step"], again[3]["score"], again[3]["normalised"]) == ("better", 100, 0.9, None)
    assert again[7]["normalised"] == pytest.approx(90.0)
    (tmp_path / "other.parquet").write_bytes(b"no table")
    with pytest.raises(PixeltrajError, match="not a table of results"):
        tidy_table.read(tmp_path / "other.parquet")
