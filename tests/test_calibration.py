"""Temperature, log loss and expected calibration error."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import sklearn.metrics
from scipy.special import softmax

from gmp_atl_hf.evaluation.calibration import (
    TEMPERATURE_RANGE,
    expected_calibration_error,
    fit_temperature,
    reliability,
)


def sampled(temperature: float, size: int = 20_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose labels are drawn from softmax(logits / temperature)."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(scale=3.0, size=(size, 4))
    cumulative = softmax(logits / temperature, axis=1).cumsum(axis=1)
    return logits, (generator.random((size, 1)) > cumulative[:, :-1]).sum(axis=1)


def log_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    return sklearn.metrics.log_loss(labels, softmax(logits, axis=1), labels=range(logits.shape[1]))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5, 10.0])
def test_the_temperature_that_made_the_labels_is_found_again(temperature: float) -> None:
    assert fit_temperature(*sampled(temperature)) == pytest.approx(temperature, rel=0.06)


@pytest.mark.parametrize("seed", range(5))
def test_no_other_temperature_has_a_smaller_log_loss(seed: int) -> None:
    logits, labels = sampled(4.0, size=60, seed=seed)
    found = fit_temperature(logits, labels)
    grid = np.geomspace(*TEMPERATURE_RANGE, 500)
    losses = [log_loss(logits / temperature, labels) for temperature in grid]
    assert log_loss(logits / found, labels) <= min(losses) + 1e-12
    slow = scipy.optimize.minimize_scalar(
        lambda t: log_loss(logits / t, labels), bounds=TEMPERATURE_RANGE, method="bounded"
    )
    assert found == pytest.approx(slow.x, rel=1e-3)


def test_the_temperature_stays_in_its_range() -> None:
    logits = np.array([[2.0, 0.0], [0.0, 2.0]])
    assert fit_temperature(logits, [0, 1]) == TEMPERATURE_RANGE[0]
    assert fit_temperature(logits, [1, 0]) == TEMPERATURE_RANGE[1]
    assert fit_temperature(1e6 * logits, [1, 0]) == TEMPERATURE_RANGE[1]


def test_the_temperature_is_one_when_nothing_is_gained() -> None:
    assert fit_temperature(np.zeros((3, 4)), [0, 1, 2]) == 1.0
    assert fit_temperature(1e3 * np.eye(3), [0, 1, 2]) == 1.0


def test_the_calibration_error_by_hand() -> None:
    # Bin (0.5, 0.75]: confidences 0.6 and 0.7, one right: |1 - 1.3| = 0.3. Bin (0.75, 1]: 0.9, right: 0.1.
    probabilities = [[0.6, 0.4], [0.7, 0.3], [0.1, 0.9]]
    assert expected_calibration_error(probabilities, [0, 1, 1], bins=4) == pytest.approx(0.4 / 3)


def test_a_confidence_on_an_edge_belongs_to_the_lower_bin() -> None:
    # With two bins 0.5 is in (0, 0.5] and 0.6 in (0.5, 1]: gaps |0 - 0.5| and |1 - 0.6|, which would cancel in one bin.
    assert expected_calibration_error([[0.5, 0.5], [0.6, 0.4]], [1, 0], bins=2) == pytest.approx((0.5 + 0.4) / 2)
    assert expected_calibration_error([[1.0, 0.0]], [0]) == 0.0


def test_scores_at_the_right_temperature_are_calibrated_and_others_are_not() -> None:
    logits, labels = sampled(3.0)
    assert expected_calibration_error(softmax(logits / 3.0, axis=1), labels) < 0.02
    assert expected_calibration_error(softmax(logits, axis=1), labels) > 0.2


@pytest.mark.parametrize("function", [fit_temperature, expected_calibration_error])
def test_input_without_a_meaning_is_refused(function) -> None:
    half = [[0.5, 0.5]]
    for scores, labels, message in [
        (np.zeros((0, 2)), [], "empty"),
        (half, [2], "expected 0 to 1"),
        (half, [0, 1], "1 rows"),
        ([[np.nan, 0.5]], [0], "finite"),
        ([0.5, 0.5], [0, 1], "shape"),
    ]:
        with pytest.raises(ValueError, match=message):
            function(scores, labels)


def test_logits_are_not_mistaken_for_probabilities() -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        expected_calibration_error([[3.0, -1.0]], [0])
    with pytest.raises(ValueError, match="bins"):
        expected_calibration_error([[0.5, 0.5]], [0], bins=0)


def test_reliability_has_count_confidence_and_accuracy_of_each_bin() -> None:
    scores = [[0.95, 0.05], [0.9, 0.1], [0.4, 0.6], [0.5, 0.5]]
    counts, confidence, accuracy = reliability(scores, [0, 1, 1, 0], bins=10)
    assert counts.tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 1, 1]
    assert confidence[[4, 5, 8, 9]] == pytest.approx([0.5, 0.6, 0.9, 0.95])
    assert accuracy[[4, 5, 8, 9]] == pytest.approx([1, 1, 0, 1])
    assert np.isnan(confidence[0]) and np.isnan(accuracy[0])
