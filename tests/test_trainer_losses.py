"""The loss and its gradient do not depend on how an optimiser step is cut into batches and processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

import gmp_atl_hf.training.trainer
from gmp_atl_hf.batching.collator import GMPATLDataCollator
from gmp_atl_hf.modeling.modeling_gmp_atl import (
    HubertForGMPATL,
    HubertForGMPATLFrameClassification,
    HubertForGMPATLMultiTask,
)
from gmp_atl_hf.training.trainer import GMPATLTrainer
from tables import SCALES, feature_extractor, small_model, speech_table, training_arguments
from two_processes.train_three_losses import MODELS, STEPS, train

SCRIPT = Path(__file__).parent / "two_processes" / "train_three_losses.py"
SOURCE = Path(gmp_atl_hf.training.trainer.__file__).parents[2]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Each training with the eight clips of a step in one batch."""
    return {name: train(name, 8, 1, tmp_path_factory.mktemp(name)) for name in MODELS}


def assert_same_training(result: dict[str, Any], reference: dict[str, Any]) -> None:
    assert len(result["losses"]) == len(reference["losses"]) == STEPS
    for quantity in ("losses", "norms"):
        np.testing.assert_allclose(result[quantity], reference[quantity], rtol=1e-5, atol=0, err_msg=quantity)
    for parts, expected in zip(result["parts"], reference["parts"], strict=True):
        assert parts == pytest.approx(expected, rel=1e-5)
    assert result["dev"] == pytest.approx(reference["dev"], rel=1e-5)
    if "logits" in reference:
        np.testing.assert_allclose(result["logits"], reference["logits"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_four_small_batches_are_one_large_batch(name: str, whole: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    assert whole[name]["world_size"] == 1
    assert_same_training(train(name, 2, 4, tmp_path), whole[name])


@pytest.mark.two_processes
def test_two_processes_are_one(whole: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    target = tmp_path / "results.json"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
    }
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(SCRIPT), str(target)]
    done = subprocess.run([sys.executable, *launch], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4_000:]
    results = json.loads(target.read_text(encoding="utf-8"))
    assert {key.split()[0] for key in results} == set(MODELS)
    # Clips per batch x batches; one clip in each of four leaves the last step of an epoch with empty batches.
    assert {key.split(maxsplit=1)[1] for key in results} == {"4 x 1", "1 x 4"}
    for key, result in results.items():
        assert result["world_size"] == 2, "only one process was started"
        assert_same_training(result, whole[key.split()[0]])


def test_the_learning_is_visible_in_what_is_compared(whole: dict[str, dict[str, Any]]) -> None:
    for result in whole.values():
        assert len(set(result["losses"])) == STEPS
        assert min(result["norms"]) > 0


# ---- what the loss is ------------------------------------------------------------------------------------------------


def one_step(model_class: Any, table: Any, folder: Path, **fields: Any) -> tuple[dict[str, float], Any, Any]:
    """Log of one step over the whole table, the untrained model, and the step's batch."""
    model = small_model(model_class)
    arguments = training_arguments(folder, per_device_train_batch_size=len(table), max_steps=1, **fields)
    trainer = GMPATLTrainer(model, arguments, table, processing_class=feature_extractor())
    trainer.train()
    untrained = small_model(model_class).train()
    batch = GMPATLDataCollator(feature_extractor(), untrained.config, untrained.target_names, seed=arguments.seed)(
        [table[row] for row in range(len(table))]
    )
    return trainer.state.log_history[0], untrained, batch


def test_the_multi_task_loss_is_the_weighted_sum_of_two_means(tmp_path: Path) -> None:
    table = speech_table(11)
    counts = np.bincount(table["emotion"], minlength=3)
    assert len(set(counts.tolist())) > 1
    balanced = torch.tensor(11 / (3 * counts), dtype=torch.float32)
    log, model, batch = one_step(HubertForGMPATLMultiTask, table, tmp_path, class_weights="balanced")
    labels, genders = batch.pop("labels"), batch.pop("gender_labels")
    assert (genders == -100).any()
    output = model(**batch)
    emotion = functional.cross_entropy(output.logits, labels, weight=balanced).item()
    gender = functional.cross_entropy(output.gender_logits, genders, ignore_index=-100).item()
    assert log["loss_emotion"] == pytest.approx(emotion, rel=1e-5)
    assert log["loss_gender"] == pytest.approx(gender, rel=1e-5)
    assert log["loss"] == pytest.approx(0.9 * emotion + 0.1 * gender, rel=1e-5)


def test_the_fine_tuning_loss_has_the_margin_and_the_given_weights(tmp_path: Path) -> None:
    table = speech_table(11)
    log, model, batch = one_step(HubertForGMPATL, table, tmp_path, class_weights=[1.0, 0.5, 3.0])
    labels = batch.pop("labels")
    logits = model(**batch).logits - 30 * 0.2 * functional.one_hot(labels, 3)
    expected = functional.cross_entropy(logits, labels, weight=torch.tensor([1.0, 0.5, 3.0])).item()
    assert log["loss"] == pytest.approx(expected, rel=1e-5)
    assert log["loss_emotion"] == pytest.approx(expected, rel=1e-5)


def test_the_retraining_loss_is_the_sum_over_scales_of_means_over_masked_frames(tmp_path: Path) -> None:
    log, model, batch = one_step(HubertForGMPATLFrameClassification, speech_table(11), tmp_path)
    labels = batch.pop("frame_labels")
    assert len(set(batch["mask_time_indices"].sum(1).tolist())) > 1
    logits = model(**batch).frame_logits
    total = 0.0
    for scale, name in enumerate(SCALES):
        chosen = batch["mask_time_indices"] & (labels[:, :, scale] != -100)
        expected = functional.cross_entropy(logits[scale][chosen], labels[:, :, scale][chosen]).item()
        assert log[f"loss_{name}"] == pytest.approx(expected, rel=1e-5)
        total += expected
    assert log["loss"] == pytest.approx(total, rel=1e-5)


def test_without_a_gender_column_the_emotion_part_is_all_there_is(tmp_path: Path) -> None:
    table = speech_table(5).remove_columns("gender")
    log, _, batch = one_step(HubertForGMPATLMultiTask, table, tmp_path)
    assert "gender_labels" not in batch
    assert "loss_gender" not in log
    assert log["loss"] == pytest.approx(0.9 * log["loss_emotion"], rel=1e-6)


def test_parts_add_up_to_the_loss_in_every_step(whole: dict[str, dict[str, Any]]) -> None:
    weights = {
        "multitask": {"loss_emotion": 0.9, "loss_gender": 0.1},
        "retrain": {f"loss_{name}": 1.0 for name in SCALES},
        "finetune": {"loss_emotion": 1.0},
        "cached": {"loss_emotion": 1.0},
        "head-first": {"loss_emotion": 1.0},
        "top": {"loss_emotion": 1.0},
        "joint": {"loss_emotion": 1.0, **{f"loss_{name}": 0.5 for name in SCALES}},
    }
    for name, result in whole.items():
        for loss, parts in zip(result["losses"], result["parts"], strict=True):
            assert set(parts) == set(weights[name])
            assert loss == pytest.approx(sum(weights[name][part] * value for part, value in parts.items()), rel=1e-5)


def test_batches_by_seconds_train_on_every_clip_and_split_alike(tmp_path: Path) -> None:
    one = train("multitask", 1, 1, tmp_path, batch_seconds=4.0, max_steps=4)
    four = train("multitask", 1, 4, tmp_path, batch_seconds=1.0, max_steps=4)
    assert len(one["losses"]) == len(four["losses"]) == 4
    assert np.isfinite(one["losses"] + four["losses"]).all()


def test_every_epoch_brings_every_clip_once_in_other_steps_with_other_masks(tmp_path: Path) -> None:
    table = speech_table(11)
    model = small_model(HubertForGMPATL)
    trainer = GMPATLTrainer(
        model,
        training_arguments(tmp_path, num_train_epochs=2),
        table,
        processing_class=feature_extractor(),
    )
    seen: list[tuple[int, int, int]] = []
    model.register_forward_pre_hook(
        lambda _module, _args, inputs: seen.extend(
            zip(
                inputs["attention_mask"].sum(1).tolist(),
                inputs["labels"].tolist(),
                [hash(tuple(mask.nonzero().flatten().tolist())) for mask in inputs["mask_time_indices"]],
                strict=True,
            )
        ),
        with_kwargs=True,
    )
    trainer.train()
    clips = sorted(zip(table["num_samples"], table["emotion"], strict=True))
    first, second = seen[:11], seen[11:]
    assert [sorted(clip[:2] for clip in epoch) for epoch in (first, second)] == [clips, clips]
    assert [clip[:2] for clip in first] != [clip[:2] for clip in second]
    assert sorted(first) != sorted(second), "the same masks again"
