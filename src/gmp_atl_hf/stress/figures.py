"""What a condition does to the answers of a model: its figures, and how far they are from those of clean recordings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..evaluation.comparison import add_holm, compare_results
from ..evaluation.metrics import confusion_matrix, metrics_of, per_class_recall
from ..evaluation.results import FoldResult, align
from ..evaluation.statistics import speaker_bootstrap
from ..evaluation.unknown import named

Rows = list[dict[str, Any]]
"""Rows of predictions, of one condition."""

_OVER_SPEAKERS = (
    *("mean_difference", "ci95", "p", "p_holm", "smallest_attainable_p", "exact", "n", "ties"),
    "smallest_visible_difference",
)


def figures_of_conditions(conditions: Sequence[Rows], labels: list[str]) -> list[dict[str, Any]]:
    """Compare predictions under each condition with those of clean recordings.

    Args:
        conditions: The rows of each condition, of the same recordings in the same order; the first ones are clean.
        labels: All answers that the model may give.

    Returns:
        For each condition `war`, `uar`, `uar_ci95`, `per_class_recall` (None for labels without a recording),
        `uar_difference` to clean (pooled over all recordings) with `uar_difference_ci95` (the same speakers are drawn
        for both), `over_speakers` (mean over speakers of their differences, with a sign-flip test; p corrected for the
        number of conditions), `flip_rate`, the share of recordings whose label is another one than clean, and
        `score_change`, the mean absolute change of the score of the label that was given clean; fractions. What nobody
        can know is None: intervals of too few speakers, and scores of models that give values on scales.
    """
    clean = conditions[0]
    found = [_figures(rows, clean, labels) for rows in conditions]
    compared = [] if not _named(clean) else [_compared(rows, clean, labels) for rows in conditions[1:]]
    add_holm(compared)
    nothing = {"uar_difference_ci95": None, "over_speakers": None}
    for number, one in enumerate(found):
        one |= nothing | {"uar_difference": one["uar"] - found[0]["uar"]}
        if number and compared:
            other = compared[number - 1]
            one["uar_difference_ci95"] = other["pooled_ci95"]
            one["over_speakers"] = {name: other[name] for name in _OVER_SPEAKERS if name in other}
    return found


def worst_of(figures: Sequence[Mapping[str, Any]]) -> int | None:
    """The place of the condition with the lowest UAR; None where none is below clean recordings, the first ones."""
    place = min(range(len(figures)), key=lambda number: figures[number]["uar"])
    return place if figures[place]["uar"] < figures[0]["uar"] else None


def _figures(rows: Rows, clean: Rows, labels: list[str]) -> dict[str, Any]:
    block = align([FoldResult(0, 1, rows)], [0], [1], labels)
    confusion = confusion_matrix(block.references, block.predictions[0], len(labels))
    recalls = zip(labels, per_class_recall(confusion).tolist(), strict=True)
    scores = metrics_of(confusion)
    interval = None
    if _named(clean):
        interval = speaker_bootstrap(block.references, block.predictions, block.speakers.tolist(), len(labels))
    pairs = list(zip(rows, clean, strict=True))
    return {
        "war": scores["war"],
        "uar": scores["uar"],
        "uar_ci95": None if interval is None else list(interval),
        "per_class_recall": {label: None if np.isnan(recall) else recall for label, recall in recalls},
        "flip_rate": float(np.mean([one["predicted"] != before["predicted"] for one, before in pairs])),
        "score_change": _score_change(pairs),
    }


def _score_change(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> float | None:
    if not all("scores" in one for one, _ in pairs):
        return None
    winners = [(one["scores"], before["scores"], before["predicted"]) for one, before in pairs]
    return float(np.mean([abs(one[label] - before[label]) for one, before, label in winners]))


def _compared(rows: Rows, clean: Rows, labels: list[str]) -> dict[str, Any]:
    return compare_results([FoldResult(0, 1, rows)], [FoldResult(0, 1, clean)], labels)


def _named(rows: Rows) -> bool:
    return bool(named(row["speaker"] for row in rows).any())
