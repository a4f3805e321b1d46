"""The steps of the method: one function each, which writes into one folder and touches nothing else."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import torch
from accelerate import PartialState
from scipy.special import softmax
from torch import nn
from transformers import TrainerCallback
from transformers.trainer_callback import TrainerControl, TrainerState
from transformers.trainer_utils import get_last_checkpoint

from ..checkpoints import (
    load_emotion_model,
    load_feature_extractor,
    load_model,
    quiet_transformers,
    seen_speakers,
    write_heard_recordings,
)
from ..data.columns import replace_column, row_in_words
from ..data.corpora import LeftOut
from ..errors import DivergenceError
from ..files import is_whole, json_of, jsonl_of, read_json, remember, write_jsonl, write_known
from ..modeling.configuration_gmp_atl import GMPATLConfig
from ..modeling.modeling_gmp_atl import GMPATLPreTrainedModel
from ..numerics import deterministic
from ..protocols.leakage import NO_TEST_SET, HeldOut
from ..pseudo_labels.cluster import cluster_and_label
from ..pseudo_labels.controls import shuffle_frame_labels, write_oracle_labels
from ..pseudo_labels.features import hidden_state_extraction, open_cache
from ..pseudo_labels.kmeans import MultiScaleKMeans
from ..pseudo_labels.label_file import COPY_FILE, LABELS_FILE, add_label_columns, copy_for_mapping, map_labels
from ..recipe.sections import PseudoLabelSpec
from ..run_folder.layout import ADAPTER, DEV_LOGITS_FILE, LEFT_OUT_FILE, TRAINING_FILE
from ..run_folder.step_folder import STARTED_FILE
from ..training.callbacks import StopAtEpoch, StopAtStep
from ..training.head_first import pool_clips
from ..training.joint import HubertForGMPATLJoint
from ..training.trainer import GMPATLTrainer
from .adaptation import adapted_rows
from .adapters import Adapters
from .replay import amount_of
from .stages import make_arguments
from .tracking import Tracking
from .training import Training

CHECKPOINTS = "checkpoints"


def train(folder: Path, task: Training) -> None:
    """Steps 1, 3 and 4: train a model and save it.

    A training that was cut off goes on from its last whole checkpoint. Written: the model with configuration,
    feature extractor and `heard_recordings.json`, for emotion models `dev_logits.jsonl`, from which the temperature is
    fitted, and last of all `training.json` (best step, updates, development metrics, the log).

    With `lora` the saved model has its adapters merged, so whatever comes next is as after any training; the adapter
    by itself is in `adapter/`.

    Args:
        folder: The step's folder, unfinished.
        task: What to train.
    """
    state = PartialState()
    seen, heard = task.seen_speakers(), task.heard_recordings()
    if (folder / TRAINING_FILE).is_file() and is_whole(folder):
        # Cut off while the checkpoints were being deleted, of which some may be half gone.
        if state.is_main_process:
            shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
        state.wait_for_everyone()
        return
    if state.is_main_process:
        (folder / TRAINING_FILE).unlink(missing_ok=True)  # damaged since
    start, backbone = task.start.locate(), task.backbone.locate()
    model = load_model(task.model_class, start, task.seed, task.fields, config_from=backbone)
    if task.start_weight is not None:
        untouched = load_model(task.model_class, backbone, task.seed, task.fields, config_from=backbone)
        move_towards(model.hubert, untouched.hubert, task.start_weight)
    feature_extractor = load_feature_extractor(backbone)
    arguments = make_arguments(folder / CHECKPOINTS, task.seed, task.settings, evaluate=task.dev is not None)
    tracking = Tracking.of(folder, arguments.run_name)
    tracking.name_run(arguments)
    # Looked up before there is a trainer: the first process to make one makes the folder.
    checkpoint = _last_checkpoint(folder / CHECKPOINTS, arguments.load_best_model_at_end)
    callbacks: list[TrainerCallback] = [_HashCheckpoint()]
    adapters = None if task.lora is None else Adapters(model, task)
    if task.stop_at is not None:
        callbacks.append(StopAtStep(task.stop_at))
    if task.stop_after is not None:
        callbacks.append(StopAtEpoch(task.stop_after))
    with quiet_transformers(), deterministic(state.device), _labelled(task, folder) as (train_rows, dev_rows):
        trainer = (task.trainer or GMPATLTrainer)(
            model if adapters is None else adapters.model,
            arguments,
            train_rows,
            dev_rows,
            feature_extractor,
            callbacks=callbacks,
            description=task.description,
            front_end_cache=task.front_end_cache or False,
        )
        dev_logits = None
        with tracking.follow(trainer, 0 if checkpoint is None else int(checkpoint.rpartition("-")[2])):
            trainer.train(resume_from_checkpoint=checkpoint)
            if dev_rows is not None and "labels" in model.target_names:
                dev_logits = np.asarray(trainer.predict(dev_rows).predictions)
    if state.is_main_process:
        model.config.seen_speakers = seen
        if adapters is not None:
            adapters.save_and_merge(folder / ADAPTER)
            feature_extractor.save_pretrained(folder / ADAPTER)
            write_heard_recordings(folder / ADAPTER, heard)
            remember(folder / ADAPTER, (folder / ADAPTER).iterdir())  # it is also used without this folder's notes
        with quiet_transformers():
            (model.without_frame_heads() if isinstance(model, HubertForGMPATLJoint) else model).save_pretrained(folder)
        feature_extractor.save_pretrained(folder)
        write_heard_recordings(folder, heard)
        if dev_logits is not None and task.dev is not None:
            names = task.dev.features["emotion"].names
            rows = zip(task.dev["id"], task.dev["emotion"], dev_logits.tolist(), strict=True)
            write_jsonl(folder / DEV_LOGITS_FILE, [{"id": i, "emotion": names[e], "logits": x} for i, e, x in rows])
        unread = (COPY_FILE, STARTED_FILE)
        parts = (*folder.iterdir(), *(folder / ADAPTER).glob("*"))
        remember(folder, (file for file in parts if file.is_file() and file.name not in unread))
        # Written last: with it the training counts as done.
        summary = _summary(trainer.state, trainer.args.load_best_model_at_end)
        trained = {} if adapters is None else {"lora": adapters.trained.to_json()}
        if task.replay is not None:
            trained["replay"] = amount_of(task.replay)
        write_known(folder, {TRAINING_FILE: json_of(summary | trained)})
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    state.wait_for_everyone()


def move_towards(encoder: nn.Module, other: nn.Module, weight: float) -> None:
    """Leave this share of each of an encoder's weights, and fill it up with those of another one of its shape."""
    theirs = other.state_dict()
    with torch.no_grad():
        for name, values in encoder.state_dict().items():
            if values.is_floating_point():
                # Exact where both are equal: a frozen front end stays the backbone's to the bit.
                values.copy_(torch.lerp(theirs[name], values, weight))


@contextmanager
def _labelled(task: Training, scratch: Path) -> Iterator[tuple[datasets.Dataset, datasets.Dataset | None]]:
    """Training and development rows with their frame labels, where the training needs any."""
    if task.labels is None:
        yield task.train, task.dev
        return
    with pseudo_labels_of(task.labels.resolve(), scratch) as put_labels:
        train = put_labels(task.train)
        if task.replay is not None:
            train = datasets.concatenate_datasets([train, put_labels(task.replay)])
        yield train, None if task.dev is None else put_labels(task.dev)


class _HashCheckpoint(TrainerCallback):
    """Hash a checkpoint once all of it is written: one without hashes was cut off in the middle."""

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        processes = PartialState()
        processes.wait_for_everyone()  # each writes the state of its random numbers
        if processes.is_main_process:
            checkpoint = Path(args.output_dir, f"checkpoint-{state.global_step}")
            remember(checkpoint, (file for file in checkpoint.rglob("*") if file.is_file()))
        processes.wait_for_everyone()


def _last_checkpoint(folder: Path, best_kept: bool) -> str | None:
    """Last checkpoint that is whole, and whose best one so far is too, if that is kept; what is damaged goes."""
    if PartialState().is_main_process:
        found = {checkpoint.name: checkpoint for checkpoint in folder.glob("checkpoint-*")}
        whole = {name for name, checkpoint in found.items() if is_whole(checkpoint)}
        for name, checkpoint in found.items():
            best = read_json(checkpoint / "trainer_state.json")["best_global_step"] if name in whole else None
            # Without the best one, the training would end with the last.
            if name not in whole or (best_kept and best and f"checkpoint-{best}" not in whole):
                shutil.rmtree(checkpoint)
    PartialState().wait_for_everyone()
    last: str | None = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    return last


def _summary(state: TrainerState, best_kept: bool) -> dict[str, Any]:
    """What `training.json` says; `best_step` is the step whose weights were kept, the last one or the best."""
    timings = ("_runtime", "_per_second", "total_flos", "preparation_time")
    # The mean over all steps is left out as well: after a resume it is that of the steps since.
    log = [
        {name: value for name, value in sorted(entry.items()) if not name.endswith(timings)}
        for entry in state.log_history
        if "train_loss" not in entry
    ]
    step, uar = state.best_global_step or state.global_step, state.best_metric
    if not best_kept:
        step = state.global_step
        uar = next((entry["eval_uar"] for entry in log if entry["step"] == step and "eval_uar" in entry), None)
    return {
        "best_step": step,
        "best_dev_uar": uar,
        "updates": state.global_step,
        "planned_updates": state.max_steps,
        "log": log,
    }


def make_pseudo_labels(
    folder: Path,
    model_class: type[GMPATLPreTrainedModel],
    checkpoint: str | Path,
    spec: PseudoLabelSpec,
    train: datasets.Dataset,
    dev: datasets.Dataset | None,
    description: str | None,
    held_out: HeldOut = NO_TEST_SET,
    front_end_cache: Path | None = None,
    replay: datasets.Dataset | None = None,
) -> None:
    """Step 2: cluster hidden states of the training speakers and label every frame of training and development rows.

    Written: `codebooks.safetensors`, `codebooks.json` and `labels.parquet` (id and one column per scale).

    Args:
        folder: The step's folder, unfinished.
        model_class: Class to load the checkpoint with.
        checkpoint: Folder or Hub id of the model whose hidden states are clustered.
        spec: Layers, windows, numbers of clusters, what frames are normalised by or clustered per, the sample, and
            whether the labels are shuffled in the end.
        train: Training rows; clusters see nothing else.
        dev: Development rows, labelled for logging only.
        description: What the progress bars say; None for no bars.
        held_out: What will be tested: nothing of it may be clustered or labelled.
        front_end_cache: Folder of the front-end cache; None computes the front end once more.
        replay: Plain speech, labelled as well and not clustered.

    Raises:
        RequestError: A test speaker would be clustered or labelled, or the model has seen one.
    """
    held_out.refuse_rows(train, "k-means")
    held_out.refuse_rows(dev, "frame labelling")
    held_out.refuse_rows(replay, "frame labelling")
    held_out.refuse_speakers(seen_speakers(checkpoint), f"the checkpoint {checkpoint} has seen")
    device = PartialState().device
    model = load_model(model_class, checkpoint, spec.seed).to(device)
    extractor = load_feature_extractor(checkpoint)
    if replay is not None:
        # Nobody knows who speaks: each recording is normalised by its own frames, as a speaker who was not clustered.
        replay = replace_column(replay, "speaker", replay["id"])
    parts = [part for part in (train, dev, replay) if part is not None]
    rows = datasets.concatenate_datasets(parts)
    cache = open_cache(front_end_cache, model, extractor, rows, description)
    with deterministic(device):
        extraction = hidden_state_extraction(model, spec.layers, extractor, cache)
        how: dict[str, Any] = {name: getattr(spec, name) for name in ("windows", "normalize", "per", "positions")}
        kmeans = MultiScaleKMeans(spec.clusters, spec.seed, **how)
        cluster_and_label(folder, extraction, kmeans, spec.sample_frames, train, dev, description, replay)
    if spec.control == "shuffled" and PartialState().is_main_process:
        shuffle_frame_labels(folder, [len(part) for part in parts], spec.seed)


def make_oracle_labels(
    folder: Path,
    config: GMPATLConfig,
    train: datasets.Dataset,
    dev: datasets.Dataset | None,
    held_out: HeldOut = NO_TEST_SET,
) -> None:
    """Step 2 of the oracle control: each frame's label is the emotion of its clip.

    Args:
        folder: The step's folder, unfinished.
        config: Of the model that has as many frames.
        train: Training rows.
        dev: Development rows, labelled for logging only.
        held_out: What will be tested: nothing of it may be labelled.

    Raises:
        RequestError: A test speaker would be labelled.
    """
    held_out.refuse_rows(train, "frame labelling")
    held_out.refuse_rows(dev, "frame labelling")
    if PartialState().is_main_process:
        write_oracle_labels(folder, config, train, dev)


@contextmanager
def pseudo_labels_of(step: Path, scratch: Path) -> Iterator[Callable[[datasets.Dataset], datasets.Dataset]]:
    """Read the labels of a finished step 2, from the disk and not into memory.

    Args:
        step: The finished step.
        scratch: Folder that all processes see, where a copy lies for as long as the block lasts.

    Yields:
        What puts the `gmp_layer{L}_k{K}` columns beside the rows of a table that the step has labelled.
    """
    state = PartialState()
    copy = scratch / COPY_FILE
    if state.is_main_process:
        copy_for_mapping(step / LABELS_FILE, copy)
    state.wait_for_everyone()
    labels = map_labels(copy)
    yield lambda table: add_label_columns(table, labels)
    state.wait_for_everyone()
    if state.is_main_process:
        copy.unlink()


class Tested(NamedTuple):
    """What a test gives.

    Args:
        rows: Rows of `predictions.jsonl`.
        adapted: Rows of `adapted.jsonl`; None where nobody asked, or for a model that cannot be adapted to a speaker.
    """

    rows: list[dict[str, Any]]
    adapted: list[dict[str, Any]] | None


def predict(
    checkpoint: str | Path,
    table: datasets.Dataset,
    batch_size: int,
    held_out: HeldOut = NO_TEST_SET,
    description: str | None = None,
    front_end_cache: Path | None = None,
    adapt: bool = False,
) -> Tested:
    """Test a fine-tuned model.

    Args:
        checkpoint: Folder or Hub id of the model, or of an adapter.
        table: Rows to predict.
        batch_size: Clips per device and batch; it does not change the scores.
        held_out: What the model must not have seen: the test speakers, unless they are shared and that is allowed.
        description: What the progress bar of the front end says; None for no bar.
        front_end_cache: Folder of the front-end cache; None computes the front end.
        adapt: Whether clips are also scored by what others of their speaker say, which takes a second pass through the
            encoder and, for each speaker, time that grows with the square of the clips.

    Returns:
        Rows of `predictions.jsonl` and `adapted.jsonl`, in the table's order.

    Raises:
        RequestError: The model has seen a speaker whom it is to be tested on.
    """
    held_out.refuse_speakers(seen_speakers(checkpoint), f"the model {checkpoint} has seen")
    model = load_emotion_model(str(checkpoint))
    settings = {"per_device_eval_batch_size": batch_size, "disable_tqdm": description is None}
    # The trainer makes its output folder even if it writes nothing: this one is there already.
    nowhere = Path(tempfile.gettempdir())
    with quiet_transformers(), deterministic(PartialState().device):
        trainer = GMPATLTrainer(
            model,
            make_arguments(nowhere, 0, settings, evaluate=False),
            processing_class=load_feature_extractor(checkpoint),
            description=description,
            front_end_cache=front_end_cache or False,
        )
        try:
            logits = np.asarray(trainer.predict(table).predictions, dtype=np.float64)
            pooled = pool_clips(trainer, model, table).vectors if adapt and model.config.standardize else None
        except DivergenceError as error:
            raise DivergenceError(f"the model {checkpoint}: {error.found}", error.expected, error.fix) from error
    rows = predicted_rows(table, logits)
    return Tested(rows, None if pooled is None else adapted_rows(model, pooled, rows, table.features["emotion"].names))


def predicted_rows(table: datasets.Dataset, logits: np.ndarray) -> list[dict[str, Any]]:
    """Rows of `predictions.jsonl`, from logits (rows, emotions) float64 in the table's order."""
    names = table.features["emotion"].names
    return [
        {
            **row,
            "predicted": names[int(score.argmax())],
            "scores": {name: float(p) for name, p in zip(names, score, strict=True)},
        }
        for row, score in zip(tested_rows(table), softmax(logits, axis=1), strict=True)
    ]


def tested_rows(table: datasets.Dataset) -> list[dict[str, Any]]:
    """What a row of `predictions.jsonl` says of a recording before anything is predicted, in the table's order."""
    names = table.features["emotion"].names
    columns = table.select_columns(["id", "file", "speaker", "gender", "emotion"])
    return [row_in_words(row, names) for row in columns]


def write_left_out(folder: Path, left_out: Iterable[LeftOut]) -> None:
    """Write `left_out.jsonl`: every recording that was left out, with its reason."""
    rows = [{"file": one.file, "reason": one.reason} for one in left_out]
    write_known(folder, {LEFT_OUT_FILE: jsonl_of(rows)})
