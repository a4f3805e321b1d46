"""Audio classifiers of other people: tiny, of several families, with weights of chance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    HubertConfig,
    HubertForSequenceClassification,
    PreTrainedModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForAudioClassification,
)

from teachers import SHAPE, WHISPER_SHAPE

SECONDS = 1
"""What the tiny Whisper takes of a recording."""

_SHAPE: dict[str, Any] = {**SHAPE, "num_hidden_layers": 2, "classifier_proj_size": 8}


def make_foreign(family: str, folder: Path, labels: Sequence[str], rate: int = 16_000, **fields: Any) -> Path:
    """Save one with its feature extractor; the folder. Its answers differ from recording to recording."""
    torch.manual_seed(0)
    named = {"id2label": dict(enumerate(labels)), "label2id": {name: number for number, name in enumerate(labels)}}
    if family == "whisper":
        length = {"encoder_layers": 2, "max_source_positions": 50 * SECONDS}
        config = WhisperConfig(**{**WHISPER_SHAPE, **named, **length, **fields})
        model: PreTrainedModel = WhisperForAudioClassification(config)
        WhisperFeatureExtractor(chunk_length=SECONDS).save_pretrained(folder)
    elif family == "hubert":  # whose group norm sees padding
        model = HubertForSequenceClassification(HubertConfig(**{**_SHAPE, **named, **fields}))
        Wav2Vec2FeatureExtractor(sampling_rate=rate, do_normalize=False).save_pretrained(folder)
    else:
        norm = {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}
        model = Wav2Vec2ForSequenceClassification(Wav2Vec2Config(**{**_SHAPE, **norm, **named, **fields}))
        Wav2Vec2FeatureExtractor(sampling_rate=rate, return_attention_mask=True).save_pretrained(folder)
    with torch.no_grad():
        model.classifier.weight.mul_(1 if family == "whisper" else 8)
    model.save_pretrained(folder)
    return folder
