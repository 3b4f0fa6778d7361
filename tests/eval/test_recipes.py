"""Recipes: every one of them can be put together, and carries the paper's own numbers."""

from collections import Counter

import pytest

from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.agents.catalogue import AGENTS
from pixeltraj.eval.recipes import RECIPES, get_recipe, overview
from pixeltraj.eval.recipes.recipe import PAPER, SCALES, SMALL, SMOKE, Data, Recipe, Scale, get_scale
from pixeltraj.grid import Grid
from pixeltraj.tasks import get_task

CASES = [pytest.param(r, s, id=f"{r.name}-{s.name}") for r in RECIPES.values() for s in SCALES.values()]


def test_tables_and_figures_of_the_paper() -> None:
    figures = {int(name.removeprefix("figure").split("-")[0]) for name in RECIPES if name.startswith("figure")}
    tables = {int(name.removeprefix("table").split("-")[0]) for name in RECIPES if name.startswith("table")}
    assert figures == set(range(3, 12))
    assert tables == {1, 2, 4, 5}
    assert all(name in overview() for name in RECIPES)


@pytest.mark.parametrize(("recipe", "scale"), CASES)
def test_parts_fit(recipe: Recipe, scale: Scale) -> None:
    recipe.course(scale).check()
    trials, chosen = recipe.trials(scale), recipe.chosen(scale)
    assert chosen and all(trial in trials for trial in chosen)
    assert len(chosen) == len(trials) if scale is PAPER else len(chosen) <= 3
    assert max(Counter(trial.name for trial in trials).values()) == 1
    for trial in trials:
        get_task(trial.task)
        names = [side.name for side in trial.sides]
        assert len(set(names)) == len(names) > 1
        assert set(trial.paper) <= set(names)
        assert trial.needed()
        for side in trial.sides:
            assert side.agent in AGENTS
            assert side.data and all(data.task == trial.task for data in side.data)
            if not side.online:
                assert side.dreamer is None
            for k in getattr(side.dreamer, "k", ()) if isinstance(getattr(side.dreamer, "k", 5), tuple) else ():
                Grid(k)
        assert len({frozenset(side.data) for side in trial.sides}) == 1  # the same real data on all sides


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=list(RECIPES))
def test_different_parts_have_different_folders(recipe: Recipe) -> None:
    for scale in (SMALL, PAPER):
        parts = set()
        for trial in recipe.trials(scale):
            for side in trial.sides:
                parts |= {part for part in (side.dreamer, *side.synthetic) if part is not None}
        assert len({(type(part), part.name) for part in parts}) == len(parts)


def test_numbers_of_the_paper() -> None:
    table = {trial.name: trial.paper for trial in get_recipe("table1-offline").trials(PAPER)}
    assert len(table) == 12
    assert table["HalfCheetah-v5-medium"]["td3_bc"] == 48.1
    assert table["HalfCheetah-v5-medium"]["td3_bc+imagination"] == 52.3
    assert table["Hopper-v5-medium-replay"]["iql+synther"] == 103.2
    assert table["Walker2d-v5-random"]["iql+imagination"] == 4.3
    pixels = {trial.name: trial.paper for trial in get_recipe("table2-pixels").trials(PAPER)}
    assert len(pixels) == 8
    assert pixels["Walker2d-v5-medium-replay"] == {"bc_pixels": 16.5, "bc_pixels+imagination": 17.7}
    assert pixels["HalfCheetah-v5-expert"] == {"bc_pixels": 67.4, "bc_pixels+imagination": 85.3}
    ladder = {trial.panel: trial.paper for trial in get_recipe("table5-ladder").trials(PAPER)}
    assert ladder["Multitask"] == {
        "synther": 0.57, "transition": 0.60, "trajectory": 0.72, "condition": 0.75, "full": 0.77,
    }  # fmt: skip


def test_scales_shrink_seeds_and_steps() -> None:
    recipe = get_recipe("figure3-online")
    assert recipe.course(PAPER).steps == 250_000 and PAPER.seeds == 5
    assert recipe.course(SMALL).steps == 3000
    assert recipe.course(SMOKE).steps == 30
    assert len(recipe.trials(PAPER)) == 12


def test_data_of_the_user() -> None:
    assert Data("Hopper-v5", "medium").given
    assert not Data("Hopper-v5", "random").given and not Data("push-v3").given


def test_unknown_names_are_refused() -> None:
    with pytest.raises(PixeltrajError, match=r"did you mean .*table1-offline"):
        get_recipe("table1")
    with pytest.raises(PixeltrajError, match="choose of smoke, small, paper"):
        get_scale("tiny")
