"""The three models of GMP-ATL on one shared encoder named `hubert`.

Weights pass from any HuBERT checkpoint into any of them and from one training to the next: the encoder's keys are those
of `HubertModel` behind the prefix `hubert.`; each model adds its own heads.

Annotations are evaluated here: tools that look whether a model takes `output_attentions` read them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.models.hubert.modeling_hubert import HubertPreTrainedModel
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .adapters_gmp_atl import note_adapter
from .configuration_gmp_atl import BeginsAnywhere, GMPATLConfig
from .encoding_gmp_atl import EncodedSpeech, EncoderInputs, GMPATLModel, GMPATLModelOutput, encode_speech
from .heads_gmp_atl import POOLING_CLASSES, CosineClassifier, FrameHeads, NoStandardization, Standardization
from .losses_gmp_atl import (
    IGNORED,
    PartSums,
    am_softmax_sums,
    combine_parts,
    count_labels,
    cross_entropy_sums,
    stack_parts,
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
        correct (`torch.FloatTensor` of shape `(batch, parts)`, float32, with labels):
            Counted items (the clip, or its frames) that were predicted rightly.
        hidden_states (`tuple` of `torch.FloatTensor` of shape `(batch, frames, hidden)`, if asked for):
            Input of the first transformer layer, then the output of each: number k is that of layer k.
        attentions (`tuple` of `torch.FloatTensor` of shape `(batch, heads, frames, frames)`, if asked for):
            Attention weights of every layer.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    gender_logits: Tensor | None = None
    frame_logits: tuple[Tensor, ...] | None = None
    loss_sums: Tensor | None = None
    loss_counts: Tensor | None = None
    correct: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class GMPATLPreTrainedModel(BeginsAnywhere, HubertPreTrainedModel):
    """Shared encoder, weight initialisation and input handling."""

    config_class = GMPATLConfig
    config: GMPATLConfig
    base_model_prefix = "hubert"
    # Means of a batch are divided by the accumulation steps by the stock Trainer; GMPATLTrainer does it exactly.
    accepts_loss_kwargs = False
    target_names: tuple[str, ...] = ()
    """Arguments of `forward` that hold what is to be predicted."""

    def __init__(self, config: GMPATLConfig) -> None:
        super().__init__(config)
        self.hubert = GMPATLModel(config)

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

        Gives (parts,) float32, equal to `loss_counts.sum(0)`, from labels and masks of `forward` and (emotions,)
        float32 weights of the emotion part.
        """
        raise NotImplementedError

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise what a checkpoint lacks, with transformers' helpers that leave loaded weights alone."""
        super()._init_weights(module)  # type: ignore[no-untyped-call]
        if isinstance(module, CosineClassifier):
            init.normal_(module.weight, mean=0.0, std=self.config.initializer_range)
        if isinstance(module, Standardization):
            for name, values in module.named_buffers():
                (init.ones_ if name in ("deviation", "spread") else init.zeros_)(values)

    def freeze_feature_encoder(self) -> None:
        """Stop training the convolution front end (the field's usual choice for pre-trained checkpoints)."""
        for parameter in self.hubert.family.front_end_parameters(self.hubert):
            parameter.requires_grad = False

    def freeze_base_model(self) -> None:
        """Stop training everything but the heads, to which the weights of a sum over layers belong."""
        for parameter in self.encoder_parameters():
            parameter.requires_grad = False

    freeze_encoder = freeze_base_model

    def encoder_parameters(self) -> list[nn.Parameter]:
        """The encoder's parameters, without the weights of a sum over its layers."""
        return [each for name, each in self.hubert.named_parameters() if name != "layer_weights"]

    def load_adapter(self, peft_model_id: str | None = None, *args: Any, **kwargs: Any) -> Any:
        """Load a PEFT adapter, with the calibration and the speakers that `GMPATLTrainer` has saved beside it."""
        note_adapter(self, peft_model_id)
        return super().load_adapter(peft_model_id, *args, **kwargs)

    def encode(
        self, input_values: Tensor | None = None, attention_mask: Tensor | None = None, **inputs: Any
    ) -> EncodedSpeech:
        """Hidden states of chosen layers; arguments, shapes and errors are those of `encode_speech`."""
        return encode_speech(self.hubert, input_values, attention_mask, **inputs)

    def _output(
        self,
        parts: list[PartSums],
        loss_denominators: Tensor | None,
        encoded: GMPATLModelOutput,
        **fields: Any,
    ) -> GMPATLOutput:
        if parts:
            if self.training and loss_denominators is None:
                self.config.note_unknown_training()
            sums, counts, correct = stack_parts(parts)
            weights = torch.tensor(self.part_weights, device=sums.device)
            fields |= {"loss_sums": sums, "loss_counts": counts, "correct": correct}
            fields["loss"] = combine_parts(sums, counts, weights, loss_denominators)
        # All at once: a field that is set later would come last in the tuple, and the loss has to be first.
        return GMPATLOutput(**fields, hidden_states=encoded.hidden_states, attentions=encoded.attentions)


def _one_each(labels: Tensor) -> Tensor:
    """(batch,) labels, also of (batch, 1) ones, which some collators make."""
    return labels.squeeze(-1) if labels.ndim == 2 and labels.shape[1] == 1 else labels


def _in_dtype_of(head: nn.Module, vectors: Tensor) -> Tensor:
    """Vectors, pooled in float32, as a head takes them that is in half precision itself; one in int8 takes them so."""
    weight = next(head.parameters(), None)
    return vectors if weight is None or not weight.is_floating_point() else vectors.to(weight.dtype)


class GMPATLEmotionModel(GMPATLPreTrainedModel):
    """What the models that score emotions share: one vector for each clip, on which all heads stand."""

    _keys_to_ignore_on_load_missing = [r"standardization\.(emotion_means|spread)$"]  # of older checkpoints
    emotion_head = "classifier"
    """Name of the module that scores emotions."""

    def __init__(self, config: GMPATLConfig) -> None:
        super().__init__(config)
        self.pooling = POOLING_CLASSES[config.pooling](config.hidden_size)
        standardization = Standardization if config.standardize else NoStandardization
        self.standardization = standardization(self.pooling.output_size, config.num_emotions)
        self.dropout = nn.Dropout(config.final_dropout)

    def score(
        self,
        pooled: Tensor,
        labels: Tensor | None = None,
        gender_labels: Tensor | None = None,
        class_weights: Tensor | None = None,
        speaker_statistics: Tensor | None = None,
    ) -> tuple[dict[str, Tensor], list[PartSums]]:
        """Outputs by name, and with labels the parts of the loss, of (batch, size) pooled frames; see `forward`."""
        raise NotImplementedError

    def head_parameters(self) -> list[nn.Parameter]:
        """The parameters of what stands on pooled vectors, those of them that are trained."""
        own = (each for name, each in self.named_parameters() if not name.startswith(("hubert.", "pooling.")))
        return [parameter for parameter in own if parameter.requires_grad]

    def _score_clips(
        self, encoded: GMPATLModelOutput, loss_denominators: Tensor | None, *targets: Tensor | None
    ) -> GMPATLOutput:
        """What `forward` gives of encoded clips; the targets are those of `score`."""
        outputs, parts = self.score(self.pooling(encoded.last_hidden_state, encoded.frame_mask), *targets)
        return self._output(parts, loss_denominators, encoded, **outputs)


class HubertForGMPATLMultiTask(GMPATLEmotionModel):
    """Step 1: emotion and gender of an utterance, `α·L_emotion + (1 - α)·L_gender`, cross-entropies.

    That both tasks train the encoder together is stated by the paper; α, pooling and heads are our choice.
    """

    loss_parts = ("emotion", "gender")
    target_names = ("labels", "gender_labels")
    emotion_head = "emotion_classifier"

    def __init__(self, config: GMPATLConfig) -> None:
        super().__init__(config)
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

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        gender_labels: Tensor | None = None,
        class_weights: Tensor | None = None,
        loss_denominators: Tensor | None = None,
        speaker_statistics: Tensor | None = None,
        **kwargs: Unpack[EncoderInputs],
    ) -> GMPATLOutput:
        """Score emotion and gender.

        Args:
            input_values: (batch, samples) float32 waveforms at 16 kHz.
            attention_mask: (batch, samples), 1 on valid samples.
            labels: (batch,) or (batch, 1) int64 emotions, -100 missing.
            gender_labels: (batch,) int64, 0 female, 1 male, -100 missing; without them the gender part is 0.
            class_weights: (emotions,) float32 weights of the emotion part.
            loss_denominators: (2,) float32 counts of the whole optimiser step.
            speaker_statistics: (2, size) or (batch, 2, size) float32, see `Standardization.of_speakers`.
            kwargs: See `EncoderInputs`.

        Returns:
            `loss`, `logits`, `gender_logits` and the parts of the loss.
        """
        encoded = self.hubert(input_values, attention_mask, return_dict=True, **kwargs)
        return self._score_clips(encoded, loss_denominators, labels, gender_labels, class_weights, speaker_statistics)

    def score(
        self,
        pooled: Tensor,
        labels: Tensor | None = None,
        gender_labels: Tensor | None = None,
        class_weights: Tensor | None = None,
        speaker_statistics: Tensor | None = None,
    ) -> tuple[dict[str, Tensor], list[PartSums]]:
        """See the base class."""
        vectors = self.dropout(self.standardization(pooled, speaker_statistics))
        vectors = _in_dtype_of(self.emotion_classifier, vectors)
        logits = self.emotion_classifier(vectors).float()
        gender_logits = self.gender_classifier(vectors).float()
        parts = []
        if labels is not None:
            labels = _one_each(labels)
            genders = torch.full_like(labels, IGNORED) if gender_labels is None else _one_each(gender_labels)
            parts = [cross_entropy_sums(logits, labels, class_weights), cross_entropy_sums(gender_logits, genders)]
        return {"logits": logits / self.config.logit_temperature, "gender_logits": gender_logits}, parts


class HubertForGMPATLFrameClassification(GMPATLPreTrainedModel):
    """Step 3: the pseudo-label of each masked frame at each scale; cross-entropies summed over scales.

    Cross-entropy against the pseudo-labels is stated by the paper; masked prediction and the unweighted sum are our
    choice (HuBERT and P-TAPT do so).
    """

    target_names = ("frame_labels",)
    method_defaults = {"mask_time_prob": 0.8, "mask_time_length": 10, "mask_time_min_masks": 1}

    def __init__(self, config: GMPATLConfig) -> None:
        super().__init__(config)
        self.frame_heads = FrameHeads(config)
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
        return self.frame_heads.count(batch["frame_labels"], batch.get("mask_time_indices"))

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        frame_labels: Tensor | None = None,
        loss_denominators: Tensor | None = None,
        **kwargs: Unpack[EncoderInputs],
    ) -> GMPATLOutput:
        """Predict the cluster of frames.

        Args:
            input_values: (batch, samples) float32 waveforms at 16 kHz.
            attention_mask: (batch, samples), 1 on valid samples.
            frame_labels: (batch, kept frames, scales) int64 clusters, -100 where unknown or padding.
            loss_denominators: (scales,) float32 counts of the whole optimiser step.
            kwargs: See `EncoderInputs`; with labels and `frame_targets="masked"` only the frames of
                `mask_time_indices` count.

        Returns:
            With labels `loss` and its parts; without labels `frame_logits`.

        Raises:
            ValueError: `frame_labels` and the model disagree about scales or frames.
        """
        encoded = self.hubert(input_values, attention_mask, return_dict=True, **kwargs)
        hidden = self.dropout(encoded.last_hidden_state)
        if frame_labels is None:
            frame_logits = tuple(head(hidden).float() for head in self.frame_heads.values())
            return self._output([], None, encoded, frame_logits=frame_logits)
        parts = self.frame_heads.sums(hidden, encoded.frame_mask, frame_labels, kwargs.get("mask_time_indices"))
        return self._output(parts, loss_denominators, encoded)


class HubertForGMPATL(GMPATLEmotionModel):
    """Step 4 and the model to ship: the emotion of an utterance, trained with AM-Softmax.

    `softmax(logits)` is what `pipeline("audio-classification")` shows.
    """

    loss_parts = ("emotion",)
    target_names: tuple[str, ...] = ("labels",)
    part_weights = (1.0,)

    def count_parts(self, batch: Mapping[str, Tensor], class_weights: Tensor | None = None) -> Tensor:
        """See the base class."""
        return count_labels(batch["labels"], class_weights)[None]

    def __init__(self, config: GMPATLConfig) -> None:
        super().__init__(config)
        head = CosineClassifier if config.emotion_loss == "am-softmax" else nn.Linear
        self.classifier = head(self.pooling.output_size, config.num_emotions)
        self.post_init()  # type: ignore[no-untyped-call]

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        class_weights: Tensor | None = None,
        loss_denominators: Tensor | None = None,
        speaker_statistics: Tensor | None = None,
        **kwargs: Unpack[EncoderInputs],
    ) -> GMPATLOutput:
        """Score emotions.

        Args:
            input_values: (batch, samples) float32 waveforms at 16 kHz.
            attention_mask: (batch, samples), 1 on valid samples.
            labels: (batch,) or (batch, 1) int64 emotions, -100 missing.
            class_weights: (emotions,) float32 class weights.
            loss_denominators: (1,) float32 count of the whole optimiser step.
            speaker_statistics: (2, size) or (batch, 2, size) float32, see `Standardization.of_speakers`.
            kwargs: See `EncoderInputs`.

        Returns:
            `logits = s·cos θ / T` (no margin, not even in training), and with labels the loss, which has the margin in
            training only and always T = 1.
        """
        encoded = self.hubert(input_values, attention_mask, return_dict=True, **kwargs)
        return self._score_clips(encoded, loss_denominators, labels, None, class_weights, speaker_statistics)

    def score(
        self,
        pooled: Tensor,
        labels: Tensor | None = None,
        gender_labels: Tensor | None = None,
        class_weights: Tensor | None = None,
        speaker_statistics: Tensor | None = None,
    ) -> tuple[dict[str, Tensor], list[PartSums]]:
        """See the base class; genders are not looked at."""
        config = self.config
        angular = config.emotion_loss == "am-softmax"
        vectors = self.dropout(self.standardization(pooled, speaker_statistics))
        scores = self.classifier(_in_dtype_of(self.classifier, vectors)).float()
        parts = []
        if labels is not None and angular:
            margin = config.am_softmax_margin if self.training else 0.0
            parts = [am_softmax_sums(scores, _one_each(labels), config.am_softmax_scale, margin, class_weights)]
        elif labels is not None:
            parts = [cross_entropy_sums(scores, _one_each(labels), class_weights)]
        scaled = config.am_softmax_scale * scores if angular else scores
        return {"logits": scaled / config.logit_temperature}, parts

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a model, as in transformers; an Auto class, which stands for finished models, gets no untrained head.

        Raises:
            ValueError: An Auto class or a pipeline asks for a checkpoint that has no emotion head of this kind.
        """
        # Auto classes always say where an adapter is, if only that there is none; where there is one, it has the head.
        from_auto = "adapter_kwargs" in kwargs
        if not from_auto or (kwargs["adapter_kwargs"] or {}).get("_adapter_model_path"):
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        report_too = kwargs.pop("output_loading_info", False)
        loaded: Any = super().from_pretrained(pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs)
        if missing := sorted(key for key in loaded[1]["missing_keys"] if not key.startswith("hubert.")):
            kind = ", ".join(loaded[0].config.architectures or ["checkpoint"])
            raise ValueError(
                f"{pretrained_model_name_or_path} has no trained emotion head: it is a {kind} without "
                f"{', '.join(missing)}; expected a fine-tuned {cls.__name__}. To train a new head on it, load it with "
                f"{cls.__name__}.from_pretrained; for embeddings, with AutoModel.from_pretrained"
            )
        return loaded if report_too else loaded[0]

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Save a model, as in transformers, so that `AutoModel` finds the encoder with `trust_remote_code` too."""
        files = getattr(self.config, "auto_map", None) or {}
        self.config.auto_map = {**files, "AutoModel": f"{GMPATLModel.__module__.split('.')[-1]}.{GMPATLModel.__name__}"}
        super().save_pretrained(save_directory, *args, **kwargs)


HubertForGMPATL.register_for_auto_class("AutoModelForAudioClassification")  # type: ignore[no-untyped-call]
