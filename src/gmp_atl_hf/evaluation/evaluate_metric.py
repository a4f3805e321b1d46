"""The metrics as an `evaluate.Metric`, for code that works with the evaluate library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from .metrics import emotion_metrics, label_indices

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

_MOST_LABELS = 2**31


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

    def add_batch(self, *, predictions: Any = None, references: Any = None, **kwargs: Any) -> None:
        """Add utterances, as `evaluate.Metric` does; `compute` passes what it is given through here.

        Args:
            predictions: Predicted label indices, (n,).
            references: True label indices, (n,).
            kwargs: Of `evaluate.Metric`.

        Raises:
            ValueError: They are not equally many, or one is no whole number from 0.
        """
        # The library would turn 0.7 into 0 without a warning, and NaN into an error that does not mention labels.
        given = {"references": references, "predictions": predictions}
        checked = {name: label_indices(_whole(values), _MOST_LABELS, name) for name, values in given.items()}
        if checked["references"].shape != checked["predictions"].shape:
            raise ValueError(f"{checked['references'].size} references but {checked['predictions'].size} predictions")
        super().add_batch(**checked, **kwargs)

    def add(self, *, prediction: Any = None, reference: Any = None, **kwargs: Any) -> None:
        """Add one utterance, checked as in `add_batch`."""
        self.add_batch(predictions=[prediction], references=[reference], **kwargs)

    def _compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        # Labels that do not occur never count, so the others may be renumbered.
        labels, numbers = np.unique([*references, *predictions], return_inverse=True)
        return emotion_metrics(numbers[: len(references)], numbers[len(references) :], len(labels))


def _whole(values: Any) -> Any:
    """Numbers that are whole although they are stored as fractions or as truth become integers; others stay."""
    array = np.asarray(values)
    if array.dtype.kind == "b" or (
        array.dtype.kind == "f" and np.isfinite(array).all() and (array == np.trunc(array)).all()
    ):
        return array.astype(np.int64)
    return array
