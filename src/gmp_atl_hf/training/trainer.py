"""One trainer for multi-task training, retraining on frame labels and fine-tuning."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import EvalPrediction, PrinterCallback, ProgressCallback, Trainer
from transformers.trainer_callback import TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_utils import PredictionOutput

from ..data.audio import SAMPLING_RATE
from ..errors import RequestError
from ..evaluation.metrics import emotion_metrics
from ..front_end.cache import FrontEndCache
from ..modeling.losses_gmp_atl import IGNORED
from ..modeling.modeling_gmp_atl import GMPATLPreTrainedModel
from ..precision import exact_convolutions
from .arguments import GMPATLTrainingArguments
from .attention import quick_attention
from .augmentation import AUGMENTED
from .checks import check_training_arguments, check_training_table, train_in_float32
from .clips import TableClips
from .collator import GMPATLDataCollator
from .pieces import cut_by_length
from .progress import TrainingProgress
from .sampler import StepBatchSampler
from .stopping import StopAtEnd, StopWithoutImprovement

FRONT_END_FOLDER = "_front-end"
"""Folder of the front-end cache inside an output folder. The underscore keeps what is made of recordings off the Hub:
`push_to_hub` of the stock trainer, which sends the output folder, passes over such names."""


class GMPATLTrainer(Trainer):
    """[`~transformers.Trainer`] whose losses do not depend on how an optimiser step is cut into batches.

    Each part of the loss is a sum over clips divided by the part's own count (class weights; clips with a gender;
    masked frames) over *all* batches and processes of the optimiser step. The parts are logged as `loss_<part>`, and
    evaluation always has `eval_loss`, its parts, and for emotion models `eval_war`, `eval_uar` and `eval_macro_f1`.

    Args:
        model: One of the three GMP-ATL models.
        args: Settings; left as they are (a copy is used).
        train_dataset: The table to train on.
        eval_dataset: The table to evaluate on.
        processing_class: The checkpoint's feature extractor.
        data_collator: Replaces the collator made from model and settings, for training.
        compute_metrics: Adds to the built-in metrics; gets emotion logits and labels.
        callbacks: Further callbacks.
        description: What the progress bar says.
        front_end_cache: Where the output of a frozen front end is kept: a folder, True for `_front-end` inside the
            output folder, False to compute it anew in every epoch. Used only while the front end is frozen, without a
            `data_collator` of one's own (which may want the waveform).

    Raises:
        RequestError: A table lacks a column that the model needs, its labels are not the model's, or early stopping is
            asked for where there is no UAR.

    Example:
        >>> trainer = GMPATLTrainer(model, args, table, dev_table, feature_extractor)  # doctest: +SKIP
        >>> trainer.train()  # doctest: +SKIP
    """

    model: GMPATLPreTrainedModel
    args: GMPATLTrainingArguments

    def __init__(
        self,
        model: GMPATLPreTrainedModel,
        args: GMPATLTrainingArguments,
        train_dataset: datasets.Dataset | None = None,
        eval_dataset: datasets.Dataset | None = None,
        processing_class: Any = None,
        data_collator: GMPATLDataCollator | None = None,
        compute_metrics: Callable[[EvalPrediction], dict[str, float]] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        description: str | None = None,
        front_end_cache: bool | str | os.PathLike[str] = True,
        **kwargs: Any,
    ) -> None:
        for table in (train_dataset, eval_dataset):
            if table is not None:
                check_training_table(table, model)
        frame_labels = "labels" not in model.target_names
        check_training_arguments(args, frame_labels, model.config.num_emotions)
        args = copy.copy(args)
        if train_dataset is not None:
            train_in_float32(model)
        if frame_labels:
            # There is no UAR of frame labels; retraining keeps its last step.
            args.metric_for_best_model, args.load_best_model_at_end, args.greater_is_better = None, False, None
        if args.n_gpu > 1:
            # One process on several GPUs (DataParallel) would cut up the denominators; `torchrun` uses them all.
            args._n_gpu = 1
        if args.ddp_find_unused_parameters is None and data_collator is None and model.config.layerdrop == 0:
            # Every parameter always has a gradient (see the losses); searching for others costs a pass over the graph.
            args.ddp_find_unused_parameters = False
        if args.freeze_feature_encoder:
            model.freeze_feature_encoder()
        if args.freeze_encoder:
            model.freeze_encoder()
        collate = GMPATLDataCollator(
            processing_class, model.config, model.target_names, max_seconds=args.max_seconds, seed=args.seed
        )
        self._train_collator = data_collator or collate
        self._user_metrics = compute_metrics
        super().__init__(
            model=model,
            args=args,
            data_collator=GMPATLDataCollator(
                processing_class, model.config, model.target_names, training=False, seed=args.seed
            ),
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            compute_metrics=self._metrics,
            callbacks=callbacks,
            **kwargs,
        )
        # `compute_loss` divides by the counts of the whole optimiser step. Older transformers 5 read the first switch,
        # newer ones the second.
        self.model_accepts_loss_kwargs = True
        self.loss_is_scaled_for_ga = True
        self.class_weights = self._class_weights()
        if args.early_stopping_patience is not None:
            self.add_callback(StopWithoutImprovement(args.early_stopping_patience))
        self.add_callback(StopAtEnd())
        self.add_callback(_FindBestModel())
        for stock in (ProgressCallback, PrinterCallback):
            self.remove_callback(stock)
        if description is not None and not args.disable_tqdm:
            self.add_callback(TrainingProgress(description))
        self._description = None if args.disable_tqdm else description
        self._front_end_cache = front_end_cache
        self.front_end_cache: FrontEndCache | None = None
        self._known_clips: dict[int, tuple[datasets.Dataset, TableClips]] = {}
        self._reset_parts()

    # ---- what is trained on --------------------------------------------------------------------------------------

    def _find_cache(self) -> FrontEndCache | None:
        """The cache of the front end as it is now; None where it is trained, or somebody may want the waveform."""
        trained = any(parameter.requires_grad for parameter in self.model.hubert.feature_extractor.parameters())
        own_collator = type(self._train_collator) is not GMPATLDataCollator
        cut_up = self.is_fsdp_enabled or self.is_deepspeed_enabled  # no process has the whole tensors
        augmented = self.args.augment != "none"  # another waveform every time
        if self._front_end_cache is False or trained or own_collator or cut_up or augmented:
            return None
        inside = Path(self.args.output_dir or ".", FRONT_END_FOLDER)
        return FrontEndCache(
            inside if self._front_end_cache is True else self._front_end_cache, self.model, self.processing_class
        )

    def _clips(self, table: datasets.Dataset, start: bool = False) -> TableClips:
        """Rows as the collators want them; what the cache lacks of them is computed now, by all processes.

        Args:
            table: The table.
            start: Whether a training starts; while one goes on, a frozen front end cannot change.
        """
        if start or not self.is_in_train:
            self.front_end_cache, self._known_clips = self._find_cache(), {}
        if id(table) not in self._known_clips:
            if self.front_end_cache is not None:
                self.front_end_cache.fill(table, self._description, self.args.dataloader_num_workers)
            # The table is kept as well: another one could get its id.
            self._known_clips[id(table)] = table, TableClips(table, self._columns, self.front_end_cache)
        return self._known_clips[id(table)][1]

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches of this process; sampler and collator know the processes, so Accelerate need not split them."""
        if self.train_dataset is None:
            raise ValueError("training needs a train_dataset")
        args = self.args
        table = self.train_dataset
        sampler = StepBatchSampler(
            np.asarray(table["num_samples"]).tolist(),
            self._train_batch_size,
            args.gradient_accumulation_steps,
            self.accelerator.num_processes,
            self.accelerator.process_index,
            args.seed if args.data_seed is None else args.data_seed,
            args.batch_seconds,
            None if args.max_seconds is None else int(args.max_seconds * SAMPLING_RATE),
        )
        self.remove_callback(_SetEpoch)
        self.add_callback(_SetEpoch(sampler))
        clips = self._clips(table, start=True)
        return DataLoader(
            AUGMENTED[args.augment](clips, args.seed) if args.augment in AUGMENTED else clips,
            batch_sampler=sampler,
            collate_fn=self._train_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            # The loader draws a seed from the generator for each pass; from the global one it would shift dropout.
            generator=torch.Generator().manual_seed(args.seed),
        )

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """Whole clips, sorted by length, each batch saying which rows it holds; prepared by Accelerate."""
        table = self.eval_dataset if eval_dataset is None else eval_dataset
        if table is None:
            raise ValueError("evaluation needs an eval_dataset")
        check_training_table(table, self.model)
        order = np.argsort(np.asarray(table["num_samples"]), kind="stable")
        loader: DataLoader[Any] = DataLoader(
            _InOrder(self._clips(table), order),
            batch_size=self.args.per_device_eval_batch_size,
            collate_fn=_WithRows(self.data_collator),
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            generator=torch.Generator().manual_seed(self.args.seed),
        )
        return self.accelerator.prepare(loader)

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader[Any]:
        """As for evaluation."""
        return self.get_eval_dataloader(test_dataset)

    @property
    def _columns(self) -> tuple[str, ...]:
        return ("emotion", "gender", *(self.model.config.frame_scales or {}))

    def _class_weights(self) -> Tensor | None:
        """(emotions,) float32 weights as the settings ask for."""
        wanted, classes = self.args.class_weights, self.model.config.num_emotions
        if wanted is None or "labels" not in self.model.target_names:
            return None
        if wanted == "balanced":
            if self.train_dataset is None:
                return None
            counts = np.bincount(np.asarray(self.train_dataset["emotion"]), minlength=classes)
            return torch.tensor(counts.sum() / (classes * np.maximum(counts, 1)), dtype=torch.float32)
        return torch.tensor([float(weight) for weight in wanted])

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The stock optimiser; with `head_learning_rate` the heads get groups of their own."""
        given = self.optimizer is not None
        optimizer = super().create_optimizer(model) if model is not None else super().create_optimizer()
        rate = self.args.head_learning_rate
        if rate is not None and not given:
            encoder = {id(parameter) for parameter in self.model.hubert.parameters()}
            for group in list(optimizer.param_groups):
                heads = [parameter for parameter in group["params"] if id(parameter) not in encoder]
                group["params"] = [parameter for parameter in group["params"] if id(parameter) in encoder]
                if heads:
                    optimizer.add_param_group({**group, "params": heads, "lr": rate})
        return optimizer

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train; a model that says whom it has heard goes on saying so, or says that it no longer knows."""
        before = self.model.config.seen_speakers
        if before is not None:
            tables: list[Any] = [table for table in (self.train_dataset, self.eval_dataset) if table is not None]
            known = all("speaker" in table.column_names for table in tables)
            heard = {speaker for table in tables for speaker in table["speaker"]} if known else set()
            self.model.config.seen_speakers = sorted({*before, *heard}) if known else None
        return super().train(*args, **kwargs)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Transformers performs a step before it looks whether it should; a finished training must not move on."""
        if not self.control.should_training_stop:
            super()._run_epoch(*args, **kwargs)  # type: ignore[no-untyped-call]

    # ---- the loss ------------------------------------------------------------------------------------------------

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """The batches of one optimiser step and, for each part, the count over all of them and all processes."""
        batches = [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)]
        counts = torch.stack([self.model.count_parts(batch, self.class_weights) for batch in batches]).sum(0)
        return batches, self.accelerator.reduce(counts.to(device), "sum")

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """The stock step; on the CPU in pieces of like length, whose gradients add up to the same."""
        # Processes must agree on the number of backward passes, and without the step's counts losses do not add up.
        alone = self.args.device.type == "cpu" and self.accelerator.num_processes == 1
        known = type(self._train_collator) is GMPATLDataCollator and num_items_in_batch is not None
        pieces = cut_by_length(inputs, self.model.config) if alone and known else [inputs]
        with quick_attention(self.model, self.args):
            losses = [super(GMPATLTrainer, self).training_step(model, piece, num_items_in_batch) for piece in pieces]
        return torch.stack(losses).sum()

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """This batch's share of the step's loss, times the processes since their gradients are averaged."""
        if self.class_weights is not None:
            inputs = {**inputs, "class_weights": self.class_weights.to(self.args.device)}
        outputs = model(**inputs, loss_denominators=num_items_in_batch)
        loss = outputs.loss
        if num_items_in_batch is not None:
            self._sums += outputs.loss_sums.sum(0).detach()
            self._counts += outputs.loss_counts.sum(0).detach()
            loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def _reset_parts(self) -> None:
        zeros = torch.zeros(len(self.model.loss_parts), device=self.args.device)
        self._sums, self._counts = zeros, zeros.clone()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the mean of each part since the last log."""
        if "loss" in logs:
            sums, counts = self.accelerator.reduce(torch.stack([self._sums, self._counts]), "sum").tolist()
            for name, total, count in zip(self.model.loss_parts, sums, counts, strict=True):
                if count > 0:
                    logs[f"loss_{name}"] = total / count
            self._reset_parts()
        super().log(logs, start_time)

    # ---- evaluation ----------------------------------------------------------------------------------------------

    def prediction_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[None, Any, Any]:
        """Emotion logits and each clip's parts of the loss; labels are (row of the table, emotion)."""
        inputs = dict(self._prepare_inputs(inputs))
        rows = inputs.pop("rows")
        labels = inputs.get("labels", torch.full_like(rows, IGNORED))
        with torch.no_grad(), self.compute_loss_context_manager(), exact_convolutions(self.args.device):
            weights = {} if self.class_weights is None else {"class_weights": self.class_weights.to(self.args.device)}
            outputs = model(**inputs, **weights)
        shown = [outputs.logits, outputs.loss_sums, outputs.loss_counts, outputs.hits]
        return None, tuple(value.float() for value in shown if value is not None), torch.stack([rows, labels], dim=1)

    def _metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        given = prediction.predictions
        arrays = [np.asarray(array) for array in (given if isinstance(given, (tuple, list)) else (given,))]
        labels = np.asarray(prediction.label_ids)[:, 1]
        metrics: dict[str, float] = {}
        if len(arrays) >= 3:
            sums, counts, hits = (array.sum(0, dtype=np.float64) for array in arrays[-3:])
            losses = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
            metrics["loss"] = float(np.dot(losses, self.model.part_weights))
            counted = (arrays[len(arrays) - 2] > 0).sum(0) if "labels" in self.model.target_names else counts
            for name, loss, hit, count in zip(self.model.loss_parts, losses, hits, counted, strict=True):
                if count > 0:
                    metrics[f"loss_{name}"] = float(loss)
                    metrics[f"accuracy_{name}"] = float(hit / count)
        known = labels != IGNORED
        if "labels" in self.model.target_names and known.any():
            logits, references = arrays[0][known], labels[known]
            metrics |= emotion_metrics(references, logits.argmax(-1), self.model.config.num_emotions)
            metrics.pop("accuracy_emotion", None)  # WAR under a second name
            if self._user_metrics is not None:
                metrics |= self._user_metrics(EvalPrediction(predictions=logits, label_ids=references))
        return metrics

    def predict(
        self, test_dataset: Any, ignore_keys: list[str] | None = None, metric_key_prefix: str = "test"
    ) -> PredictionOutput:
        """Emotion logits (rows, emotions) and labels (rows,), both in the order of the table."""
        output = super().predict(test_dataset, ignore_keys, metric_key_prefix)
        logits = output.predictions[0] if isinstance(output.predictions, tuple) else output.predictions
        rows, labels = np.asarray(output.label_ids).T
        order = np.argsort(rows)
        return PredictionOutput(np.asarray(logits)[order], labels[order], output.metrics)

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Send model, feature extractor, code and a card to `args.hub_model_id`, as one commit and without pickle.

        Args:
            commit_message: Message of the commit.
            blocking: No other way is offered; see Raises.
            token: A token in place of `args.hub_token` or the one that is stored.
            revision: Branch to commit to; None for `args.hub_revision`, or the main one.
            private: Whether a new repository is private; None for `args.hub_private_repo`.
            kwargs: What the stock trainer puts on its own card; nothing here.

        Returns:
            The `CommitInfo`, on the first process; None on others.

        Raises:
            RequestError: No repository is named, `blocking` is False, nobody is logged in, or the Hub refuses.
        """
        from ..hub.trainer_push import push_trainer

        args = self.args
        if args.hub_model_id is None or not blocking:
            raise RequestError(
                "hub_model_id is not set" if args.hub_model_id is None else "blocking is False",
                "a repository to push to, and the time to wait for it",
                'GMPATLTrainingArguments(hub_model_id="owner/name"), trainer.push_to_hub()',
            )
        if not self.is_world_process_zero():
            return None
        private = args.hub_private_repo if private is None else private
        message, revision = commit_message or "End of training", revision or args.hub_revision
        return push_trainer(self, args.hub_model_id, message, private, revision, token or args.hub_token)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Save without the pickled arguments: nothing reads them back, and no pickle shall be left behind."""
        super()._save(output_dir, state_dict)
        Path(output_dir or self.args.output_dir or ".", "training_args.bin").unlink(missing_ok=True)


class _SetEpoch(TrainerCallback):
    """Tell the sampler the epoch, however the loader around it has been wrapped or resumed."""

    def __init__(self, sampler: StepBatchSampler) -> None:
        self.sampler = sampler

    def on_epoch_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.sampler.set_epoch(state.global_step // self.sampler.steps)


class _FindBestModel(TrainerCallback):
    """Find the best checkpoint again when its folder was moved between two halves of a training."""

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        known = state.best_model_checkpoint
        if state.best_global_step and not (known and Path(known).is_dir()):
            here = Path(args.output_dir, f"checkpoint-{state.best_global_step}")
            state.best_model_checkpoint = str(here) if here.is_dir() else None


class _InOrder(torch.utils.data.Dataset[dict[str, Any]]):
    """A dataset in another order; each row still carries its place in the table."""

    def __init__(self, clips: TableClips, order: np.ndarray) -> None:
        self.clips, self.order = clips, order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.clips[int(self.order[index])]


class _WithRows:
    """A collator whose batches say which rows of the table they hold."""

    def __init__(self, collator: Any) -> None:
        self.collator = collator

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        return {**self.collator(rows), "rows": torch.tensor([row["key"].row for row in rows])}
