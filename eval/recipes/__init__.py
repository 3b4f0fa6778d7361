"""All recipes, by name. A new experiment is a `Recipe` in one of the files here."""

from difflib import get_close_matches

from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.recipes import locomotion, offline_to_online
from pixeltraj.eval.recipes.recipe import Recipe

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (*locomotion.RECIPES, *offline_to_online.RECIPES)}


def get_recipe(name: str) -> Recipe:
    """Raises PixeltrajError, naming the nearest ones, where there is none of that name."""
    if name in RECIPES:
        return RECIPES[name]
    near = get_close_matches(name, RECIPES, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(RECIPES)}"
    raise PixeltrajError(f"there is no recipe {name!r}: {hint}")


def overview() -> str:
    """What `pixeltraj experiment --list` prints."""
    width = max(map(len, RECIPES)) + 2
    return "\n".join(f"{recipe.name:{width}}{recipe.shows}" for recipe in RECIPES.values())
