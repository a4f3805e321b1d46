"""What a family of speech encoders has in place of HuBERT's parts: HuBERT itself, and those that have nothing else.

A family is told by the `model_type` of its stock checkpoints, which a `GMPATLConfig` keeps as `encoder_type`. Whatever
the family, the encoder is made of the same modules under the same names (`feature_extractor`, `feature_projection`,
`encoder.pos_conv_embed`, `encoder.layers`), so that heads, losses, trainer, adapters and caches need not know it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers import CONFIG_MAPPING, PreTrainedConfig


class Family:
    """Encoders that are HuBERT's to the last module, under another name.

    Args:
        model_type: That of their stock checkpoints.
        prefix: What stands before the encoder's tensors in stock checkpoints with a head.
        name: What people call it.
    """

    fields: ClassVar[Mapping[str, Any]] = {}
    """Configuration fields that HuBERT does not have, with their defaults."""

    above: ClassVar[frozenset[str]] = frozenset({r"^(quantizer|project_hid|project_q|lm_head)\."})
    """Tensors of stock checkpoints that stand above the encoder, or beside it, as regular expressions."""

    has_mask: ClassVar[bool] = True
    """Whether stock encoders can be trained with masked frames; where not, the mask embedding begins as zeros."""

    packed: ClassVar[bool] = True
    """Whether `inference.cpu` computes these encoders without padding; others are computed as they are trained."""

    encodes_more: ClassVar[bool] = False
    """Whether the transformer works on frames behind those of the clips."""

    absolute_positions: ClassVar[bool] = False
    """Whether states say how far from the clip's beginning they are, and not only what lies around them."""

    heard_anybody: ClassVar[bool] = False
    """Whether these encoders were trained on speech of people whom nobody knows, anybody's test speakers perhaps."""

    def __init__(self, model_type: str, prefix: str, name: str) -> None:
        self.model_type, self.prefix, self.name = model_type, prefix, name

    def translate(self, stock: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
        """Fields of a `GMPATLConfig` of a stock configuration; `known` are the names that it declares.

        Raises:
            ValueError: The encoder has parts that ours has not.
        """
        config = CONFIG_MAPPING[self.model_type].from_dict(dict(stock))
        if getattr(config, "add_adapter", False):
            raise ValueError(f"add_adapter=True of a {self.model_type} encoder is not supported: fewer frames come out")
        # Of what every configuration has, such as labels, only what is written there: the rest is no choice of anyone.
        own = {*known, *self.fields} - {each.name for each in fields(PreTrainedConfig)} | set(stock) & set(known)
        kept = {name: value for name, value in config.to_dict().items() if name in own}
        if (attention_adapter := getattr(config, "adapter_attn_dim", None)) is not None:
            kept["adapter_attn_dim"] = attention_adapter
        if kept.get("vocab_size") is None:  # of checkpoints that were never meant to spell
            kept.pop("vocab_size", None)
        return kept

    def renamings(self) -> dict[str, str]:
        """Names in stock checkpoints → ours, as regular expressions and what replaces them."""
        return {rf"^{self.prefix}\.": "hubert."}

    def furnish(self, hubert: Any) -> None:
        """Put the family's own parts into a new encoder, which has HuBERT's, before its weights are loaded."""

    def first_convolution(self, hubert: Any) -> nn.Conv1d:
        """The module whose weight tells the front end's precision: a linear layer's may be quantised."""
        convolution: nn.Conv1d = hubert.feature_extractor.conv_layers[0].conv
        return convolution

    def front_end_parameters(self, hubert: Any) -> list[nn.Parameter]:
        """What `freeze_feature_encoder` stops."""
        return list(hubert.feature_extractor.parameters())

    def project(self, hubert: Any, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """From convolution features to what the transformer works on.

        Args:
            hubert: The encoder.
            features: (batch, frames, channels) of the front end, right-padded.
            mask: (batch, frames) bool, True on valid frames.

        Returns:
            (batch, frames or more, hidden) and its mask; what comes after the clips' frames is encoded and dropped.
        """
        return hubert.feature_projection(features), mask

    def enter(self, hubert: Any, hidden: Tensor, mask: Tensor) -> Tensor:
        """What is given to transformers' encoder of projected (batch, frames, hidden) and (batch, frames) bool."""
        return hidden

    def layer_inputs(self, hubert: Any, hidden: Tensor) -> dict[str, Tensor]:
        """What every layer is given beside (batch, frames, hidden) and the attention mask."""
        return {}

    def longest_samples(self, config: Any) -> int | None:
        """Samples of the longest clip that can be encoded at once; None where there is no limit."""
        return None
