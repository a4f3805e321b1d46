"""What evaluation reports, that it never goes missing, and that it belongs to the right rows."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from torch.nn import functional
from transformers import EvalPrediction

from gmp_atl_hf.batching.collator import GMPATLDataCollator
from gmp_atl_hf.modeling.modeling_gmp_atl import (
    HubertForGMPATL,
    HubertForGMPATLFrameClassification,
    HubertForGMPATLMultiTask,
)
from gmp_atl_hf.numerics import no_tf32
from gmp_atl_hf.training.trainer import GMPATLTrainer
from tables import SCALES, feature_extractor, small_model, speech_table, training_arguments

MODELS = (HubertForGMPATLMultiTask, HubertForGMPATLFrameClassification, HubertForGMPATL)
EMOTION_METRICS = {"eval_loss", "eval_loss_emotion", "eval_war", "eval_uar", "eval_macro_f1"}


def trainer_for(model_class: Any, folder: Path, **fields: Any) -> GMPATLTrainer:
    extra = {name: fields.pop(name) for name in ("compute_metrics", "train_dataset", "description") if name in fields}
    return GMPATLTrainer(
        small_model(model_class, initializer_range=0.2),
        training_arguments(folder, **fields),
        processing_class=feature_extractor(),
        **extra,
    )


def figures(metrics: dict[str, float]) -> dict[str, float]:
    """Metrics without times and epoch."""
    return {k: v for k, v in metrics.items() if not k.endswith(("runtime", "per_second", "preparation_time", "epoch"))}


@pytest.mark.parametrize("missing", [[], ["gender"]])
@pytest.mark.parametrize("model_class", [HubertForGMPATLMultiTask, HubertForGMPATL])
def test_emotion_metrics_are_there_with_or_without_a_gender_column(
    model_class: Any, missing: list[str], tmp_path: Path
) -> None:
    metrics = figures(trainer_for(model_class, tmp_path).evaluate(speech_table(9).remove_columns(missing)))
    gender = {"eval_loss_gender", "eval_accuracy_gender"}
    expected = EMOTION_METRICS | (gender if model_class is HubertForGMPATLMultiTask and not missing else set())
    assert set(metrics) == expected
    assert all(np.isfinite(value) for value in metrics.values())


def test_gender_metrics_count_only_clips_whose_gender_is_known(tmp_path: Path) -> None:
    table = speech_table(9)
    trainer = trainer_for(HubertForGMPATLMultiTask, tmp_path)
    metrics = trainer.evaluate(table)
    known = table.filter(lambda row: row["gender"] is not None)
    batch = GMPATLDataCollator(feature_extractor(), trainer.model.config, training=False)(list(known))
    with torch.no_grad():
        logits = trainer.model.eval()(batch["input_values"], batch["attention_mask"]).gender_logits
    genders = torch.tensor(known["gender"])
    assert len(known) == 6
    assert metrics["eval_accuracy_gender"] == pytest.approx((logits.argmax(-1) == genders).float().mean().item())
    assert metrics["eval_loss_gender"] == pytest.approx(functional.cross_entropy(logits, genders).item(), rel=1e-5)


def test_scores_are_computed_without_rounding_of_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.device] = []

    def noted(device: torch.device) -> Any:
        asked.append(device)
        return no_tf32(device)

    monkeypatch.setattr("gmp_atl_hf.training.trainer.no_tf32", noted)
    trainer_for(HubertForGMPATL, tmp_path).predict(speech_table(3))
    assert set(asked) == {torch.device("cpu")}


def test_a_frame_model_reports_loss_and_accuracy_of_masked_frames_at_each_scale(tmp_path: Path) -> None:
    table = speech_table(9)
    trainer = trainer_for(HubertForGMPATLFrameClassification, tmp_path)
    metrics = figures(trainer.evaluate(table))
    assert set(metrics) == {"eval_loss"} | {f"eval_{kind}_{name}" for name in SCALES for kind in ("loss", "accuracy")}
    collate = GMPATLDataCollator(
        feature_extractor(), trainer.model.config, ("frame_labels",), training=False, seed=trainer.args.seed
    )
    batch = collate(list(table))
    labels = batch.pop("frame_labels")
    with torch.no_grad():
        logits = trainer.model.eval()(**batch).frame_logits
    for scale, name in enumerate(SCALES):
        predicted, expected = logits[scale][batch["mask_time_indices"]], labels[batch["mask_time_indices"]][:, scale]
        loss = functional.cross_entropy(predicted, expected).item()
        assert metrics[f"eval_loss_{name}"] == pytest.approx(loss, rel=1e-5)
        right = (predicted.argmax(-1) == expected).float().mean().item()
        assert metrics[f"eval_accuracy_{name}"] == pytest.approx(right)
    assert metrics["eval_loss"] == pytest.approx(sum(metrics[f"eval_loss_{name}"] for name in SCALES))


@pytest.mark.parametrize("model_class", MODELS)
def test_metrics_do_not_depend_on_the_evaluation_batch_size(model_class: Any, tmp_path: Path) -> None:
    table = speech_table(9)
    # Weights make the clips' shares unequal, so that a mean of batch means would show.
    results = [
        figures(
            trainer_for(model_class, tmp_path, per_device_eval_batch_size=size, class_weights=[1.0, 2.0, 5.0]).evaluate(
                table
            )
        )
        for size in (1, 4, 9)
    ]
    assert results[1] == pytest.approx(results[0], rel=1e-5)
    assert results[2] == pytest.approx(results[0], rel=1e-5)


def test_predictions_come_in_the_order_of_the_table_whatever_the_lengths(tmp_path: Path) -> None:
    table = speech_table(9)
    lengths = table["num_samples"]
    assert list(lengths) != sorted(lengths)
    trainer = trainer_for(HubertForGMPATL, tmp_path)
    output = trainer.predict(table)
    assert output.label_ids.tolist() == list(table["emotion"])
    collate = GMPATLDataCollator(feature_extractor(), trainer.model.config, training=False)
    for row in range(len(table)):
        batch = collate([table[row]])
        with torch.no_grad():
            alone = trainer.model.eval()(batch["input_values"], batch["attention_mask"]).logits[0]
        np.testing.assert_allclose(output.predictions[row], alone.numpy(), atol=1e-4)
    assert output.metrics["test_uar"] == pytest.approx(
        balanced_accuracy_score(table["emotion"], output.predictions.argmax(-1))
    )
    # A view with other rows in another order gives those rows.
    chosen = trainer.predict(table.select([7, 2, 5]))
    np.testing.assert_allclose(chosen.predictions, output.predictions[[7, 2, 5]], atol=1e-4)


def test_metrics_of_the_user_are_added_and_see_logits_and_labels(tmp_path: Path) -> None:
    table = speech_table(9)
    seen = []

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        seen.append((np.shape(prediction.predictions), sorted(prediction.label_ids.tolist())))
        return {"mine": 0.25}

    metrics = trainer_for(HubertForGMPATLMultiTask, tmp_path, compute_metrics=compute_metrics).evaluate(table)
    assert metrics["eval_mine"] == 0.25
    assert set(metrics) > EMOTION_METRICS
    assert seen == [((9, 3), sorted(table["emotion"]))]


@pytest.mark.parametrize("model_class", MODELS)
def test_the_callers_settings_are_left_alone(model_class: Any, tmp_path: Path) -> None:
    arguments = training_arguments(
        tmp_path, eval_strategy="epoch", save_strategy="epoch", load_best_model_at_end=True, num_train_epochs=1
    )
    before = copy.deepcopy(arguments.to_dict())
    table = speech_table(5)
    GMPATLTrainer(small_model(model_class), arguments, table, table, feature_extractor()).train()
    assert arguments.to_dict() == before
    assert arguments.metric_for_best_model == "uar"


def test_the_progress_bar_says_what_is_trained_and_how_it_goes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = speech_table(5)
    for quiet in (False, True):
        trainer = trainer_for(
            HubertForGMPATL,
            tmp_path,
            train_dataset=table,
            description="fold 3: fine-tuning",
            disable_tqdm=quiet,
            max_steps=2,
        )
        trainer.train()
        shown = capsys.readouterr()
        assert ("fold 3: fine-tuning" in shown.err) is not quiet
        assert ("loss=" in shown.err) is not quiet
        assert shown.out == ""
