"""The emotion model on a CPU: clips of any lengths side by side, without padding and without masks.

`HubertForGMPATL` works on padded batches, as training needs it. Here every frame is a row of one matrix, so nothing is
computed for padding, and a clip meets its neighbours nowhere: attention, positions and pooling work clip by clip.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import RequestError
from ...modeling.configuration_gmp_atl import GMPATLConfig
from ...modeling.encoding_gmp_atl import weigh_layers
from ...modeling.families_gmp_atl import family_of
from ...modeling.modeling_gmp_atl import HubertForGMPATL
from .front_end import FrontEnd
from .linear import FUSED, LOWEST, Float32Linear, Int8Linear, PackedLinear
from .positional_conv import PositionalConvolution

PACKED_BYTES = 400 << 20
"""Most memory for a second copy of the transformer layers' weights: 324 MiB in the base shape, too little for large."""


class PackedModel:
    """An emotion model, in eval mode on the CPU in float32, made ready for a CPU.

    Weights that are computed from its own (those of the convolutions, of int8, and of transformer layers up to the base
    shape) are made once: another `PackedModel` has to be made when the model changes, as `SpeechEmotionClassifier`
    does. With `int8` the encoder's products are computed in int8; attention, norms, the first convolution and the
    emotion head stay float32.

    Raises:
        RequestError: int8 on a machine without it, or of a model with adapters beside its layers.
    """

    def __init__(self, model: HubertForGMPATL, int8: bool = False) -> None:
        if int8:
            _refuse_adapters(model)
        self.model = model
        hubert: Any = model.hubert
        with torch.inference_mode():
            self.front_end = FrontEnd(hubert.feature_extractor.conv_layers, model.config, int8)
            self.positions = PositionalConvolution(hubert.encoder.pos_conv_embed)
            self.sums = model.config.readout == "sum"
            product = _product_of(hubert.encoder.layers)
            self.layers = [_Layer(layer, model.config, int8, product) for layer in hubert.encoder.layers]

    @staticmethod
    def fits(model: HubertForGMPATL) -> bool:
        """Whether a model can be computed here: those with HuBERT's own modules, but for adapters.

        An adapter of peft beside a linear layer is computed, one beside a convolution would be lost.
        """
        config, hubert = model.config, cast(Any, model.hubert)
        if not family_of(config.encoder_type).packed or getattr(config, "adapter_attn_dim", None) is not None:
            return False
        convolutions = (*hubert.feature_extractor.conv_layers, hubert.encoder.pos_conv_embed)
        return not any(name.endswith("base_layer") for each in convolutions for name, _ in each.named_modules())

    @torch.inference_mode()
    def __call__(self, waveforms: Sequence[Tensor], speaker_statistics: Tensor | None = None) -> Tensor:
        """Score clips, each (samples,) float32 at 16 kHz, normalised if the model wants it, at least one frame.

        Args:
            waveforms: The clips.
            speaker_statistics: (2, size) float32, see `Standardization.of_speakers`.

        Returns:
            (clips, labels) float32 logits, those of `HubertForGMPATL` to rounding.
        """
        pooled = self.pool(waveforms)
        logits: Tensor = self.model.score(pooled, speaker_statistics=speaker_statistics)[0]["logits"]
        return logits

    @torch.inference_mode()
    def pool(self, waveforms: Sequence[Tensor]) -> Tensor:
        """What the heads read of clips: (clips, size) float32."""
        hubert: Any = self.model.hubert
        encoder = hubert.encoder
        features = [self.front_end(waveform) for waveform in waveforms]
        lengths = [len(each) for each in features]
        frames = hubert.feature_projection(torch.cat(features))
        frames = frames + self.positions(frames, lengths)
        stable = self.model.config.do_stable_layer_norm
        if not stable:
            frames = encoder.layer_norm(frames)
        states = [frames]
        for layer in self.layers:
            frames = layer(frames, lengths)
            if self.sums:
                states.append(frames)
        if self.sums:
            frames = weigh_layers(states, hubert.layer_weights)
        elif stable:
            frames = encoder.layer_norm(frames)
        pooled = [
            self.model.pooling(clips, torch.ones(clips.shape[:2], dtype=torch.bool))
            for clips in _same_length(frames, lengths)
        ]
        return torch.cat(pooled)


class _Layer:
    """A transformer layer over frames of clips of different lengths."""

    def __init__(
        self, layer: Any, config: GMPATLConfig, int8: bool, product: type[Float32Linear | PackedLinear]
    ) -> None:
        attention, feed_forward = layer.attention, layer.feed_forward
        self.heads = config.num_attention_heads
        self.stable = config.do_stable_layer_norm
        self.norm, self.final_norm = layer.layer_norm, layer.final_layer_norm
        self.activation = feed_forward.intermediate_act_fn
        inputs = [attention.q_proj, attention.k_proj, attention.v_proj]
        self.inputs: Callable[[Tensor], Sequence[Tensor]]
        self.output: Callable[[Tensor], Tensor]
        self.inner: Callable[[Tensor], Tensor]
        self.outer: Callable[[Tensor], Tensor]
        if int8:
            together = _int8(inputs)
            self.inputs = lambda frames: together(frames).chunk(3, -1)
            self.output = _int8([attention.out_proj])
            self.inner = _int8([feed_forward.intermediate_dense])
            self.outer = _int8([feed_forward.output_dense], LOWEST.get(str(config.hidden_act)))
        else:
            products = [_float32(linear, product) for linear in inputs]
            self.inputs = lambda frames: [each(frames) for each in products]
            self.output = _float32(attention.out_proj, product)
            self.outer = _float32(feed_forward.output_dense, product)
            if config.hidden_act in FUSED and type(feed_forward.intermediate_dense) is nn.Linear:
                self.inner = product(feed_forward.intermediate_dense, str(config.hidden_act))
                self.activation = nn.Identity()
            else:
                self.inner = _float32(feed_forward.intermediate_dense, product)

    def __call__(self, frames: Tensor, lengths: Sequence[int]) -> Tensor:
        if self.stable:
            frames = frames + self._attend(self.norm(frames), lengths)
            return frames + self._feed(self.final_norm(frames))
        frames = self.norm(frames + self._attend(frames, lengths))
        return self.final_norm(frames + self._feed(frames))

    def _attend(self, frames: Tensor, lengths: Sequence[int]) -> Tensor:
        attended = []
        for clips in zip(*(_same_length(each, lengths) for each in self.inputs(frames)), strict=True):
            query, key, value = map(self._by_head, clips)
            by_head = functional.scaled_dot_product_attention(query, key, value)
            attended.append(by_head.transpose(1, 2).flatten(0, 1).flatten(1))
        return self.output(attended[0] if len(attended) == 1 else torch.cat(attended))

    def _by_head(self, clips: Tensor) -> Tensor:
        """(clips, frames, channels) → (clips, heads, frames, channels of a head)."""
        return clips.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _feed(self, frames: Tensor) -> Tensor:
        return self.outer(self.activation(self.inner(frames)))


def _refuse_adapters(model: nn.Module) -> None:
    """Refuse layers whose weights are not all that they compute: int8 is made of weights."""
    layer = next((name for name, _ in model.named_modules() if name.endswith(".base_layer")), None)
    if layer is not None:
        raise RequestError(
            f"precision is 'int8', and {layer.removesuffix('.base_layer')} has an adapter beside it",
            "plain layers: int8 is computed from their weights, without what an adapter adds",
            "merge_and_unload() of the PeftModel first, or gmp-atl merge ADAPTER FOLDER",
        )


def _product_of(layers: nn.ModuleList) -> type[Float32Linear | PackedLinear]:
    """How linear layers are multiplied: by a second copy of their weights where that is small enough."""
    weights = [each.weight for each in layers.modules() if isinstance(each, nn.Linear)]
    return PackedLinear if sum(each.nbytes for each in weights) <= PACKED_BYTES else Float32Linear


def _float32(linear: nn.Module, product: type[Float32Linear | PackedLinear]) -> Callable[[Tensor], Tensor]:
    """A linear layer made ready; one with an adapter beside it is left as it is."""
    return product(linear) if type(linear) is nn.Linear else linear


def _int8(linears: list[nn.Linear], lowest: float | None = None) -> Int8Linear:
    """Linear layers of the same input as one, their outputs side by side."""
    weight = torch.cat([linear.weight for linear in linears])
    return Int8Linear(weight, torch.cat([linear.bias for linear in linears]), lowest)


def _same_length(frames: Tensor, lengths: Sequence[int]) -> list[Tensor]:
    """Neighbours of the same length as (clips, frames, channels) views."""
    runs = [(length, len(list(run))) for length, run in groupby(lengths)]
    parts = frames.split([length * count for length, count in runs])
    return [part.unflatten(0, (count, length)) for part, (length, count) in zip(parts, runs, strict=True)]
