"""All metrics, each with one definition, written down here; those on confusion matrices are computed here too.

Definitions, for a fixed list of labels:

- WAR (weighted average recall) is the accuracy: correct utterances over all utterances.
- UAR (unweighted average recall) is the mean recall over the labels that occur in the references. A label without a
  reference has no recall; it is left out of the mean and should be listed beside the number (`absent_labels`).
- Macro F1 is the mean F1 over the same labels. Predictions of an absent label count as errors of the label they belong
  to, and add no term of their own.
- The recall of a label is the share of its utterances that were given this label; a confusion matrix has references in
  its rows and predictions in its columns.
- The expected calibration error (`calibration.expected_calibration_error`) sorts utterances by the score of their
  predicted label into 15 bins of equal width, open below and closed above, and averages the gap between mean score and
  accuracy of the bins, weighted by their utterances.
- The same numbers per gender are those of that gender's utterances alone, by the same rules.
- The gap between genders (`statistics.gender_gap`) is the UAR of female minus that of male speakers over the labels
  that both have. Its interval resamples speakers of each side apart; with fewer than three on a side there is none.

With references [0, 0, 1] and predictions [0, 2, 1] the UAR is (0.5 + 1) / 2 = 0.75 for any number of labels.

Over a run (`summary`): *pooled* numbers are computed over all test utterances of all folds of a seed and averaged over
seeds. The spread over seeds is the standard deviation (n - 1) of the pooled numbers of the seeds; the spread over folds
is that of the folds' means over seeds; the two are never mixed. Intervals resample test speakers, never utterances, and
are the 2.5th and 97.5th percentile of 2,000 samples, widened for few speakers (`statistics`); the paired test flips
signs of differences between speakers.

All functions on confusion matrices work over any leading axes, which is what makes resampling speakers cheap.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def label_indices(values: npt.ArrayLike, num_labels: int, what: str) -> IntArray:
    """Check label indices, shape (n,), from 0 to `num_labels` - 1, and return them as int64; errors call them `what`.

    Raises:
        ValueError: If the values are empty, not one-dimensional, not integers, or out of range.
    """
    array = np.asarray(values)
    if array.size == 0:
        raise ValueError(f"{what} are empty: there is nothing to score")
    if array.ndim != 1:
        raise ValueError(f"{what} have shape {array.shape}, expected one dimension")
    if array.dtype.kind not in "iu":
        raise ValueError(f"{what} have type {array.dtype}, expected integer label indices")
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= num_labels:
        raise ValueError(f"{what} run from {low} to {high}, expected 0 to {num_labels - 1} for {num_labels} labels")
    return array.astype(np.int64)


def confusion_matrix(references: npt.ArrayLike, predictions: npt.ArrayLike, num_labels: int) -> IntArray:
    """Count how often each label was predicted for each reference, both label indices of shape (n,).

    Returns:
        Counts of utterances, shape (C, C), int64: rows are references, columns are predictions.

    Raises:
        ValueError: If nothing is given, the lengths differ or a label is out of range.
    """
    true = label_indices(references, num_labels, "references")
    guess = label_indices(predictions, num_labels, "predictions")
    if true.shape != guess.shape:
        raise ValueError(f"{true.size} references but {guess.size} predictions")
    return np.bincount(true * num_labels + guess, minlength=num_labels**2).reshape(num_labels, num_labels)


def per_class_recall(confusion: npt.ArrayLike) -> FloatArray:
    """Recalls of confusions (..., C, C): (..., C) float64 from 0 to 1, NaN where a label has no reference."""
    matrix = np.asarray(confusion, dtype=np.float64)
    return _divide(np.diagonal(matrix, axis1=-2, axis2=-1), matrix.sum(axis=-1))


def war(confusion: npt.ArrayLike) -> FloatArray:
    """Weighted average recall, the accuracy, of confusions (..., C, C): (...) float64, NaN for one without a count."""
    matrix = np.asarray(confusion, dtype=np.float64)
    return _divide(np.trace(matrix, axis1=-2, axis2=-1), matrix.sum(axis=(-2, -1)))


def uar(confusion: npt.ArrayLike) -> FloatArray:
    """Unweighted average recall of confusions (..., C, C), over labels that occur in the references: (...) float64."""
    return _mean_of_present(per_class_recall(confusion), np.asarray(confusion))


def macro_f1(confusion: npt.ArrayLike) -> FloatArray:
    """Mean F1 of confusions (..., C, C), over the labels that occur in the references: (...) float64."""
    matrix = np.asarray(confusion, dtype=np.float64)
    hits = np.diagonal(matrix, axis1=-2, axis2=-1)
    scores = _divide(2 * hits, matrix.sum(axis=-1) + matrix.sum(axis=-2))
    return _mean_of_present(scores, matrix)


def metrics_of(confusion: npt.ArrayLike) -> dict[str, float]:
    """Return WAR, UAR and macro F1 of one confusion matrix (C, C), rows are references.

    Raises:
        ValueError: If the matrix holds no count at all.
    """
    matrix = np.asarray(confusion)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"confusion has shape {matrix.shape}, expected (labels, labels)")
    if matrix.sum() == 0:
        raise ValueError("confusion is empty: there is nothing to score")
    return {"war": float(war(matrix)), "uar": float(uar(matrix)), "macro_f1": float(macro_f1(matrix))}


def emotion_metrics(references: npt.ArrayLike, predictions: npt.ArrayLike, num_labels: int) -> dict[str, float]:
    """Score predicted emotions; both arguments are label indices of shape (n,).

    Returns:
        `{"war", "uar", "macro_f1"}`, fractions from 0 to 1.

    Raises:
        ValueError: If nothing is given, the lengths differ or a label is out of range.

    Example:
        >>> emotion_metrics([0, 0, 1], [0, 2, 1], num_labels=4)["uar"]
        0.75
    """
    return metrics_of(confusion_matrix(references, predictions, num_labels))


def absent_labels(references: npt.ArrayLike, labels: Sequence[str]) -> list[str]:
    """Name the labels that no reference, shape (n,), has, and that UAR and macro F1 therefore leave out."""
    present = {int(index) for index in np.asarray(references).ravel()}
    return [name for index, name in enumerate(labels) if index not in present]


def _divide(numerator: Any, denominator: Any) -> FloatArray:
    """Divide, giving NaN where the denominator is zero."""
    numerator, denominator = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)


def _mean_of_present(scores: FloatArray, matrix: npt.NDArray[Any]) -> FloatArray:
    """Average scores (..., C) over the labels with at least one reference in `matrix` (..., C, C)."""
    present = matrix.sum(axis=-1) > 0
    return _divide(np.where(present, scores, 0.0).sum(axis=-1), present.sum(axis=-1))
