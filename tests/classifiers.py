"""Classifiers with tiny models, and what they should say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from audio_files import RATE
from gmp_atl_hf import HubertForGMPATL, SpeechEmotionClassifier
from gmp_atl_hf.checkpoints import default_feature_extractor
from gmp_atl_hf.data.audio import read_clip
from gmp_atl_hf.inference.predictions import Prediction
from models import build

HAS_INT8 = torch.cpu._is_vnni_supported()
"""Whether the processor multiplies in int8, as torch says, not as the code that is tested finds out."""

needs_int8 = pytest.mark.skipif(not HAS_INT8, reason="the processor has no int8 products")


def make_classifier(shape: str = "large", **options: Any) -> SpeechEmotionClassifier:
    """Large shapes normalise each clip, base shapes have the group norm: each can go wrong in its own way."""
    model = build(HubertForGMPATL, shape, logit_temperature=2.0)
    assert isinstance(model, HubertForGMPATL)
    return SpeechEmotionClassifier(model, default_feature_extractor(model.config), **options)


def alone(classifier: SpeechEmotionClassifier, source: Any) -> np.ndarray:
    """Scores of one clip by the model itself, (labels,)."""
    inputs = classifier.feature_extractor(read_clip(source), sampling_rate=RATE, return_tensors="pt")
    with torch.inference_mode():
        return torch.softmax(classifier.model(inputs["input_values"]).logits, -1)[0].numpy()


def values(prediction: Any) -> np.ndarray:
    return np.array(list(prediction.scores.values()))


def score(classifier: SpeechEmotionClassifier, source: Any, *window: float) -> Prediction:
    prediction = classifier(source, *window)
    assert isinstance(prediction, Prediction)
    assert prediction.error is None, prediction.error
    return prediction


def score_all(classifier: SpeechEmotionClassifier, source: Any, *window: float) -> list[Prediction]:
    predictions = classifier(source, *window)
    assert isinstance(predictions, list)
    return predictions
