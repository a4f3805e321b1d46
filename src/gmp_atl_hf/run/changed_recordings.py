"""Recordings that sound otherwise than when what is finished was made of them, and look the same to its keys."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from ..data.corpus_index import INDEX_FILE, Changes
from ..data.spelling import first_few
from ..errors import RequestError, counted
from ..protocols.fold import rows_of_parts
from ..run_folder.layout import BACKBONE
from .fold_plan import PlannedFold
from .plan import RunPlan

_SHOWN = 3


def refuse_changed_recordings(plan: RunPlan, tested: Callable[[PlannedFold], bool]) -> list[str]:
    """Refuse a run of which something is finished or begun, where recordings of that have changed.

    Args:
        plan: The run.
        tested: Whether the test of a fold is finished.

    Returns:
        As `refuse_changed`.

    Raises:
        RequestError: As `refuse_changed`.
    """
    tables = [plan.corpus.table, *(replay.table for replay in plan.planner.replays.values())]
    changes = plan.corpus.index.changes(*tables)
    if changes == Changes():
        return []
    used = set[str]()
    steps = {place for each in plan.planned for step in each.steps for place in (step.folder.path, step.folder.working)}
    if not steps.issuperset(plan.folder.steps("*")):
        # Of other variants or seeds, or the final model: nobody knows what they have heard, but it was there then.
        used |= changes.changed
    for planned in plan.planned:
        hearing = [step.folder for step in planned.steps if step.folder.inputs["step"] != BACKBONE]
        if any(folder.finished or folder.begun for folder in hearing):
            parts = rows_of_parts(plan.corpus.table, planned.fold)
            used.update(plan.corpus.table.select([*parts["train"], *parts["dev"]])["id"])
            used.update(() if planned.replay is None else planned.replay["id"])
        if tested(planned):
            used.update(planned.test["id"])
    return refuse_changed(changes, used, plan.folder.path)


def refuse_changed(changes: Changes, used: Collection[str], folder: Path) -> list[str]:
    """Refuse to go on with a folder where recordings have changed of which something is finished or begun.

    Args:
        changes: What has become of the recordings.
        used: Ids of those that finished and begun steps and tests were made of.
        folder: The folder.

    Returns:
        One sentence where nobody can tell of some of them, else none.

    Raises:
        RequestError: Says how many there are, and names the first.
    """
    if changed := sorted((changes.changed | changes.new).intersection(used)):
        raise RequestError(
            f"{counted(len(changed), 'recording has', 'recordings have')} other samples than when {folder} was last "
            f"used, and steps that are finished or begun there heard them as they were: {first_few(changed, _SHOWN)}",
            "recordings that stay as they are, so that all numbers of a run are of the same sound",
            "put them back; if they are to stay so, choose another --output-dir",
        )
    if unclear := sorted(changes.unclear.intersection(used)):
        return [
            f"Of {counted(len(unclear), 'recording')} that finished or begun steps have heard, only size, beginning "
            f"and end were compared with what they were then, since {INDEX_FILE} in {folder} has no samples of them "
            f"to compare with, or `check_audio` is false: {first_few(unclear, _SHOWN)}"
        ]
    return []
