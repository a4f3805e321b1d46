"""The three models of GMP-ATL on one shared encoder named `hubert`.

Weights pass from any HuBERT checkpoint into any of them and from one training to the next: the encoder's keys are those
of `HubertModel` behind the prefix `hubert.`; each model adds its own heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import HubertModel
from transformers import initialization as init
from transformers.models.hubert.modeling_hubert import HubertPreTrainedModel
from transformers.utils import ModelOutput

from .configuration_gmp_atl import BeginsAnywhere, GMPATLConfig
from .encoding_gmp_atl import EncodedSpeech, encode_speech
from .heads_gmp_atl import FRAME_HEAD_CLASSES, POOLING_CLASSES, CosineClassifier
from .losses_gmp_atl import (
    IGNORED,
    PartSums,
    am_softmax_sums,
    combine_parts,
    count_labels,
    cross_entropy_sums,
    frame_cross_entropy_sums,
)

GENDERS = ("female", "male")
"""Order of `gender_labels` and `gender_logits`."""


@dataclass
class GMPATLOutput(ModelOutput):
    """What the models return; fields that a model does not have are None.

    Args:
        loss (`torch.FloatTensor` of shape `(1,)`, float32, with labels):
            The weighted parts, see `combine_parts`.
        logits (`torch.FloatTensor` of shape `(batch, emotions)`, float32):
            Emotion logits; `s·cos θ / T` under AM-Softmax, without margin.
        gender_logits (`torch.FloatTensor` of shape `(batch, 2)`, float32): Order female, male.
        frame_logits (`tuple` of `torch.FloatTensor` of shape `(batch, frames, clusters)`, without `frame_labels`):
            One entry per scale.
        loss_sums (`torch.FloatTensor` of shape `(batch, parts)`, float32, with labels):
            Sum of each clip's losses for each part named by the model's `loss_parts`.
        loss_counts (`torch.FloatTensor` of shape `(batch, parts)`, float32, with labels):
            What each sum is to be divided by, added up over the clips that belong together.
        hits (`torch.FloatTensor` of shape `(batch, parts)`, float32, with labels):
            Counted items (the clip, or its frames) that were predicted rightly.
        hidden_states (`tuple` of `torch.FloatTensor` of shape `(batch, frames, hidden)`):
            Output of every transformer layer, first to last, if `output_hidden_states=True`.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    gender_logits: Tensor | None = None
    frame_logits: tuple[Tensor, ...] | None = None
    loss_sums: Tensor | None = None
    loss_counts: Tensor | None = None
    hits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class GMPATLPreTrainedModel(BeginsAnywhere, HubertPreTrainedModel):
    """Shared encoder, weight initialisation and input handling."""

    config_class = GMPATLConfig
    config: GMPATLConfig
    base_model_prefix = "hubert"
    # Means of a batch are divided by the accumulation steps by the stock Trainer; GMPATLTrainer does it exactly.
    accepts_loss_kwargs = False
    target_names: tuple[str, ...] = ()
    """Arguments of `forward` that hold what is to be predicted."""
    # A step starts from another step's model: its heads are not ours, and that is no news to anyone.
    _keys_to_ignore_on_load_unexpected = [r"^(emotion_|gender_)?classifier\.", r"^pooling\.", r"^frame_heads\."]

    def __init__(self, config: GMPATLConfig) -> None:
        super().__init__(config)
        self.hubert = HubertModel(config)
        if not hasattr(self.hubert, "masked_spec_embed"):
            # HubertModel leaves it out when a checkpoint was trained without masks; every step here may mask.
            # Initialised here as there: the encoder counts as initialised already, `_init_weights` would pass it by.
            self.hubert.masked_spec_embed = nn.Parameter(torch.rand(config.hidden_size))

    @property
    def loss_parts(self) -> tuple[str, ...]:
        """Names of the columns of `loss_sums`."""
        raise NotImplementedError

    @property
    def part_weights(self) -> tuple[float, ...]:
        """Weight of each part in the loss."""
        raise NotImplementedError

    def count_parts(self, batch: Mapping[str, Tensor], class_weights: Tensor | None = None) -> Tensor:
        """What the losses of a batch will be divided by, known before its forward pass.

        Args:
            batch: Labels and masks of `forward`.
            class_weights: (emotions,) float32 weights of the emotion part.

        Returns:
            (parts,) float32, equal to `loss_counts.sum(0)` of the forward pass.
        """
        raise NotImplementedError

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise what a checkpoint lacks, with transformers' helpers that leave loaded weights alone."""
        super()._init_weights(module)  # type: ignore[no-untyped-call]
        if isinstance(module, CosineClassifier):
            init.normal_(module.weight, mean=0.0, std=self.config.initializer_range)

    def freeze_feature_encoder(self) -> None:
        """Stop training the convolution front end (the field's usual choice for pre-trained checkpoints)."""
        self.hubert.feature_extractor._freeze_parameters()

    def freeze_encoder(self) -> None:
        """Stop training everything but the heads."""
        for parameter in self.hubert.parameters():
            parameter.requires_grad = False

    def encode(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        conv_features: Tensor | None = None,
        frame_mask: Tensor | None = None,
        frame_spans: Tensor | None = None,
        mask_time_indices: Tensor | None = None,
        mask_feature_indices: Tensor | None = None,
        layers: tuple[int, ...] = (),
    ) -> EncodedSpeech:
        """Hidden states of a batch; arguments, shapes and errors are those of `encode_speech`."""
        return encode_speech(
            self.hubert,
            input_values,
            attention_mask,
            conv_features,
            frame_mask,
            frame_spans,
            mask_time_indices,
            mask_feature_indices,
            layers,
        )

    @property
    def _all_layers(self) -> tuple[int, ...]:
        return tuple(range(1, self.config.num_hidden_layers + 1))

    def _output(
        self,
        parts: list[PartSums],
        loss_denominators: Tensor | None,
        encoded: EncodedSpeech,
        return_dict: bool | None,
        **fields: Any,
    ) -> GMPATLOutput | tuple[Tensor, ...]:
        if parts:
            fields["loss_sums"] = torch.stack([part.sums for part in parts], dim=1)
            fields["loss_counts"] = torch.stack([part.counts for part in parts], dim=1)
            fields["hits"] = torch.stack([part.hits for part in parts], dim=1)
            weights = torch.tensor(self.part_weights, device=fields["loss_sums"].device)
            fields["loss"] = combine_parts(fields["loss_sums"], fields["loss_counts"], weights, loss_denominators)
        if encoded.hidden_states:
            fields["hidden_states"] = tuple(encoded.hidden_states[layer] for layer in sorted(encoded.hidden_states))
        # All at once: a field that is set later would come last in the tuple, and the loss has to be first.
        output = GMPATLOutput(**fields)
        return output if return_dict is not False else output.to_tuple()


class HubertForGMPATLMultiTask(GMPATLPreTrainedModel):
    """Step 1: emotion and gender of an utterance, `α·L_emotion + (1 - α)·L_gender`, cross-entropies.

    That both tasks train the encoder together is stated by the paper; α, pooling and heads are our choice.
    """

    loss_parts = ("emotion", "gender")
    target_names = ("labels", "gender_labels")

    def __init__(self, config: GMPATLConfig) -> None:
        super().__init__(config)
        self.pooling = POOLING_CLASSES[config.pooling](config.hidden_size)
        self.dropout = nn.Dropout(config.final_dropout)
        self.emotion_classifier = nn.Linear(self.pooling.output_size, config.num_emotions)
        self.gender_classifier = nn.Linear(self.pooling.output_size, len(GENDERS))
        self.post_init()  # type: ignore[no-untyped-call]

    @property
    def part_weights(self) -> tuple[float, float]:
        """α and 1 - α."""
        return self.config.emotion_weight, 1 - self.config.emotion_weight

    def count_parts(self, batch: Mapping[str, Tensor], class_weights: Tensor | None = None) -> Tensor:
        """See the base class."""
        genders = batch.get("gender_labels")
        emotion = count_labels(batch["labels"], class_weights)
        return torch.stack([emotion, torch.zeros_like(emotion) if genders is None else count_labels(genders)])

    def forward(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        conv_features: Tensor | None = None,
        frame_mask: Tensor | None = None,
        frame_spans: Tensor | None = None,
        mask_time_indices: Tensor | None = None,
        mask_feature_indices: Tensor | None = None,
        labels: Tensor | None = None,
        gender_labels: Tensor | None = None,
        class_weights: Tensor | None = None,
        loss_denominators: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> GMPATLOutput | tuple[Tensor, ...]:
        """Score emotion and gender.

        Args:
            input_values: (batch, samples) float32 waveforms at 16 kHz.
            attention_mask: (batch, samples), 1 on valid samples.
            conv_features: (batch, frames, channels) in place of `input_values`.
            frame_mask: (batch, frames), 1 on valid frames of `conv_features`.
            frame_spans: (batch, 2) int64 frames to keep.
            mask_time_indices: (batch, kept frames) bool frames to mask.
            mask_feature_indices: (batch, hidden) bool channels to mask.
            labels: (batch,) int64 emotions, -100 missing.
            gender_labels: (batch,) int64, 0 female, 1 male, -100 missing; without them the gender part is 0.
            class_weights: (emotions,) float32 weights of the emotion part.
            loss_denominators: (2,) float32 counts of the whole optimiser step.
            output_hidden_states: Return the output of every transformer layer.
            return_dict: False for a plain tuple.

        Returns:
            `loss`, `logits`, `gender_logits` and the parts of the loss.
        """
        layers = self._all_layers if output_hidden_states else ()
        encoded = self.encode(
            input_values,
            attention_mask,
            conv_features,
            frame_mask,
            frame_spans,
            mask_time_indices,
            mask_feature_indices,
            layers,
        )
        pooled = self.dropout(self.pooling(encoded.last_hidden_state, encoded.frame_mask))
        logits = self.emotion_classifier(pooled).float()
        gender_logits = self.gender_classifier(pooled).float()
        parts = []
        if labels is not None:
            genders = torch.full_like(labels, IGNORED) if gender_labels is None else gender_labels
            parts = [cross_entropy_sums(logits, labels, class_weights), cross_entropy_sums(gender_logits, genders)]
        logits = logits / self.config.logit_temperature
        return self._output(parts, loss_denominators, encoded, return_dict, logits=logits, gender_logits=gender_logits)


class HubertForGMPATLFrameClassification(GMPATLPreTrainedModel):
    """Step 3: the pseudo-label of each masked frame at each scale; cross-entropies summed over scales.

    Cross-entropy against the pseudo-labels is stated by the paper; masked prediction and the unweighted sum are our
    choice (HuBERT and P-TAPT do so).
    """

    target_names = ("frame_labels",)
    method_defaults = {"mask_time_prob": 0.8, "mask_time_length": 10, "mask_time_min_masks": 1}

    def __init__(self, config: GMPATLConfig) -> None:
        super().__init__(config)
        head = FRAME_HEAD_CLASSES[config.frame_head]
        scales = config.frame_scales or {}
        self.frame_heads = nn.ModuleDict(
            {name: head(config.hidden_size, clusters) for name, clusters in scales.items()}
        )
        self.dropout = nn.Dropout(config.final_dropout)
        self.post_init()  # type: ignore[no-untyped-call]

    @property
    def loss_parts(self) -> tuple[str, ...]:
        """The pseudo-label columns, in the order of `frame_labels`."""
        return tuple(self.frame_heads)

    @property
    def part_weights(self) -> tuple[float, ...]:
        """One for each scale."""
        return (1.0,) * len(self.frame_heads)

    def count_parts(self, batch: Mapping[str, Tensor], class_weights: Tensor | None = None) -> Tensor:
        """See the base class."""
        counted = batch["frame_labels"] != IGNORED
        if self.config.frame_targets == "masked":
            counted = counted & batch["mask_time_indices"][:, :, None]
        return counted.sum((0, 1)).float()

    def forward(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        conv_features: Tensor | None = None,
        frame_mask: Tensor | None = None,
        frame_spans: Tensor | None = None,
        mask_time_indices: Tensor | None = None,
        mask_feature_indices: Tensor | None = None,
        frame_labels: Tensor | None = None,
        loss_denominators: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> GMPATLOutput | tuple[Tensor, ...]:
        """Predict the cluster of frames.

        Args:
            input_values: (batch, samples) float32 waveforms at 16 kHz.
            attention_mask: (batch, samples), 1 on valid samples.
            conv_features: (batch, frames, channels) in place of `input_values`.
            frame_mask: (batch, frames), 1 on valid frames of `conv_features`.
            frame_spans: (batch, 2) int64 frames to keep.
            mask_time_indices: (batch, kept frames) bool frames to mask; with labels and `frame_targets="masked"` only
                these count.
            mask_feature_indices: (batch, hidden) bool channels to mask.
            frame_labels: (batch, kept frames, scales) int64 clusters, -100 where unknown or padding.
            loss_denominators: (scales,) float32 counts of the whole optimiser step.
            output_hidden_states: Return the output of every transformer layer.
            return_dict: False for a plain tuple.

        Returns:
            With labels `loss` and its parts; without labels `frame_logits`.

        Raises:
            ValueError: `frame_labels` and the model disagree about scales or frames.
        """
        layers = self._all_layers if output_hidden_states else ()
        encoded = self.encode(
            input_values,
            attention_mask,
            conv_features,
            frame_mask,
            frame_spans,
            mask_time_indices,
            mask_feature_indices,
            layers,
        )
        hidden = self.dropout(encoded.last_hidden_state)
        if frame_labels is None:
            frame_logits = tuple(head(hidden).float() for head in self.frame_heads.values())
            return self._output([], None, encoded, return_dict, frame_logits=frame_logits)
        expected = (*encoded.frame_mask.shape, len(self.frame_heads))
        if tuple(frame_labels.shape) != expected:
            raise ValueError(
                f"frame_labels have shape {tuple(frame_labels.shape)}, but the model makes {expected} "
                f"(batch, frames, scales) of these clips; scales are {list(self.frame_heads)}"
            )
        counted = encoded.frame_mask
        if self.config.frame_targets == "masked":
            counted = counted & mask_time_indices if mask_time_indices is not None else torch.zeros_like(counted)
        parts = []
        for scale, head in enumerate(self.frame_heads.values()):
            chosen = counted & (frame_labels[:, :, scale] != IGNORED)
            targets, clips = frame_labels[:, :, scale][chosen], chosen.nonzero()[:, 0]
            parts.append(frame_cross_entropy_sums(head(hidden[chosen]), targets, clips, len(chosen)))
        return self._output(parts, loss_denominators, encoded, return_dict)


class HubertForGMPATL(GMPATLPreTrainedModel):
    """Step 4 and the model to ship: the emotion of an utterance, trained with AM-Softmax.

    `softmax(logits)` is what `pipeline("audio-classification")` shows.
    """

    loss_parts = ("emotion",)
    target_names = ("labels",)
    part_weights = (1.0,)

    def count_parts(self, batch: Mapping[str, Tensor], class_weights: Tensor | None = None) -> Tensor:
        """See the base class."""
        return count_labels(batch["labels"], class_weights)[None]

    def __init__(self, config: GMPATLConfig) -> None:
        super().__init__(config)
        self.pooling = POOLING_CLASSES[config.pooling](config.hidden_size)
        self.dropout = nn.Dropout(config.final_dropout)
        head = CosineClassifier if config.emotion_loss == "am-softmax" else nn.Linear
        self.classifier = head(self.pooling.output_size, config.num_emotions)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        conv_features: Tensor | None = None,
        frame_mask: Tensor | None = None,
        frame_spans: Tensor | None = None,
        mask_time_indices: Tensor | None = None,
        mask_feature_indices: Tensor | None = None,
        labels: Tensor | None = None,
        class_weights: Tensor | None = None,
        loss_denominators: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> GMPATLOutput | tuple[Tensor, ...]:
        """Score emotions.

        Args:
            input_values: (batch, samples) float32 waveforms at 16 kHz.
            attention_mask: (batch, samples), 1 on valid samples.
            conv_features: (batch, frames, channels) in place of `input_values`.
            frame_mask: (batch, frames), 1 on valid frames of `conv_features`.
            frame_spans: (batch, 2) int64 frames to keep.
            mask_time_indices: (batch, kept frames) bool frames to mask.
            mask_feature_indices: (batch, hidden) bool channels to mask.
            labels: (batch,) int64 emotions, -100 missing.
            class_weights: (emotions,) float32 class weights.
            loss_denominators: (1,) float32 count of the whole optimiser step.
            output_hidden_states: Return the output of every transformer layer.
            return_dict: False for a plain tuple.

        Returns:
            `logits = s·cos θ / T` (no margin, not even in training), and with labels the loss, which has the margin in
            training only and always T = 1.
        """
        layers = self._all_layers if output_hidden_states else ()
        encoded = self.encode(
            input_values,
            attention_mask,
            conv_features,
            frame_mask,
            frame_spans,
            mask_time_indices,
            mask_feature_indices,
            layers,
        )
        scores, logits = self.score_frames(encoded.last_hidden_state, encoded.frame_mask)
        config = self.config
        angular = config.emotion_loss == "am-softmax"
        parts = []
        if labels is not None and angular:
            margin = config.am_softmax_margin if self.training else 0.0
            parts = [am_softmax_sums(scores, labels, config.am_softmax_scale, margin, class_weights)]
        elif labels is not None:
            parts = [cross_entropy_sums(scores, labels, class_weights)]
        return self._output(parts, loss_denominators, encoded, return_dict, logits=logits)

    def score_frames(self, hidden: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The emotion head: (batch, frames, hidden) and (batch, frames) bool → scores and logits, (batch, emotions).

        Scores are cosines under AM-Softmax; `logits = s·cos θ / T`.
        """
        config = self.config
        scores = self.classifier(self.dropout(self.pooling(hidden, mask))).float()
        scaled = config.am_softmax_scale * scores if config.emotion_loss == "am-softmax" else scores
        return scores, scaled / config.logit_temperature


HubertForGMPATL.register_for_auto_class("AutoModelForAudioClassification")  # type: ignore[no-untyped-call]
