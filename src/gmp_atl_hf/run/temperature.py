"""The temperature of a run's scores, which development speakers decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..evaluation.calibration import fit_temperature
from ..files import check_files, read_jsonl
from ..protocols.leakage import NO_TEST_SET, HeldOut
from ..run_folder.layout import DEV_LOGITS_FILE
from .fold_plan import PlannedFold
from .plan import RunPlan
from .search import choose_for_all, dev_logits_of


def development_temperature(
    plan: RunPlan, folds: Sequence[PlannedFold], held_out: HeldOut = NO_TEST_SET
) -> float | None:
    """Fit the temperature on development logits, each scored by its own fold's model.

    Args:
        plan: The run.
        folds: One fold or several, their fine-tuning done.
        held_out: What will be scored at this temperature, besides the test of each fold: development speakers of one
            fold are the test of another.

    Returns:
        The temperature; None without development speakers: there is nothing honest to calibrate on.

    Raises:
        RequestError: A test speaker is among those that the temperature would be fitted on.
    """
    # One fold is scored by the model that it chose, all together by a model of the settings that were best on average.
    shared = shared_settings(plan, folds) if len(folds) > 1 else None
    speaker_of = dict(zip(plan.corpus.table["id"], plan.corpus.table["speaker"], strict=True))
    rows = []
    for planned in folds:
        own = _dev_rows(planned.finetune.resolve(), shared)
        for tested in (planned.held_out, held_out):
            tested.refuse_recordings((row["id"] for row in own), "calibration")
            tested.refuse_speakers((speaker_of[row["id"]] for row in own), "calibration would use")
        rows += own
    if not rows:
        return None
    number = {label: index for index, label in enumerate(plan.labels)}
    logits = np.asarray([row["logits"] for row in rows])
    return fit_temperature(logits, [number[row["emotion"]] for row in rows])


def shared_settings(plan: RunPlan, folds: Sequence[PlannedFold]) -> dict[str, Any] | None:
    """The settings that were best over the searches of all folds, for one fold its own; None without a search."""
    return choose_for_all([planned.finetune.resolve() for planned in folds])[0] if plan.recipe.search else None


def _dev_rows(finetune: Path, settings: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Development logits of a finished fine-tuning: of the model it chose, or of the one with some settings."""
    file = finetune / DEV_LOGITS_FILE if settings is None else dev_logits_of(finetune, settings)
    check_files(finetune, file.name)
    return read_jsonl(file) if file.is_file() else []
