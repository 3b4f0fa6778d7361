"""The benchmark of agents at a tiny scale: real runs, resumed; its order; what is made of results."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.agents import report, run
from benchmarks.agents_arms import contenders
from benchmarks.agents_config import SETTINGS, Benchmark, Effort, Part
from benchmarks.agents_figures import arm_figures, better, mean, reached, runner_figures, wallclock
from benchmarks.agents_online import CLONED, DIFFUSED, WITHOUT_DECISIONS
from benchmarks.agents_picture import columns, draw
from benchmarks.agents_read_oracle import ReadOracle
from benchmarks.agents_runners import NOISE, collect, returns
from benchmarks.agents_stages import named, ran, speeds, stages, stages_of
from benchmarks.agents_table import table
from benchmarks.imagine_dynamics import really
from benchmarks.jobs import Stage, result, run_stage, run_stages
from pixeltraj.cli.imagination import ImagineConfig
from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.agents.rlpd import RLPDConfig
from pixeltraj.eval.d4rl_scores import normalised
from pixeltraj.eval.oracle import Oracle
from pixeltraj.eval.recipes.recipe import Data
from pixeltraj.eval.results import Result
from pixeltraj.eval.run import Run
from pixeltraj.files import write_json
from pixeltraj.pruner import prune
from pixeltraj.render.collect import CollectConfig
from pixeltraj.render.collect import collect as collect_episodes
from pixeltraj.render.render import RenderConfig, render
from pixeltraj.store import Store

TINY = Effort(
    episodes=5, many_episodes=10, max_steps=30, synther_steps=5, generated=20, offline_updates=1, eval_every=1,
    eval_episodes=1,
)  # fmt: skip
TASK = "push-v3"
MAZE = "PointMaze_UMaze-v3"  # quickly made and drawn


def made_up(arm: str, seed: int, scores: list[float], seconds: float = 1.0) -> Result:
    curve = [(500 * i, score) for i, score in enumerate(scores)]
    return Result(arm, seed, curve[-1][0], curve, seconds, 0.25 * seconds, 0, 0, 0, 0)


def test_a_run_is_made_once_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = Benchmark(out=tmp_path, tasks=(MAZE,), arms=("none",), seeds=1, steps=3, effort=TINY)
    assert run(config) == 0
    (part,) = config.parts()
    (path,) = (part.out / "stages").rglob("*.json")
    stamp = path.stat().st_mtime_ns
    assert not list(part.out.rglob("*.safetensors"))  # finished runs leave no checkpoint
    shown = capsys.readouterr().out
    assert f"### {MAZE}, 3 decisions" in shown and "| none | " in shown
    for again in (config, replace(config, show=True)):
        assert run(again) == 0
        assert capsys.readouterr().out == shown and path.stat().st_mtime_ns == stamp
    with pytest.raises(PixeltrajError, match="another steps; give another --out"):
        run(replace(config, steps=4))


def test_an_interrupted_run_ends_like_the_unbroken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    effort = replace(TINY, eval_every=310)  # checkpoints wait for the end of an episode
    part = Part("online", tmp_path, 320, effort=effort)
    (contender,) = (c for c in contenders(part, MAZE) if c.name == "synther+cloning")
    *before, last = [stage.name for stage in stages_of(MAZE, contender, 0)]
    assert before == [f"made/{MAZE}/data", f"made/{MAZE}/synther"] and last == f"runs/{MAZE}/synther+cloning/0"
    for name in before:
        run_stage(part, named(part, name))
    assert result(part.out, before[0])["data"][f"{MAZE}-scripted"]["training_episodes"] == 4
    quick = RLPDConfig(bc_weight=1.0, batch=16, hidden=16)
    contender = replace(contender, side=replace(contender.side, config=quick))
    whole = ran(part, MAZE, contender, 0)["run"]
    folder = part.out / "runs" / MAZE
    assert not list(folder.iterdir())
    save = Run.save

    def interrupted(self: Run) -> None:
        save(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ran(part, MAZE, contender, 0)
    assert list(folder.iterdir())
    monkeypatch.undo()
    again = ran(part, MAZE, contender, 0)["run"]
    assert again["curve"] == whole["curve"] and again["own"] == whole["own"] == 320
    assert again["imagined"] == whole["imagined"] == effort.generated


def test_curves_are_drawn_of_those_that_take_decisions(tmp_path: Path) -> None:
    arms = ("demonstrations", *WITHOUT_DECISIONS, "imagination", "oracle+cloning")
    entries = contenders(Part("online", Path("nowhere"), 10), TASK)
    assert {one.name for one in entries if not one.side.online} == set(WITHOUT_DECISIONS)
    by_arm = {arm: [made_up(arm, seed, [0.0, 0.5, 1.0]) for seed in range(2)] for arm in arms}
    found = {words: list(arms) for words, arms in columns(by_arm).items()}
    assert found == {"with cloning": ["oracle+cloning"], "without": ["demonstrations", "imagination"]}
    assert list(columns(by_arm, ("imagination", "cloning"))["without"]) == ["imagination"]
    draw({"push-v3": by_arm, MAZE: {"none": by_arm["imagination"]}}, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size == (round(2 * 5.6 * 110), round(2 * 3.6 * 110))


def test_what_lacks_policies_is_refused_before_anything_runs(tmp_path: Path) -> None:
    config = Benchmark(out=tmp_path / "out", part=("speed", "locomotion"))
    with pytest.raises(PixeltrajError, match=r"part locomotion learns .* give --policies FOLDER with ppo_HalfCheetah"):
        run(config)
    (tmp_path / "ppo_HalfCheetah.zip").touch()
    with pytest.raises(PixeltrajError, match=r"lacks ppo_HalfCheetah_norm.npz, sac_Hopper.zip; part locomotion"):
        run(replace(config, policies=tmp_path))
    for settings, complaint in (
        ({"part": ("offline",), "tasks": (TASK,)}, "part offline has no task push-v3; it has HalfCheetah-v5-medium"),
        ({"part": ("speed",), "arms": ("dqn",)}, "there is no arm dqn; there are sac, "),
        ({"arms": ("sac",)}, "are of one part"),
        ({"figure": Path("curves.png")}, "--figure is of one part, online or adaptation"),
    ):
        with pytest.raises(PixeltrajError, match=complaint):
            run(replace(config, **settings))
    assert not config.out.exists()


def test_mixed_data_has_all_noises_and_as_many_decisions_as_medium(tmp_path: Path) -> None:
    from stable_baselines3 import SAC

    SAC("MlpPolicy", "Hopper-v5", buffer_size=1, policy_kwargs={"net_arch": [8]}).save(tmp_path / "sac_Hopper.zip")
    part = Part("offline", tmp_path / "out", 1, effort=TINY, policies=tmp_path)
    part.remember()
    assert Part.recall(part.out) == part
    for quality, noises in NOISE.items():
        out = tmp_path / "out" / quality
        collect(part, Data("Hopper-v5", quality), out)
        written = (out / "zarr.json").stat().st_mtime_ns
        collect(part, Data("Hopper-v5", quality), out)
        assert (out / "zarr.json").stat().st_mtime_ns == written
        store = Store.open(out)
        found = [store.trajectory(episode) for episode in range(len(store))]
        assert [one.origin["noise"] for one in found] == [noises[i % len(noises)] for i in range(len(found))]
        assert sum(len(one.actions) for one in found[:-1]) < 5 * 30 <= sum(len(one.actions) for one in found)
        told, mine = returns(store), [found[i].rewards.sum() for i in store.split()[0]]
        assert told["return"]["mean"] == pytest.approx(np.mean([normalised("Hopper-v5", r) for r in mine]))


def test_a_failure_keeps_only_what_waits_for_it_from_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy_stages.py").write_text(
        "import json, pathlib, sys\n"
        "out, name = pathlib.Path(sys.argv[1]), sys.argv[2]\n"
        "if name == 'a': sys.exit('no such thing')\n"
        "path = out / 'stages' / f'{name}.json'\n"
        "path.parent.mkdir(parents=True, exist_ok=True)\n"
        "path.write_text(json.dumps({}))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    part = Part("online", tmp_path / "out", 1, at_once=1)
    listed = [Stage(n, lambda part: {}, after) for n, after in (("a", ()), ("b", ("a",)), ("c", ("b",)), ("d", ()))]
    failed = run_stages(part, listed, "toy_stages", go_on=True)
    assert failed.keys() == {"a", "b", "c"} and failed["b"] == "waits for a" and failed["c"] == "waits for b"
    assert failed["a"].startswith("no such thing; all that it printed is in ")
    assert result(part.out, "d") == {} and result(part.out, "b") is None
    with pytest.raises(PixeltrajError, match="stage a failed: no such thing"):
        run_stages(replace(part, out=tmp_path / "other"), listed, "toy_stages")
    assert result(tmp_path / "other", "d") is None


def test_what_runners_and_adaptation_need_is_made_once() -> None:
    def names(part: str, setting: str) -> list[str]:
        return [stage.name for stage in stages(Part(part, Path("nowhere"), 10), (setting,), (), 2)]  # type: ignore[arg-type]

    made = lambda listed: [name.split("/")[2] for name in listed if name.startswith("made/")]  # noqa: E731
    assert made(names("locomotion", "Hopper-v5")) == ["data", "synther", "imagination"]
    offline = names("offline", "Hopper-v5-mixed")
    assert made(offline) == ["data", "synther", "imagination"] and len(offline) == 3 + 10 * 2
    adaptation = names("adaptation", TASK)
    assert made(adaptation) == ["data", "imagination", "one-hot", "no-prompt"] and len(adaptation) == 4 + 14 * 2
    assert all("+cloning" in name for name in adaptation[: 4 + 14] if name.startswith("runs/"))
    assert all(part == "speed" or names(part, setting) for part, known in SETTINGS.items() for setting in known)


def test_adapting_arms_differ_from_imagination_by_their_indicator_alone() -> None:
    entries = {c.name: c for c in contenders(Part("adaptation", Path("nowhere"), 4000), TASK)}
    fixed = entries["imagination"].side
    for name in ("td-error", "reward"):
        side = entries[name].side
        assert side.adapt is not None and side.adapt.indicator == name
        assert replace(side, name="", adapt=None) == replace(fixed, name="")
        assert entries[f"{name}+cloning"].against == "imagination+cloning"
    assert entries["imagination"].against == "demonstrations"
    prompts = {entries[name].side.dreamer.prompt: entries[name].side.dreamer.name for name in ("one-hot", "no-prompt")}
    assert prompts.keys() == {"one-hot", "none"} and len(set(prompts.values())) == 2
    assert Part("adaptation", Path("nowhere"), 4000).scale().adapt_every == 1000


def test_of_diffusion_clones_imagination_is_all_that_differs() -> None:
    entries = {c.name: c for c in contenders(Part("online", Path("nowhere"), 10), TASK)}
    alone, imagining = entries[CLONED], entries[DIFFUSED]
    assert imagining.against == CLONED and imagining.made == "imagination" and alone.made is None
    assert imagining.side.dreamer and imagining.side.dreamer.actions == "sampled"
    assert replace(imagining.side, name=CLONED, dreamer=None) == alone.side and alone.side.online


def test_what_matters_comes_first_and_what_it_needs_before_it() -> None:
    part, tasks = Part("online", Path("nowhere"), 10), (TASK, "coffee-push-v3")
    listed = [stage.name for stage in stages(part, tasks, (), 2)]
    assert listed[:2] == [f"made/{TASK}/data", f"runs/{TASK}/demonstrations+cloning/0"]
    assert len(listed) == len(set(listed)) == 2 * (1 + 5 + 27 * 2)
    for stage in stages(part, tasks, (), 2):
        assert all(listed.index(name) < listed.index(stage.name) for name in stage.after)
    by_name = {stage.name: stage for stage in stages(part, tasks, (), 2)}
    assert by_name[f"runs/{TASK}/imagination/1"].after == (f"made/{TASK}/imagination",)
    assert by_name[f"runs/{TASK}/none/0"].after == ()
    assert listed.index("runs/coffee-push-v3/imagination+cloning/1") < listed.index(f"runs/{TASK}/oracle/0")
    with pytest.raises(PixeltrajError, match="no arm dreams; there are demonstrations\\+cloning, "):
        stages(part, tasks, ("dreams",), 1)


def test_the_oracle_that_is_read_is_read_from_what_really_follows(
    decoder_path: Path, base_path: Path, tmp_path: Path
) -> None:
    collect_episodes(CollectConfig(TASK, tmp_path / "store", episodes=1, noise=0.0))
    render(RenderConfig(tmp_path / "store"))
    store = Store.open(tmp_path / "store")
    episode = store.trajectory(0)
    assert episode.snapshots is not None and episode.terminations[-1]
    last = len(episode)
    at = [3, last - 2]  # the second ends before its image is full
    parts = ImagineConfig(decoder_path, base=str(base_path))
    imagine = ReadOracle(parts, oracle=Oracle(noise=0.0))(store.task)
    found = imagine(episode.states[at], episode.snapshots[at], 0)
    rows = np.minimum(np.array(at)[:, None] + np.arange(5), last)
    for trajectory, other in zip(found, really(store, imagine.imaginer.decoder, rows), strict=True):
        expected = prune(other, store.task)
        np.testing.assert_allclose(trajectory.states, expected.states, atol=1e-5)
        np.testing.assert_allclose(trajectory.actions, expected.actions, atol=1e-5)
    imagine.close()
    imagine = ReadOracle(parts, True, Oracle(noise=0.0))(store.task)
    for place, read, trajectory in zip(at, found, imagine(episode.states[at], episode.snapshots[at], 0), strict=True):
        steps = len(trajectory)
        np.testing.assert_allclose(trajectory.actions, episode.actions[place : place + steps], atol=1e-6)
        np.testing.assert_array_equal(trajectory.states, read.states[: steps + 1])
    imagine.close()


def test_cloning_is_in_the_arms_that_say_so_and_in_no_other() -> None:
    entries = contenders(Part("online", Path("nowhere"), 10), TASK)
    names = {contender.name for contender in entries}
    for contender in entries:
        if contender.side.agent == "rlpd":
            assert contender.side.config.bc_weight == (10.0 if contender.name.endswith("+cloning") else 0.0)
        assert contender.against in names
        assert bool(contender.side.data) == (contender.name != "none")


def test_a_threshold_is_reached_where_it_is_kept_in_the_mean() -> None:
    curve = [(0, 0.2), (500, 0.9), (1000, 0.6), (1500, 0.7), (2000, 0.9), (2500, 0.9)]
    assert reached(curve) == 1500
    assert reached([(0, 0.8), (500, 0.8)]) == 0
    assert reached([(0, 0.9), (500, 0.9), (1000, 0.5)]) is None, "it was lost again"
    assert reached(curve[:4]) is None and reached([(0, 1.0)]) is None


def test_figures_of_an_arm_are_held_against_its_own_baseline() -> None:
    entries = {c.name: c for c in contenders(Part("online", Path("nowhere"), 10), TASK)}
    by_arm = {
        "demonstrations+cloning": [made_up("d", s, [0, 0.2, 0.8, 0.8]) for s in range(3)],
        "imagination+cloning": [made_up("i", s, [0, 0.9, 0.9, 0.9], 2.0) for s in (0, 1)],
        "imagination": [made_up("i", 0, [0, 0, 0, 0])],
    }
    one = arm_figures(by_arm["imagination+cloning"], entries["imagination+cloning"], by_arm)
    assert one["steps_to_80"] == {"median": 500.0, "all": [500, 500]} and one["seeds"] == [0, 1]
    assert one["steps_ratio"] == {"value": 0.5, "low": 0.5, "high": 0.5}
    assert one["better"]["value"] == 1.0 and one["success"]["value"] == pytest.approx(0.9)
    never = arm_figures(by_arm["imagination"], entries["imagination"], by_arm)
    assert never["against"] is None and never["steps_to_80"] == {"median": None, "all": [None]}
    assert never["success"]["low"] is None  # one seed has no interval
    timed = wallclock({TASK: by_arm}, (("imagination+cloning", "demonstrations+cloning"),))
    assert timed == {"ratio": 2.0, "imagining": 0.25, "pairs": 2}
    assert wallclock({TASK: by_arm}, (("oracle", "demonstrations"),)) is None


def test_pairs_are_from_the_same_seed_and_intervals_hold_the_mean() -> None:
    low, high = ([made_up("a", s, [0, score]) for s, score in enumerate(scores)] for scores in ((0.1, 0.5), (0.5, 0.5)))
    assert better(high, low).value == 0.75 and better(high, low[1:]).value == 0.5
    scores = np.linspace(0, 1, 9)
    found = mean(scores)
    assert found.low is not None and found.high is not None and 0.25 < found.low < 0.4 and 0.6 < found.high < 0.75


def test_partial_results_say_how_many_seeds_each_arm_has(tmp_path: Path) -> None:
    entries = {c.name: c for c in contenders(Part("online", tmp_path, 10), TASK)}
    by_arm = {
        "demonstrations+cloning": [made_up("d", s, [0, 0.2, 0.8, 0.8]) for s in range(3)],
        "oracle+cloning": [made_up("o", 0, [0, 0.9, 0.9, 0.9])],
        "cloning": [made_up("c", 0, [0, 0.9, 0.9, 0.9])],
    }
    figures = {name: arm_figures(runs, entries[name], by_arm) for name, runs in by_arm.items()}
    empty = report(Benchmark(out=tmp_path, tasks=(TASK, "push-back-v3")))
    assert table(empty) == "Nothing is finished yet."
    assert [one["store"] for one in empty["seen_by_base"][TASK]] == [TASK, f"{TASK}-noisy", f"{TASK}-random"]
    assert empty["seen_by_base"]["push-back-v3"] == []
    text = table(empty | {"online": {TASK: figures}})
    assert "| demonstrations+cloning | 0.60 (0.60 to 0.60) | 1000 (1000, 1000, 1000) |  |  | 3 |" in text
    assert "| oracle+cloning | 0.90 | 500 (500) | 0.50 (0.50 to 0.50) demonstrations+cloning | 1.00 | 1 |" in text
    assert "| cloning | 0.90 | offline |  | 1.00 | 1 |" in text
    assert "The base has seen other episodes of this very task: push-v3 (scripted, noise 0.1), " in text
    assert result(tmp_path, "runs/none") is None


def test_runners_are_told_by_their_normalised_score() -> None:
    entries = {c.name: c for c in contenders(Part("locomotion", Path("nowhere"), 10), "HalfCheetah-v5")}
    random, expert = -280.178953, 12135.0
    by_arm = {
        "sac": [made_up("sac", s, [0, random]) for s in range(2)],
        "sac+imagination": [made_up("i", 0, [0, expert], 3.0), made_up("i", 1, [0, (random + expert) / 2], 3.0)],
    }
    told = {name: runner_figures(runs, entries[name], by_arm) for name, runs in by_arm.items()}
    one = told["sac+imagination"]
    assert one["score"]["all"] == pytest.approx([100.0, 50.0]) and told["sac"]["score"]["value"] == pytest.approx(0)
    assert one["gain"]["value"] == pytest.approx(75) and one["better"]["value"] == 1.0 and told["sac"]["gain"] is None
    of_data = {"training_episodes": 4, "transitions": 80, "return": {"low": 1, "median": 2, "high": 3, "mean": 2}}
    text = table(
        {
            "locomotion": {"HalfCheetah-v5": told},
            "made": {"locomotion": {"HalfCheetah-v5": {"data": {"data": {"HalfCheetah-v5-medium": of_data}}}}},
            "wallclock": {"locomotion": wallclock({"": by_arm}, (("sac+imagination", "sac"),))},
        }
    )
    assert (
        "| sac+imagination | 75.00 (50.00 to 100.00) | 100.0, 50.0 | 9031 | +75.00 (+50.00 to +100.00) sac | 1.00"
        in text
    )
    assert "Data HalfCheetah-v5-medium: 4 episodes of 80 transitions in all, normalised return 2.0 in the mean" in text
    assert "takes 3.00 times as long" in text


def test_speeds_that_were_measured_are_told(tmp_path: Path) -> None:
    part = Part("speed", tmp_path, 1)
    assert speeds(part) == {} and [stage.name for stage in stages(part, (), ("bc", "sac"), 1)] == [
        "speed/bc",
        "speed/sac",
    ]
    write_json(tmp_path / "stages" / "speed" / "sac.json", {"rates": {"updates_per_cpu_s": 70.0, "torchrl": 50.0}})
    assert "| sac | 70 |  | 50 |  |" in table({"agents": speeds(part)})
