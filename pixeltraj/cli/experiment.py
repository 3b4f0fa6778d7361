"""`pixeltraj experiment NAME [--scale small] [--out DIR]`: a table or figure of the paper.

OUT/  config.json   recipe, scale, base        results.parquet  every evaluation of every run
      parts/        see cli/preparing.py       table.md         beside the paper's numbers
      trials/       an `eval` folder for each  curves.png       like the paper's figures
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import tyro

from pixeltraj.base import resolve
from pixeltraj.cli.preparing import Preparation
from pixeltraj.cli.sight import draw_alike
from pixeltraj.errors import PixeltrajError
from pixeltraj.eval import comparison, tidy_table
from pixeltraj.eval.agents.catalogue import AGENTS
from pixeltraj.eval.experiment import Experiment
from pixeltraj.eval.experiment import run as run_experiment
from pixeltraj.eval.recipes import get_recipe, overview
from pixeltraj.eval.recipes.recipe import Recipe, Scale, Side, Trial, get_scale
from pixeltraj.eval.results import Result
from pixeltraj.files import read_json, write_json, write_whole


@dataclass(frozen=True)
class Config:
    name: tyro.conf.Positional[str] = ""
    """Of the recipe; --list names them all."""
    list: bool = False
    """Say which recipes there are, and do nothing."""
    plan: bool = False
    """Say what would be made and run, and do nothing."""
    scale: Literal["smoke", "small", "paper"] = "small"
    """smoke: minutes, shows that the parts fit. small: an evening on two cores. paper: the paper's steps and seeds."""
    out: Path | None = None
    """Folder of everything, runs/NAME-SCALE if not given; an interrupted experiment is taken up there."""
    data: Path | None = None
    """Folder of your own data, for each dataset TASK-QUALITY/ (a store), TASK-QUALITY.hdf5 (of D4RL) or
    TASK-QUALITY.zip (a stable-baselines3 policy, which then acts)."""
    base: str | None = None
    """A diffusers folder, single file or hub id; the embedded base if not given."""
    only: tuple[str, ...] = ()
    """Trials to run, as --plan names them; those of the scale if not given."""
    arms: tuple[str, ...] = ()
    """Arms to run, as --plan names them; all if not given."""
    cloning: float = 0.0
    """Weight of a term that draws policies to offline and imagined actions, of agents that have one (rlpd, sac, redq,
    parrot); 0 is each algorithm as it was published. In short runs imagination helps most through it."""
    seeds: int | None = None
    """Runs of each arm; the scale's if not given."""
    processes: int = 2
    """Runs at the same time, one thread each."""


def run(config: Config) -> None:
    if config.list or not config.name:
        print(overview())
        return
    recipe, scale = get_recipe(config.name), get_scale(config.scale)
    trials = chosen(config, recipe, scale)
    out = config.out or Path("runs") / f"{recipe.name}-{scale.name}"
    preparation = Preparation(scale, out / "parts", config.data, config.base)
    if config.plan:
        print(planned(config, recipe, scale, trials, preparation))
        return
    torch.set_num_threads(1)
    tidy_table.require_pyarrow()
    resolve(config.base)
    preparation.check(trials)
    remember(out, config)
    finished = [
        comparison.Finished(trial, tuple(learned(config, recipe, scale, trial, preparation, out))) for trial in trials
    ]
    print(f"{report(recipe, finished, out)}\n{out / 'curves.png'}\n{out / 'results.parquet'}")


def chosen(config: Config, recipe: Recipe, scale: Scale) -> list[Trial]:
    """Raises PixeltrajError where --only or --arms name what is not there, or nobody takes the --cloning."""
    every = recipe.trials(scale)
    names = [trial.name for trial in every]
    unknown = [name for name in config.only if name not in names]
    if unknown:
        there = ", ".join(dict.fromkeys(names))
        raise PixeltrajError(f"{recipe.name} has no trial {', '.join(unknown)}; it has: {there}")
    trials = [t for t in every if t.name in config.only] if config.only else recipe.chosen(scale)
    if config.arms:
        known = list(dict.fromkeys(side.name for trial in trials for side in trial.sides))
        if unknown := [name for name in config.arms if name not in known]:
            raise PixeltrajError(f"{recipe.name} has no arm {', '.join(unknown)}; it has: {', '.join(known)}")
        trials = [replace(t, sides=tuple(side for side in t.sides if side.name in config.arms)) for t in trials]
    if config.cloning:
        trials = [replace(t, sides=tuple(cloning(side, config.cloning) for side in t.sides)) for t in trials]
        if not any(hasattr(side.config, "bc_weight") for trial in trials for side in trial.sides):
            raise PixeltrajError(f"no agent chosen of {recipe.name} has a cloning term; leave --cloning out")
    return trials


def cloning(side: Side, weight: float) -> Side:
    """The side with the term, if its agent has one. Raises PixeltrajError for a weight below 0."""
    if weight < 0:
        raise PixeltrajError(f"--cloning is {weight}; it must be 0 or above")
    settings = AGENTS[side.agent][1]() if side.config is None else side.config
    return replace(side, config=replace(settings, bc_weight=weight)) if hasattr(settings, "bc_weight") else side


def planned(config: Config, recipe: Recipe, scale: Scale, trials: list[Trial], preparation: Preparation) -> str:
    """What would be made and run, as lines of text."""
    seeds, course = config.seeds or scale.seeds, recipe.course(scale)
    lines = [f"{recipe.name} at scale {scale.name}: {recipe.shows}"]
    lines += [f"  make {line}" for line in preparation.plan(trials)]
    lines += [
        f"  run {trial.name}: {', '.join(side.name for side in trial.sides)}; {seeds} seeds, {course.steps} steps"
        for trial in trials
    ]
    return "\n".join(lines)


def remember(out: Path, config: Config) -> None:
    """Raises PixeltrajError where the folder holds another experiment."""
    names = {"recipe": config.name, "scale": config.scale, "base": config.base, "data": str(config.data)}
    settings = names | {"cloning": config.cloning}
    path = out / "config.json"
    before = {"cloning": 0.0} | read_json(path, "experiment") if path.exists() else settings
    changed = [key for key in settings if before.get(key) != settings[key]]
    if changed:
        raise PixeltrajError(f"{out} holds an experiment with another {' and '.join(changed)}; give another --out")
    write_json(path, settings)


def learned(
    config: Config, recipe: Recipe, scale: Scale, trial: Trial, preparation: Preparation, out: Path
) -> list[Result]:
    """All runs of a trial, after all that they need is made."""
    print(f"== {trial.name}", flush=True)
    experiment = Experiment(
        task=trial.task,
        arms=tuple(preparation.arm(side) for side in trial.sides),
        out=out / "trials" / trial.name,
        course=recipe.course(scale),
        seeds=config.seeds or scale.seeds,
        processes=config.processes,
        sight=draw_alike,
    )
    done = run_experiment(experiment)["runs"]
    known = [{key: value for key, value in one.items() if key != "score"} for one in done]
    return [Result(**one) for one in known]


def report(recipe: Recipe, finished: list[comparison.Finished], out: Path) -> str:
    """Write results.parquet, table.md and curves.png; returns the table."""
    rows = [
        row
        for one in finished
        for row in tidy_table.rows(recipe.name, one.trial.panel, one.trial.task, one.trial.dataset, one.results)
    ]
    tidy_table.write(out / "results.parquet", rows)
    text = comparison.table(recipe, finished)
    write_whole(out / "table.md", lambda beside: beside.write_text(text))
    comparison.plot(recipe, finished, out / "curves.png")
    return text
