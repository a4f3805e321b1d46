"""What several jobs do at the same time: steps and tests, each once what it needs is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .final_model import ship_final_model
from .fold_plan import PlannedFold
from .jobs import Jobs
from .perform import Worker
from .plan import RunPlan
from .progress import Progress


@dataclass(frozen=True)
class Task:
    """One step or test.

    Args:
        name: What it is, for messages.
        fold: Place of its fold in the plan.
        step: Place of the step in the fold; None for the test.
        needs: Places of the tasks that have to be done before.
    """

    name: str
    fold: int
    step: int | None
    needs: frozenset[int]

    def perform(self, worker: Worker) -> None:
        """Do it, or find that it is done."""
        planned = worker.plan.planned[self.fold]
        if self.step is None:
            worker.perform_test(planned)
        else:
            worker.perform_step(planned.steps[self.step])

    def is_computed(self, worker: Worker) -> bool:
        """Whether its results are there, under its own name or, of the same step, under another."""
        planned = worker.plan.planned[self.fold]
        if self.step is None:
            return worker.tested(planned)
        step = planned.steps[self.step].folder
        return step.finished or worker.finished_elsewhere(step) is not None

    def folder(self, plan: RunPlan) -> Path:
        """Where its results go."""
        planned = plan.planned[self.fold]
        return planned.folder.path if self.step is None else planned.steps[self.step].folder.path


@dataclass(frozen=True)
class FinalModel:
    """The model to ship, made by a job after all else."""

    name: str = "the final model"

    def perform(self, worker: Worker) -> tuple[str, set[Path], set[Path]]:
        """What to tell the user, and what has been made and what was found finished."""
        own = Worker(worker.plan, helps=True)  # folds that others have tested since this job began count
        return ship_final_model(own), own.made, own.found


def make_tasks(plan: RunPlan) -> list[Task]:
    """The tasks of the folds that are asked for, in the plan's order.

    A step that variants share is computed where one job would compute it, by the first of them; the others wait for it.
    """
    tasks: list[Task] = []
    first: dict[str, int] = {}
    for fold, planned in enumerate(plan.planned):
        if planned.fold.number not in plan.asked:
            continue
        before: set[int] = set()
        for place, step in enumerate(planned.steps):
            shared = first.setdefault(step.folder.key, len(tasks))
            needs = frozenset(before | ({shared} - {len(tasks)}))
            before = {len(tasks)}
            tasks.append(Task(f"{planned.label} · {step.folder.inputs['step']}", fold, place, needs))
        tasks.append(Task(f"{planned.label} · test", fold, None, frozenset(before)))
    return tasks


def perform_in_jobs(worker: Worker, jobs: Jobs) -> None:
    """Do all steps and tests that are not finished, each as soon as a job is free and what it needs is there."""
    tasks = make_tasks(worker.plan)
    waiting, done = dict(enumerate(tasks)), set[int]()
    tests = _Tests(worker, tasks)
    # Folds share a step such as a backbone from scratch, which is there once.
    total = len({task.folder(worker.plan) for task in tasks})
    with Progress(f"{jobs.number} jobs, steps and tests of the folds", total) as progress:
        while waiting or jobs.are_busy:
            # In order: what is there already lets later ones begin in the same round.
            for place, task in list(waiting.items()):
                if not task.needs <= done:
                    continue
                if task.is_computed(worker):
                    task.perform(worker)
                    done.add(place)
                    progress.done.add(task.folder(worker.plan))
                elif jobs.has_free:
                    worker.record_environment()
                    jobs.give(task, len({each.fold for each in waiting.values()}))
                    progress.begin(task.name)
                else:
                    continue
                del waiting[place]
            if jobs.are_busy:
                progress.wait(jobs)
                ended, _ = jobs.wait()
                progress.end(ended.name)
                progress.done.add(ended.folder(worker.plan))
                worker.note_made(ended.folder(worker.plan))
                done.add(tasks.index(ended))
                tests.announce(ended)


def ship_in_a_job(worker: Worker, jobs: Jobs) -> str:
    """Let a job make the final model; what to tell the user."""
    worker.record_environment()
    worker.say("All folds are done; the final model is made.")
    model = FinalModel()
    with Progress("after the folds", None) as progress:
        jobs.give(model)
        progress.begin(model.name)
        progress.wait(jobs)
    _, (said, made, found) = jobs.wait()
    worker.made |= made
    worker.found |= found - worker.made
    return str(said)


class _Tests:
    """Says which folds have been tested, a line for each."""

    def __init__(self, worker: Worker, tasks: Sequence[Task]) -> None:
        self.worker = worker
        self.left = [task for task in tasks if task.step is None and not task.is_computed(worker)]
        self.total = len(self.left)

    def announce(self, task: Task) -> None:
        """Say so if the task was the test of a fold."""
        if task in self.left:
            self.left.remove(task)
            planned: PlannedFold = self.worker.plan.planned[task.fold]
            self.worker.say(f"{planned.label}: tested ({self.total - len(self.left)} of {self.total})")
