"""Stock checkpoints of every family of encoders, small, with weights of chance, in both norms where there are two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModel, PreTrainedModel, WhisperFeatureExtractor

from gmp_atl_hf.checkpoints import load_model
from models import EMOTIONS, SCALES
from teachers import SHAPE, WHISPER_SHAPE

_GROUP: dict[str, Any] = {**SHAPE, "feat_extract_norm": "group", "conv_bias": False}
_LAYER: dict[str, Any] = {**SHAPE, "feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
_BUCKETS = {"num_buckets": 16, "max_bucket_distance": 40}
_STILL: dict[str, Any] = dict.fromkeys(
    ("hidden_dropout", "activation_dropout", "attention_dropout", "feat_proj_dropout"), 0.0
)

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "hubert": ("hubert", _GROUP),
    "hubert-large": ("hubert", _LAYER),
    "wav2vec2": ("wav2vec2", _GROUP),
    "wav2vec2-large": ("wav2vec2", _LAYER),
    "unispeech-sat": ("unispeech-sat", _GROUP),
    "unispeech-sat-large": ("unispeech-sat", _LAYER),
    "wavlm": ("wavlm", {**_GROUP, **_BUCKETS}),
    "wavlm-large": ("wavlm", {**_LAYER, **_BUCKETS}),
    "data2vec-audio": ("data2vec-audio", {**SHAPE, "num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 5}),
    "whisper": ("whisper", {**WHISPER_SHAPE, "max_source_positions": 160}),
}
"""Family and shape → `model_type` and fields of the stock configuration."""

ONE_EACH = ("hubert", "wav2vec2", "unispeech-sat", "wavlm-large", "data2vec-audio", "whisper")
"""A case of every family, for what takes longer."""


def make_stock(case: str, folder: Path, **fields: Any) -> PreTrainedModel:
    """Save a stock checkpoint; the model, in eval mode."""
    torch.manual_seed(0)
    kind, own = CASES[case]
    still = {} if kind == "whisper" else _STILL
    model: PreTrainedModel = AutoModel.from_config(CONFIG_MAPPING[kind](**{**own, **still, **fields}))
    model.save_pretrained(folder)
    if kind == "whisper":
        WhisperFeatureExtractor().save_pretrained(folder)
    return model.eval()


def take_over(model_class: Any, folder: Path, **fields: Any) -> Any:
    """One of our models that begins from a stock checkpoint, as a step of a run does; four emotions, two scales."""
    names = {"id2label": dict(enumerate(EMOTIONS)), "label2id": {name: i for i, name in enumerate(EMOTIONS)}}
    still = {"final_dropout": 0.0, "mask_time_prob": 0.5, "mask_time_length": 3, "frame_scales": SCALES}
    return load_model(model_class, folder, 0, {**names, **still, **fields}).eval()


@torch.no_grad()
def stock_states(case: str, stock: Any, clip: Tensor) -> tuple[list[Tensor], Tensor]:
    """(frames, hidden) that enter each layer of a stock encoder of (samples,), and what comes out at its end."""
    if case != "whisper":
        found = stock(clip[None], output_hidden_states=True)
        return [state[0] for state in found.hidden_states[:-1]], found.last_hidden_state[0]
    frames, encoder = len(clip) // 320, stock.encoder
    # A second of silence behind the clip: as far below its loudest part as spectra reach.
    padded = torch.nn.functional.pad(clip, (0, 16_000))
    spectra = WhisperFeatureExtractor()(
        padded.numpy(), sampling_rate=16_000, padding="do_not_pad", return_tensors="pt"
    ).input_features[:, :, : 2 * frames]
    silence = (spectra.max() - 2).expand(1, spectra.shape[1], 100)
    hidden = torch.nn.functional.gelu(encoder.conv1(torch.cat([spectra, silence], -1)))
    hidden = torch.nn.functional.gelu(encoder.conv2(hidden)).transpose(1, 2)
    states = [hidden + encoder.embed_positions.weight[: hidden.shape[1]]]
    for layer in encoder.layers:
        states.append(layer(states[-1], None))
    *entering, last = (state[0, :frames] for state in states)
    return entering, encoder.layer_norm(last)
