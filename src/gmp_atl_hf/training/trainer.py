"""One trainer for multi-task training, retraining on frame labels and fine-tuning."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import EvalPrediction, PrinterCallback, ProgressCallback, TrainingArguments
from transformers.trainer_callback import TrainerCallback
from transformers.trainer_pt_utils import nested_numpify
from transformers.trainer_utils import PredictionOutput

from ..batching.clips import InOrder, TableClips
from ..batching.collator import GMPATLDataCollator, WithRows
from ..batching.feature_cache import FrontEndCache
from ..batching.sampler import StepBatchSampler
from ..batching.speed import AugmentedClips
from ..data.audio import SAMPLING_RATE
from ..data.table_values import plain
from ..errors import RequestError
from ..evaluation.calibration import fit_logit_temperature
from ..modeling.losses_gmp_atl import IGNORED
from ..modeling.modeling_gmp_atl import GMPATLPreTrainedModel
from ..numerics import no_tf32
from ..protocols.leakage import HeldOut, warn_of_unguarded_speakers
from ..protocols.speakers import UNKNOWN, speakers_in
from .arguments import GMPATLTrainingArguments, adapt_arguments, complete_arguments
from .averaging import AveragingTrainer
from .bfloat16_on_cpu import math_attention_for_cpu_bf16
from .caches import find_cache
from .callbacks import SetEpoch, StopAtDivergence, StopWithoutImprovement, TrainingProgress, usual_callbacks
from .checks import base_of, check_adapter, check_trainer, check_training_table, is_sharded, plain_tables, tables_of
from .figures import figures_of
from .head_first import learn_emotions, pool_clips, prepare_heads
from .lora import RefuseIdleAdapters, complete_adapter
from .microbatches import split_by_length
from .parameters import decay_by_layer, split_groups, train_in_float32
from .speaker_normalization import normalize_by_speaker
from .top_layers import keep_states, refuse_trained_layers, train_top_layers


class GMPATLTrainer(AveragingTrainer):
    """[`~transformers.Trainer`] whose losses do not depend on how an optimiser step is cut into batches.

    Each part of the loss is a sum over clips divided by the part's own count (class weights; clips with a gender;
    masked frames) over *all* batches and processes of the optimiser step. The parts are logged as `loss_<part>`, and
    evaluation always has `eval_loss`, its parts, and for emotion models `eval_war`, `eval_uar` and `eval_macro_f1`.

    Args:
        model: One of the three GMP-ATL models, also inside a `PeftModel`.
        args: Settings; left as they are (a copy is used). Stock ones get the further fields with their defaults.
        train_dataset: The table to train on.
        eval_dataset: The table to evaluate on, or several by name; the figures of `a` are then `eval_a_uar` and so on.
        processing_class: The checkpoint's feature extractor.
        data_collator: Replaces the collator made from model and settings, for training.
        compute_metrics: Adds to the built-in metrics; gets emotion logits and labels.
        callbacks: Further callbacks.
        description: Text of the progress bar.
        preprocess_logits_for_metrics: Applied to emotion logits (clips, emotions) and labels (clips,) before
            `compute_metrics` and in what `predict` gives.
        front_end_cache: Folder for the output of a frozen front end, True for `_front-end` inside the output folder,
            False to compute it in every epoch. Not used with a `data_collator`, which may want the waveform.
        held_out: The test rows. A training that would touch one of their recordings or speakers is refused.
        kwargs: Further parameters of the stock trainer.

    Raises:
        RequestError: A table lacks a column that the model needs, its labels are not the model's, a row lacks a label
            or a length, early stopping is asked for where there is no UAR, a setting or parameter of the stock trainer
            has no meaning here, or a held-out speaker or recording would be trained on, chosen by, or is among the
            model's `seen_speakers`.
        DivergenceError: Loss, gradients, parameters or, in evaluation, scores are not finite any more.

    Example:
        >>> trainer = GMPATLTrainer(model, args, table, dev_table, feature_extractor)  # doctest: +SKIP
        >>> trainer.train()  # doctest: +SKIP
    """

    model: GMPATLPreTrainedModel
    args: GMPATLTrainingArguments

    def __init__(
        self,
        model: Any,
        args: TrainingArguments,
        train_dataset: datasets.Dataset | None = None,
        eval_dataset: datasets.Dataset | dict[str, datasets.Dataset] | None = None,
        processing_class: Any = None,
        data_collator: GMPATLDataCollator | None = None,
        compute_metrics: Callable[[EvalPrediction], dict[str, float]] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        description: str | None = None,
        preprocess_logits_for_metrics: Callable[[Tensor, Tensor], Any] | None = None,
        front_end_cache: bool | str | os.PathLike[str] = True,
        held_out: datasets.Dataset | None = None,
        **kwargs: Any,
    ) -> None:
        self.base = base = base_of(model)
        args = complete_arguments(args)
        train_dataset, eval_dataset, held_out = plain(train_dataset), plain_tables(eval_dataset), plain(held_out)
        frame_labels = "labels" not in base.target_names
        metrics = {"compute_metrics": compute_metrics, "preprocess_logits_for_metrics": preprocess_logits_for_metrics}
        parameters = {**kwargs, **metrics, "processing_class": processing_class}
        check_trainer(base, args, train_dataset, eval_dataset, parameters)
        check_adapter(model, base, args)
        refuse_trained_layers(args, base.config, adapter=hasattr(model, "peft_config"))
        adapt_arguments(args, base, own_collator=data_collator is not None)
        self.held_out, dev = HeldOut.of(held_out), tables_of(eval_dataset).values()
        self.held_out.refuse_training(train_dataset, dev, base.config.seen_speakers)
        warn_of_unguarded_speakers(held_out, [train_dataset, *dev])
        if train_dataset is not None:
            train_in_float32(base)
        if args.freeze_feature_encoder:
            base.freeze_feature_encoder()
        if args.freeze_encoder:
            base.freeze_encoder()
        if args.trained_layers is not None:
            train_top_layers(base, args.trained_layers)
        collator = partial(GMPATLDataCollator, processing_class, base.config, base.target_names, seed=args.seed)
        self._train_collator = data_collator or collator(max_seconds=args.max_seconds)
        self._user_metrics, self._preprocess = compute_metrics, preprocess_logits_for_metrics
        super().__init__(
            model=model,
            args=args,
            data_collator=collator(training=False),
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            compute_metrics=self._metrics,
            callbacks=callbacks,
            **kwargs,
        )
        # `compute_loss` divides by the counts of the whole step; transformers 5 reads the first or the second switch.
        self.model_accepts_loss_kwargs = True
        self.loss_is_scaled_for_ga = True
        emotions = None if train_dataset is None or frame_labels else train_dataset["emotion"]
        self.class_weights = None if frame_labels else args.weigh(emotions, base.config.num_emotions)
        self._speakers = normalize_by_speaker(base, args, train_dataset, partial(pool_clips, self))
        self._divergence = StopAtDivergence(self.accelerator)
        self._description = None if args.disable_tqdm else description
        self._add_callbacks()
        self._front_end_cache = front_end_cache
        self.keeps_states = False
        self.front_end_cache: FrontEndCache | None = None
        self._known_clips: dict[int, tuple[datasets.Dataset, TableClips]] = {}
        self._reset_parts()

    def _add_callbacks(self) -> None:
        if self.args.early_stopping_patience is not None:
            self.add_callback(StopWithoutImprovement(self.args.early_stopping_patience))
        idle = RefuseIdleAdapters() if hasattr(self.model, "peft_config") and not is_sharded(self) else None
        for callback in filter(None, (*usual_callbacks(), self._divergence, self._speakers, idle)):
            self.add_callback(callback)
        for stock in (ProgressCallback, PrinterCallback):
            self.remove_callback(stock)
        if self._description is not None:
            self.add_callback(TrainingProgress(self._description))

    # ---- what is trained on --------------------------------------------------------------------------------------

    def _clips(self, table: datasets.Dataset, start: bool = False) -> TableClips:
        """Rows as the collators want them; what the cache lacks of them is computed now, by all processes."""
        # While a training goes on, a frozen front end cannot change.
        if start or not self.is_in_train:
            wanted, own_collator = self._front_end_cache, type(self._train_collator) is not GMPATLDataCollator
            self.front_end_cache = find_cache(self, self.base, wanted, own_collator, self.keeps_states)
            self._known_clips = {}
        if id(table) not in self._known_clips:
            if self.front_end_cache is not None:
                self.front_end_cache.fill(table, self._description, self.args.dataloader_num_workers)
            columns = ("emotion", "gender", *(self.base.config.frame_scales or {}))
            # The table is kept as well: another one could get its id.
            self._known_clips[id(table)] = table, TableClips(table, columns, self.front_end_cache)
        return self._known_clips[id(table)][1]

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches of this process; sampler and collator know the processes, so Accelerate need not split them."""
        if self.train_dataset is None:
            raise ValueError("training needs a train_dataset")
        args = self.args
        sampler = StepBatchSampler(
            np.asarray(self.train_dataset["num_samples"]).tolist(),
            self._train_batch_size,
            args.gradient_accumulation_steps,
            self.accelerator.num_processes,
            self.accelerator.process_index,
            args.seed if args.data_seed is None else args.data_seed,
            args.batch_seconds,
            None if args.max_seconds is None else int(args.max_seconds * SAMPLING_RATE),
        )
        self.remove_callback(SetEpoch)
        self.add_callback(SetEpoch(sampler))
        clips = self._clips(self.train_dataset, start=True)
        return self._loader(
            AugmentedClips(clips, args.augment, args.seed) if args.augment != "none" else clips,
            batch_sampler=sampler,
            collate_fn=self._train_collator if self._speakers is None else WithRows(self._train_collator),
            persistent_workers=args.dataloader_persistent_workers,
        )

    def _loader(self, clips: Any, **how: Any) -> DataLoader[Any]:
        args, workers = self.args, self.args.dataloader_num_workers
        if workers:
            how["prefetch_factor"] = args.dataloader_prefetch_factor
            how["multiprocessing_context"] = args.dataloader_multiprocessing_context
        # The loader draws a seed from the generator for each pass; from the global one it would shift dropout.
        generator = torch.Generator().manual_seed(args.seed)
        return DataLoader(
            clips, num_workers=workers, pin_memory=bool(args.dataloader_pin_memory), generator=generator, **how
        )

    def get_eval_dataloader(self, eval_dataset: Any = None, scores_alone: bool = False) -> DataLoader[Any]:
        """Whole clips, sorted by length, each batch saying which rows it holds; prepared by Accelerate."""
        table = self.eval_dataset if eval_dataset is None else eval_dataset
        table = plain(tables_of(self.eval_dataset)[table] if isinstance(table, str) else table)
        if table is None:
            raise ValueError("evaluation needs an eval_dataset")
        check_training_table(table, self.base, scores_alone)
        if self.is_in_train:
            self.held_out.refuse_rows(table, "choosing the epoch")
        order = np.argsort(np.asarray(table["num_samples"]), kind="stable")
        loader = self._loader(
            InOrder(self._clips(table), order),
            batch_size=self.args.per_device_eval_batch_size,
            collate_fn=WithRows(self.data_collator),
        )
        return self.accelerator.prepare(loader)

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader[Any]:
        """As for evaluation; a table without any emotion gets scores, and no figures."""
        return self.get_eval_dataloader(test_dataset, scores_alone=True)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The stock optimiser; `head_learning_rate` and `layer_decay` make groups with rates of their own."""
        given = self.optimizer is not None
        optimizer = super().create_optimizer(model) if model is not None else super().create_optimizer()
        rate = self.args.head_learning_rate
        if rate is not None and not given:
            encoder = {id(parameter) for parameter in self.base.encoder_parameters()}
            split_groups(optimizer, lambda parameter: id(parameter) not in encoder, lambda _: rate)
        if self.args.layer_decay is not None and not given:
            decay_by_layer(optimizer, self.base.hubert, self.args.layer_decay)
        return optimizer

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train; the speakers are added to the model's `seen_speakers`, and an earlier calibration is dropped."""
        config, dev = self.base.config, tables_of(self.eval_dataset).values()
        self.held_out.refuse_training(self.train_dataset, dev, config.seen_speakers)
        before = [UNKNOWN] if config.seen_speakers is None else config.seen_speakers
        config.seen_speakers = sorted({*before, *speakers_in([*tables_of(self.train_dataset).values(), *dev])})
        config.logit_temperature = 1.0
        with keep_states(self):
            if not (kwargs.get("resume_from_checkpoint") or (args and args[0])):
                prepare_heads(self, self.base, self.class_weights, self._speakers)
            output = super().train(*args, **kwargs)
            learn_emotions(self, self.base)
        return output

    def hyperparameter_search(self, *_: Any, **__: Any) -> Any:
        """Not offered: always a `RequestError` that says what to do instead."""
        check_trainer(self.base, self.args, None, None, {"hyperparameter_search": True})

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
        if self._speakers is not None:
            for batch in batches:
                batch["speaker_statistics"] = self._speakers.of(batch.pop("rows"))
        counts = torch.stack([self.base.count_parts(batch, self.class_weights) for batch in batches]).sum(0)
        return batches, self.accelerator.reduce(counts.to(device), "sum")

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """The stock step; on the CPU in microbatches of similar length, whose gradients add up to the same."""
        # Processes must agree on the number of backward passes, and without the step's counts losses do not add up.
        alone = self.args.device.type == "cpu" and self.accelerator.num_processes == 1
        known = type(self._train_collator) is GMPATLDataCollator and num_items_in_batch is not None
        microbatches = split_by_length(inputs, self.base.config) if alone and known else [inputs]
        with math_attention_for_cpu_bf16(self.model, self.args):
            losses = [
                super(GMPATLTrainer, self).training_step(model, microbatch, num_items_in_batch)
                for microbatch in microbatches
            ]
        loss = torch.stack(losses).sum()
        self._divergence.loss = self._divergence.loss + loss
        return loss

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm)  # type: ignore[no-untyped-call]
        # DeepSpeed passes over steps that overflow in float16 by itself.
        self._divergence.gradient_norm = None if self.is_deepspeed_enabled else norm
        return norm

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
        self._sums, self._counts = torch.zeros(2, len(self.base.loss_parts), device=self.args.device)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the mean of each part since the last log."""
        if "loss" in logs:
            sums, counts = self.accelerator.reduce(torch.stack([self._sums, self._counts]), "sum").tolist()
            for name, total, count in zip(self.base.loss_parts, sums, counts, strict=True):
                if count > 0:
                    logs[f"loss_{name}"] = total / count
            self._reset_parts()
        super().log(logs, start_time)

    # ---- evaluation ----------------------------------------------------------------------------------------------

    def prediction_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[None, Any, Any]:
        """Emotion logits and each clip's parts of the loss; labels are (row of the table, emotion)."""
        inputs = dict(self._prepare_inputs(inputs))
        rows = inputs.pop("rows")
        labels = inputs.get("labels", torch.full_like(rows, IGNORED))
        with torch.no_grad(), self.compute_loss_context_manager(), no_tf32(self.args.device):
            weights = {} if self.class_weights is None else {"class_weights": self.class_weights.to(self.args.device)}
            outputs = model(**inputs, **weights)
        arrays = [outputs.logits, outputs.loss_sums, outputs.loss_counts, outputs.correct]
        return None, tuple(value.float() for value in arrays if value is not None), torch.stack([rows, labels], dim=1)

    def _metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        outputs = prediction.predictions
        arrays = [np.asarray(array) for array in (outputs if isinstance(outputs, (tuple, list)) else (outputs,))]
        labels = np.asarray(prediction.label_ids)[:, 1]
        figures = figures_of(self.base, arrays, labels)
        known = labels != IGNORED
        if self._user_metrics is not None and known.any():
            shown = self._preprocessed(arrays[0][known], labels[known])
            figures |= self._user_metrics(EvalPrediction(predictions=shown, label_ids=labels[known]))
        return figures

    def _preprocessed(self, logits: np.ndarray, labels: np.ndarray) -> Any:
        """Emotion logits after `preprocess_logits_for_metrics`."""
        if self._preprocess is None:
            return logits
        return nested_numpify(self._preprocess(torch.from_numpy(logits), torch.from_numpy(labels)))

    def predict(
        self, test_dataset: Any, ignore_keys: list[str] | None = None, metric_key_prefix: str = "test"
    ) -> PredictionOutput:
        """Emotion logits (rows, emotions) and labels (rows,), both in the order of the table."""
        output = self._predict_logits(test_dataset, ignore_keys, metric_key_prefix)
        shown = self._preprocessed(np.asarray(output.predictions), np.asarray(output.label_ids))
        return output._replace(predictions=shown)

    def _predict_logits(self, table: Any, ignore_keys: list[str] | None, prefix: str) -> PredictionOutput:
        output = super().predict(table, ignore_keys, prefix)
        logits = output.predictions[0] if isinstance(output.predictions, tuple) else output.predictions
        rows, labels = np.asarray(output.label_ids).T
        order = np.argsort(rows)
        return PredictionOutput(np.asarray(logits)[order], labels[order], output.metrics)

    def calibrate(self, table: datasets.Dataset) -> float:
        """Fit `config.logit_temperature` to the one that minimises the log loss of the scores, and return it.

        Args:
            table: Development rows, with emotions.

        Raises:
            RequestError: The model has no emotions, or the rows are training or held-out rows, or without an emotion.

        Example:
            >>> trainer.calibrate(dev_table)  # doctest: +SKIP
            1.37
        """
        self.held_out.refuse_calibration(table := plain(table), self.train_dataset)
        # The model's own logits, whatever `preprocess_logits_for_metrics` makes of them for other eyes.
        return fit_logit_temperature(self.base, self._predict_logits(table, None, "test"))

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

        Parameters are those of the stock trainer; `token`, `revision` (a branch) and `private` (for a new repository)
        go before `hub_token`, `hub_revision` and `hub_private_repo` of the settings.

        Returns:
            The `CommitInfo`, on the first process; None on others.

        Raises:
            RequestError: No repository is named, `blocking` is False, nobody is logged in, or the Hub refuses.
        """
        from ..hub.trainer_card import push_trainer

        repository = self.args.hub_model_id or self.hub_model_id
        if repository is None or not blocking:
            raise RequestError(
                "hub_model_id is not set" if repository is None else "blocking is False",
                "a repository to push to, and the time to wait for it",
                'GMPATLTrainingArguments(hub_model_id="owner/name"), trainer.push_to_hub()',
            )
        if not self.is_world_process_zero():
            return None
        return push_trainer(
            self._save,
            self.base,
            self.state,
            self.args,
            repository,
            message=commit_message,
            private=private,
            revision=revision,
            token=token,
        )

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Send the model as `push_to_hub` does: the stock trainer would send pickled arguments with it."""
        if self.args.hub_strategy != "end":
            self.push_to_hub(f"Training in progress, step {self.state.global_step}")

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Save without the pickled arguments: nothing reads them back, and no pickle shall be left behind."""
        super()._save(output_dir, state_dict)
        folder = Path(output_dir or self.args.output_dir or ".")
        (folder / "training_args.bin").unlink(missing_ok=True)
        if self.args.should_save and hasattr(self.model, "peft_config"):
            complete_adapter(self.model, self.base, folder, is_sharded(self))
