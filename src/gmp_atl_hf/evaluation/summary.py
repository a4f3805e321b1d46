"""Everything the report says of one variant, computed from its test predictions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import counted
from .adaptation import adaptation_summary
from .calibration import BINS, expected_calibration_error, reliability
from .genders import genders_of_speakers
from .metrics import FloatArray, absent_labels, macro_f1, metrics_of, per_class_recall, uar, war
from .results import AlignedPredictions, FoldResult, align, choose_block
from .statistics import MIN_SPEAKERS, MIN_SPEAKERS_A_SIDE, gender_gap, speaker_bootstrap, utterance_bootstrap
from .unknown import named

NOT_SPEAKER_INDEPENDENT = "not speaker-independent"
RESAMPLES = 2000
INTERVAL = f"95 % interval, widened for few speakers (Student's t), from {RESAMPLES} resamples"
METRICS = {"war": war, "uar": uar, "macro_f1": macro_f1}


def variant_summary(
    results: Sequence[FoldResult], labels: list[str], folds_total: int, seeds: Sequence[int], independent: bool
) -> dict[str, Any]:
    """Compute everything that stands under `variants.<name>`."""
    chosen, folds, outside = choose_block(results, seeds)
    head = {
        "folds_done": f"{len(folds)} of {folds_total} folds",
        "seeds_done": f"{len(chosen)} of {len(seeds)} seeds",
        "folds": folds,
        "seeds": chosen,
        "not_counted": outside,
    }
    if not folds:
        return {**head, **_empty_summary(labels)}
    block = align(results, chosen, folds, labels)
    confusions = np.stack([block.confusions(block.folds_of == fold, len(labels)) for fold in folds], axis=1)
    pooled = confusions.sum(axis=1)
    absent = absent_labels(block.references, labels)
    interval, note = uar_interval(block, labels, independent)
    genders = (None if gender == "unknown" else gender for gender in block.genders.tolist())
    people = genders_of_speakers(zip(block.speakers.tolist(), genders, strict=True))
    adaptation = adaptation_summary(results, block, labels)
    return {
        **head,
        "utterances": int(block.references.size),
        "speakers": _known_speakers(block.speakers),
        "unknown_utterances": _of_unknown(block),
        **{metric: _spreads(function(confusions), function(pooled)) for metric, function in METRICS.items()},
        "uar_ci95": interval,
        "uar_ci95_note": note,
        "chance_uar": 1 / (len(labels) - len(absent)),
        "per_class_recall": dict(zip(labels, _nan_to_none(per_class_recall(pooled).mean(axis=0)), strict=True)),
        "absent_labels": absent,
        "confusion": pooled.mean(axis=0).tolist(),
        "calibration": _calibration(block, np.full(block.references.size, True)),
        "per_gender": {g: _whole_group(block, block.genders == g, labels) for g in sorted(set(block.genders.tolist()))},
        "gender_gap": _gender_gap(block, labels, independent),
        "per_corpus": _per_corpus(block, labels),
        "per_speaker": {
            s: _speaker(block, block.speakers == s, gender or "unknown", labels) for s, gender in sorted(people.items())
        },
        "per_fold": [{"fold": fold, **_group(block, block.folds_of == fold, labels)} for fold in folds],
        "per_seed": [{"seed": seed, **metrics_of(pooled[i])} for i, seed in enumerate(chosen)],
        **({} if adaptation is None else {"adaptation": adaptation}),
        **_not_adapted(results),
    }


def _not_adapted(results: Sequence[FoldResult]) -> dict[str, int]:
    """How many tests have no predictions by speaker, where others have: there is no table of them then."""
    missing = sum(result.adapted is None for result in results)
    return {"tests_not_adapted": missing} if 0 < missing < len(results) else {}


def _empty_summary(labels: list[str]) -> dict[str, Any]:
    """Return the numbers of a variant that has not finished a fold: the same keys, nothing known."""
    spreads = dict.fromkeys(("pooled", "folds_mean", "folds_std", "seeds_mean", "seeds_std"))
    return {
        "utterances": 0,
        "speakers": 0,
        "unknown_utterances": 0,
        **{metric: dict(spreads) for metric in METRICS},
        "uar_ci95": None,
        "uar_ci95_note": "no interval: no fold is finished",
        "chance_uar": None,
        "per_class_recall": dict.fromkeys(labels),
        "absent_labels": [],
        "confusion": None,
        "calibration": None,
        "per_gender": {},
        "gender_gap": None,
        "per_corpus": {},
        "per_speaker": {},
        "per_fold": [],
        "per_seed": [],
    }


def _spreads(folds: FloatArray, pooled: FloatArray) -> dict[str, float | None]:
    """Summarise a metric: `folds` (seeds, folds) holds one value per fold, `pooled` (seeds,) one per seed."""
    fold_means = folds.mean(axis=0)
    return {
        "pooled": float(pooled.mean()),
        "folds_mean": float(fold_means.mean()),
        "folds_std": float(fold_means.std(ddof=1)) if fold_means.size > 1 else None,
        "seeds_mean": float(pooled.mean()),
        "seeds_std": float(pooled.std(ddof=1)) if pooled.size > 1 else None,
    }


def _group(block: AlignedPredictions, rows: npt.NDArray[Any], labels: list[str]) -> dict[str, Any]:
    """Score some of the utterances, averaged over seeds."""
    confusions = block.confusions(rows, len(labels))
    return {
        **{metric: float(function(confusions).mean()) for metric, function in METRICS.items()},
        "utterances": int(rows.sum()),
        "speakers": _known_speakers(block.speakers[rows]),
        "absent_labels": absent_labels(block.references[rows], labels),
    }


def _whole_group(block: AlignedPredictions, rows: npt.NDArray[Any], labels: list[str]) -> dict[str, Any]:
    """Score some of the utterances by every metric there is."""
    confusions = block.confusions(rows, len(labels))
    calibration = _calibration(block, rows)
    return {
        **_group(block, rows, labels),
        "per_class_recall": dict(zip(labels, _nan_to_none(per_class_recall(confusions).mean(axis=0)), strict=True)),
        "confusion": confusions.mean(axis=0).tolist(),
        "ece": None if calibration is None else calibration["ece"],
        "ece_calibrated": None if calibration is None else calibration["ece_calibrated"],
    }


def _speaker(block: AlignedPredictions, rows: npt.NDArray[Any], gender: str, labels: list[str]) -> dict[str, Any]:
    """Score one speaker, with an interval that says how far their few utterances carry."""
    interval = utterance_bootstrap(block.references[rows], block.predictions[:, rows], len(labels))
    return {
        **_group(block, rows, labels),
        "gender": gender,
        "uar_ci95": None if interval is None else list(interval),
    }


def _per_corpus(block: AlignedPredictions, labels: list[str]) -> dict[str, Any]:
    """Score each corpus apart where the test has several; the id of an utterance starts with that of the corpus."""
    corpora = np.array([utterance.partition("/")[0] for utterance in block.ids.tolist()])
    names = sorted(set(corpora.tolist()))
    return {name: _group(block, corpora == name, labels) for name in names} if len(names) > 1 else {}


def _calibration(block: AlignedPredictions, rows: npt.NDArray[Any]) -> dict[str, Any] | None:
    """Compare confidence and accuracy, pooled over folds and averaged over seeds."""
    if block.scores is None:
        return None
    true = block.references[rows]
    plain: dict[str, Any] = {"bins": BINS, "ece": None, "ece_calibrated": None, "reliability_calibrated": None}
    for suffix, scores in (("", block.scores), ("_calibrated", block.calibrated)):
        if scores is not None:
            per_seed = [own[rows] for own in scores]
            plain[f"ece{suffix}"] = float(np.mean([expected_calibration_error(own, true) for own in per_seed]))
            # A diagram over all seeds at once: an utterance counts once for each.
            counts, confidence, accuracy = reliability(np.concatenate(per_seed), np.tile(true, len(per_seed)))
            plain[f"reliability{suffix}"] = {
                "utterances": (counts / len(per_seed)).tolist(),
                "confidence": _nan_to_none(confidence),
                "accuracy": _nan_to_none(accuracy),
            }
    return plain


def _gender_gap(block: AlignedPredictions, labels: list[str], independent: bool) -> dict[str, Any] | None:
    """Compare female and male speakers, with the sentence that explains the interval or its absence."""
    speakers = block.speakers.tolist()
    gap = gender_gap(
        block.references, block.predictions, speakers, block.genders.tolist(), len(labels), samples=RESAMPLES
    )
    if gap is None:
        return None
    female, male = gap.speakers
    sides = f"{counted(female, 'female speaker')} and {counted(male, 'male speaker')}"
    of_a_side = np.isin(block.genders, ("female", "male")) & ~named(speakers)
    interval = gap.interval if independent else None
    if not independent:
        note = f"no interval: {NOT_SPEAKER_INDEPENDENT}"
    elif of_a_side.any():
        note = f"no interval: {counted(int(of_a_side.sum()), 'utterance')} of unknown speakers are among them"
    elif interval is None:
        note = f"no interval: {sides}, at least {MIN_SPEAKERS_A_SIDE} a side are needed"
    else:
        note = f"{INTERVAL} of {sides}"
    return {
        "uar_difference": gap.difference,
        "ci95": None if interval is None else list(interval),
        "labels": [labels[index] for index in gap.labels],
        "speakers": {"female": female, "male": male},
        "note": note,
    }


def uar_interval(block: AlignedPredictions, labels: list[str], independent: bool) -> tuple[list[float] | None, str]:
    """Return the interval of the pooled UAR, if it means anything, and the sentence that explains it."""
    count = _known_speakers(block.speakers)
    without = _left_out(_of_unknown(block))
    if not independent:
        return None, f"no interval: {NOT_SPEAKER_INDEPENDENT}"
    interval = speaker_bootstrap(
        block.references, block.predictions, block.speakers.tolist(), len(labels), samples=RESAMPLES
    )
    if interval is None:
        return None, f"no interval: {counted(count, 'test speaker')}{without}, at least {MIN_SPEAKERS} are needed"
    if without:  # else the interval could be read as one of a number that it need not hold
        known = named(block.speakers.tolist())
        without += f", whose UAR is {100 * float(uar(block.confusions(known, len(labels))).mean()):.1f} %"
    return list(interval), f"{INTERVAL} of {counted(count, 'test speaker')}{without}"


def _known_speakers(speakers: npt.NDArray[Any]) -> int:
    """How many people of some utterances somebody has named."""
    return int(named(np.unique(speakers).tolist()).sum())


def _of_unknown(block: AlignedPredictions) -> int:
    """How many utterances are of speakers whom nobody has named."""
    return int((~named(block.speakers.tolist())).sum())


def _left_out(utterances: int) -> str:
    """What stands behind the speakers who are resampled, where utterances of others are left out."""
    return f" (without {counted(utterances, 'utterance')} of unknown speakers)" if utterances else ""


def variant_notes(variant: str, summary: Mapping[str, Any]) -> list[str]:
    """Say in words what a reader of one variant's numbers could otherwise miss."""
    notes = []
    if summary["absent_labels"]:
        notes.append(
            f"{variant}: no test utterance of {', '.join(summary['absent_labels'])}; UAR and macro F1 are means over "
            "the other labels."
        )
    if summary["utterances"] and summary["uar_ci95"] is None:
        notes.append(f"{variant}: {summary['uar_ci95_note']}.")
    if summary.get("unknown_utterances"):
        notes.append(
            f"{variant}: {counted(summary['unknown_utterances'], 'utterance')} of unknown speakers: in WAR, UAR and "
            "macro F1, but not where speakers are counted, resampled or compared."
        )
    if summary["not_counted"]:
        pairs = ", ".join(f"seed {pair['seed']} fold {pair['fold']}" for pair in summary["not_counted"])
        notes.append(f"{variant}: finished but not counted, since other seeds or folds are missing: {pairs}.")
    if summary.get("tests_not_adapted"):
        notes.append(
            f"{variant}: UAR with recordings of the test speakers known is not shown, since "
            f"{counted(summary['tests_not_adapted'], 'test')} ran without it, by an earlier version or on a model "
            "that does not standardise."
        )
    return notes


def _nan_to_none(values: FloatArray) -> list[float | None]:
    return [None if math.isnan(value) else float(value) for value in values]
