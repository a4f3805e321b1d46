"""Which attention a training in bfloat16 takes on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from .arguments import GMPATLTrainingArguments


def has_native_bfloat16() -> bool:
    """Whether torch multiplies bfloat16 matrices with more than its slow fallback on this processor."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@contextmanager
def math_attention_for_cpu_bf16(model: PreTrainedModel, args: GMPATLTrainingArguments) -> Iterator[None]:
    """Compute training steps in bfloat16 on the CPU with plain matrix products in place of the fused attention.

    There the gradient of torch's fused attention, taken where `attention_dropout` is 0, has no fast bfloat16 path: it
    takes four times as long as in float32, half of a training step of `mini` (torch 2.13). The plain products keep
    scores of (batch, heads, frames, frames) for the gradient, as every attention with dropout does. Nothing changes in
    float32, on other devices, in evaluation, or where another attention was chosen.
    """
    chosen = model.config._attn_implementation
    if not (args.bf16 and args.device.type == "cpu" and chosen == "sdpa" and has_native_bfloat16()):
        yield
        return
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(chosen)
