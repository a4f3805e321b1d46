"""The metrics as an `evaluate.Metric`, for code that works with the evaluate library."""

from __future__ import annotations

from collections.abc import Sequence

import datasets
import evaluate

from gmp_atl_hf.evaluation.metrics import emotion_metrics

_DESCRIPTION = (
    "WAR (accuracy), UAR (mean recall over the labels that occur in the references) and macro F1 (mean F1 over the "
    "same labels) of speech emotion recognition."
)

_INPUTS = """
Args:
    predictions: Predicted label indices, one integer per utterance.
    references: True label indices, one integer per utterance.
Returns:
    war, uar, macro_f1: fractions from 0 to 1.
"""


class SpeechEmotionMetric(evaluate.Metric):
    """WAR, UAR and macro F1; works without a network and inside `evaluate.combine`.

    Labels that no reference has are left out of UAR and macro F1, so that both equal scikit-learn's macro averages
    with `labels` set to those in the references.

    Example:
        >>> SpeechEmotionMetric().compute(references=[0, 0, 1], predictions=[0, 2, 1])["uar"]
        0.75
    """

    def _info(self) -> evaluate.MetricInfo:
        features = {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(features),
        )

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        # Absent labels never count, so the number of labels only has to be large enough.
        return emotion_metrics(references, predictions, max(*predictions, *references, 0) + 1)
