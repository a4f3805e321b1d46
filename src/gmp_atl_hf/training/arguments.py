"""Settings of a training: transformers' own, a few more, and the defaults that speech emotion needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import TrainingArguments

from .augmentation import AUGMENTATIONS


@dataclass
class GMPATLTrainingArguments(TrainingArguments):
    r"""[`~transformers.TrainingArguments`] with the fields and defaults of speech emotion training.

    > New fields

    Args:
        freeze_feature_encoder (`bool`, defaults to `True`):
            Do not train the convolution front end. Right for pre-trained checkpoints, wrong from scratch.
        freeze_encoder (`bool`, defaults to `False`):
            Train the heads only (ablation).
        class_weights (`str` or `list[float]`, *optional*):
            `"balanced"` weighs each emotion by `clips / (emotions · clips of this emotion)`; a list gives one weight
            per emotion in label order; `None` weighs all clips alike.
        max_seconds (`float`, *optional*, defaults to 10.0):
            Longest stretch of a clip seen in training, cut at a random place on the 20 ms frames after the front end.
            Evaluation always hears the whole clip. `None` never cuts.
        batch_seconds (`float`, *optional*):
            Fill each device's batch with about this many seconds of neighbours in length instead of with
            `per_device_train_batch_size` clips.
        augment (`str`, defaults to `"none"`):
            `"speed"` plays training clips 0.9 to 1.1 times as fast, `"sound"` changes loudness, colour and noise and
            nothing in time, both drawn anew in every epoch. Evaluation never does.
        head_learning_rate (`float`, *optional*):
            Learning rate of everything outside the encoder; `None` uses `learning_rate`.
        early_stopping_patience (`int`, *optional*):
            Evaluations without a better `metric_for_best_model` before training ends.

    > Changed defaults (transformers' value in brackets)

    `metric_for_best_model="uar"` (none), `greater_is_better=True`, `load_best_model_at_end=True` (False),
    `eval_strategy="epoch"` ("no"), `save_strategy="epoch"` ("steps"), `save_total_limit=1` (none),
    `logging_strategy="epoch"` ("steps"), `restore_callback_states_from_checkpoint=True` (False: early stopping would
    start to count anew after a resume), `remove_unused_columns=False` (True: it would drop the audio),
    `report_to="none"` ("all"), `learning_rate=1e-4` (5e-5), `per_device_train_batch_size=16` (8),
    `num_train_epochs=15` (3), `dataloader_pin_memory` only with a GPU (True).
    """

    freeze_feature_encoder: bool = field(default=True, metadata={"help": "Do not train the convolution front end."})
    freeze_encoder: bool = field(default=False, metadata={"help": "Train the heads only."})
    class_weights: Any = field(
        default=None, metadata={"help": '"balanced", a list with one weight per emotion, or none.'}
    )
    max_seconds: float | None = field(
        default=10.0, metadata={"help": "Longest stretch of a clip in training, seconds."}
    )
    batch_seconds: float | None = field(default=None, metadata={"help": "Seconds per device and batch, not clips."})
    augment: str = field(default="none", metadata={"help": "Waveform augmentation: none, speed or sound."})
    head_learning_rate: float | None = field(default=None, metadata={"help": "Learning rate of the heads."})
    early_stopping_patience: int | None = field(default=None, metadata={"help": "Evaluations without improvement."})

    metric_for_best_model: str | None = field(default="uar", metadata={"help": "Metric that chooses the model."})
    greater_is_better: bool | None = field(default=True, metadata={"help": "Whether a larger metric is better."})
    load_best_model_at_end: bool = field(default=True, metadata={"help": "End with the best model, not the last."})
    eval_strategy: Any = field(default="epoch", metadata={"help": "When to evaluate."})
    save_strategy: Any = field(default="epoch", metadata={"help": "When to save a checkpoint to resume from."})
    save_total_limit: int | None = field(default=1, metadata={"help": "Checkpoints kept beside the best one."})
    logging_strategy: Any = field(default="epoch", metadata={"help": "When to log the training loss."})
    restore_callback_states_from_checkpoint: bool = field(default=True, metadata={"help": "Resume early stopping too."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Keep the audio and label columns."})
    report_to: Any = field(default="none", metadata={"help": "Trackers to report to."})
    learning_rate: float = field(default=1e-4, metadata={"help": "Learning rate."})
    per_device_train_batch_size: int = field(default=16, metadata={"help": "Clips per device and batch."})
    num_train_epochs: float = field(default=15.0, metadata={"help": "Passes over the training clips."})
    dataloader_pin_memory: bool = field(
        default_factory=torch.cuda.is_available, metadata={"help": "Page-locked batches; only with a GPU."}
    )

    def __post_init__(self) -> None:
        for name in ("max_seconds", "batch_seconds", "head_learning_rate", "early_stopping_patience"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} is {value}; expected a number above 0, or none")
        if self.augment not in AUGMENTATIONS:
            raise ValueError(f"augment is {self.augment!r}; expected one of {', '.join(AUGMENTATIONS)}")
        weights = self.class_weights
        if not (weights is None or weights == "balanced" or isinstance(weights, (list, tuple))):
            raise ValueError(f'class_weights is {weights!r}; expected "balanced", a list of numbers, or none')
        super().__post_init__()  # type: ignore[no-untyped-call]
