"""WAR, UAR, macro F1 and the evaluate metric."""

from __future__ import annotations

import datasets
import evaluate
import numpy as np
import pytest
import sklearn.metrics
import torch

from gmp_atl_hf.evaluation.evaluate_metric import SpeechEmotionMetric
from gmp_atl_hf.evaluation.metrics import (
    absent_labels,
    confusion_matrix,
    emotion_metrics,
    macro_f1,
    metrics_of,
    per_class_recall,
    uar,
    war,
)


def random_case(seed: int) -> tuple[np.ndarray, np.ndarray, int]:
    """References that often lack a label, predictions that may use any."""
    generator = np.random.default_rng(seed)
    num_labels = int(generator.integers(2, 9))
    present = generator.choice(num_labels, size=int(generator.integers(1, num_labels + 1)), replace=False)
    size = int(generator.integers(1, 60))
    return generator.choice(present, size=size), generator.integers(num_labels, size=size), num_labels


def sklearn_metrics(references: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    present = np.unique(references)
    options = {"labels": present, "average": "macro", "zero_division": 0}
    return {
        "war": sklearn.metrics.accuracy_score(references, predictions),
        "uar": sklearn.metrics.recall_score(references, predictions, **options),
        "macro_f1": sklearn.metrics.f1_score(references, predictions, **options),
    }


def test_rows_of_the_confusion_matrix_are_references() -> None:
    matrix = confusion_matrix([0, 0, 1, 2], [0, 2, 2, 2], 3)
    assert matrix.dtype == np.int64
    assert matrix.tolist() == [[1, 0, 1], [0, 0, 1], [0, 0, 1]]


def test_the_definitions_by_hand_with_all_labels_present() -> None:
    # Recalls 1/2, 0, 1; precisions 1, none, 1/3; F1 2/3, 0, 1/2.
    result = emotion_metrics([0, 0, 1, 2], [0, 2, 2, 2], 3)
    assert result == pytest.approx({"war": 2 / 4, "uar": 1.5 / 3, "macro_f1": (2 / 3 + 0 + 1 / 2) / 3})


@pytest.mark.parametrize("num_labels", [3, 4, 7])
def test_a_label_absent_from_the_references_never_enters_the_mean(num_labels: int) -> None:
    # Label 2 is predicted but never true: it costs label 0 recall, and is no term of its own.
    result = emotion_metrics([0, 0, 1], [0, 2, 1], num_labels)
    assert result == pytest.approx({"war": 2 / 3, "uar": (1 / 2 + 1) / 2, "macro_f1": (2 / 3 + 1) / 2})


def test_a_present_label_that_is_never_predicted_counts_as_zero() -> None:
    assert emotion_metrics([0, 1], [0, 0], 2) == pytest.approx({"war": 0.5, "uar": 0.5, "macro_f1": 1 / 3})


def test_the_recall_of_an_absent_label_is_nan_and_the_label_is_named() -> None:
    recalls = per_class_recall(confusion_matrix([0, 0, 2], [0, 1, 2], 4))
    np.testing.assert_array_equal(recalls, [0.5, np.nan, 1.0, np.nan])
    assert absent_labels([0, 0, 2], ["anger", "disgust", "fear", "joy"]) == ["disgust", "joy"]
    assert absent_labels([], ["anger", "joy"]) == ["anger", "joy"]


@pytest.mark.parametrize("seed", range(40))
def test_every_metric_agrees_with_scikit_learn(seed: int) -> None:
    references, predictions, num_labels = random_case(seed)
    expected = sklearn_metrics(references, predictions)
    assert emotion_metrics(references, predictions, num_labels) == pytest.approx(expected)
    matrix = confusion_matrix(references, predictions, num_labels)
    expected_matrix = sklearn.metrics.confusion_matrix(references, predictions, labels=range(num_labels))
    np.testing.assert_array_equal(matrix, expected_matrix)


def test_leading_axes_are_scored_one_by_one() -> None:
    cases = [confusion_matrix(*random_case(seed)[:2], 9) for seed in range(6)]
    stacked = np.stack(cases).reshape(2, 3, 9, 9)
    for function in (war, uar, macro_f1, per_class_recall):
        flat = [function(case) for case in cases]
        np.testing.assert_array_equal(function(stacked).reshape(6, *flat[0].shape), flat)


@pytest.mark.parametrize(
    ("references", "predictions", "message"),
    [
        ([], [], "references are empty"),
        ([0, 3], [0, 0], "references run from 0 to 3"),
        ([0, 1], [0, -1], "predictions run from -1 to 0"),
        ([0, 1], [0], "2 references but 1 predictions"),
        ([0.0, 1.0], [0, 1], "float64"),
        ([[0, 1]], [[0, 1]], "one dimension"),
    ],
)
def test_input_without_a_meaning_is_refused(references: list, predictions: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        emotion_metrics(references, predictions, 3)


def test_an_empty_confusion_matrix_has_no_metrics() -> None:
    with pytest.raises(ValueError, match="nothing to score"):
        metrics_of(np.zeros((3, 3)))
    with pytest.raises(ValueError, match="shape"):
        metrics_of(np.ones((2, 3)))


@pytest.fixture
def metric(tmp_path, monkeypatch: pytest.MonkeyPatch) -> SpeechEmotionMetric:
    import socket

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("the metric opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    return SpeechEmotionMetric(cache_dir=str(tmp_path))


@pytest.mark.parametrize("seed", range(5))
def test_the_evaluate_metric_works_offline_and_agrees_with_scikit_learn(metric: SpeechEmotionMetric, seed: int) -> None:
    references, predictions, _ = random_case(seed)
    assert metric.compute(references=references, predictions=predictions) == pytest.approx(
        sklearn_metrics(references, predictions)
    )


def test_the_evaluate_metric_adds_up_batches(metric: SpeechEmotionMetric) -> None:
    metric.add_batch(references=[0, 0], predictions=[0, 2])
    metric.add(reference=1, prediction=1)
    assert metric.compute()["uar"] == 0.75


class Accuracy(evaluate.Metric):
    """What somebody else's metric looks like to ours."""

    def _info(self) -> evaluate.MetricInfo:
        features = {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
        return evaluate.MetricInfo(
            description="", citation="", inputs_description="", features=datasets.Features(features)
        )

    def _compute(self, predictions: list[int], references: list[int]) -> dict[str, float]:
        return {"accuracy": float(sklearn.metrics.accuracy_score(references, predictions))}


def test_the_evaluate_metric_combines_with_metrics_of_other_people(metric: SpeechEmotionMetric, tmp_path) -> None:
    both = evaluate.combine([metric, Accuracy(cache_dir=str(tmp_path / "other"))])
    references, predictions, _ = random_case(3)
    result = both.compute(references=references, predictions=predictions)
    assert set(result) == {"war", "uar", "macro_f1", "accuracy"}
    assert result["accuracy"] == pytest.approx(result["war"])


def test_the_evaluate_metric_combines_with_others(metric: SpeechEmotionMetric, tmp_path) -> None:
    second = SpeechEmotionMetric(cache_dir=str(tmp_path / "second"))
    both = evaluate.combine({"dev": metric, "test": second})
    result = both.compute(references=[0, 0, 1], predictions=[0, 2, 1])
    assert result["dev_uar"] == result["test_uar"] == 0.75
    assert set(evaluate.combine([metric]).compute(references=[0], predictions=[0])) == {"war", "uar", "macro_f1"}


@pytest.mark.parametrize(
    ("references", "predictions", "words"),
    [
        ([], [], "references are empty"),
        ([0], [], "predictions are empty"),
        (np.array([]), np.array([]), "are empty"),
        ([0, 1], [0], "2 references but 1 predictions"),
        ([0, float("nan")], [0, 1], "references have type float64"),
        ([0, 1], [0, float("inf")], "predictions have type float64"),
        ([0, 1], [0, 0.5], "expected integer label indices"),
        (["anger"], ["anger"], "expected integer label indices"),
        (["0"], ["0"], "expected integer label indices"),
        ([None], [0], "references have type object"),
        ([-100, 0], [0, 0], "references run from -100 to 0"),
        ([0], [2**63], "predictions run from"),
        ([[0, 1]], [[0, 1]], r"shape \(1, 2\)"),
        (3, 4, r"shape \(\)"),
        ([0], None, "predictions have"),
    ],
)
def test_what_can_not_be_scored_is_refused_by_a_sentence_and_nothing_of_it_stays(
    metric: SpeechEmotionMetric, references, predictions, words: str
) -> None:
    for add in (metric.compute, metric.add_batch):
        with pytest.raises(ValueError, match=words):
            add(references=references, predictions=predictions)
    assert metric.compute(references=[0, 1], predictions=[0, 0])["uar"] == 0.5


def test_labels_may_be_large_or_stored_as_other_numbers(metric: SpeechEmotionMetric) -> None:
    for kind in (np.uint8, np.float32, np.int32):
        got = metric.compute(references=np.array([0, 0, 1], kind), predictions=np.array([0, 2, 1], kind))
        assert got["uar"] == 0.75
    assert metric.compute(references=torch.tensor([0, 2_000_000_000]), predictions=[0, 2_000_000_000])["war"] == 1
    metric.add(reference=0, prediction=1)
    metric.add(reference=1, prediction=1)
    assert metric.compute()["war"] == 0.5
