"""Fine-tuning on emotions with frame labels as a second loss, in place of a retraining of its own or after it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Unpack, cast

import torch
from torch import Tensor
from transformers.utils.generic import can_return_tuple

from ..modeling.configuration_gmp_atl import GMPATLConfig
from ..modeling.encoding_gmp_atl import EncoderInputs
from ..modeling.heads_gmp_atl import FrameHeads
from ..modeling.losses_gmp_atl import PartSums
from ..modeling.modeling_gmp_atl import GMPATLOutput, HubertForGMPATL


class HubertForGMPATLJoint(HubertForGMPATL):
    """The fine-tuned model with a frame head for each scale: `L_emotion + frame_weight · Σ L_scale`. Not in the paper.

    Each loss is a mean over what counts for it: class weights of clips, and frames (`frame_targets`). The frame heads
    read the states that are pooled for the emotion. Without frame labels, as in evaluation, where no frame is masked
    for them, the frame parts are 0; `without_frame_heads` gives the model to keep.
    """

    target_names = ("labels", "frame_labels")
    _auto_class = None  # for training only: no Auto class loads it, and its code does not travel with the weights

    def __init__(self, config: GMPATLConfig) -> None:
        super().__init__(config)
        self.frame_heads = FrameHeads(config)
        self.post_init()  # type: ignore[no-untyped-call]

    @property
    def loss_parts(self) -> tuple[str, ...]:  # type: ignore[override]
        """The emotion, then the pseudo-label columns in the order of `frame_labels`."""
        return ("emotion", *self.frame_heads)

    @property
    def part_weights(self) -> tuple[float, ...]:  # type: ignore[override]
        """One for the emotion, and `frame_weight` for each scale."""
        return (1.0, *(float(self.config.frame_weight) for _ in self.frame_heads))

    def count_parts(self, batch: Mapping[str, Tensor], class_weights: Tensor | None = None) -> Tensor:
        """See the base class."""
        frames = self.frame_heads.count(batch["frame_labels"], batch.get("mask_time_indices"))
        return torch.cat([super().count_parts(batch, class_weights), frames])

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        class_weights: Tensor | None = None,
        loss_denominators: Tensor | None = None,
        speaker_statistics: Tensor | None = None,
        frame_labels: Tensor | None = None,
        **kwargs: Unpack[EncoderInputs],
    ) -> GMPATLOutput:
        """Score emotions, as `HubertForGMPATL` does, and with `labels` and `frame_labels` lose at both.

        Args:
            input_values: (batch, samples) float32 waveforms at 16 kHz.
            attention_mask: (batch, samples), 1 on valid samples.
            labels: (batch,) or (batch, 1) int64 emotions, -100 missing.
            class_weights: (emotions,) float32 class weights.
            loss_denominators: (1 + scales,) float32 counts of the whole optimiser step.
            speaker_statistics: (2, size) or (batch, 2, size) float32, see `Standardization.of_speakers`.
            frame_labels: (batch, kept frames, scales) int64 clusters, -100 where unknown or padding.
            kwargs: See `EncoderInputs`; with `frame_targets="masked"` only the frames of `mask_time_indices` count.

        Raises:
            ValueError: `frame_labels` and the model disagree about scales or frames.
        """
        encoded = self.hubert(input_values, attention_mask, return_dict=True, **kwargs)
        hidden, mask = encoded.last_hidden_state, encoded.frame_mask
        pooled = self.pooling(hidden, mask)
        outputs, parts = self.score(pooled, labels, None, class_weights, speaker_statistics)
        if parts and frame_labels is not None:
            masked = kwargs.get("mask_time_indices")
            parts[1:] = self.frame_heads.sums(self.dropout(hidden), mask, frame_labels, masked)
        return self._output(parts, loss_denominators, encoded, **outputs)

    def score(self, pooled: Tensor, *targets: Any, **further: Any) -> tuple[dict[str, Tensor], list[PartSums]]:
        """See the base class; of pooled vectors nothing is known about frames, so that their parts are 0."""
        outputs, parts = super().score(pooled, *targets, **further)
        nothing = [PartSums(*(torch.zeros_like(values) for values in part)) for part in parts for _ in self.frame_heads]
        return outputs, [*parts, *nothing]

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Save a model, as in transformers, without code."""
        super(HubertForGMPATL, self).save_pretrained(save_directory, *args, **kwargs)

    def without_frame_heads(self) -> HubertForGMPATL:
        """The model to keep: a plain `HubertForGMPATL` with the same weights and scores."""
        config = copy.deepcopy(self.config)
        config.frame_scales, config.frame_weight = {}, 0.0
        plain: Any = HubertForGMPATL(config)
        plain.to(self.device)
        kept = {name: values for name, values in self.state_dict().items() if not name.startswith("frame_heads.")}
        plain.load_state_dict(kept)
        plain.train(self.training)
        return cast(HubertForGMPATL, plain)
