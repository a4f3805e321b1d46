"""The report of a run, from whatever of it has been tested so far."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ..data.audio import SAMPLING_RATE
from ..errors import is_read_only
from ..evaluation.unknown import people
from ..files import check_files, read_json, read_jsonl
from ..recipe.sections import STAGE_NAMES
from ..report.build import FoldResult, build_report, is_written, write_report
from ..report.markdown import render_console
from ..run_folder.layout import ENVIRONMENT_FILE
from .adapters import describe_adapters
from .details import collect_details
from .final_model import describe_final_model
from .layer_weights import describe_layer_weights
from .perform import Worker, listed
from .search import describe_choices


def make_report(worker: Worker) -> dict[str, Any]:
    """Compute the report of what has been tested so far."""
    plan = worker.plan
    table, info = plan.corpus.table, plan.corpus.info
    environment = plan.folder.environment
    check_files(plan.folder.path, ENVIRONMENT_FILE)
    return build_report(
        name=plan.recipe.name,
        variants=_results(worker),
        labels=plan.labels,
        protocol=plan.protocol.describe(table),
        folds_total=len(plan.folds),
        seeds=plan.recipe.seeds,
        command=_commands(worker),
        stamps=[*plan.stamps, *_process_stamps(worker)],
        notes=[*plan.notes, *_choices(worker), *_adapters(worker)],
        left_out=Counter(one.reason for one in plan.corpus.left_out),
        corpus={
            **info.reported,
            "recordings": len(table),
            "hours": round(sum(table["num_samples"]) / SAMPLING_RATE / 3600, 3),
            "speakers": len(people(set(table["speaker"]))),
            "problems": plan.corpus.problems,
        },
        environment=read_json(environment) if environment.is_file() else None,
    )


def write_first_report(worker: Worker) -> None:
    """Write the report before the final model is made: that may fail, and the folds are done."""
    if worker.processes.is_main_process:
        write_report(make_report(worker), worker.plan.folder.path, collect_details(worker.plan))


def report_run(worker: Worker) -> dict[str, Any]:
    """Compute the report, write it, and print its table."""
    plan, report = worker.plan, make_report(worker)
    folder = plan.folder.path
    if worker.processes.is_main_process:
        try:
            if worker.made or not is_written(report, folder):
                write_report(report, folder, collect_details(plan))
            if plan.recipe.final:
                describe_final_model(plan)
        except OSError as error:
            if worker.made or not is_read_only(error):
                raise
            worker.say(f"Note: the report is not written anew, {folder} is read-only ({error.strerror}).")
        worker.say(render_console(report))
        worker.say(f"Report: {folder / 'report.html'} (and report.md, report.json)")
    worker.processes.wait_for_everyone()
    return report


def _results(worker: Worker) -> dict[str, list[FoldResult]]:
    """What has been tested so far, by this call and earlier ones."""
    results: dict[str, list[FoldResult]] = {name: [] for name in worker.plan.variants}
    for planned in filter(worker.tested, worker.plan.planned):
        rows = read_jsonl(planned.folder.predictions)
        temperature = read_json(planned.folder.metrics).get("temperature")
        adapted = read_jsonl(planned.folder.adapted) if planned.folder.adapted.is_file() else None
        results[planned.variant].append(FoldResult(planned.seed, planned.fold.number, rows, temperature, adapted))
    return results


def _commands(worker: Worker) -> str:
    """The commands behind the folds that are counted, in the order of the plan."""
    metrics = [planned.folder.metrics for planned in worker.plan.planned if worker.tested(planned)]
    return "; ".join(dict.fromkeys(read_json(file)["command"] for file in metrics)) or worker.plan.command


def _choices(worker: Worker) -> list[str]:
    """What was chosen where settings were searched, and weighed where layers are summed."""
    plan = worker.plan
    steps = {name: [each.finetune for each in plan.planned if each.variant == name] for name in plan.variants}
    described = [
        describe(name, finetunes)
        for describe in (describe_choices, describe_layer_weights)
        for name, finetunes in steps.items()
    ]
    return [each for each in described if each is not None]


def _adapters(worker: Worker) -> list[str]:
    """How much of the model was trained where it was adapters."""
    found: list[str] = []
    for variant in worker.plan.variants:
        planned = [each for each in worker.plan.planned if each.variant == variant]
        steps = {stage: [step for each in planned if (step := each.find(stage))] for stage in STAGE_NAMES}
        found += describe_adapters(variant, steps)
    return found


def _process_stamps(worker: Worker) -> list[str]:
    """What must stand beside every number if not all trainings ran in as many processes."""
    counts = worker.process_counts()
    if len(counts) < 2:
        return []
    different = "with the same settings their updates saw different numbers of clips"
    return [f"Trainings ran in {listed(counts)} processes: {different}."]
