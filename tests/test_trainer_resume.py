"""A training that was cut off and resumed ends with the weights, the best model and the stop of an undisturbed one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from gmp_atl_hf.modeling.modeling_gmp_atl import (
    HubertForGMPATL,
    HubertForGMPATLFrameClassification,
    HubertForGMPATLMultiTask,
)
from gmp_atl_hf.training.callbacks import StopAtStep
from gmp_atl_hf.training.trainer import GMPATLTrainer
from tables import changed, feature_extractor, small_model, speech_table, training_arguments, weights_of

TABLE, DEV = speech_table(11), speech_table(6, seed=1)
STEPS_PER_EPOCH = 3  # 11 clips in batches of 4

BY_EPOCH: dict[str, Any] = {
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "load_best_model_at_end": True,
    "learning_rate": 3e-3,
}
BY_STEPS: dict[str, Any] = {
    **BY_EPOCH,
    "eval_strategy": "steps",
    "eval_steps": 2,
    "save_strategy": "steps",
    "save_steps": 2,
}


class CutOff(RuntimeError):
    """What a test stops a training with."""


class CutOffAt(TrainerCallback):
    """Cut a training off after a step, or right after the checkpoint of that step was written."""

    def __init__(self, step: int, event: str = "on_step_end") -> None:
        self.step, self.event = step, event

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._cut(state, "on_step_end")

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._cut(state, "on_save")

    def _cut(self, state: Any, event: str) -> None:
        if state.global_step == self.step and event == self.event:
            raise CutOff


def trainer_in(
    folder: Path, *callbacks: TrainerCallback, model_class: Any = HubertForGMPATL, **fields: Any
) -> GMPATLTrainer:
    return GMPATLTrainer(
        small_model(model_class, dropout=0.2),
        training_arguments(folder, **{**BY_EPOCH, **fields}),
        TABLE,
        DEV,
        feature_extractor(),
        callbacks=list(callbacks),
    )


def resumed_in(folder: Path, cut: CutOffAt, *callbacks: TrainerCallback, **fields: Any) -> GMPATLTrainer:
    """Train until cut off, then go on with everything made anew."""
    with pytest.raises(CutOff):
        trainer_in(folder, *callbacks, cut, **fields).train()
    trainer = trainer_in(folder, *callbacks, **fields)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(folder)))
    return trainer


def best_of(trainer: GMPATLTrainer) -> tuple[int | None, float | None, int]:
    return trainer.state.best_global_step, trainer.state.best_metric, trainer.state.global_step


def evaluations(trainer: GMPATLTrainer) -> list[dict[str, float]]:
    """What was logged, without times."""
    timings = ("runtime", "per_second", "preparation_time")
    return [
        {name: value for name, value in entry.items() if not name.endswith(timings)}
        for entry in trainer.state.log_history
        if "eval_loss" in entry
    ]


CASES = {
    "fine-tuning, cut off in an epoch, saved by epoch": (HubertForGMPATL, BY_EPOCH, 5),
    "fine-tuning, cut off and saved in the middle of an epoch": (HubertForGMPATL, BY_STEPS, 5),
    "multi-task, with accumulation": (
        HubertForGMPATLMultiTask,
        {**BY_STEPS, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
        7,
    ),
    "retraining, on frames": (HubertForGMPATLFrameClassification, {**BY_STEPS, "max_seconds": 0.2}, 5),
    "fine-tuning, the front end cached": (HubertForGMPATL, {**BY_STEPS, "freeze_feature_encoder": True}, 5),
    "fine-tuning, batches by seconds": (HubertForGMPATL, {**BY_STEPS, "batch_seconds": 1.5}, 5),
}


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_training_ends_as_if_it_had_never_been_cut_off(case: str, tmp_path: Path) -> None:
    model_class, fields, cut = CASES[case]
    undisturbed = trainer_in(tmp_path / "undisturbed", model_class=model_class, **fields)
    undisturbed.train()
    resumed = resumed_in(tmp_path / "resumed", CutOffAt(cut), model_class=model_class, **fields)
    assert changed(weights_of(resumed.model), weights_of(undisturbed.model)) == set()
    assert best_of(resumed) == best_of(undisturbed)
    assert evaluations(resumed) == evaluations(undisturbed)
    # The comparison means something: dropout is on, and the weights did move.
    assert changed(weights_of(resumed.model), weights_of(small_model(model_class, dropout=0.2)))
    assert list(tmp_path.rglob("training_args.bin")) == []


def test_patience_counts_on_after_a_resume(tmp_path: Path) -> None:
    # With next to no learning the first evaluation stays the best: patience 3 ends after the fourth epoch.
    fields = {"early_stopping_patience": 3, "num_train_epochs": 9, "learning_rate": 1e-12}
    resumed = resumed_in(tmp_path, CutOffAt(2 * STEPS_PER_EPOCH + 1), **fields)
    assert resumed.state.global_step == 4 * STEPS_PER_EPOCH
    assert resumed.state.best_global_step == STEPS_PER_EPOCH


@pytest.mark.parametrize(
    ("fields", "callbacks", "last"),
    [
        ({"early_stopping_patience": 2, "num_train_epochs": 9, "learning_rate": 1e-12}, (), 3 * STEPS_PER_EPOCH),
        ({"load_best_model_at_end": False}, (StopAtStep(4),), 4),
        ({"load_best_model_at_end": False, "max_steps": 4}, (), 4),
        ({"load_best_model_at_end": False}, (), 3 * STEPS_PER_EPOCH),
    ],
    ids=["patience ran out", "chosen step", "planned steps, in an epoch", "planned epochs"],
)
def test_a_training_cut_off_after_its_last_checkpoint_is_not_trained_further(
    fields: dict[str, Any], callbacks: tuple[TrainerCallback, ...], last: int, tmp_path: Path
) -> None:
    undisturbed = trainer_in(tmp_path / "undisturbed", *callbacks, **fields)
    undisturbed.train()
    assert undisturbed.state.global_step == last
    resumed = resumed_in(tmp_path / "resumed", CutOffAt(last, "on_save"), *callbacks, **fields)
    assert resumed.state.global_step == last
    assert changed(weights_of(resumed.model), weights_of(undisturbed.model)) == set()
    assert evaluations(resumed) == evaluations(undisturbed)


def test_the_best_model_is_found_again_in_a_folder_that_was_moved(tmp_path: Path) -> None:
    fields = {"learning_rate": 1e-12, "num_train_epochs": 2}  # the first evaluation is the best
    with pytest.raises(CutOff):
        trainer_in(tmp_path / "here", CutOffAt(2 * STEPS_PER_EPOCH, "on_save"), **fields).train()
    shutil.move(tmp_path / "here", tmp_path / "there")
    trainer = trainer_in(tmp_path / "there", **fields)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(tmp_path / "there")))
    assert best_of(trainer)[::2] == (STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH)
    assert trainer.state.best_model_checkpoint == str(tmp_path / "there" / f"checkpoint-{STEPS_PER_EPOCH}")


def test_evaluating_and_saving_do_not_change_what_is_trained(tmp_path: Path) -> None:
    trained = []
    for fields in ({**BY_STEPS, "eval_steps": 1, "save_steps": 1}, {"eval_strategy": "no", "save_strategy": "no"}):
        trainer = trainer_in(tmp_path, **{**fields, "load_best_model_at_end": False})
        trainer.train()
        trained.append(weights_of(trainer.model))
    assert changed(*trained) == set()


def test_stopping_at_a_chosen_step_keeps_the_learning_rates_of_the_whole_length(tmp_path: Path) -> None:
    rates = []
    for callbacks in ((), (StopAtStep(4),)):
        trainer = trainer_in(tmp_path, *callbacks, eval_strategy="no", save_strategy="no", load_best_model_at_end=False)
        trainer.train()
        rates.append([entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry])
    assert len(rates[0]) == 3 * STEPS_PER_EPOCH
    assert rates[1] == rates[0][:4]
