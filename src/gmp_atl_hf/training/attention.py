"""Which attention a training on processors takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel

from .arguments import GMPATLTrainingArguments


@contextmanager
def quick_attention(model: PreTrainedModel, args: GMPATLTrainingArguments) -> Iterator[None]:
    """Train with plain matrix products where the fused attention is the slower one.

    On processors the gradient of torch's fused attention has no quick bfloat16 path: it takes four times as long as in
    float32, and half of a training step of a small encoder (torch 2.13). The plain products are what the processor's
    bfloat16 units are made for. Nothing changes in float32, on other devices, or where another attention was chosen.

    Args:
        model: The model in training; it has its own attention back when the block ends.
        args: Settings of the training.
    """
    chosen = model.config._attn_implementation
    if not (args.bf16 and args.device.type == "cpu" and chosen == "sdpa"):
        yield
        return
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(chosen)
