"""A HuBERT that learns to predict a teacher's hidden states, frame by frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import initialization as init
from transformers.utils.generic import can_return_tuple

from ..modeling.configuration_gmp_atl import GMPATLConfig
from ..modeling.encoding_gmp_atl import EncoderInputs
from ..modeling.losses_gmp_atl import PartSums
from ..modeling.modeling_gmp_atl import GMPATLOutput, GMPATLPreTrainedModel
from ..training.parameters import split_groups
from ..training.trainer import GMPATLTrainer


class StateHead(nn.Module):
    """A map from the student to one layer of the teacher, whose dimensions are given mean 0 and variance 1.

    Args:
        hidden_size: Width of the student.
        width: Width of the teacher.
        in_place: Whether the student's state is to be the teacher's, and not only to tell it by a linear map.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, hidden_size: int, width: int, in_place: bool = False) -> None:
        super().__init__()
        self.linear = None if in_place else nn.Linear(hidden_size, width)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))

    def standardise(self, mean: Tensor, deviation: Tensor) -> None:
        """Take (width,) statistics of the teacher's states, none of them zero."""
        if self.linear is None:
            # Dimensions that hardly ever move count for little in the teacher's own units, and so they do here.
            deviation = deviation.clamp(min=0.2 * float(deviation.median()))
        with torch.no_grad():
            self.mean.copy_(mean)
            self.deviation.copy_(deviation)

    def sums(self, hidden: Tensor, states: Tensor, clips: Tensor, num_clips: int) -> PartSums:
        """Mean absolute error plus one minus the cosine of each frame, added up for each clip.

        A clip's count is its number of frames, its `correct` the sum of their cosines.

        Args:
            hidden: (frames, hidden) of the student.
            states: (frames, width) of the teacher, any float dtype.
            clips: (frames,) int64 row that each frame belongs to.
            num_clips: Rows in the batch.
        """
        if self.linear is None:
            predicted = (hidden.float() - self.mean) / self.deviation
        else:
            predicted = self.linear(hidden).float()
        target = (states.float() - self.mean) / self.deviation
        cosines = functional.cosine_similarity(predicted, target, dim=-1)
        losses = (predicted - target).abs().mean(-1) + 1 - cosines
        empty = torch.zeros(num_clips, dtype=torch.float32, device=predicted.device)
        added = [empty.index_add(0, clips, values) for values in (losses, torch.ones_like(losses), cosines.detach())]
        return PartSums(*added)


class HubertForTeacherRegression(GMPATLPreTrainedModel):
    """The encoder with one linear head for each layer of the teacher, named in `frame_scales` with its width.

    As DistilHuBERT (Chang et al. 2022) predicts its teacher, with the cosine in place of its log-sigmoid. Without any
    transformer layer, what would enter the first one is to be the teacher's state itself where both are equally wide,
    so that the teacher's layers can be put on top.
    """

    target_names = ("frame_states",)

    def __init__(self, config: GMPATLConfig) -> None:
        super().__init__(config)
        widths, front_end_alone = config.frame_scales or {}, config.num_hidden_layers == 0
        if front_end_alone and config.do_stable_layer_norm:
            # This layer norm comes behind the last layer, not before the first one.
            encoder: Any = self.hubert.encoder
            encoder.layer_norm = nn.Identity()
        self.state_heads = nn.ModuleDict(
            {
                name: StateHead(config.hidden_size, width, front_end_alone and width == config.hidden_size)
                for name, width in widths.items()
            }
        )
        self.dropout = nn.Dropout(config.final_dropout)
        self.post_init()  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise also buffers that a checkpoint lacks."""
        super()._init_weights(module)
        if isinstance(module, StateHead):
            init.zeros_(module.mean)
            init.ones_(module.deviation)

    @property
    def loss_parts(self) -> tuple[str, ...]:
        """The columns of the teacher's layers."""
        return tuple(self.state_heads)

    @property
    def part_weights(self) -> tuple[float, ...]:
        """One for each layer."""
        return (1.0,) * len(self.state_heads)

    def count_parts(self, batch: Mapping[str, Tensor], class_weights: Tensor | None = None) -> Tensor:
        """See the base class."""
        count = self._counted(batch["known_frames"], batch.get("mask_time_indices")).sum().float()
        return count.expand(len(self.state_heads))

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        frame_states: Tensor | None = None,
        known_frames: Tensor | None = None,
        loss_denominators: Tensor | None = None,
        **kwargs: Unpack[EncoderInputs],
    ) -> GMPATLOutput:
        """Predict the teacher's states.

        Args:
            input_values: (batch, samples) float32 waveforms at 16 kHz.
            attention_mask: (batch, samples), 1 on valid samples.
            frame_states: (batch, kept frames, widths of all heads one after the other) of the teacher, any float dtype.
            known_frames: (batch, kept frames) bool, True where the teacher has a frame.
            loss_denominators: (heads,) float32 counts of the whole optimiser step.
            kwargs: See `EncoderInputs`; with `frame_targets="masked"` only the frames of `mask_time_indices` count.
        """
        encoded = self.hubert(input_values, attention_mask, return_dict=True, **kwargs)
        if frame_states is None or known_frames is None:
            raise ValueError("give frame_states and known_frames; without them there is nothing to learn")
        chosen = self._counted(known_frames, kwargs.get("mask_time_indices")) & encoded.frame_mask
        hidden, clips = self.dropout(encoded.last_hidden_state)[chosen], chosen.nonzero()[:, 0]
        heads: list[Any] = list(self.state_heads.values())
        wanted = frame_states[chosen].split([len(head.mean) for head in heads], dim=-1)
        parts = [head.sums(hidden, states, clips, len(chosen)) for head, states in zip(heads, wanted, strict=True)]
        return self._output(parts, loss_denominators, encoded)

    def _counted(self, known: Tensor, masked: Tensor | None) -> Tensor:
        """(batch, frames) bool, True where a frame counts in the loss."""
        if self.config.frame_targets == "all":
            return known
        return known & masked if masked is not None else torch.zeros_like(known)


class StudentTrainer(GMPATLTrainer):
    """The trainer with a lower learning rate, a share of the others', for parameters copied from the teacher."""

    def __init__(self, *args: Any, copied: tuple[str, ...] = (), copied_rate: float = 1.0, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._copied, self._copied_rate = copied, copied_rate

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The stock optimiser; copied parameters get groups of their own."""
        given = self.optimizer is not None
        optimizer = super().create_optimizer(model)
        copied = {id(value) for name, value in self.model.named_parameters() if name.startswith(self._copied)}
        if not given:
            split_groups(optimizer, lambda parameter: id(parameter) in copied, lambda rate: rate * self._copied_rate)
        return optimizer
