"""Before the encoder is trained: what its pooled states look like, and heads that can already read them.

A new head begins with gradients that point nowhere, and they would change the encoder as well. Linear probing before
fine-tuning (Kumar et al. 2022, arXiv 2202.10054) trains the head alone first. The encoder does not change meanwhile, so
each clip passes through it once.
"""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import datasets
import torch
from torch import Tensor
from transformers import Trainer

from ..errors import DivergenceError, RequestError
from ..modeling.heads_gmp_atl import Standardization
from ..modeling.losses_gmp_atl import IGNORED, combine_parts, stack_parts
from ..modeling.modeling_gmp_atl import GMPATLEmotionModel, GMPATLPreTrainedModel, HubertForGMPATL
from ..numerics import no_tf32
from .arguments import GMPATLTrainingArguments
from .checks import is_sharded
from .speaker_normalization import SpeakerStatisticsOfEpoch

BATCH = 16
"""Clips of a batch while the heads alone are trained. Our choice."""

RATE = 1e-3
"""Their learning rate then, where `head_learning_rate` is none. Our choice."""

_INPUTS = ("input_values", "attention_mask", "conv_features", "frame_mask", "layer_states", "layer_of_states")


class PooledClips(NamedTuple):
    """Clips as the heads get them, in the order of a table.

    Args:
        vectors: (clips, size) float32, not standardised.
        labels: (clips,) int64 emotions, -100 where not known.
        genders: (clips,) int64, -100 where not known.
    """

    vectors: Tensor
    labels: Tensor
    genders: Tensor


def prepare_heads(
    trainer: Trainer,
    model: GMPATLPreTrainedModel,
    class_weights: Tensor | None,
    speakers: SpeakerStatisticsOfEpoch | None = None,
) -> None:
    """Standardise by the training clips where the model does so, and train the heads alone for `head_epochs`.

    Args:
        trainer: Has the training table, batches of clips, the processes and the settings.
        model: What it trains, taken out of wrappers.
        class_weights: (emotions,) float32; None weighs all clips alike.
        speakers: Takes and holds the statistics of the training speakers, where clips are normalised by theirs.

    Raises:
        RequestError: The model is cut up among processes.
        DivergenceError: The loss of the heads is not finite.
    """
    args = cast(GMPATLTrainingArguments, trainer.args)
    table, epochs = cast("datasets.Dataset | None", trainer.train_dataset), args.head_epochs
    if table is None or not isinstance(model, GMPATLEmotionModel) or not (epochs or model.config.standardize):
        return
    if is_sharded(trainer):
        raise RequestError(
            f"head_epochs is {epochs} and standardize {model.config.standardize}, under FSDP or DeepSpeed",
            "a model that each process holds as a whole, since clips are pooled before the training begins",
            "DistributedDataParallel (the default of `accelerate launch`), or head_epochs: 0 and standardize: false",
        )
    was_training = model.training
    clips = pool_clips(trainer, model, table)
    if speakers is not None:
        speakers.take(clips.vectors)
    elif model.config.standardize:
        cast(Standardization, model.standardization).fit(clips.vectors)  # or the copy of it that an adapter saves
    if epochs:
        own = None if speakers is None else speakers.of(torch.arange(len(table)))
        train_heads(model, clips, args, class_weights, own)
    model.train(was_training)


def learn_emotions(trainer: Trainer, model: GMPATLPreTrainedModel) -> None:
    """Once it is trained, let a model that standardises know what training clips of each emotion look like.

    Who adapts it to a speaker needs that, see `Standardization.of_speakers`; scores do not change.
    """
    table = cast("datasets.Dataset | None", trainer.train_dataset)
    if table is not None and isinstance(model, HubertForGMPATL) and model.config.standardize:
        was_training = model.training
        clips = pool_clips(trainer, model, table)
        cast(Standardization, model.standardization).fit_emotions(clips.vectors, clips.labels)
        model.train(was_training)


def pool_clips(trainer: Trainer, model: GMPATLEmotionModel, table: datasets.Dataset) -> PooledClips:
    """Pass every clip of a table through the encoder, in eval mode; processes share the clips and gather the result."""
    model.train(False)
    device = model.device
    vectors = torch.zeros(len(table), model.pooling.output_size, device=device)
    labels, genders = (torch.full((len(table),), IGNORED, device=device) for _ in range(2))
    with torch.no_grad(), trainer.accelerator.autocast(), no_tf32(device):
        for batch in trainer.get_eval_dataloader(table):
            given = {name: batch[name] for name in _INPUTS if name in batch}
            encoded = model.hubert(
                **{name: each.to(device) if isinstance(each, Tensor) else each for name, each in given.items()}
            )
            pooled = model.pooling(encoded.last_hidden_state, encoded.frame_mask).float()
            unknown = torch.full_like(batch["rows"], IGNORED)
            found = (batch["rows"], pooled, batch.get("labels", unknown), batch.get("gender_labels", unknown))
            rows, *values = trainer.accelerator.gather_for_metrics(tuple(each.to(device) for each in found))
            for whole, part in zip((vectors, labels, genders), values, strict=True):
                whole[rows] = part
    return PooledClips(vectors, labels, genders)


def train_heads(
    model: GMPATLEmotionModel,
    clips: PooledClips,
    args: GMPATLTrainingArguments,
    class_weights: Tensor | None,
    statistics: Tensor | None = None,
) -> None:
    """Train what stands on pooled vectors, by AdamW with a rate that falls to zero; every process does the same.

    `statistics` are (clips, 2, size), what each clip is standardised by; None for those of all training clips.
    """
    device, epochs = clips.vectors.device, args.head_epochs
    steps = epochs * math.ceil(len(clips.vectors) / BATCH)
    optimizer = torch.optim.AdamW(
        model.head_parameters(), lr=args.head_learning_rate or RATE, weight_decay=args.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    weights = None if class_weights is None else class_weights.to(device)
    part_weights = torch.tensor(model.part_weights, device=device)
    generator = torch.Generator().manual_seed(args.seed)
    model.train()
    # The draws of dropout are its own: the training that follows draws as if there had been none.
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(args.seed)
        for _ in range(epochs):
            for rows in torch.randperm(len(clips.vectors), generator=generator).to(device).split(BATCH):
                batch = PooledClips(*(values[rows] for values in clips))
                own = None if statistics is None else statistics[rows.to(statistics.device)].to(device)
                _, parts = model.score(batch.vectors, batch.labels, batch.genders, weights, own)
                sums, counts, _ = stack_parts(parts)
                loss = combine_parts(sums, counts, part_weights)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
            if not math.isfinite(last := float(loss.detach())):
                raise DivergenceError(
                    f"the heads diverged before the encoder was trained: the loss is {last:g}",
                    "a finite number",
                    f"a head_learning_rate below {args.head_learning_rate or RATE:g}, or head_epochs: 0",
                )
    optimizer.zero_grad()
