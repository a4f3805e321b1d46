"""HuBERT's forward pass, written so that a clip's hidden states never depend on the clips beside it.

The modules are transformers' own; only the order of calls is ours, and what other families of encoders have in place of
HuBERT's parts (`family_gmp_atl.py`). Two things differ from `HubertModel.forward`:

- Group norm (base checkpoints) runs over the valid frames of each clip. Over the padded batch its statistics would
  change with the longest neighbour (transformers#21534, #47739).
- Masks and crops come from the caller, for each clip, instead of being drawn here for the batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import HubertModel
from transformers import initialization as init
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.hubert.modeling_hubert import HubertGroupNormConvLayer
from transformers.utils.output_capturing import capture_outputs

from .configuration_gmp_atl import GMPATLConfig, RenamesTensors
from .families_gmp_atl import family_of
from .frames_gmp_atl import crop_frames, frame_count, length_mask

HEAD_KEYS = {
    r"^(emotion_|gender_)?classifier\.",
    r"^(pooling|standardization)\.",
    r"^(frame|state)_heads\.",
    r"^(hubert\.)?layer_weights$",
}
"""Tensors of heads, which a model of another kind leaves out when it is loaded."""

_ABOVE = r"^(hubert\.)?encoder\.(layers\.\d+|layer_norm)\."


def ignored_keys(config: GMPATLConfig) -> set[str]:
    """Tensors of a checkpoint that a model need not have: other heads, and what is above a layer that is read."""
    left_out = HEAD_KEYS | family_of(config.encoder_type).above
    return left_out if config.readout == "last" else left_out | {_ABOVE}


class EncoderInputs(TypedDict, total=False):
    """What every model's `forward` takes besides `input_values`, `attention_mask` and its targets; None is not given.

    Attributes:
        conv_features: (batch, frames, channels) output of the front end, right-padded, in place of `input_values`.
        frame_mask: (batch, frames), 1 on valid frames of `conv_features` or `layer_states`; None when no row is padded.
        frame_spans: (batch, 2) int64 frames to keep of each clip (first, one after the last); None keeps all.
        mask_time_indices: (batch, kept frames) bool, True where the frame is replaced by the mask embedding. Frames
            beyond the clip are never masked.
        mask_feature_indices: (batch, hidden) bool, True where a channel is zero in every frame.
        layer_states: (batch, frames, hidden) that went through the lowest layers before, right-padded, in place of
            `input_values`: only what is above those layers is computed. Nothing can be masked any more.
        layer_of_states: How many layers that were, 1 up to all of them.
        output_hidden_states: Return the input of the first transformer layer and the output of every one.
        output_attentions: Return the attention weights of every layer; needs `attn_implementation="eager"`.
        return_dict: False for a plain tuple.
    """

    conv_features: Tensor | None
    frame_mask: Tensor | None
    frame_spans: Tensor | None
    mask_time_indices: Tensor | None
    mask_feature_indices: Tensor | None
    layer_states: Tensor | None
    layer_of_states: int | None
    output_hidden_states: bool | None
    output_attentions: bool | None
    return_dict: bool | None


@dataclass
class EncodedSpeech:
    """Hidden states of a batch.

    Attributes:
        last_hidden_state: (batch, frames, hidden) of the encoder's end.
        frame_mask: (batch, frames) bool, True on valid frames.
        hidden_states: 1-based transformer layer → (batch, frames, hidden), for the layers asked for.
    """

    last_hidden_state: Tensor
    frame_mask: Tensor
    hidden_states: dict[int, Tensor]


def valid_group_norm(norm: nn.GroupNorm, features: Tensor, mask: Tensor) -> Tensor:
    """Group norm with one channel per group over the valid steps only.

    Args:
        norm: The layer's own module; its affine parameters and epsilon are used.
        features: (batch, channels, steps).
        mask: (batch, steps) bool.

    Returns:
        (batch, channels, steps) in the dtype of `features`; what stands on padding has no meaning.
    """
    # Autocast would run the sums in half precision; a mean over 30 s needs float32.
    with torch.autocast(features.device.type, enabled=False):
        values = features.float()
        if values.device.type == "cpu" and not torch.compiler.is_compiling():
            # Clip by clip with the library's own kernel: two thirds of the time, and a graph cannot loop over a batch.
            steps, weight, bias = values.shape[-1], norm.weight.float(), norm.bias.float()
            normed = [
                nn.functional.group_norm(clip[:, :, :count], norm.num_groups, weight, bias, norm.eps)
                for clip, count in zip(values.split(1), mask.sum(-1).clamp(min=1).tolist(), strict=True)
            ]
            return torch.cat([nn.functional.pad(one, (0, steps - one.shape[-1])) for one in normed]).to(features.dtype)
        weights = mask.to(values.dtype)
        counts = weights.sum(-1).clamp(min=1)[:, None]
        mean = torch.einsum("bct,bt->bc", values, weights) / counts
        centred = (values - mean[:, :, None]) * weights[:, None, :]
        variance = torch.einsum("bct,bct->bc", centred, centred) / counts
        scale = norm.weight.float() * torch.rsqrt(variance + norm.eps)
        return (centred * scale[:, :, None] + norm.bias.float()[:, None]).to(features.dtype)


class ValidGroupNormConvLayer(HubertGroupNormConvLayer):
    """The first convolution of base models, with its group norm over the valid steps of each clip."""

    def forward(self, features: Tensor, steps: Tensor | None = None) -> Tensor:
        """(batch, 1, samples) and (batch,) int64 valid steps of the output, None for all → (batch, channels, steps)."""
        features = self.conv(features)
        if steps is None:
            features = self.layer_norm(features)
        else:
            features = valid_group_norm(self.layer_norm, features, length_mask(steps, features.shape[-1]))
        activated: Tensor = self.activation(features)
        return activated


def convolve(hubert: GMPATLModel, input_values: Tensor, sample_counts: Tensor | None) -> Tensor:
    """Run the convolution front end over right-padded waveforms.

    Args:
        hubert: The encoder.
        input_values: (batch, samples) float waveforms at 16 kHz, right-padded.
        sample_counts: (batch,) int64 valid samples of each row; None when every row is full.

    Returns:
        (batch, frames, channels) convolution features.
    """
    layers: Any = getattr(hubert.feature_extractor, "conv_layers", None)
    config = hubert.config
    if layers is None:
        return cast(Tensor, hubert.feature_extractor(input_values, sample_counts)).transpose(1, 2)
    frozen = not any(parameter.requires_grad for parameter in layers.parameters())
    # A frozen front end needs no graph, and its activations are the largest of the model.
    with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
        features = _asking_for_gradients(input_values[:, None].to(layers[0].conv.weight.dtype), layers)
        for layer in layers:
            if isinstance(layer, ValidGroupNormConvLayer) and sample_counts is not None:
                features = layer(features, frame_count(sample_counts, config.conv_kernel[:1], config.conv_stride[:1]))
            else:
                features = layer(features)
    return features.transpose(1, 2)


def encode_speech(
    hubert: GMPATLModel,
    input_values: Tensor | None = None,
    attention_mask: Tensor | None = None,
    conv_features: Tensor | None = None,
    frame_mask: Tensor | None = None,
    frame_spans: Tensor | None = None,
    mask_time_indices: Tensor | None = None,
    mask_feature_indices: Tensor | None = None,
    layer_states: Tensor | None = None,
    layer_of_states: int | None = None,
    layers: tuple[int, ...] = (),
    output_attentions: bool = False,
) -> EncodedSpeech:
    """Encode waveforms, (batch, samples) float at 16 kHz, right-padded, or what was computed of them before.

    `attention_mask` is (batch, samples), 1 on valid samples, None when no row is padded; see `EncoderInputs` for the
    other inputs. Hidden states are kept of `layers`, 1-based. `output_attentions` warns where the attention has no
    weights to show; `GMPATLModel` records them.

    Raises:
        ValueError: Not exactly one of the inputs is given, a clip is shorter than one frame, holds NaN or infinity
            (looked at outside training alone), or `layer_states` come with what has its place below their layer.
    """
    if sum(each is not None for each in (input_values, conv_features, layer_states)) != 1:
        raise ValueError(
            "give either input_values (batch, samples) or conv_features (batch, frames, channels), or layer_states "
            "(batch, frames, hidden)"
        )
    if layer_states is not None:
        below = (frame_spans, mask_time_indices, mask_feature_indices)
        if any(each is not None for each in below) or layers or output_attentions:
            raise ValueError("layer_states cannot be cropped or masked, nor layers or attentions below them be given")
        mask = _all_valid(layer_states) if frame_mask is None else frame_mask.bool()
        return EncodedSpeech(_encode_above(hubert, layer_states, mask, layer_of_states), mask, {})
    if input_values is not None:
        conv_features, mask = _convolve_batch(hubert, input_values, attention_mask)
    else:
        conv_features = cast(Tensor, conv_features)
        mask = _all_valid(conv_features) if frame_mask is None else frame_mask.bool()
    if frame_spans is not None:
        conv_features, mask = crop_frames(conv_features, frame_spans)
    family = hubert.family
    # The front end's precision: that of the projection's weight says nothing once it is quantised.
    precision = family.first_convolution(hubert).weight.dtype
    hidden, whole_mask = family.project(hubert, conv_features.to(precision), mask)
    if mask_time_indices is None and hubert.training:
        mask_time_indices = torch.zeros_like(mask)
    if mask_time_indices is not None:
        # `where` keeps the mask embedding in the graph even if nothing is masked: processes must agree on gradients.
        masked = functional.pad(mask_time_indices & mask, (0, hidden.shape[1] - mask.shape[1]))[:, :, None]
        hidden = torch.where(masked, hubert.masked_spec_embed.to(hidden.dtype), hidden)
    if mask_feature_indices is not None:
        hidden = hidden.masked_fill(mask_feature_indices[:, None], 0.0)
    hidden = family.enter(hubert, hidden, whole_mask)
    hidden = _asking_for_gradients(hidden, hubert.encoder.layers)
    states: dict[int, Tensor] = {}
    hooks = [_record(hubert, layer, states) for layer in layers]
    given = {"output_attentions": output_attentions, **family.layer_inputs(hubert, hidden)}
    try:
        if hubert.config.readout == "sum":
            last = _sum_of_layers(hubert, hidden, whole_mask, given)
        else:
            last = hubert.encoder(hidden, attention_mask=whole_mask, **given).last_hidden_state
    finally:
        for hook in hooks:
            hook.remove()
    frames = mask.shape[1]
    return EncodedSpeech(last[:, :frames], mask, {layer: state[:, :frames] for layer, state in states.items()})


def _sum_of_layers(hubert: GMPATLModel, hidden: Tensor, mask: Tensor, given: dict[str, Any]) -> Tensor:
    """What enters the first layer and what each layer gives, under `weigh_layers`; the calls of transformers' encoder.

    Transformers' own encoder gives its end alone, and hooks that would collect the others are lost in export.
    """
    encoder: Any = hubert.encoder
    hidden = hidden.masked_fill(~mask[:, :, None], 0.0)
    attention_mask = create_bidirectional_mask(config=encoder.config, inputs_embeds=hidden, attention_mask=mask)
    hidden = hidden + encoder.pos_conv_embed(hidden)
    if not hubert.config.do_stable_layer_norm:
        hidden = encoder.layer_norm(hidden)
    states = [encoder.dropout(hidden)]
    for layer in encoder.layers:
        states.append(layer(states[-1], attention_mask=attention_mask, **given))
    return weigh_layers(states, cast(Tensor, hubert.layer_weights))


def _all_valid(frames: Tensor) -> Tensor:
    return torch.ones(frames.shape[:2], dtype=torch.bool, device=frames.device)


def _encode_above(hubert: GMPATLModel, states: Tensor, mask: Tensor, layer: int | None) -> Tensor:
    """The encoder's end of (batch, frames, hidden) states that went through its lowest `layer` layers before."""
    encoder: Any = hubert.encoder
    if layer is None or not 1 <= layer <= len(encoder.layers) or hubert.config.readout == "sum":
        raise ValueError(
            f"layer_of_states is {layer} for an encoder of {len(encoder.layers)} layers with readout "
            f"{hubert.config.readout!r}; expected 1 to {len(encoder.layers)}, and no sum over all layers"
        )
    precision = hubert.family.first_convolution(hubert).weight.dtype
    hidden = states.to(precision)
    attention_mask = create_bidirectional_mask(config=encoder.config, inputs_embeds=hidden, attention_mask=mask)
    given = hubert.family.layer_inputs(hubert, hidden)
    hidden = _asking_for_gradients(hidden, encoder.layers[layer:])
    for each in encoder.layers[layer:]:
        hidden = each(hidden, attention_mask=attention_mask, **given)
    # Encoders with their norms behind each part have this one below the first layer.
    return encoder.layer_norm(hidden) if hubert.config.do_stable_layer_norm else hidden


def weigh_layers(states: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Sum of states (..., hidden), each under a layer norm, with the softmax of (states,) weights.

    Without the norm, layers with large values would drown the others whatever the weights.
    """
    shares = weights.float().softmax(0)
    total = torch.zeros_like(states[0])
    for state, share in zip(states, shares, strict=True):
        total = total + functional.layer_norm(state, state.shape[-1:]) * share
    return total


def _asking_for_gradients(values: Tensor, layers: Iterable[nn.Module]) -> Tensor:
    """The input of layers that may be checkpointed: reentrant, they have gradients only where their input has one."""
    checkpointed = any(layer.training and getattr(layer, "gradient_checkpointing", False) for layer in layers)
    if values.requires_grad or not (checkpointed and torch.is_grad_enabled()):
        return values
    return values.detach().requires_grad_().clone()  # a copy, as the encoder writes zeros into its input


def _convolve_batch(hubert: GMPATLModel, input_values: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Front end and frame mask of a padded batch of waveforms."""
    config = hubert.config
    batch, samples = input_values.shape
    if attention_mask is None:
        counts = torch.full((batch,), samples, dtype=torch.long, device=input_values.device)
    else:
        counts = attention_mask.sum(-1).long()
    frames = frame_count(counts, config.conv_kernel, config.conv_stride)
    if not torch.compiler.is_compiling():
        shortest = int(counts.min())
        if int(frames.min()) < 1:
            raise ValueError(
                f"a clip of {shortest} samples is shorter than one frame; pad it with zeros to the front end's "
                "receptive field (400 samples for HuBERT) or leave it out"
            )
        # A training step that diverges is stopped by its trainer, and should not wait for the accelerator here.
        if not (hubert.training or torch.jit.is_tracing()):
            _refuse_non_finite(input_values, counts)
        if attention_mask is None or shortest == samples:
            features = convolve(hubert, input_values, None)
            return features, length_mask(frames, features.shape[1])
    features = convolve(hubert, input_values, counts)
    return features, length_mask(frames, features.shape[1])


def _refuse_non_finite(input_values: Tensor, counts: Tensor) -> None:
    """Name the clips that hold NaN or infinity among their (batch,) valid samples: all their scores would be NaN."""
    finite = input_values.isfinite()
    if bool(finite.all()):
        return
    # What stands on padding is part of no clip.
    wrong = (~finite & length_mask(counts, input_values.shape[1])).any(1).nonzero()[:, 0].tolist()
    if wrong:
        rows = f"row {wrong[0]}" if len(wrong) == 1 else f"rows {', '.join(map(str, wrong))}"
        raise ValueError(
            f"{rows} of input_values (the clips of the batch, counted from 0) {'has' if len(wrong) == 1 else 'have'} "
            "samples that are not finite numbers (NaN or infinity), and one is enough to spoil all scores of its clip; "
            "get the recording again from its source, or leave it out"
        )


def _record(hubert: GMPATLModel, layer: int, states: dict[int, Tensor]) -> torch.utils.hooks.RemovableHandle:
    """Keep the output of one transformer layer (1-based) in `states`."""

    def keep(_module: nn.Module, _inputs: tuple[object, ...], output: Tensor | tuple[Tensor, ...]) -> None:
        states[layer] = output[0] if isinstance(output, tuple) else output

    return hubert.encoder.layers[layer - 1].register_forward_hook(keep)


@dataclass
class GMPATLModelOutput(BaseModelOutput):
    """Hidden states of a batch, as `HubertModel` gives them, and what is padding in them.

    Args:
        last_hidden_state (`torch.FloatTensor` of shape `(batch, frames, hidden)`): The encoder's end.
        hidden_states (`tuple` of `torch.FloatTensor` of shape `(batch, frames, hidden)`, if asked for):
            Input of the first transformer layer, then the output of each: number k is that of layer k.
        attentions (`tuple` of `torch.FloatTensor` of shape `(batch, heads, frames, frames)`, if asked for):
            Attention weights of every layer.
        frame_mask (`torch.BoolTensor` of shape `(batch, frames)`): True on valid frames.
    """

    frame_mask: Tensor | None = None


class GMPATLModel(RenamesTensors, HubertModel):
    """The encoder by itself, for embeddings: `HubertModel`, but a clip's never depend on the clips beside it.

    Other families of encoders have parts of their own in it, under HuBERT's names.
    """

    config_class = GMPATLConfig
    config: GMPATLConfig
    layer_weights: nn.Parameter | None

    def __init__(self, config: GMPATLConfig) -> None:
        self.family = family_of(config.encoder_type)  # asked for by `_init_weights`
        super().__init__(config)
        self.family.furnish(self)
        for layer in getattr(self.feature_extractor, "conv_layers", ()):
            if isinstance(layer, HubertGroupNormConvLayer):
                layer.__class__ = ValidGroupNormConvLayer  # another layer would draw its weights after all others
        if not hasattr(self, "masked_spec_embed"):
            # HubertModel leaves it out when a checkpoint was trained without masks; every step here may mask.
            # Initialised here as there: the encoder counts as initialised already, `_init_weights` would pass it by.
            begin = torch.rand if self.family.has_mask else torch.zeros
            self.masked_spec_embed = nn.Parameter(begin(config.hidden_size))
        sums = config.readout == "sum"
        self.layer_weights = nn.Parameter(torch.zeros(config.num_hidden_layers + 1)) if sums else None
        # A trained model has a head as well; leaving it out is no news to anyone.
        self._keys_to_ignore_on_load_unexpected = ignored_keys(config)
        encoder: Any = self.encoder
        del encoder.layers[config.depth :]
        if config.readout != "last" and config.do_stable_layer_norm:
            encoder.layer_norm = nn.Identity()  # it belongs behind the last layer, where nobody reads

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)  # type: ignore[no-untyped-call]
        if getattr(module, "layer_weights", None) is not None:
            init.zeros_(cast(Tensor, module.layer_weights))  # all layers alike
        if isinstance(module, GMPATLModel) and not self.family.has_mask:
            init.zeros_(module.masked_spec_embed)
        if (begin_weights := getattr(module, "begin_weights", None)) is not None:
            begin_weights()  # of a family's own parts

    def forward(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **kwargs: Unpack[EncoderInputs],
    ) -> GMPATLModelOutput:
        """Encode a batch.

        Args:
            input_values: (batch, samples) float32 waveforms at 16 kHz.
            attention_mask: (batch, samples), 1 on valid samples.
            kwargs: See `EncoderInputs`.
        """
        # None is "as the configuration says", and wrappers such as PEFT's hand on the arguments of text models as None.
        given: dict[str, Any] = {name: value for name, value in kwargs.items() if value is not None}
        encoded: GMPATLModelOutput = self._encode(input_values, attention_mask, **given)
        return cast(GMPATLModelOutput, _cut_to_clips(encoded)) if self.family.encodes_more else encoded

    @capture_outputs(tie_last_hidden_states=False)  # type: ignore[untyped-decorator]
    def _encode(
        self,
        input_values: Tensor | None,
        attention_mask: Tensor | None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        **given: Any,
    ) -> GMPATLModelOutput:
        """The decorator records the layers and gives a plain tuple where it is wanted."""
        if output_hidden_states and given.get("layer_states") is not None:
            raise ValueError("output_hidden_states is true, and layer_states stand for the layers below theirs")
        encoded = encode_speech(self, input_values, attention_mask, output_attentions=output_attentions, **given)
        return GMPATLModelOutput(last_hidden_state=encoded.last_hidden_state, frame_mask=encoded.frame_mask)


def _cut_to_clips(encoded: Any) -> Any:
    """An output, or a plain tuple, whose recorded states and attentions go on behind the clips' frames."""
    frames = encoded[0].shape[1]

    def cut(values: Any) -> Any:
        if not isinstance(values, tuple):
            return values
        return tuple(
            each if each is None else each[..., :frames, :frames] if each.ndim == 4 else each[:, :frames]
            for each in values
        )

    if isinstance(encoded, tuple):
        return tuple(map(cut, encoded))
    return GMPATLModelOutput(**{name: cut(values) for name, values in encoded.items()})


GMPATLModel.register_for_auto_class("AutoModel")  # type: ignore[no-untyped-call]
