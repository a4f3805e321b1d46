"""Settings of a training: transformers' own, a few more, and the defaults that speech emotion needs."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import torch
from torch import Tensor
from transformers import TrainingArguments
from transformers.trainer_utils import IntervalStrategy, SaveStrategy, SchedulerType

from ..batching.speed import AUGMENTATIONS
from ..errors import RequestError
from ..modeling.modeling_gmp_atl import GMPATLPreTrainedModel
from ..ranges import ONE_FRAME

LESS_IS_BETTER = frozenset({"loss", "error", "ece", "brier", "nll", "perplexity", "runtime"})
"""Words in the names of figures that are better the smaller they are: `loss`, `eval_loss_gender`, `log_loss`."""

UARS = ("uar", "eval_uar")
"""How the default figure to choose by may be written."""


def greater_is_better(metric: str) -> bool:
    """Tell the direction of a figure from its name, with or without `eval_` and a data set's name in front.

    Example:
        >>> greater_is_better("eval_dev_loss_emotion"), greater_is_better("uar")
        (False, True)
    """
    return LESS_IS_BETTER.isdisjoint(metric.lower().split("_"))


@dataclass
class GMPATLTrainingArguments(TrainingArguments):
    r"""[`~transformers.TrainingArguments`] with the fields and defaults of speech emotion training.

    > New fields

    Args:
        freeze_feature_encoder (`bool`, defaults to `True`):
            Do not train the convolution front end. Right for pre-trained checkpoints, wrong from scratch.
        freeze_encoder (`bool`, defaults to `False`):
            Train the heads only (ablation).
        trained_layers (`int`, *optional*):
            Train only so many transformer layers, the highest, and the heads. What the layers below make of each whole
            clip is computed once, without dropout, and kept on disk in half precision while the training goes on; a cut
            by `max_seconds` is made behind them. Where the model masks frames or leaves layers out below, or with
            `front_end_cache=False`, they are computed in every epoch. `None` trains the whole encoder.
        class_weights (`str` or `list[float]`, *optional*):
            `"balanced"` weighs each emotion by `clips / (emotions · clips of this emotion)`; a list gives one weight
            per emotion in label order; `None` weighs all clips alike.
        max_seconds (`float`, *optional*, defaults to 10.0):
            Longest stretch of a clip seen in training, cut at a random place on the 20 ms frames after the front end.
            Evaluation always uses the whole clip. `None` never cuts.
        batch_seconds (`float`, *optional*):
            Fill each device's batch with about this many seconds of neighbours in length instead of with
            `per_device_train_batch_size` clips.
        augment (`str`, defaults to `"none"`):
            `"speed"` plays training clips 0.9 to 1.1 times as fast, `"sound"` changes loudness, colour and noise and
            nothing in time, both drawn again in every epoch. Evaluation never does.
        head_learning_rate (`float`, *optional*):
            Learning rate of everything outside the encoder; `None` uses `learning_rate`.
        head_epochs (`int`, defaults to 0):
            Passes over the training clips with the heads alone, before the first update of the encoder and not counted
            among the updates. Each clip passes through the encoder once for all of them.
        layer_decay (`float`, *optional*):
            What the learning rate of a transformer layer is multiplied by from the layer above it, 0 to 1; front end,
            projection and positions have the rate below the first layer. `None` gives all the same.
        average_epochs (`int`, defaults to 0):
            End with the mean of the weights at the ends of so many epochs, the last ones, in place of those of one
            epoch. Nothing is chosen by `metric_for_best_model` then, and `load_best_model_at_end` is False.
        early_stopping_patience (`int`, *optional*):
            Evaluations without a better `metric_for_best_model` before training ends.

    > Changed defaults (transformers' value in brackets)

    `metric_for_best_model="uar"` (none), `load_best_model_at_end=True` (False),
    `eval_strategy="epoch"` ("no"), `save_strategy="epoch"` ("steps"), `save_total_limit=1` (none),
    `logging_strategy="epoch"` ("steps"), `restore_callback_states_from_checkpoint=True` (False: early stopping would
    start to count anew after a resume), `remove_unused_columns=False` (True: it would drop the audio),
    `report_to="none"` ("all"), `learning_rate=1e-4` (5e-5), `per_device_train_batch_size=16` (8),
    `num_train_epochs=15` (3), `dataloader_pin_memory` only with a GPU (True). Where `greater_is_better` is left out, it
    follows from the figure's name: less is better of every loss and error, under any prefix; and so does the `mode` of
    a learning-rate schedule that follows that figure.
    """

    freeze_feature_encoder: bool = field(default=True, metadata={"help": "Do not train the convolution front end."})
    freeze_encoder: bool = field(default=False, metadata={"help": "Train the heads only."})
    trained_layers: int | None = field(default=None, metadata={"help": "Transformer layers to train, from the top."})
    # In the order that `HfArgumentParser` reads: on a command line it is text.
    class_weights: None | str | list[float] = field(
        default=None, metadata={"help": '"balanced", a list with one weight per emotion, or none.'}
    )
    max_seconds: float | None = field(
        default=10.0, metadata={"help": "Longest stretch of a clip in training, seconds."}
    )
    batch_seconds: float | None = field(default=None, metadata={"help": "Seconds per device and batch, not clips."})
    augment: str = field(default="none", metadata={"help": "Waveform augmentation: none, speed or sound."})
    head_learning_rate: float | None = field(default=None, metadata={"help": "Learning rate of the heads."})
    head_epochs: int = field(default=0, metadata={"help": "Passes with the heads alone, before all else."})
    layer_decay: float | None = field(default=None, metadata={"help": "Share of the rate that the layer below has."})
    average_epochs: int = field(default=0, metadata={"help": "Last epochs whose weights are averaged."})
    early_stopping_patience: int | None = field(default=None, metadata={"help": "Evaluations without improvement."})

    metric_for_best_model: str | None = field(default="uar", metadata={"help": "Metric that chooses the model."})
    load_best_model_at_end: bool = field(default=True, metadata={"help": "End with the best model, not the last."})
    eval_strategy: IntervalStrategy | str = field(default="epoch", metadata={"help": "When to evaluate."})
    save_strategy: SaveStrategy | str = field(
        default="epoch", metadata={"help": "When to save a checkpoint to resume from."}
    )
    save_total_limit: int | None = field(default=1, metadata={"help": "Checkpoints kept beside the best one."})
    logging_strategy: IntervalStrategy | str = field(
        default="epoch", metadata={"help": "When to log the training loss."}
    )
    restore_callback_states_from_checkpoint: bool = field(default=True, metadata={"help": "Resume early stopping too."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Keep the audio and label columns."})
    report_to: None | str | list[str] = field(default="none", metadata={"help": "Trackers to report to."})
    learning_rate: float = field(default=1e-4, metadata={"help": "Learning rate."})
    per_device_train_batch_size: int = field(default=16, metadata={"help": "Clips per device and batch."})
    num_train_epochs: float = field(default=15.0, metadata={"help": "Passes over the training clips."})
    dataloader_pin_memory: bool | None = field(  # type: ignore[assignment]
        default=None, metadata={"help": "Page-locked batches; by default only with a GPU."}
    )

    def __post_init__(self) -> None:
        for name in ("max_seconds", "batch_seconds", "head_learning_rate", "early_stopping_patience"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} is {value}; expected a number above 0, or none")
        if self.max_seconds is not None and self.max_seconds < ONE_FRAME:
            raise ValueError(f"max_seconds is {self.max_seconds}; expected a frame, {ONE_FRAME} s, or more")
        if self.head_epochs < 0:
            raise ValueError(f"head_epochs is {self.head_epochs}; expected 0 or more passes")
        if self.trained_layers is not None and self.trained_layers < 0:
            raise ValueError(f"trained_layers is {self.trained_layers}; expected 0 or more layers, or none")
        if self.average_epochs < 0:
            raise ValueError(f"average_epochs is {self.average_epochs}; expected 0 or more epochs")
        if self.average_epochs:
            if self.early_stopping_patience is not None:
                raise ValueError(
                    f"average_epochs is {self.average_epochs}, early_stopping_patience {self.early_stopping_patience}; "
                    "expected one of the two, since nobody knows the last epochs of a training that may stop early"
                )
            self.load_best_model_at_end = False
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay is {self.layer_decay}; expected a number above 0, at most 1, or none")
        if self.augment not in AUGMENTATIONS:
            raise ValueError(f"augment is {self.augment!r}; expected one of {', '.join(AUGMENTATIONS)}")
        self.class_weights = _weights(self.class_weights)
        if self.dataloader_pin_memory is None:
            self.dataloader_pin_memory = torch.cuda.is_available()
        if self.greater_is_better is None and self.metric_for_best_model is not None:
            self.greater_is_better = greater_is_better(self.metric_for_best_model)
        super().__post_init__()  # type: ignore[no-untyped-call]
        if self.greater_is_better and self.lr_scheduler_type in (SchedulerType.REDUCE_ON_PLATEAU, SchedulerType.GREEDY):
            # torch lowers the rate when the figure stops falling, unless told that it should rise.
            given = self.lr_scheduler_kwargs
            self.lr_scheduler_kwargs = {"mode": "max", **(given if isinstance(given, dict) else {})}

    def weigh(self, emotions: Sequence[int] | None, classes: int) -> Tensor | None:
        """Weights (emotions,) float32 as `class_weights` asks for, from the label index of each training clip.

        None where all clips weigh alike, or where there are no training clips to balance by.
        """
        if self.class_weights == "balanced":
            if emotions is None:
                return None
            counts = np.bincount(np.asarray(emotions), minlength=classes)
            return torch.tensor(counts.sum() / (classes * np.maximum(counts, 1)), dtype=torch.float32)
        return None if self.class_weights is None else torch.tensor(self.class_weights)


def _weights(given: object) -> None | str | list[float]:
    """`"balanced"`, or a list of numbers above 0, which a command line gives as JSON."""
    weights = given
    if isinstance(given, str) and given.lstrip().startswith("["):
        try:
            weights = json.loads(given)
        except ValueError:
            weights = given
    if weights is None or weights == "balanced":
        return "balanced" if weights else None
    if isinstance(weights, (list, tuple)) and weights and all(isinstance(each, (int, float)) for each in weights):
        return [float(each) for each in weights]
    raise ValueError(f'class_weights is {given!r}; expected "balanced", a list of numbers, or none')


def complete_arguments(given: TrainingArguments) -> GMPATLTrainingArguments:
    """Copy training arguments; stock ones get the fields of this package, with their defaults."""
    if isinstance(given, GMPATLTrainingArguments):
        return copy.copy(given)
    if not isinstance(given, TrainingArguments):
        raise RequestError(
            f"args is {'None' if given is None else 'a ' + type(given).__name__}",
            "training arguments",
            'GMPATLTrainingArguments(output_dir="...")',
        )
    values = {each.name: getattr(given, each.name) for each in fields(TrainingArguments) if each.init}
    metric = given.metric_for_best_model
    if metric is not None and given.greater_is_better is not metric.endswith("loss"):
        values["greater_is_better"] = None  # as the stock arguments guess it from the name
    return GMPATLTrainingArguments(**values)


def adapt_arguments(args: GMPATLTrainingArguments, model: GMPATLPreTrainedModel, own_collator: bool) -> None:
    """Change the settings, in place, that do not go with the model or cost without need."""
    if "labels" not in model.target_names and args.metric_for_best_model in UARS:
        # There is no UAR of frame labels; retraining keeps its last step.
        args.metric_for_best_model, args.load_best_model_at_end, args.greater_is_better = None, False, None
    if args.n_gpu > 1:
        # One process on several GPUs (DataParallel) would cut up the denominators; `torchrun` uses them all.
        args._n_gpu = 1
    if args.ddp_find_unused_parameters is None and not own_collator and model.config.layerdrop == 0:
        # Every parameter always has a gradient (see the losses); searching for others costs a pass over the graph.
        args.ddp_find_unused_parameters = False
