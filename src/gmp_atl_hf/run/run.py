"""A run: seeds × folds × variants over the steps, what is finished skipped, then the report and the final model."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..batching.feature_store import refuse_no_folder
from ..checkpoints import describe_backbone
from ..data.audio import SAMPLING_RATE
from ..data.fingerprints import Recordings, combine
from ..data.table import Corpus, read_corpora
from ..environment import describe_environment, with_earlier
from ..errors import RequestError, is_read_only
from ..evaluation.metrics import emotion_metrics
from ..files import check_files, json_of, jsonl_of, read_jsonl, remove_half_written, write_known
from ..heard import heard_by_description
from ..protocols.leakage import Untouched, maybe_heard
from ..protocols.protocol import Protocol
from ..recipe.method import Method
from ..recipe.recipe import Recipe
from ..report.build import NOT_SPEAKER_INDEPENDENT, FoldResult, build_report, write_report
from ..report.markdown import render_console
from ..run_folder.lock import only_run_in
from ..run_folder.step_folder import STEP_FILE, StepFolder, read_json
from .details import collect_details
from .final_model import describe_final_model, development_temperature, refuse_other_model, ship_final_model
from .fold_plan import FRONT_END_FOLDER, PlannedFold, PlannedStep, Planner, known_genders
from .processes import join_processes
from .search import describe_choices, refuse_nobody_to_choose
from .stages import check_stage_settings
from .steps import predict, write_left_out

PREDICTIONS_FILE = "predictions.jsonl"
METRICS_FILE = "metrics.json"
ENVIRONMENT_FILE = "environment.json"
SHUFFLED_STAMP = (
    "Labels of training and development recordings were shuffled within each speaker: this shows chance, "
    "not the method."
)
MAYBE_HEARD_STAMP = "The backbone does not say all whom it has heard: test speakers may be among them."


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
        run = Run(recipe, folder, folds, command or called)
        run.perform()
        return run.report()


class Run:
    """One call of `run_recipe`: checked and planned on construction.

    Args:
        recipe: The recipe.
        output_dir: Folder of the run.
        folds: Folds to run, numbered from 1; None for all.
        command: The command behind the numbers.

    Raises:
        RequestError: The request is wrong.
    """

    def __init__(self, recipe: Recipe, output_dir: Path, folds: Sequence[int] | None, command: str) -> None:
        self.recipe, self.output_dir, self.command = recipe, output_dir, command
        if output_dir.is_file():
            raise RequestError(f"the output folder {output_dir} is a file", "a folder, or none yet", "--output-dir DIR")
        self.state = join_processes()
        self.variants = _variants(recipe)
        described = {str(each.backbone): describe_backbone(each.backbone) for each in self.variants.values()}
        backbones = {name: described[str(each.backbone)] for name, each in self.variants.items()}
        self._check_stages(backbones, None)
        self.corpus = self._read_corpus()
        self.labels: list[str] = self.corpus.table.features["emotion"].names
        self.protocol = Protocol(**vars(recipe.protocol))
        self.folds = self.protocol.folds(self.corpus.table)
        self.wanted = self._wanted(folds)
        self.stamps = self._stamps(backbones)
        self.notes = self._notes()
        self._check_stages(backbones, self.labels)
        refuse_nobody_to_choose(recipe.search, [f.number for f in self.folds if f.number in self.wanted and not f.dev])
        self.recordings = Recordings(self.corpus.table)
        self.fingerprints = self.recordings.fingerprints
        self.planner = Planner(
            output_dir, self.corpus.table, self.fingerprints, backbones, recipe.backbone, self.state.num_processes
        )
        self.planned = [
            self.planner.plan(name, each, seed, fold)
            for seed in recipe.seeds
            for fold in self.folds
            for name, each in self.variants.items()
        ]
        for planned in self.planned:
            for step in planned.steps:
                step.folder.refuse_contradiction()
        if recipe.final:
            refuse_other_model(self)
        self.made: set[Path] = set()
        self.working = False  # whether this call has computed anything
        self.found: set[Path] = set()
        self.damaged = {planned.folder: problem for planned in self.planned if (problem := _damage(planned.folder))}

    # ---- what is asked for ---------------------------------------------------------------------------------------

    def _check_stages(self, backbones: Mapping[str, Mapping[str, Any]], labels: list[str] | None) -> None:
        for name, each in self.variants.items():
            backbone = backbones[name]
            for candidate in each.candidates():
                check_stage_settings(candidate, backbone.get("config", backbone.get("scratch", {})), labels)

    def _read_corpus(self) -> Corpus:
        entries = []
        for spec in self.recipe.corpus:
            root = spec.root
            if root is None and spec.name == "demo":
                root = str(self.output_dir / "corpus")
            options = {"short_clips": self.recipe.data.short_clips, **spec.options}
            entries.append({"name": spec.name, "root": root, **options})
        # The demo corpus is made on first use; one process makes it, the others then find it.
        with self.state.main_process_first():
            return read_corpora(entries, labels=self.recipe.labels, index=self.output_dir)

    def _wanted(self, folds: Sequence[int] | None) -> set[int]:
        numbers = {fold.number for fold in self.folds}
        for number in folds or ():
            if number not in numbers:
                raise RequestError(
                    f"there is no fold {number}", f"folds 1 to {len(self.folds)} of {self.protocol.kind}", "--folds 1"
                )
        return numbers if folds is None else set(folds)

    def _stamps(self, backbones: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Refuse backbones that have heard a test speaker; what must stand beside every number."""
        stamps = [SHUFFLED_STAMP] if any(each.data.shuffle_labels for each in self.variants.values()) else []
        tested = {s for fold in self.folds if fold.number in self.wanted for s in fold.test if fold.speaker_independent}
        for name, each in self.variants.items():
            folder = Path(each.backbone) if isinstance(each.backbone, str) else None
            heard = heard_by_description(backbones[name], folder)
            Untouched(frozenset(tested)).refuse_speakers(heard, f"the backbone {each.backbone} of {name} has heard")
            if maybe_heard(heard, tested):
                stamps.append(MAYBE_HEARD_STAMP)
        return list(dict.fromkeys(stamps))

    def _notes(self) -> list[str]:
        """What this corpus cannot have, said once and not in every fold."""
        notes = []
        genders = known_genders(self.corpus.table)
        if genders < 2 and any(not each.stages.multitask.skip for each in self.variants.values()):
            which = "one gender only" if genders else "no genders"
            notes.append(f"The corpus has {which}, so the gender part of the multi-task training is off.")
        if not any(fold.dev for fold in self.folds):
            notes.append("No development speakers: the number of epochs is fixed, and scores are not calibrated.")
        return notes

    # ---- the work ------------------------------------------------------------------------------------------------

    def perform(self) -> None:
        """Do every step and test that is not finished."""
        if self.state.is_main_process:
            try:
                remove_half_written(self.output_dir, shared=self.output_dir / FRONT_END_FOLDER)
                write_known(self.output_dir, {"recipe.yaml": self.recipe.to_yaml()})
                write_left_out(self.output_dir, self.corpus.left_out)
                self.corpus.index.save()
            except OSError as error:
                if not is_read_only(error):
                    raise  # otherwise a finished run can still be shown, and the first step of any other says it
        for problem in (*self.corpus.problems, *self.notes):
            self.say(f"Note: {problem}")
        for problem in self.damaged.values():
            self.say(f"Note: {problem}; that fold is tested again.")
        if old := [step for step in self._finished_steps() if not step.has_hashes]:
            self.say(
                f"Note: {len(old)} finished steps are of an earlier version, which kept no hashes of what a step "
                "has made: damage to their files would not be noticed."
            )
        if others := self._process_counts() - {self.state.num_processes}:
            self.say(
                f"Note: finished trainings ran in {_listed(others)} processes, this run has "
                f"{self.state.num_processes}: updates of theirs and of new ones see different numbers of clips."
            )
        for planned in self.planned:
            if planned.fold.number in self.wanted:
                self.perform_fold(planned)
        if self.made and self.recipe.final and self.state.is_main_process:
            # Before the final model: that may fail, and these are done.
            write_report(self.make_report(), self.output_dir, collect_details(self))
        final = ship_final_model(self) if self.recipe.final else None
        if not self.made:
            self.say(f"All {len(self.found)} steps and tests were finished before; nothing was left to do.")
        elif self.found:
            self.say(f"{len(self.made)} steps and tests done, {len(self.found)} were finished before.")
        if final is not None:
            self.say(final)

    def begin_work(self) -> None:
        """Note the machine before anything is computed on it: what it leaves half done another may finish."""
        if self.working or not self.state.is_main_process:
            return
        place = self.output_dir / ENVIRONMENT_FILE
        before = read_json(place) if place.is_file() else None
        now = with_earlier(describe_environment(), before)
        write_known(self.output_dir, {ENVIRONMENT_FILE: json_of(now)})
        self.working = True

    def perform_fold(self, planned: PlannedFold, test: bool = True) -> None:
        """Do the steps of one fold that are not finished, then its test."""
        for step in planned.steps:
            self.perform_step(step)
        if not test:
            return
        if self.tested(planned):
            self.found.add(planned.folder)
            return
        self.begin_work()
        with self.recordings.unchanged():
            rows = predict(
                planned.finetune.resolve(),
                planned.test,
                planned.batch_size,
                planned.untouched,
                f"{planned.variant} · seed {planned.seed} · {planned.folder.name} · test",
                planned.front_end_cache,
            )
        if self.state.is_main_process:
            split = json_of(planned.fold.to_json())
            write_known(planned.folder, {"split.json": split, PREDICTIONS_FILE: jsonl_of(rows)})
            # Written last: with it the test counts as done.
            write_known(planned.folder, {METRICS_FILE: json_of(self._fold_metrics(planned, rows))})
        self.damaged.pop(planned.folder, None)
        self.made.add(planned.folder)
        self.state.wait_for_everyone()

    def perform_step(self, step: PlannedStep) -> None:
        """Do one step unless it is finished, or another variant has done it."""
        finished, twin = step.folder.finished, step.finished_elsewhere()
        # All have looked before the first one writes.
        self.state.wait_for_everyone()
        if finished:
            if step.folder.path not in self.made:
                self.found.add(step.folder.path)
            return
        if twin is not None:
            if self.state.is_main_process:
                step.folder.point_to(twin.resolve())
        else:
            self.begin_work()
            with step.folder.work(self.state) as folder, self.recordings.unchanged(folder):
                step.perform(folder)
        self.made.add(step.folder.path)
        self.state.wait_for_everyone()

    def _finished_steps(self) -> list[StepFolder]:
        return [step.folder for planned in self.planned for step in planned.steps if step.folder.finished]

    def _process_counts(self) -> set[int]:
        """In how many processes the finished trainings of this recipe ran."""
        notes = [read_json(step.resolve() / STEP_FILE) for step in self._finished_steps()]
        return {note["manner"]["processes"] for note in notes if "processes" in note.get("manner", {})}

    def _process_stamps(self) -> list[str]:
        """What must stand beside every number if not all trainings ran in as many processes."""
        counts = self._process_counts()
        if len(counts) < 2:
            return []
        different = "with the same settings their updates saw different numbers of clips"
        return [f"Trainings ran in {_listed(counts)} processes: {different}."]

    def _fold_metrics(self, planned: PlannedFold, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        number = {label: index for index, label in enumerate(self.labels)}
        references = [number[row["emotion"]] for row in rows]
        return {
            "key": self._test_key(planned),
            "variant": planned.variant,
            "seed": planned.seed,
            "fold": planned.fold.number,
            "folds": len(self.folds),
            "protocol": self.protocol.kind,
            "test_speakers": len(planned.fold.test),
            "utterances": len(rows),
            "command": self.command,
            "stamps": [*self.stamps, *([] if planned.fold.speaker_independent else [NOT_SPEAKER_INDEPENDENT])],
            "temperature": development_temperature(self, [planned], planned.untouched),
            **emotion_metrics(references, [number[row["predicted"]] for row in rows], len(number)),
        }

    def _test_key(self, planned: PlannedFold) -> str:
        """What a fold's predictions depend on: the model and the rows tested."""
        return f"{planned.finetune.key}-{combine(self.fingerprints, planned.test['id'])}"

    def tested(self, planned: PlannedFold) -> bool:
        """Whether a fold's predictions are there and belong to its model."""
        metrics = planned.folder / METRICS_FILE
        if planned.folder in self.damaged or not metrics.is_file():
            return False
        found: bool = read_json(metrics)["key"] == self._test_key(planned)
        return found

    def say(self, text: str) -> None:
        """Print a line on the main process, without tearing a progress bar."""
        if self.state.is_main_process:
            tqdm.write(text)

    def _choices(self) -> list[str]:
        """What was chosen where settings were searched."""
        described = [
            describe_choices(name, [planned for planned in self.planned if planned.variant == name])
            for name in self.variants
        ]
        return [each for each in described if each is not None]

    # ---- the report ----------------------------------------------------------------------------------------------

    def report(self) -> dict[str, Any]:
        """Compute the report, write it, and print its table."""
        report = self.make_report()
        if self.state.is_main_process:
            try:
                write_report(report, self.output_dir, collect_details(self))
                if self.recipe.final:
                    describe_final_model(self)
            except OSError as error:
                if self.made or not is_read_only(error):
                    raise
                self.say(f"Note: the report is not written anew, {self.output_dir} is read-only ({error.strerror}).")
            self.say(render_console(report))
            self.say(f"Report: {self.output_dir / 'report.html'} (and report.md, report.json)")
        self.state.wait_for_everyone()
        return report

    def _results(self) -> Mapping[str, list[FoldResult]]:
        """What has been tested so far, by this call and earlier ones."""
        results: dict[str, list[FoldResult]] = {name: [] for name in self.variants}
        for planned in self.planned:
            if self.tested(planned):
                rows = read_jsonl(planned.folder / PREDICTIONS_FILE)
                temperature = read_json(planned.folder / METRICS_FILE).get("temperature")
                results[planned.variant].append(FoldResult(planned.seed, planned.fold.number, rows, temperature))
        return results

    def _commands(self) -> str:
        """The commands behind the folds that are counted, in the order of the plan."""
        metrics = [planned.folder / METRICS_FILE for planned in self.planned if self.tested(planned)]
        return "; ".join(dict.fromkeys(read_json(file)["command"] for file in metrics)) or self.command

    def make_report(self) -> dict[str, Any]:
        """Compute the report of what has been tested so far."""
        table, info = self.corpus.table, self.corpus.info
        environment = self.output_dir / ENVIRONMENT_FILE
        check_files(self.output_dir, ENVIRONMENT_FILE)
        return build_report(
            name=self.recipe.name,
            variants=self._results(),
            labels=self.labels,
            protocol=self.protocol.describe(table),
            folds_total=len(self.folds),
            seeds=self.recipe.seeds,
            command=self._commands(),
            stamps=[*self.stamps, *self._process_stamps()],
            notes=[*self.notes, *self._choices()],
            left_out=Counter(one.reason for one in self.corpus.left_out),
            corpus={
                "name": info.name,
                "homepage": info.homepage,
                "licence": info.licence,
                "citation": info.citation,
                "language": info.language,
                "recordings": len(table),
                "hours": round(sum(table["num_samples"]) / SAMPLING_RATE / 3600, 3),
                "speakers": len(set(table["speaker"])),
                "problems": self.corpus.problems,
            },
            environment=read_json(environment) if environment.is_file() else None,
        )


def _damage(folder: Path) -> str | None:
    """What is wrong with the results of a fold's test; None if they are as they were written, or not there yet."""
    if not (folder / METRICS_FILE).is_file():
        return None
    try:
        key = read_json(folder / METRICS_FILE).get("key")
        read_jsonl(folder / PREDICTIONS_FILE)
    except RequestError as error:
        return error.found
    return None if isinstance(key, str) else f"{folder / METRICS_FILE} has no key"


def _listed(numbers: set[int]) -> str:
    return " and ".join(map(str, sorted(numbers)))


def _variants(recipe: Recipe) -> dict[str, Method]:
    """Each variant's method, refused if it could not be run or tested."""
    recipe.check_field_names()
    variants = {name: recipe.method(name) for name in recipe.variant_names}
    for name, each in variants.items():
        if isinstance(each.data.front_end_cache, str):
            refuse_no_folder(Path(each.data.front_end_cache))
        if each.stages.finetune.skip:
            raise RequestError(
                f"variant {name} skips the fine-tuning", "a stage that can be tested on emotions", "skip other stages"
            )
    return variants
