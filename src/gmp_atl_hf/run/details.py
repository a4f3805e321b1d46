"""Collects from the finished steps of a run what the report's pictures show beside test results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet  # type: ignore[import-untyped]

from ..files import check_files, read_json
from ..pseudo_labels.codebook import PROVENANCE_FILE
from ..pseudo_labels.label_file import LABELS_FILE
from ..report.details import ClusterUsage, TrainingDiagnostics, TrainingLog
from ..run_folder.layout import STEP_NAMES, TRAINING_FILE
from .fold_plan import PlannedFold
from .plan import RunPlan


def collect_details(plan: RunPlan) -> TrainingDiagnostics:
    """Read the logs of all finished trainings, and the frame labels of each variant's first fold that has some."""
    logs: dict[str, list[TrainingLog]] = {name: [] for name in plan.variants}
    usage: dict[str, list[ClusterUsage]] = {}
    counted: set[Path] = set()
    for planned in plan.planned:
        for stage in STEP_NAMES:
            step = planned.find(stage)
            if step is None or not step.finished:
                continue
            folder = step.resolve()
            if stage != "pseudo-labels":
                training = read_json(folder / TRAINING_FILE)
                entry = TrainingLog(stage, planned.seed, planned.fold.number, training["best_step"], training["log"])
                logs[planned.variant].append(entry)
            elif planned.variant not in usage and folder not in counted:
                # What another variant has labelled already looks the same there.
                counted.add(folder)
                usage[planned.variant] = cluster_usage(folder, planned, plan.labels)
    return TrainingDiagnostics(logs, usage)


def cluster_usage(folder: Path, planned: PlannedFold, labels: list[str]) -> list[ClusterUsage]:
    """Count how often each cluster of a finished step occurs in each emotion of the training rows.

    Returns:
        One entry per scale, small numbers of clusters first.
    """
    emotions = dict(zip(planned.train["id"], planned.train["emotion"], strict=True))
    check_files(folder, LABELS_FILE)
    table = pyarrow.parquet.read_table(folder / LABELS_FILE)
    rows = [row for row, name in enumerate(table["id"].to_pylist()) if name in emotions]
    table = table.take(rows)
    owners = np.array([emotions[name] for name in table["id"].to_pylist()], np.int64)
    found = []
    for scale, facts in read_json(folder / PROVENANCE_FILE)["scales"].items():
        column = table[scale].combine_chunks()
        frames = np.asarray(column.flatten(), np.int64)
        lengths = np.asarray(column.value_lengths(), np.int64)
        k = int(facts["k"])
        cells = np.repeat(owners, lengths) * k + frames
        counts = np.bincount(cells, minlength=len(labels) * k).reshape(len(labels), k)
        found.append(ClusterUsage(scale, planned.seed, planned.fold.number, counts))
    return sorted(found, key=lambda one: one.counts.shape[1])
