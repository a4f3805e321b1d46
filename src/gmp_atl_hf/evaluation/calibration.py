"""Whether scores mean what they say: temperature and expected calibration error."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import log_softmax, softmax

from ..errors import RequestError, counted
from .metrics import FloatArray, IntArray, label_indices

TEMPERATURE_RANGE = (0.05, 100.0)
"""Smallest and largest temperature. Development data without an error would ask for zero, chance for infinity."""

BINS = 15
"""Bins of the expected calibration error, of equal width."""


def fit_temperature(logits: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Find the temperature T that minimises the mean log loss of softmax(logits / T); 1.0 when none is better.

    The loss is convex in 1 / T, so its only minimum is where the slope in 1 / T changes sign, or at an end of
    `TEMPERATURE_RANGE`.

    Args:
        logits: Unscaled logits of development utterances, shape (n, C).
        labels: True label indices, shape (n,).

    Raises:
        ValueError: If nothing is given, shapes do not fit, a logit is not finite or a label is out of range.
    """
    scores, true = _checked(logits, labels, "logits")
    rows = np.arange(true.size)

    def loss(temperature: float) -> float:
        return float(-log_softmax(scores / temperature, axis=1)[rows, true].mean())

    def slope(inverse: float) -> float:
        expected = (softmax(scores * inverse, axis=1) * scores).sum(axis=1)
        return float((expected - scores[rows, true]).mean())

    coldest, hottest = TEMPERATURE_RANGE
    if slope(1 / hottest) >= 0:
        best = hottest
    elif slope(1 / coldest) <= 0:
        best = coldest
    else:
        best = min(max(1 / float(brentq(slope, 1 / hottest, 1 / coldest, xtol=1e-12)), coldest), hottest)
    return best if loss(1.0) - loss(best) > 1e-12 else 1.0


def fit_logit_temperature(model: Any, output: Any) -> float:
    """Set a model's `config.logit_temperature` to the one that minimises the log loss of what it has predicted.

    Args:
        model: An emotion model; its present temperature is in the logits.
        output: `predictions`, (n, C) emotion logits, and `label_ids`, (n,), -100 where there is none.

    Raises:
        RequestError: The model predicts no emotions, or none of the rows has one.
    """
    labels = np.asarray(output.label_ids)
    known = labels >= 0
    if "labels" not in model.target_names or not known.any():
        raise RequestError(
            f"{type(model).__name__} and {counted(int(known.sum()), 'recording')} with an emotion",
            "a model of emotions, and recordings whose emotion is known",
            "calibrate the fine-tuned model on the development rows",
        )
    logits = np.asarray(output.predictions, dtype=np.float64) * model.config.logit_temperature
    fitted = fit_temperature(logits[known], labels[known])
    if fitted in TEMPERATURE_RANGE:
        right = 100 * float((logits[known].argmax(1) == labels[known]).mean())
        warnings.warn(
            f"the temperature is {fitted:g}, an end of its range: scores cannot be calibrated by "
            f"{counted(int(known.sum()), 'recording')}, of which {right:.0f} % are told right. "
            + ("Use more of them" if fitted < 1 else "Use more of them, or train the model further"),
            stacklevel=3,
        )
    model.config.logit_temperature = fitted
    return float(model.config.logit_temperature)


def expected_calibration_error(probabilities: npt.ArrayLike, labels: npt.ArrayLike, bins: int = BINS) -> float:
    """Return the mean gap between confidence and accuracy, from 0 to 1; arguments are those of `reliability`.

    The gaps of the bins are weighted by their number of utterances.
    """
    counts, confidence, accuracy = reliability(probabilities, labels, bins)
    filled = counts > 0
    return float((counts[filled] * np.abs(accuracy[filled] - confidence[filled])).sum() / counts.sum())


def reliability(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, bins: int = BINS
) -> tuple[IntArray, FloatArray, FloatArray]:
    """Sort utterances by the probability of their predicted label, for a reliability diagram.

    Args:
        probabilities: Scores that sum to 1 per row, shape (n, C).
        labels: True label indices, shape (n,).
        bins: Number of bins of equal width from 0 to 1, open below and closed above.

    Returns:
        Per bin the number of utterances, their mean confidence and their accuracy, each of shape (bins,); NaN for the
        last two in empty bins.

    Raises:
        ValueError: If nothing is given, shapes do not fit, a row is no distribution, a label is out of range or there
            is no bin.
    """
    if bins < 1:
        raise ValueError(f"bins is {bins}, expected at least 1")
    scores, true = _checked_probabilities(probabilities, labels)
    confidence = np.clip(scores.max(axis=1), 0.0, 1.0)
    correct = (scores.argmax(axis=1) == true).astype(np.float64)
    bin_of = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(bin_of, minlength=bins)
    empty = np.full(bins, np.nan)
    means = [
        np.divide(np.bincount(bin_of, weights=values, minlength=bins), counts, out=empty.copy(), where=counts > 0)
        for values in (confidence, correct)
    ]
    return counts, means[0], means[1]


def _checked(scores: npt.ArrayLike, labels: npt.ArrayLike, what: str) -> tuple[FloatArray, IntArray]:
    matrix = np.asarray(scores, dtype=np.float64)
    if matrix.size == 0:
        raise ValueError(f"{what} are empty: there is nothing to calibrate on")
    if matrix.ndim != 2:
        raise ValueError(f"{what} have shape {matrix.shape}, expected (utterances, labels)")
    if not np.isfinite(matrix).all():
        raise ValueError(f"{what} must be finite")
    true = label_indices(labels, matrix.shape[1], "labels")
    if true.size != len(matrix):
        raise ValueError(f"{len(matrix)} rows of {what} but {true.size} labels")
    return matrix, true


def _checked_probabilities(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[FloatArray, IntArray]:
    matrix, true = _checked(probabilities, labels, "probabilities")
    # Single precision and rounding in a file of predictions leave sums a little off.
    if (matrix < 0).any() or np.abs(matrix.sum(axis=1) - 1).max() > 1e-3:
        raise ValueError("each row of probabilities must be non-negative and sum to 1; logits need a softmax first")
    return matrix, true
