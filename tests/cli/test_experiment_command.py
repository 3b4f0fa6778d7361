"""`pixeltraj experiment`: what it refuses, what it prepares, and a whole recipe at the scale `smoke`."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pixeltraj.cli import main
from pixeltraj.cli.experiment import Config, chosen, remember
from pixeltraj.cli.preparing import Preparation, first_transitions, mean_length
from pixeltraj.cli.sight import draw_alike
from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.agents.bc_pixels import BCPixelsConfig
from pixeltraj.eval.agents.rlpd import RLPDConfig
from pixeltraj.eval.experiment import Experiment, run
from pixeltraj.eval.recipes import get_recipe
from pixeltraj.eval.recipes.recipe import SMALL, SMOKE, Data, Dreamer, Dreamt, Side, StateDreamer, Trial
from pixeltraj.eval.run import Course
from pixeltraj.store import Store

PUSH = Data("push-v3", "mine")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table9"], "there is no recipe 'table9'"),
        (["table1"], "did you mean table1-offline"),
        (["table1-offline", "--only", "Hopper-v5-best"], "has no trial Hopper-v5-best; it has: HalfCheetah-v5-random"),
        (["table1-offline", "--arms", "sac"], "has no arm sac; it has: td3_bc"),
        (["table5-ladder", "--base", "nowhere"], "nowhere"),
    ],
)
def test_refused(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    pytest.importorskip("pyarrow", reason="the extra `experiments`")
    monkeypatch.chdir(tmp_path)
    assert main(["experiment", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_list_and_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["experiment", "--list"]) == 0
    assert "table5-ladder" in capsys.readouterr().out
    assert main(["experiment", "figure9-prompts", "--plan", "--arms", "none", "language"]) == 0
    said = capsys.readouterr().out
    assert "make data multitask-v0-scripted" in said
    assert "make dreamer multitask-v0-scripted-push-v3-scripted-5-10-15-20-25-none" in said
    assert "run push-v3-scripted: none, language; 3 seeds, 12000 steps" in said
    assert not list(tmp_path.iterdir())


def test_data_that_only_the_user_has_is_asked_for_first(tmp_path: Path) -> None:
    trials = get_recipe("figure3-online").chosen(SMALL)
    with pytest.raises(PixeltrajError, match=r"no data for HalfCheetah-v5-medium, .*NAME\.hdf5"):
        Preparation(SMALL, tmp_path / "parts").check(trials)
    (tmp_path / "given").mkdir()
    for trial in trials:
        (tmp_path / "given" / f"{trial.name}.zip").write_bytes(b"")
    Preparation(SMALL, tmp_path / "parts", tmp_path / "given").check(trials)
    Preparation(SMOKE, tmp_path / "parts").check(trials)  # a random policy stands in
    kitchen = Trial(task="FrankaKitchen-v1", dataset="x", panel="x", sides=(Side(name="a", agent="sac"),))
    Preparation(SMALL, tmp_path / "parts").check([kitchen])  # it needs no data


def test_smoke(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Collected, sampled from, learned from, compared; a second time nothing is done again."""
    pytest.importorskip("pyarrow", reason="the extra `experiments`")
    from pixeltraj.eval import tidy_table

    arms = ("td3_bc", "td3_bc+synther", "td3_bc+s4rl")
    command = ["experiment", "table1-offline", "--scale", "smoke", "--out", str(tmp_path)]
    command += ["--only", "HalfCheetah-v5-random", "--arms", *arms]
    assert main(command) == 0
    assert "| HalfCheetah-v5 | random | td3_bc+synther |" in capsys.readouterr().out
    rows = tidy_table.read(tmp_path / "results.parquet")
    assert {row["arm"] for row in rows} == set(arms)
    assert [row["step"] for row in rows if row["arm"] == "td3_bc"] == [0, 10, 20, 30]
    imagined = {row["arm"]: row["imagined"] for row in rows}
    assert imagined == {"td3_bc": 0, "td3_bc+synther": SMOKE.generated, "td3_bc+s4rl": 0}
    assert "| 48.1 |" not in (tmp_path / "table.md").read_text() and "| 11.3 |" in (tmp_path / "table.md").read_text()
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    runs = list((tmp_path / "trials").rglob("runs/*.json"))
    before = {path: path.stat().st_mtime_ns for path in runs}
    assert len(runs) == 3 and main(command) == 0
    assert {path: path.stat().st_mtime_ns for path in runs} == before
    capsys.readouterr()
    assert main(["small" if word == "smoke" else word for word in command]) == 2
    assert "another scale; give another --out" in capsys.readouterr().err


def test_cloning_is_of_those_that_have_the_term(tmp_path: Path) -> None:
    recipe = get_recipe("figure4-offline-to-online")
    trials = (chosen(Config(recipe.name, cloning=weight), recipe, SMOKE) for weight in (0.0, 10.0))
    plain, drawn = ({side.name: side for trial in some for side in trial.sides} for some in trials)
    weights = {name: getattr(side.config, "bc_weight", None) for name, side in drawn.items()}
    assert {plain[name].agent for name, weight in weights.items() if weight == 10.0} == {"rlpd", "parrot"}
    assert {plain[name].agent for name, weight in weights.items() if weight is None} == {"spirl"}
    assert all(RLPDConfig() == (side.config or RLPDConfig()) for side in plain.values() if side.agent == "rlpd")
    assert RLPDConfig().bc_weight == 0.0  # the algorithm as it was published
    for name, weight, complaint in (
        ("table1-offline", 1.0, "no agent chosen of table1-offline has a cloning term; leave --cloning out"),
        ("figure4-offline-to-online", -1.0, "--cloning is -1.0; it must be 0 or above"),
    ):
        with pytest.raises(PixeltrajError, match=complaint):
            chosen(Config(name, cloning=weight), get_recipe(name), SMOKE)
    remember(tmp_path, Config(recipe.name))
    with pytest.raises(PixeltrajError, match="another cloning; give another --out"):
        remember(tmp_path, Config(recipe.name, cloning=10.0))


def test_pixels_of_what_was_imagined(tmp_path: Path, store_path: Path, base_path: Path) -> None:
    """Table 2's parts: drawn, imagined with frames, learned from, and acted on."""
    given = tmp_path / "given"
    given.mkdir()
    (given / PUSH.name).symlink_to(store_path)
    preparation = Preparation(replace(SMOKE, generated=5), tmp_path / "parts", given, str(base_path))
    config = BCPixelsConfig(batch=8, channels=8, stack=2)
    dreamt = Dreamt(Dreamer(PUSH, PUSH))
    side = Side(name="a", agent="bc_pixels", config=config, data=(PUSH,), synthetic=(dreamt,), online=False)
    experiment = Experiment(
        task="push-v3",
        arms=(preparation.arm(side),),
        out=tmp_path / "out",
        course=Course(steps=4, eval_every=4, eval_episodes=1),
        seeds=1,
        sight=draw_alike,
    )
    (done,) = run(experiment)["runs"]
    assert done["imagined"] >= 5 and [step for step, _ in done["curve"]] == [0, 4]


def test_dreamers_are_made_once(tmp_path: Path, store_path: Path, base_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    (given / PUSH.name).symlink_to(store_path)
    preparation = Preparation(replace(SMOKE, generated=5), tmp_path / "parts", given, str(base_path))
    dreamer = Dreamer(PUSH, PUSH)
    arm = preparation.arm(
        Side(name="a", agent="rlpd", data=(PUSH,), dreamer=dreamer, synthetic=(Dreamt(dreamer, first=True),))
    )
    made = tmp_path / "parts" / "dreamers" / dreamer.name
    assert (made / "lora" / "pixeltraj.json").exists() and (made / "decoder" / "config.json").exists()
    assert not (made / "length").exists()  # there is one length
    assert 1 <= arm.buffer.expected_length <= 4
    single = Store.open(arm.synthetic[0])
    assert len(single) >= 5 and mean_length(single) == 1.0
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    again = preparation.arm(Side(name="a", agent="rlpd", data=(PUSH,), dreamer=dreamer))
    assert again.imagine == arm.imagine and again.buffer == arm.buffer
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == before
    with pytest.raises(PixeltrajError, match="knows no pictures"):
        preparation.imagination(StateDreamer(PUSH), get_recipe("figure7-adaptation").trials(SMOKE)[0].sides[1].adapt)


def test_first_transitions(tmp_path: Path, store_path: Path) -> None:
    source = Store.open(store_path)
    first_transitions(source, tmp_path / "first")
    cut = Store.open(tmp_path / "first")
    assert len(cut) == len(source) and mean_length(cut) == 1.0
    whole, single = source.trajectory(1), cut.trajectory(1)
    np.testing.assert_array_equal(single.states, whole.states[:2])
    np.testing.assert_array_equal(single.actions, whole.actions[:1])
    first_transitions(source, tmp_path / "first")  # there already
    assert len(Store.open(tmp_path / "first")) == len(source)
