"""Training clips standardised by their own speaker's statistics, which follow the encoder from epoch to epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

import datasets
import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from ..errors import RequestError
from ..modeling.heads_gmp_atl import Standardization
from ..modeling.modeling_gmp_atl import GMPATLEmotionModel, GMPATLPreTrainedModel
from ..protocols.speakers import is_unknown
from .arguments import GMPATLTrainingArguments


class Pooled(Protocol):
    """Clips as the heads get them; `vectors` are (clips, size) float32."""

    @property
    def vectors(self) -> Tensor:
        """See the class."""
        ...


class SpeakerStatisticsOfEpoch(TrainerCallback):
    """Statistics of each training speaker's clips, taken before the training and again at the end of each epoch.

    All training clips pass the encoder whole, without masks or dropout. What a clip is standardised by therefore
    depends on nothing but the epoch: not on the batch, the accumulation or the process that it is in. The same pass
    gives the statistics of all training clips, by which the model scores where it knows no speaker: they are those of
    the encoder that is evaluated and saved. A training that goes on from a checkpoint, which is that of the end of an
    epoch, takes the statistics again from the encoder in it, and they are the same to the bit. Statistics that follow
    the encoder from step to step would need a pass for each step; those of its beginning would be the wrong ones soon.

    A speaker's few clips count as in use, see `Standardization.of_speakers`: (n·own + 4·all) / (n + 4). Nothing looks
    at a label. Clips of nobody who is known are standardised by all.

    Args:
        table: The training rows.
        model: What is trained.
        pool: Gives the clips of a table as the heads of a model get them, from its encoder as it is now.
    """

    def __init__(
        self,
        table: datasets.Dataset,
        model: GMPATLEmotionModel,
        pool: Callable[[GMPATLEmotionModel, datasets.Dataset], Pooled],
    ) -> None:
        self.table, self.model, self.pool = table, model, pool
        names = table["speaker"]
        known = sorted({name for name in names if not _nobody(name)})
        number = dict(zip(known, range(len(known)), strict=True))
        self.speakers = torch.tensor([number.get(name, len(known)) for name in names])
        self.statistics = torch.empty(len(known) + 1, 2, model.pooling.output_size)
        """(speakers + 1, 2, size) float32, those of all clips last."""
        self.taken = False

    def take(self, vectors: Tensor) -> None:
        """Take the statistics of all speakers, and of all clips, from (clips, size) pooled clips."""
        standardization = cast(Standardization, self.model.standardization)
        standardization.fit(vectors)
        # On the CPU, where sums have one order.
        values, clips = vectors.cpu().double(), torch.bincount(self.speakers, minlength=len(self.statistics))
        mean = self._means(values, clips)
        variance = self._means((values - mean[self.speakers]).square(), clips)
        own = standardization.of_speakers(*(each.to(vectors.device) for each in (clips, mean, variance))).cpu()
        own[-1] = torch.stack([standardization.mean, standardization.deviation])
        self.statistics, self.taken = own, True

    def _means(self, values: Tensor, clips: Tensor) -> Tensor:
        """(speakers + 1, size) means of (clips, size) values; 0 for who has no clips."""
        sums = torch.zeros(len(clips), values.shape[1], dtype=values.dtype).index_add_(0, self.speakers, values)
        return sums / clips.clamp(min=1)[:, None]

    def of(self, rows: Tensor) -> Tensor:
        """(clips, 2, size) float32 statistics for some rows of the table, (clips,) int64."""
        return self.statistics[self.speakers[rows]]

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Take them from the weights that a checkpoint has brought."""
        if state.global_step or not self.taken:
            self._take_anew()

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Take them from the encoder as it is now, before it is evaluated and saved."""
        self._take_anew()

    def _take_anew(self) -> None:
        was_training = self.model.training
        self.take(self.pool(self.model, self.table).vectors)
        self.model.train(was_training)


def normalize_by_speaker(
    model: GMPATLPreTrainedModel,
    args: GMPATLTrainingArguments,
    table: datasets.Dataset | None,
    pool: Callable[[GMPATLEmotionModel, datasets.Dataset], Pooled],
) -> SpeakerStatisticsOfEpoch | None:
    """What normalises the clips of a training by their speakers; None where that is not asked for.

    Raises:
        RequestError: The training rows have no column `speaker`, or checkpoints are written within epochs.
    """
    if not isinstance(model, GMPATLEmotionModel) or model.config.speaker_normalization == "none" or table is None:
        return None
    if "speaker" not in table.column_names:
        raise RequestError(
            "speaker_normalization is speaker, and the table has no column speaker",
            "whose voice each clip is",
            "add the column, or speaker_normalization: none",
        )
    refuse_checkpoints_within_epochs(args)
    return SpeakerStatisticsOfEpoch(table, model, pool)


def refuse_checkpoints_within_epochs(args: GMPATLTrainingArguments) -> None:
    """Refuse, by a `RequestError`, checkpoints where the statistics would be older than the weights."""
    save, evaluate = SaveStrategy(args.save_strategy).value, IntervalStrategy(args.eval_strategy).value
    if save != "no" and "steps" in (save, evaluate):
        raise RequestError(
            f"save_strategy is {save} and eval_strategy {evaluate}, with speaker_normalization speaker",
            "checkpoints at the ends of epochs, where the speakers' statistics follow from the weights",
            "save_strategy: epoch, eval_strategy: epoch",
        )


def _nobody(speaker: str | None) -> bool:
    return not speaker or is_unknown(speaker)
