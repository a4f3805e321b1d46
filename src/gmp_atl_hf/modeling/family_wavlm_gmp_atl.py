"""WavLM: attention with a bias by relative position, which every layer gates by what it hears."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.models.hubert.modeling_hubert import HubertAttention
from transformers.models.wavlm.modeling_wavlm import WavLMAttention

from .family_gmp_atl import Family

_WITH_BIAS = (None, "eager", "sdpa")
"""Implementations of attention that can add a bias."""


class GatedAttention(HubertAttention):
    """HuBERT's attention with WavLM's bias; made out of one that is there, so that nothing is made twice."""

    compute_bias = WavLMAttention.compute_bias
    _relative_positions_bucket = WavLMAttention._relative_positions_bucket

    def begin(self, config: Any, first: bool) -> None:
        """Add the parameters of the bias; its values by distance are the first layer's."""
        self.num_buckets, self.max_distance = config.num_buckets, config.max_bucket_distance
        self.gru_rel_pos_const = nn.Parameter(torch.ones(1, self.num_heads, 1, 1))
        self.gru_rel_pos_linear = nn.Linear(self.head_dim, 8)
        if first:
            self.rel_attn_embed = nn.Embedding(self.num_buckets, self.num_heads)

    def begin_weights(self) -> None:
        """Initialise what a checkpoint lacks."""
        init.ones_(self.gru_rel_pos_const)

    def forward(
        self,
        hidden_states: Tensor,
        key_value_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        output_attentions: bool | None = False,
        position_bias: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """As HuBERT's; `position_bias` is (heads, frames, frames)."""
        assert position_bias is not None
        by_head = hidden_states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        sums = self.gru_rel_pos_linear(by_head).unflatten(-1, (2, 4)).sum(-1)
        reset, update = sums.sigmoid().chunk(2, dim=-1)
        gate = reset * (update * self.gru_rel_pos_const - 1.0) + 2.0  # (batch, heads, frames, 1)
        bias = gate * position_bias
        if attention_mask is not None and attention_mask.dtype == torch.bool:
            bias = bias.masked_fill(~attention_mask, torch.finfo(bias.dtype).min)
        elif attention_mask is not None:
            bias = bias + attention_mask
        attended: tuple[Tensor, Tensor | None] = super().forward(
            hidden_states, attention_mask=bias, output_attentions=output_attentions, **kwargs
        )
        return attended


class WavLM(Family):
    """WavLM."""

    fields: ClassVar[Mapping[str, Any]] = {"num_buckets": 320, "max_bucket_distance": 800}
    packed = False

    def furnish(self, hubert: Any) -> None:
        """See the base class."""
        config = hubert.config
        if config._attn_implementation not in _WITH_BIAS:
            raise ValueError(
                f"attn_implementation is {config._attn_implementation!r}, which cannot add the bias of WavLM's "
                "positions; expected 'sdpa' or 'eager'"
            )
        for index, layer in enumerate(hubert.encoder.layers):
            layer.attention.__class__ = GatedAttention
            layer.attention.begin(config, first=index == 0)

    def layer_inputs(self, hubert: Any, hidden: Tensor) -> dict[str, Tensor]:
        """See the base class: the bias is computed once, and every layer hands gradients back to it.

        Raises:
            ValueError: Layers are checkpointed in the way that lets go of the bias after the first of them.
        """
        frames, first = hidden.shape[1], hubert.encoder.layers[0]
        checkpoint = getattr(getattr(first, "_gradient_checkpointing_func", None), "keywords", {})
        if first.training and first.gradient_checkpointing and checkpoint.get("use_reentrant"):
            raise ValueError(
                "gradient checkpointing with use_reentrant=True does not work for WavLM, whose layers share a bias; "
                "expected {'use_reentrant': False}, the default"
            )
        return {"position_bias": first.attention.compute_bias(frames, frames)}
