"""A student that begins with its teacher's layers, where their shapes agree."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..errors import RequestError
from ..modeling.configuration_gmp_atl import GMPATLConfig
from .teachers import TeacherFacts

_WHISPER_NAMES = {
    "self_attn_layer_norm": "layer_norm",
    "self_attn": "attention",
    "final_layer_norm": "final_layer_norm",
    "fc1": "feed_forward.intermediate_dense",
    "fc2": "feed_forward.output_dense",
}
"""Whisper's encoder layers are HuBERT's pre-norm layers under other names."""

_ALIKE = ("hubert", "wav2vec2", "unispeech-sat", "data2vec-audio", "whisper")
"""Families whose layers are HuBERT's; WavLM's attention has a position bias that HuBERT lacks."""


def refuse_unlike_layers(facts: TeacherFacts, student: GMPATLConfig) -> None:
    """Refuse to begin with a teacher's layers where they are no layers of the student; the error names what differs."""
    config = facts.config
    kind = getattr(config, "encoder_type", config.model_type)
    if facts.is_whisper:
        teacher_values = {
            "hidden_size": config.d_model,
            "intermediate_size": config.encoder_ffn_dim,
            "num_attention_heads": config.encoder_attention_heads,
            "hidden_act": config.activation_function,
            "do_stable_layer_norm": True,
        }
    elif kind in _ALIKE:
        names = ("hidden_size", "intermediate_size", "num_attention_heads", "hidden_act", "do_stable_layer_norm")
        teacher_values = {name: getattr(config, name, False) for name in names}
    else:
        raise RequestError(
            f"start is teacher, but the layers of a {kind!r} model are not HuBERT's",
            f"one of {', '.join(_ALIKE)}",
            "start: scratch",
        )
    different = [f"{name} {value} against {getattr(student, name)}" for name, value in teacher_values.items()
                 if value != getattr(student, name)]  # fmt: skip
    if different:
        raise RequestError(
            f"start is teacher, but the student's layers are not those of {facts.name}: {', '.join(different)}",
            "the same width, feed-forward width, heads, activation and kind of layer norm",
            "start: scratch, or the teacher's sizes under `backbone`",
        )


def copied_layers(facts: TeacherFacts, encoder: Any, layers: int) -> dict[str, Tensor]:
    """The teacher's first layers, under the names of a `HubertModel` (`encoder.layers.…`), float32 on the CPU."""
    copied = {}
    blocks = encoder.layers if facts.is_whisper else encoder.encoder.layers
    for index, block in enumerate(blocks[:layers]):
        for name, tensor in block.state_dict().items():
            copied[f"encoder.layers.{index}.{_renamed(name) if facts.is_whisper else name}"] = tensor.cpu()
    return copied


def _renamed(name: str) -> str:
    whole, kind = name.rsplit(".", 1)
    first, _, rest = whole.partition(".")
    return ".".join(part for part in (_WHISPER_NAMES[first], rest, kind) if part)
