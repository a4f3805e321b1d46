"""What numbers may be where a recipe, or a checkpoint's `config.json`, passes them on to transformers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from .errors import RequestError

LARGEST = 2**32 - 1
"""Largest whole number of a recipe, seeds included: numpy's and torch's generators take no larger one."""

MOST_SECONDS = 1e6
"""Longest stretch that a setting may name, eleven days: what is longer can only be a slip."""

ONE_FRAME = 0.025
"""Seconds that the first frame of an encoder hears: 400 samples at 16 kHz."""

_FIX = "correct it, or leave it out"


class _Range(NamedTuple):
    """Where a number may lie: in words, and as a test."""

    expected: str
    fits: Callable[[float], bool]


_FROM_0 = _Range("0 or more", lambda value: value >= 0)
_FROM_1 = _Range("1 or more", lambda value: value >= 1)
_ABOVE_0 = _Range("a number above 0", lambda value: value > 0)
_SECONDS = _Range(f"seconds, above 0 and at most {MOST_SECONDS:,.0f}", lambda value: 0 < value <= MOST_SECONDS)
_SHARE = _Range("0 to 1", lambda value: 0 <= value <= 1)
_BELOW_1 = _Range("0 or more, and below 1", lambda value: 0 <= value < 1)
_WIDTH = _Range("1 to 65536", lambda value: 1 <= value <= 65_536)
_DEPTH = _Range("0 to 1000", lambda value: 0 <= value <= 1_000)

_RANGES: Mapping[_Range, str] = {
    # Trainings
    _Range("above 0 and at most 1,000,000", lambda value: 0 < value <= 1e6): "num_train_epochs",
    _ABOVE_0: """head_learning_rate early_stopping_patience adam_epsilon logging_steps eval_steps
        save_steps am_softmax_scale logit_temperature initializer_range layer_norm_eps""",
    _FROM_0: """learning_rate weight_decay max_grad_norm warmup_steps eval_delay save_total_limit neftune_noise_alpha
        dataloader_num_workers class_weights head_epochs average_epochs trained_layers frame_weight
        mask_time_min_masks mask_feature_min_masks chunk_size_feed_forward""",
    _FROM_1: """per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps ddp_timeout
        ddp_bucket_cap_mb eval_accumulation_steps dataloader_prefetch_factor torch_empty_cache_steps mask_time_length
        mask_feature_length""",
    _SECONDS: "max_seconds batch_seconds",
    _Range("-1, or 1 or more", lambda value: value == -1 or value >= 1): "max_steps",
    # Models
    _BELOW_1: """adam_beta1 adam_beta2 am_softmax_margin hidden_dropout activation_dropout attention_dropout
        feat_proj_dropout final_dropout layerdrop""",
    _SHARE: "mask_time_prob mask_feature_prob label_smoothing_factor emotion_weight",
    _WIDTH: """hidden_size intermediate_size num_attention_heads conv_dim conv_stride conv_kernel
        num_conv_pos_embeddings num_conv_pos_embedding_groups""",
    _DEPTH: "num_hidden_layers",
}
_RANGE_OF = {name: one for one, names in _RANGES.items() for name in names.split()}


def refuse_absurd_numbers(values: Mapping[str, Any], where: str) -> None:
    """Refuse numbers that no training or model can work with, and those that would train nothing.

    Args:
        values: Settings of a training, or fields of a configuration.
        where: Where they stand, for messages.

    Raises:
        RequestError: Names the setting, its value and what it may be.
    """
    for name, value in values.items():
        allowed = _RANGE_OF.get(name)
        for number in _numbers(value):
            if isinstance(number, int) and abs(number) > LARGEST:
                raise RequestError(f"{where} has `{name}`, which is a huge number", f"at most {LARGEST}", _FIX)
            if not math.isfinite(number):
                raise RequestError(f"{where} has `{name}`, which is {number}", "a finite number", _FIX)
            if allowed is not None and not allowed.fits(number):
                raise RequestError(f"{where} has `{name}`, which is {number}", allowed.expected, _FIX)
    weights = values.get("class_weights")
    if isinstance(weights, list | tuple) and not any(_numbers(weights)):
        raise RequestError(f"{where} has `class_weights` without one above 0", "emotions that count", "balanced")
    if values.get("learning_rate") == 0 and values.get("head_learning_rate") is None:
        raise RequestError(
            f"{where} has `learning_rate`, which is 0: nothing would be trained",
            "a number above 0",
            "freeze_encoder: true trains the heads alone; `skip: true` leaves a stage out",
        )


def _numbers(value: Any) -> Iterator[int | float]:
    """The numbers in a value, those in lists and mappings too."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from _numbers(each)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value
