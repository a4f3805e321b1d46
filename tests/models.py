"""Tiny models with the true front end (400 samples a frame, 320 between frames) and clips to feed them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import HubertConfig, HubertModel

from gmp_atl_hf import GMPATLConfig, HubertForGMPATL, HubertForGMPATLFrameClassification, HubertForGMPATLMultiTask
from gmp_atl_hf.modeling.encoding_gmp_atl import GMPATLModel
from gmp_atl_hf.modeling.modeling_gmp_atl import GMPATLPreTrainedModel

EMOTIONS = ("anger", "happiness", "neutral", "sadness")
SCALES = {"gmp_layer2_k5": 5, "gmp_layer2_k9": 9}
MODELS = (HubertForGMPATLMultiTask, HubertForGMPATLFrameClassification, HubertForGMPATL)
POOLINGS = ("mean", "attention", "statistics")

_TINY: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": (12,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    # Weights of ordinary size: with HuBERT's 0.02 a tiny encoder hardly moves its input, and tests would see nothing.
    "initializer_range": 0.2,
}
_NO_DROPOUT: dict[str, Any] = dict.fromkeys(
    ("hidden_dropout", "activation_dropout", "attention_dropout", "feat_proj_dropout", "final_dropout", "layerdrop"),
    0.0,
)
SHAPES: dict[str, dict[str, Any]] = {
    "base": {"feat_extract_norm": "group", "do_stable_layer_norm": False, "conv_bias": False},
    "large": {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True},
}
REAL_SHAPES: dict[str, dict[str, Any]] = {
    "base": SHAPES["base"],
    "large": {
        **SHAPES["large"],
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
    },
}


def tiny_hubert_config(shape: str = "base", **fields: Any) -> HubertConfig:
    """A stock configuration without dropout."""
    return HubertConfig(**{**_TINY, **_NO_DROPOUT, **SHAPES[shape], **fields})


def tiny_config(shape: str = "base", **fields: Any) -> GMPATLConfig:
    """The same with four emotions and two scales."""
    return GMPATLConfig(**{**_TINY, **_NO_DROPOUT, **SHAPES[shape], **head_fields(), **fields})


def real_config(shape: str, **fields: Any) -> GMPATLConfig:
    """The full base or large shape, with four emotions and two scales."""
    return GMPATLConfig(**{**REAL_SHAPES[shape], **head_fields(), **fields})


def head_fields() -> dict[str, Any]:
    return {
        "id2label": dict(enumerate(EMOTIONS)),
        "label2id": {name: index for index, name in enumerate(EMOTIONS)},
        "frame_scales": SCALES,
    }


def build(
    model_class: type[GMPATLPreTrainedModel], shape: str = "base", seed: int = 0, **fields: Any
) -> GMPATLPreTrainedModel:
    """A tiny model in eval mode."""
    torch.manual_seed(seed)
    return model_class(tiny_config(shape, **fields)).eval()


def build_backbone(shape: str = "base", seed: int = 0, **fields: Any) -> HubertModel:
    """A tiny stock HuBERT in eval mode."""
    torch.manual_seed(seed)
    return HubertModel(tiny_hubert_config(shape, **fields)).eval()


def build_encoder(shape: str = "base", seed: int = 0, **fields: Any) -> GMPATLModel:
    """Our encoder with the weights of `build_backbone`."""
    stock = build_backbone(shape, seed, **fields)
    ours = GMPATLModel(tiny_config(shape, **fields))
    ours.load_state_dict(stock.state_dict(), strict=False)  # a stock one without masks has no mask embedding
    return ours.eval()


def make_clips(lengths: Sequence[int], seed: int = 0) -> list[Tensor]:
    """Noise of different loudness, offset and colour, so that no two clips have the same statistics."""
    generator = torch.Generator().manual_seed(seed)
    clips = []
    for index, length in enumerate(lengths):
        noise = torch.randn(length, generator=generator)
        slow = torch.cumsum(noise, 0) / max(length, 1) ** 0.5
        clips.append(0.05 * (index + 1) * (noise + slow) + 0.02 * index)
    return clips


def pad(clips: Sequence[Tensor], filling: float = 0.0) -> dict[str, Tensor]:
    """Right-padded `input_values` and `attention_mask`; a filling that is not 0 shows who looks at padding."""
    return {
        "input_values": pad_rows(clips, filling),
        "attention_mask": pad_rows([torch.ones(len(clip), dtype=torch.long) for clip in clips], 0),
    }


def pad_rows(rows: Sequence[Tensor], filling: float) -> Tensor:
    """Stack (steps, ...) tensors of different length into (batch, longest, ...)."""
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=filling)


@contextmanager
def listen() -> Iterator[list[str]]:
    """Everything that transformers logs meanwhile; pytest's own capture misses it, as its handler is made at import."""
    messages: list[str] = []
    handler = logging.Handler(logging.INFO + 1)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)


def gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    """The gradients by parameter name, taken away from the model; a trainable parameter without one is an error."""
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name} has no gradient"
            found[name] = parameter.grad.clone()
    model.zero_grad(set_to_none=True)
    return found
