"""A run: seeds × folds × variants over the steps, what is finished skipped, then the report and the final model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from ..errors import RequestError, counted
from ..recipe.recipe import Recipe
from ..run_folder.lock import only_run_in
from ..run_folder.occupied import refuse_occupied
from .final_model import is_final_model_due, refuse_other_model, ship_final_model
from .jobs import Jobs, check_jobs
from .perform import Worker
from .plan import plan_run
from .processes import join_processes
from .reporting import report_run, write_first_report
from .tasks import perform_in_jobs, ship_in_a_job


def run_recipe(
    recipe: Recipe | str | os.PathLike[str],
    output_dir: str | os.PathLike[str] | None = None,
    folds: Sequence[int] | None = None,
    command: str | None = None,
    jobs: int = 1,
) -> dict[str, Any]:
    """Run a recipe, or whatever of it is not finished yet.

    Everything that can be wrong with the request is looked at before the first training. A run may grow: more seeds,
    variants or folds, or the final model, are added to what is there.

    Args:
        recipe: The recipe, its file, or the name of a packaged one.
        output_dir: Folder of the run; `runs/<name>` by default.
        folds: Folds to run, numbered from 1; all by default.
        command: What to name in the report as the command behind its numbers.
        jobs: Processes that work on different folds, seeds and variants at the same time. The numbers are those of one
            job, bit for bit, that has as many threads (`OMP_NUM_THREADS`) as each of several: the cores are shared
            among them. A script that asks for several needs `if __name__ == "__main__":`.

    Returns:
        The report, as in `report.json`.

    Raises:
        RequestError: The request is wrong; nothing has been trained.
        ChildProcessError: One of several jobs was killed.
    """
    options = {"folds": folds, "jobs": None if jobs == 1 else jobs}
    called = f"run_recipe({str(recipe)!r}" if not isinstance(recipe, Recipe) else f"run_recipe({recipe.name}"
    called += "".join(f", {name}={value!r}" for name, value in options.items() if value is not None) + ")"
    if not isinstance(recipe, Recipe):
        if not isinstance(recipe, (str, os.PathLike)):
            raise RequestError(
                f"the recipe is {recipe!r}",
                "a Recipe, its file, or the name of a packaged one",
                "Recipe.from_dict(…) makes one of a mapping",
            )
        recipe = Recipe.from_yaml(recipe)
    folder, processes = Path(output_dir or Path("runs", recipe.name)), join_processes()
    check_jobs(jobs, processes.num_processes)
    refuse_occupied(folder, "run", [corpus.root for corpus in recipe.corpus])
    with only_run_in(folder, processes) as lock:
        plan = plan_run(recipe, folder, folds, command or called)
        if recipe.final:
            refuse_other_model(plan)
        worker = Worker(plan)
        worker.begin()
        said = _perform(worker) if jobs == 1 else _perform_in_jobs(worker, jobs, lock)
        if not worker.made:
            worker.say(f"All {len(worker.found)} steps and tests were finished before; nothing was left to do.")
        elif worker.found:
            done = counted(len(worker.made), "step or test", "steps and tests")
            worker.say(f"{done} done, {counted(len(worker.found), 'was', 'were')} finished before.")
        if said is not None:
            worker.say(said)
        return report_run(worker)


def _perform(worker: Worker) -> str | None:
    """Do all that is asked for; what to tell of the final model."""
    plan = worker.plan
    for planned in plan.planned:
        if planned.fold.number in plan.asked:
            worker.perform_fold(planned)
    if not plan.recipe.final:
        return None
    if worker.made:
        write_first_report(worker)
    return ship_final_model(worker)


def _perform_in_jobs(worker: Worker, number: int, lock: IO[str] | None) -> str | None:
    """The same in several processes."""
    with Jobs(worker.plan, number, lock) as jobs:
        perform_in_jobs(worker, jobs)
        if not worker.plan.recipe.final:
            return None
        if worker.made:
            write_first_report(worker)
        return ship_in_a_job(worker, jobs) if is_final_model_due(worker) else ship_final_model(worker)
