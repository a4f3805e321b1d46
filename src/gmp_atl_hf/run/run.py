"""A run: seeds × folds × variants over the steps, what is finished skipped, then the report and the final model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..recipe.recipe import Recipe
from ..run_folder.lock import only_run_in
from .final_model import refuse_other_model, ship_final_model
from .perform import Worker
from .plan import plan_run
from .processes import join_processes
from .reporting import report_run, write_first_report


def run_recipe(
    recipe: Recipe | str | os.PathLike[str],
    output_dir: str | os.PathLike[str] | None = None,
    folds: Sequence[int] | None = None,
    command: str | None = None,
) -> dict[str, Any]:
    """Run a recipe, or whatever of it is not finished yet.

    Everything that can be wrong with the request is looked at before the first training. A run may grow: more seeds,
    variants or folds, or the final model, are added to what is there.

    Args:
        recipe: The recipe, its file, or the name of a packaged one.
        output_dir: Folder of the run; `runs/<name>` by default.
        folds: Folds to run, numbered from 1; all by default.
        command: What to name in the report as the command behind its numbers.

    Returns:
        The report, as in `report.json`.

    Raises:
        RequestError: The request is wrong; nothing has been trained.
    """
    called = f"run_recipe({str(recipe)!r}" if not isinstance(recipe, Recipe) else f"run_recipe({recipe.name}"
    called += "".join(f", {name}={value!r}" for name, value in (("folds", folds),) if value is not None) + ")"
    if not isinstance(recipe, Recipe):
        recipe = Recipe.from_yaml(recipe)
    folder = Path(output_dir or Path("runs", recipe.name))
    with only_run_in(folder, join_processes()):
        plan = plan_run(recipe, folder, folds, command or called)
        if recipe.final:
            refuse_other_model(plan)
        worker = Worker(plan)
        worker.begin()
        for planned in plan.planned:
            if planned.fold.number in plan.asked:
                worker.perform_fold(planned)
        if worker.made and recipe.final:
            write_first_report(worker)
        said = ship_final_model(worker) if recipe.final else None
        if not worker.made:
            worker.say(f"All {len(worker.found)} steps and tests were finished before; nothing was left to do.")
        elif worker.found:
            worker.say(f"{len(worker.made)} steps and tests done, {len(worker.found)} were finished before.")
        if said is not None:
            worker.say(said)
        return report_run(worker)
