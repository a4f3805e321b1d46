"""Teachers small enough to be asked again and again, one of each family, with weights of chance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    Data2VecAudioConfig,
    Data2VecAudioModel,
    HubertConfig,
    HubertModel,
    PreTrainedModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

SHAPE: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": (8,) * 7,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "initializer_range": 0.2,
}
WHISPER_SHAPE: dict[str, Any] = {
    "d_model": 16,
    "encoder_layers": 3,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 16,
    "vocab_size": 64,
    "init_std": 0.2,
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0),
}
_CONVOLUTIONAL: dict[str, tuple[type[Any], type[Any], dict[str, Any]]] = {
    "hubert": (HubertConfig, HubertModel, {}),
    "wavlm": (WavLMConfig, WavLMModel, {}),
    "wav2vec2": (Wav2Vec2Config, Wav2Vec2Model, {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}),
    "data2vec-audio": (Data2VecAudioConfig, Data2VecAudioModel, {"conv_pos_kernel_size": 3}),
}
FAMILIES = ("whisper", *_CONVOLUTIONAL)


def make_teacher(family: str, folder: Path, **fields: Any) -> Path:
    """Save one; the folder."""
    torch.manual_seed(0)
    if family == "whisper":
        config = WhisperConfig(**{**WHISPER_SHAPE, **fields})
        model: PreTrainedModel = WhisperModel(config)
        WhisperFeatureExtractor().save_pretrained(folder)
    else:
        config_class, model_class, own = _CONVOLUTIONAL[family]
        model = model_class(config_class(**{**SHAPE, **own, **fields}))
    model.save_pretrained(folder)
    return folder
