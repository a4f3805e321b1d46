"""Test predictions as they come from folds and seeds, checked and brought into arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from ..errors import counted
from .metrics import FloatArray, IntArray, confusion_matrix


@dataclass(frozen=True)
class FoldResult:
    """The test predictions of one fold of one seed.

    Args:
        seed: Seed of the training.
        fold: Number of the fold, from 1.
        predictions: One dictionary per test utterance: `id`, `speaker`, `gender` ("female", "male" or None),
            `emotion`, `predicted`, with `scores` (label → probability) for calibration, and anything else.
        temperature: What the scores' logits would be divided by, fitted on the fold's own development speakers; None
            where there are none.
        adapted: What was said of the same utterances by models that knew the speaker, see `adaptation`; None where
            nothing was adapted.
    """

    seed: int
    fold: int
    predictions: list[dict[str, Any]]
    temperature: float | None = None
    adapted: list[dict[str, Any]] | None = None


@dataclass(frozen=True)
class AlignedPredictions:
    """A complete seeds × folds block, one entry per utterance, aligned over seeds.

    `references` (n,) and `predictions` (seeds, n) are label indices; `folds_of` (n,) are fold numbers; `scores` and
    `calibrated` (seeds, n, C) are probabilities before and after the folds' temperatures, None where not all are known.
    """

    seeds: list[int]
    folds: list[int]
    ids: npt.NDArray[Any]
    references: IntArray
    predictions: IntArray
    speakers: npt.NDArray[Any]
    genders: npt.NDArray[Any]
    folds_of: IntArray
    scores: FloatArray | None = None
    calibrated: FloatArray | None = None

    def rows(self, labels: Sequence[str]) -> dict[str, tuple[str, str, str]]:
        """What was tested, whatever was predicted: id → speaker, gender and emotion."""
        names = [labels[index] for index in self.references]
        rows = zip(self.ids.tolist(), self.speakers.tolist(), self.genders.tolist(), names, strict=True)
        return {i: (speaker, gender, emotion) for i, speaker, gender, emotion in rows}

    def confusions(self, rows: npt.NDArray[Any], num_labels: int) -> IntArray:
        """Count the confusion matrix of some rows for each seed, shape (seeds, C, C)."""
        references = self.references[rows]
        return np.stack([confusion_matrix(references, guess[rows], num_labels) for guess in self.predictions])


def check_results(
    variant: str, results: Sequence[FoldResult], labels: list[str], folds_total: int, seeds: Sequence[int]
) -> None:
    """Refuse results that contradict the request or each other."""
    seen_pairs: set[tuple[int, int]] = set()
    seen_ids: dict[tuple[int, str], int] = {}
    content_of_fold: dict[int, dict[str, tuple[Any, ...]]] = {}
    for result in results:
        where = f"{variant}, seed {result.seed}, fold {result.fold}"
        if result.seed not in seeds:
            raise ValueError(f"{where}: the seed is none of {list(seeds)}")
        if not 1 <= result.fold <= folds_total:
            raise ValueError(f"{where}: the fold is not within 1 to {folds_total}")
        if (result.seed, result.fold) in seen_pairs:
            raise ValueError(f"{where}: this fold is given twice")
        seen_pairs.add((result.seed, result.fold))
        if not result.predictions:
            raise ValueError(f"{where}: no predictions")
        ids: set[str] = set()
        for row in result.predictions:
            for key in ("emotion", "predicted"):
                if row[key] not in labels:
                    raise ValueError(f"{where}, {row['id']}: {key} {row[key]!r} is none of {labels}")
            earlier = seen_ids.setdefault((result.seed, row["id"]), result.fold)
            if row["id"] in ids or earlier != result.fold:
                raise ValueError(f"{where}: id {row['id']!r} is tested twice (also in fold {earlier})")
            ids.add(row["id"])
        content = contents_of(result)
        refuse_other_rows(where, content_of_fold.setdefault(result.fold, content), content)


def contents_of(result: FoldResult) -> dict[str, tuple[Any, ...]]:
    """Return what must be the same wherever a fold is tested: speaker, gender and emotion, per id."""
    return {row["id"]: (row["speaker"], row.get("gender"), row["emotion"]) for row in result.predictions}


def refuse_other_rows(where: str, first: dict[str, tuple[Any, ...]], second: dict[str, tuple[Any, ...]]) -> None:
    """Refuse two versions of one fold whose utterances, speakers, genders or emotions differ."""
    differing = sorted(i for i in first.keys() | second.keys() if first.get(i) != second.get(i))
    if differing:
        shown = ", ".join(differing[:5]) + (", …" if len(differing) > 5 else "")
        differ = counted(len(differing), "utterance differs", "utterances differ")
        raise ValueError(f"{where}: {differ} from the same fold elsewhere: {shown}")


def choose_block(
    results: Sequence[FoldResult], seeds: Sequence[int]
) -> tuple[list[int], list[int], list[dict[str, int]]]:
    """Return the seeds and folds of the block, and the (seed, fold) pairs outside it."""
    folds_of_seed = {seed: {r.fold for r in results if r.seed == seed} for seed in dict.fromkeys(seeds)}

    def rank(seed: int) -> tuple[int, int]:
        own = folds_of_seed[seed]
        return len(own), sum(own <= others for others in folds_of_seed.values())

    # max() keeps the first of equals, so the order of the seeds decides last.
    folds = folds_of_seed[max(folds_of_seed, key=rank)] if folds_of_seed else set()
    chosen = [seed for seed, own in folds_of_seed.items() if folds and folds <= own]
    outside = sorted((r.seed, r.fold) for r in results if r.seed not in chosen or r.fold not in folds)
    return chosen, sorted(folds), [{"seed": seed, "fold": fold} for seed, fold in outside]


def align(results: Sequence[FoldResult], seeds: list[int], folds: list[int], labels: list[str]) -> AlignedPredictions:
    """Bring the predictions of a block into arrays with the same utterance order for every seed."""
    by_pair = {(result.seed, result.fold): result for result in results}

    def rows_of(seed: int) -> list[tuple[FoldResult, dict[str, Any]]]:
        of_folds = [by_pair[seed, fold] for fold in folds]
        return [(result, row) for result in of_folds for row in sorted(result.predictions, key=lambda r: str(r["id"]))]

    by_seed = [rows_of(seed) for seed in seeds]
    first = by_seed[0]
    scores = calibrated = None
    if all("scores" in row for result in results for row in result.predictions):
        scores = np.array(
            [[[row["scores"][label] for label in labels] for _, row in rows] for rows in by_seed], np.float64
        )
        # None becomes NaN, and so would the scores of any fold without a temperature.
        temperatures = np.array([[result.temperature for result, _ in rows] for rows in by_seed], np.float64)
        if not np.isnan(temperatures).any():
            # Log-probabilities are logits up to a constant per utterance, which a softmax does not see.
            logits = np.log(np.maximum(scores, np.finfo(np.float64).tiny)) / temperatures[:, :, None]
            calibrated = softmax(logits, axis=-1)
    return AlignedPredictions(
        seeds=seeds,
        folds=folds,
        ids=np.array([str(row["id"]) for _, row in first]),
        references=np.array([labels.index(row["emotion"]) for _, row in first], np.int64),
        predictions=np.array([[labels.index(row["predicted"]) for _, row in rows] for rows in by_seed], np.int64),
        speakers=np.array([str(row["speaker"]) for _, row in first]),
        genders=np.array([str(row.get("gender") or "unknown") for _, row in first]),
        folds_of=np.array([result.fold for result, _ in first], np.int64),
        scores=scores,
        calibrated=calibrated,
    )


def is_speaker_independent(protocol: Mapping[str, Any]) -> bool:
    """Whether no test speaker was trained on; a report's protocol says so where one was."""
    return protocol.get("speaker_independent", True) is not False
