"""What somebody has changed in the recipe since a run was begun: first of all that a refused step has to name."""

from __future__ import annotations

from pathlib import Path

from ..errors import RequestError
from ..recipe.recipe import Recipe
from ..run_folder.layout import RECIPE_FILE
from ..run_folder.step_folder import differences

_MAY_GROW = ("name", "variants", "seeds", "final")
"""Keys that change no step; a variant's settings may, and then stand in the step alone."""


def recipe_changes(folder: Path, recipe: Recipe) -> list[str]:
    """Name the settings in which a recipe differs from the one that a run's folder was last used with.

    Returns:
        `path: before → after` of each; none where the folder holds no recipe that this version reads.
    """
    file = folder / RECIPE_FILE
    if not file.is_file():
        return []
    try:
        before = Recipe.from_yaml(file).to_dict()
    except RequestError:  # of another version, or damaged: what a step was made from is beside it as well
        return []
    now = recipe.to_dict()
    for name in _MAY_GROW:
        before.pop(name, None)
        now.pop(name, None)
    return differences(before, now)
