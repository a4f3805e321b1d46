"""data2vec-audio: layer norms in the front end, and positions from several convolutions on top of one another."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers.models.data2vec.modeling_data2vec_audio import Data2VecAudioPositionalConvLayer

from .family_gmp_atl import Family


class LayeredPositions(nn.Module):
    """transformers' convolutions; between two of them padding is made zero again, as it is behind a clip alone."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            Data2VecAudioPositionalConvLayer(config) for _ in range(config.num_conv_pos_embeddings)
        )

    def forward(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, frames, hidden), zero on padding, and (batch, frames) bool → (batch, frames, hidden).

        transformers' encoder, which knows no mask here, asks once more: then there is nothing left to add.
        """
        if mask is None:
            return torch.zeros_like(hidden)
        padding = ~mask[:, None]
        hidden = hidden.transpose(1, 2)
        for layer in self.layers:
            hidden = layer(hidden).masked_fill(padding, 0.0)
        return hidden.transpose(1, 2)


class Data2VecAudio(Family):
    """data2vec-audio."""

    fields: ClassVar[Mapping[str, Any]] = {"conv_pos_kernel_size": 19}
    packed = False

    def translate(self, stock: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
        """See the base class; what other families choose by fields is always the same here."""
        always = {"feat_extract_norm": "layer", "do_stable_layer_norm": False, "feat_proj_layer_norm": True}
        return {**super().translate(stock, known), **always}

    def furnish(self, hubert: Any) -> None:
        """See the base class."""
        hubert.encoder.pos_conv_embed = LayeredPositions(hubert.config)

    def enter(self, hubert: Any, hidden: Tensor, mask: Tensor) -> Tensor:
        """See the base class."""
        hidden = hidden.masked_fill(~mask[:, :, None], 0.0)
        placed: Tensor = hidden + hubert.encoder.pos_conv_embed(hidden, mask)
        return placed
