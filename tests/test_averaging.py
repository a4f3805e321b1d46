"""Weights averaged over the last epochs, and trainings of a fixed length: no choice that development speakers upset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.modeling.modeling_gmp_atl import HubertForGMPATL
from gmp_atl_hf.recipe.recipe import Recipe
from gmp_atl_hf.run.stages import check_stage_settings
from gmp_atl_hf.training.averaging import AVERAGE_FILE
from gmp_atl_hf.training.trainer import GMPATLTrainer
from runs import SPLIT, given_split, read_json, run, write_corpus
from tables import changed, feature_extractor, small_model, training_arguments, weights_of
from test_trainer_resume import (
    BY_EPOCH,
    BY_STEPS,
    DEV,
    STEPS_PER_EPOCH,
    TABLE,
    CutOff,
    CutOffAt,
    resumed_in,
    trainer_in,
)

LAST = 3 * STEPS_PER_EPOCH


class Noted(TrainerCallback):
    """The weights after each update."""

    def __init__(self) -> None:
        self.after: dict[int, dict[str, torch.Tensor]] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.after[state.global_step] = weights_of(model)


def mean_of(weights: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {name: torch.stack([each[name] for each in weights]).mean(0) for name in weights[0]}


def plainly_trained(folder: Path, **fields: Any) -> dict[int, dict[str, torch.Tensor]]:
    """The weights after each update of the same training without an average."""
    noted = Noted()
    trainer_in(folder, noted, load_best_model_at_end=False, **fields).train()
    return noted.after


def test_a_training_ends_with_the_mean_of_the_weights_of_its_last_epochs(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path / "averaged", average_epochs=2)
    trainer.train()
    after = plainly_trained(tmp_path / "plain")
    expected, found = mean_of([after[LAST - STEPS_PER_EPOCH], after[LAST]]), weights_of(trainer.model)
    for name, weights in expected.items():
        torch.testing.assert_close(found[name], weights, rtol=0, atol=1e-7)
    assert changed(found, after[LAST]), "the mean is not the last"


def test_epochs_are_counted_back_from_the_last_update(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path / "averaged", average_epochs=9, max_steps=4)
    trainer.train()
    after = plainly_trained(tmp_path / "plain", max_steps=4)
    expected, found = mean_of([after[4 - STEPS_PER_EPOCH], after[4]]), weights_of(trainer.model)
    for name, weights in expected.items():
        torch.testing.assert_close(found[name], weights, rtol=0, atol=1e-7)


def test_the_last_evaluation_and_the_last_checkpoint_are_those_of_the_mean(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path, average_epochs=3)
    trainer.train()
    logged = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry][-1]
    assert trainer.evaluate(DEV)["eval_loss"] == logged
    saved = HubertForGMPATL.from_pretrained(tmp_path / f"checkpoint-{LAST}", dtype=torch.float32)
    assert not changed(weights_of(saved), weights_of(trainer.model))


@pytest.mark.parametrize("cut", [5, 8])
def test_a_resumed_training_ends_with_the_same_mean(cut: int, tmp_path: Path) -> None:
    """Cut off before the mean begins (it does at step 6), and while it is gathered."""
    fields = {**BY_STEPS, "average_epochs": 2}
    whole = trainer_in(tmp_path / "whole", **fields)
    whole.train()
    again = resumed_in(tmp_path / "cut", CutOffAt(cut), **fields)
    assert not changed(weights_of(whole.model), weights_of(again.model))
    assert again.state.log_history[-2]["eval_loss"] == whole.state.log_history[-2]["eval_loss"]


def test_a_training_cut_off_after_its_last_checkpoint_keeps_the_mean(tmp_path: Path) -> None:
    whole = trainer_in(tmp_path / "whole", average_epochs=2)
    whole.train()
    again = resumed_in(tmp_path / "cut", CutOffAt(LAST, "on_save"), average_epochs=2)
    assert not changed(weights_of(whole.model), weights_of(again.model))


def test_a_checkpoint_without_its_part_of_the_mean_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CutOff):
        trainer_in(tmp_path, CutOffAt(LAST - STEPS_PER_EPOCH, "on_save"), average_epochs=2).train()
    checkpoint = get_last_checkpoint(str(tmp_path))
    Path(checkpoint, AVERAGE_FILE).unlink()
    with pytest.raises(RequestError, match="averages the weights of 0 epochs"):
        trainer_in(tmp_path, average_epochs=2).train(resume_from_checkpoint=checkpoint)


def test_statistics_of_the_training_clips_stay_as_they_are(tmp_path: Path) -> None:
    model = small_model(HubertForGMPATL, standardize=True)
    arguments = training_arguments(tmp_path, average_epochs=2, head_epochs=2, learning_rate=3e-3)
    trainer = GMPATLTrainer(model, arguments, TABLE, processing_class=feature_extractor())
    noted = Noted()
    trainer.add_callback(noted)
    trainer.train()
    buffers = ("standardization.mean", "standardization.deviation")
    assert all(torch.equal(noted.after[1][name], weights_of(model)[name]) for name in buffers)
    assert noted.after[1]["standardization.mean"].abs().max() > 0


def test_no_epoch_is_chosen_where_weights_are_averaged(tmp_path: Path) -> None:
    assert not training_arguments(tmp_path, **{**BY_EPOCH, "average_epochs": 2}).load_best_model_at_end
    with pytest.raises(ValueError, match="expected one of the two"):
        training_arguments(tmp_path, **{**BY_EPOCH, "average_epochs": 2, "early_stopping_patience": 1})
    with pytest.raises(ValueError, match="average_epochs is -1"):
        training_arguments(tmp_path, average_epochs=-1)


def test_weights_that_are_cut_up_are_refused_where_a_trainer_or_a_run_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = training_arguments(tmp_path, average_epochs=2)
    recipe = given_split(tmp_path / "no corpus is read yet", stages__finetune__average_epochs=2)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(RequestError, match="^average_epochs is 2, under FSDP or DeepSpeed"):
        GMPATLTrainer(small_model(HubertForGMPATL), arguments, TABLE, DEV, feature_extractor())
    with pytest.raises(RequestError, match="stages.finetune: average_epochs is 2, under FSDP or DeepSpeed"):
        check_stage_settings(Recipe.from_dict(recipe).method("gmp-atl"), {"scratch": recipe["backbone"]}, None)


def test_a_run_keeps_the_last_step_where_it_is_told_to(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "corpus", split=SPLIT)
    fixed = {
        "fixed": {"stages.finetune.load_best_model_at_end": False},
        "mean-of-two": {"stages.finetune.average_epochs": 2},
    }
    named = [{"name": name, "base": "direct", "set": sets} for name, sets in fixed.items()]
    # The first of these epochs is as good as any later one: nothing is learnt.
    rates = {"stages__finetune__learning_rate": 1e-12, "stages__finetune__num_train_epochs": 3}
    run(given_split(root, variants=["direct", *named], final=False, **rates), tmp_path / "run")
    best, *last = (
        read_json(tmp_path / "run" / name / "seed-0/fold-01/4-finetune/training.json") for name in ("direct", *fixed)
    )
    assert (best["best_step"], best["updates"]) == (best["updates"] // 3, best["updates"])
    for training in last:
        assert training["best_step"] == training["updates"] == best["updates"]
        assert training["best_dev_uar"] == training["log"][-1]["eval_uar"]
