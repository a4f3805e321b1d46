"""The work of a run: steps and tests, each done once and found again the next time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..environment import describe_environment, with_earlier
from ..errors import RequestError, read_only_is_fine
from ..evaluation.metrics import emotion_metrics
from ..files import STEP_FILE, json_of, jsonl_of, read_json, read_jsonl, remove_half_written, write_known
from ..report.build import NOT_SPEAKER_INDEPENDENT
from ..run_folder.layout import (
    ADAPTED_FILE,
    ENVIRONMENT_FILE,
    METRICS_FILE,
    PREDICTIONS_FILE,
    RECIPE_FILE,
    SPLIT_FILE,
    FoldFolder,
)
from ..run_folder.step_folder import StepFolder
from .changed_recordings import refuse_changed_recordings
from .fold_plan import PlannedFold, PlannedStep
from .plan import RunPlan
from .replay import left_out_of
from .steps import predict, write_left_out
from .temperature import development_temperature


class Worker:
    """Performs a plan, and remembers what it has made and what it has found finished.

    Args:
        plan: What is to be done.
        helps: Whether this is one of several jobs of a run, whose first process has begun it and noted the machine.
    """

    def __init__(self, plan: RunPlan, helps: bool = False) -> None:
        self.plan, self.processes = plan, plan.processes
        self.made: set[Path] = set()
        self.found: set[Path] = set()
        self._steps: dict[str, list[StepFolder]] = defaultdict(list)
        for step in (step for planned in plan.planned for step in planned.steps):
            self._steps[step.folder.key].append(step.folder)
        self._recorded = helps  # whether the machine is noted, which it is once something is computed
        problems = {each.folder.path: _damage(each.folder) for each in plan.planned}
        self._damaged = {folder: problem for folder, problem in problems.items() if problem is not None}

    def begin(self) -> None:
        """Write what is known before any work, and say what is unusual.

        Raises:
            RequestError: Recordings have changed of which something is finished or begun.
        """
        folder = self.plan.folder
        unclear = refuse_changed_recordings(self.plan, self.tested)
        if self.processes.is_main_process:
            with read_only_is_fine():  # a finished run can still be shown, and the first step of any other says it
                remove_half_written(folder.path, shared=folder.front_end)
                write_known(folder.path, {RECIPE_FILE: self.plan.recipe.to_yaml()})
                speech = self.plan.planner.replays.values()
                write_left_out(folder.path, [*self.plan.corpus.left_out, *left_out_of(speech)])
                self.plan.corpus.index.save()
        for problem in (*self.plan.corpus.problems, *self.plan.notes, *unclear):
            self.say(f"Note: {problem}")
        for problem in self._damaged.values():
            self.say(f"Note: {problem}; that fold is tested again.")
        if old := [step for step in self._finished_steps() if not step.has_hashes]:
            self.say(
                f"Note: {len(old)} finished steps are of an earlier version, which kept no hashes of what a step "
                "has made: damage to their files would not be noticed."
            )
        if others := self.process_counts() - {self.processes.num_processes}:
            self.say(
                f"Note: finished trainings ran in {listed(others)} processes, this run has "
                f"{self.processes.num_processes}: updates of theirs and of new ones see different numbers of clips."
            )

    def record_environment(self) -> None:
        """Note the machine before anything is computed on it: what it leaves half done another may finish."""
        if self._recorded or not self.processes.is_main_process:
            return
        place = self.plan.folder.environment
        before = read_json(place) if place.is_file() else None
        now = with_earlier(describe_environment(), before)
        write_known(self.plan.folder.path, {ENVIRONMENT_FILE: json_of(now)})
        self._recorded = True

    def perform_step(self, step: PlannedStep) -> None:
        """Do one step unless it is finished, or another variant has done it."""
        finished, other = step.folder.finished, self.finished_elsewhere(step.folder)
        # All have looked before the first one writes.
        self.processes.wait_for_everyone()
        if finished:
            if step.folder.path not in self.made:
                self.found.add(step.folder.path)
            return
        if other is not None:
            if self.processes.is_main_process:
                step.folder.point_to(other.resolve())
        else:
            self.record_environment()
            with step.folder.work(self.processes) as folder, self.plan.unchanged(folder):
                step.perform(folder)
        self.made.add(step.folder.path)
        self.processes.wait_for_everyone()

    def perform_fold(self, planned: PlannedFold, test: bool = True) -> None:
        """Do the steps of one fold that are not finished, then its test."""
        for step in planned.steps:
            self.perform_step(step)
        if test:
            self.perform_test(planned)

    def perform_test(self, planned: PlannedFold) -> None:
        """Test the model of a fold unless that is done."""
        folder = planned.folder.path
        if self.tested(planned):
            self.found.add(folder)
            return
        self.record_environment()
        with self.plan.unchanged():
            tested = predict(
                planned.finetune.resolve(),
                planned.test,
                planned.batch_size,
                planned.held_out,
                self.plan.planner.describe(f"{planned.label} · test"),
                planned.front_end_cache,
                adapt=True,
            )
        if self.processes.is_main_process:
            split = json_of(planned.fold.to_json())
            adapted = {} if tested.adapted is None else {ADAPTED_FILE: jsonl_of(tested.adapted)}
            if not adapted:
                (folder / ADAPTED_FILE).unlink(missing_ok=True)  # of a model that was tested here before
            write_known(folder, {SPLIT_FILE: split, PREDICTIONS_FILE: jsonl_of(tested.rows), **adapted})
            # Written last: with it the test counts as done.
            write_known(folder, {METRICS_FILE: json_of(_metrics(self.plan, planned, tested.rows))})
        self.note_made(folder)
        self.processes.wait_for_everyone()

    def note_made(self, folder: Path) -> None:
        """Remember that the step or test of this folder has been done in this call, here or by another job."""
        self._damaged.pop(folder, None)
        self.made.add(folder)

    def tested(self, planned: PlannedFold) -> bool:
        """Whether a fold's predictions are there and belong to its model."""
        metrics = planned.folder.metrics
        if planned.folder.path in self._damaged or not metrics.is_file():
            return False
        return bool(read_json(metrics)["key"] == self.plan.test_key(planned))

    def process_counts(self) -> set[int]:
        """In how many processes the finished trainings of this recipe ran."""
        notes = [read_json(step.resolve() / STEP_FILE) for step in self._finished_steps()]
        return {note["manner"]["processes"] for note in notes if "processes" in note.get("manner", {})}

    def say(self, text: str) -> None:
        """Print a line on the main process, without tearing a progress bar."""
        if self.processes.is_main_process:
            tqdm.write(text)

    def finished_elsewhere(self, step: StepFolder) -> StepFolder | None:
        """The same step of another variant, if that is finished."""
        return next((one for one in self._steps[step.key] if one.path != step.path and one.finished), None)

    def _finished_steps(self) -> list[StepFolder]:
        return [step for steps in self._steps.values() for step in steps if step.finished]


def listed(numbers: set[int]) -> str:
    """Numbers in words."""
    return " and ".join(map(str, sorted(numbers)))


def _metrics(plan: RunPlan, planned: PlannedFold, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    number = {label: index for index, label in enumerate(plan.labels)}
    references = [number[row["emotion"]] for row in rows]
    return {
        "key": plan.test_key(planned),
        "variant": planned.variant,
        "seed": planned.seed,
        "fold": planned.fold.number,
        "folds": len(plan.folds),
        "protocol": plan.protocol.kind,
        "test_speakers": len(planned.fold.test),
        "utterances": len(rows),
        "command": plan.command,
        "stamps": [*plan.stamps, *([] if planned.fold.speaker_independent else [NOT_SPEAKER_INDEPENDENT])],
        "temperature": development_temperature(plan, [planned], planned.held_out),
        **emotion_metrics(references, [number[row["predicted"]] for row in rows], len(number)),
    }


def _damage(folder: FoldFolder) -> str | None:
    """What is wrong with the results of a fold's test; None if they are as they were written, or not there yet."""
    if not folder.metrics.is_file():
        return None
    try:
        key = read_json(folder.metrics).get("key")
        read_jsonl(folder.predictions)
        if folder.adapted.is_file():
            read_jsonl(folder.adapted)
    except RequestError as error:
        return error.found
    return None if isinstance(key, str) else f"{folder.metrics} has no key"
