"""What the temperature does to speakers that neither training nor temperature has heard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from gmp_atl_hf.evaluation.calibration import expected_calibration_error, fit_temperature, log_loss
from gmp_atl_hf.evaluation.metrics import FloatArray, IntArray


@dataclass(frozen=True)
class FoldScores:
    """Logits of one fold of one seed, of the fold's own model at temperature 1.

    Logits may be log-probabilities: a constant per utterance changes nothing.

    Args:
        seed: Seed of the training.
        dev_logits: Development utterances, shape (m, C).
        dev_labels: Their label indices, shape (m,).
        test_logits: Test utterances, shape (n, C).
        test_labels: Their label indices, shape (n,).
    """

    seed: int
    dev_logits: npt.ArrayLike
    dev_labels: npt.ArrayLike
    test_logits: npt.ArrayLike
    test_labels: npt.ArrayLike


@dataclass(frozen=True)
class CalibrationGain:
    """Calibration on test speakers without and with the temperature, pooled over folds, averaged over seeds.

    Args:
        ece_before: Expected calibration error with T = 1, a fraction.
        ece_after: The same with each fold's own temperature.
        log_loss_before: Mean log loss with T = 1, in nats.
        log_loss_after: The same with each fold's own temperature.
        temperatures: One for each fold of each seed, in their order.
        utterances: Test utterances of one seed.
    """

    ece_before: float
    ece_after: float
    log_loss_before: float
    log_loss_after: float
    temperatures: tuple[float, ...]
    utterances: int


def calibration_gain(folds: Sequence[FoldScores]) -> CalibrationGain | None:
    """Compare T = 1 with temperatures fitted on development speakers.

    Each fold is scored by its own model and at its own temperature, which only that fold's development speakers have
    seen: no test speaker has a say.

    Args:
        folds: All folds of all seeds.

    Returns:
        The comparison; None without folds.
    """
    if not folds:
        return None
    temperatures = [fit_temperature(fold.dev_logits, fold.dev_labels) for fold in folds]
    before, after = [], []
    utterances = 0
    for seed in dict.fromkeys(fold.seed for fold in folds):
        mine = [(fold, t) for fold, t in zip(folds, temperatures, strict=True) if fold.seed == seed]
        labels: IntArray = np.concatenate([np.asarray(fold.test_labels, dtype=np.int64) for fold, _ in mine])
        plain = np.concatenate([_probabilities(fold.test_logits, 1.0) for fold, _ in mine])
        scaled = np.concatenate([_probabilities(fold.test_logits, t) for fold, t in mine])
        before.append((expected_calibration_error(plain, labels), log_loss(plain, labels)))
        after.append((expected_calibration_error(scaled, labels), log_loss(scaled, labels)))
        utterances = len(labels)
    return CalibrationGain(
        ece_before=fmean(ece for ece, _ in before),
        ece_after=fmean(ece for ece, _ in after),
        log_loss_before=fmean(loss for _, loss in before),
        log_loss_after=fmean(loss for _, loss in after),
        temperatures=tuple(temperatures),
        utterances=utterances,
    )


def _probabilities(logits: npt.ArrayLike, temperature: float) -> FloatArray:
    probabilities: FloatArray = softmax(np.asarray(logits, dtype=np.float64) / temperature, axis=1)
    return probabilities
