"""Heads that learn before the encoder does, standardised by the training clips, and rates that fall by layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from gmp_atl_hf.errors import DivergenceError, RequestError
from gmp_atl_hf.modeling.modeling_gmp_atl import (
    HubertForGMPATL,
    HubertForGMPATLFrameClassification,
    HubertForGMPATLMultiTask,
)
from gmp_atl_hf.training.head_first import pool_clips
from gmp_atl_hf.training.head_first import prepare_heads as prepare
from gmp_atl_hf.training.trainer import GMPATLTrainer
from tables import changed, feature_extractor, small_model, speech_table, training_arguments, weights_of
from test_trainer_resume import CutOffAt, resumed_in, trainer_in

TABLE = speech_table(11)


def prepare_heads(trainer: GMPATLTrainer) -> None:
    prepare(trainer, trainer.base, trainer.class_weights)


def trainer_for(model: Any, folder: Path, **fields: Any) -> GMPATLTrainer:
    return GMPATLTrainer(model, training_arguments(folder, **fields), TABLE, processing_class=feature_extractor())


@pytest.mark.parametrize(
    ("model_class", "heads"),
    [
        (HubertForGMPATL, {"classifier.weight"}),
        (HubertForGMPATLMultiTask, {f"{t}_classifier.{p}" for t in ("emotion", "gender") for p in ("weight", "bias")}),
    ],
)
def test_only_heads_change_before_the_encoder_is_trained(model_class: Any, heads: set[str], tmp_path: Path) -> None:
    model = small_model(model_class)
    before = weights_of(model)
    prepare_heads(trainer_for(model, tmp_path, head_epochs=3))
    assert changed(before, weights_of(model)) == heads
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_heads_have_learnt_something(tmp_path: Path) -> None:
    model = small_model(HubertForGMPATL, standardize=True)
    trainer = trainer_for(model, tmp_path, head_epochs=60, head_learning_rate=1e-2)
    before = trainer.evaluate(TABLE)["eval_loss"]
    prepare_heads(trainer)
    assert trainer.evaluate(TABLE)["eval_loss"] < 0.5 * before


def test_without_them_nothing_happens(tmp_path: Path) -> None:
    model = small_model(HubertForGMPATL)
    before = weights_of(model)
    prepare_heads(trainer_for(model, tmp_path))
    assert not changed(before, weights_of(model))


def test_vectors_are_standardised_by_the_training_clips(tmp_path: Path) -> None:
    model = small_model(HubertForGMPATL, standardize=True)
    trainer = trainer_for(model, tmp_path)
    prepare_heads(trainer)
    pooled = pool_clips(trainer, model, TABLE).vectors
    torch.testing.assert_close(model.standardization.mean, pooled.mean(0))
    torch.testing.assert_close(model.standardization.deviation, pooled.std(0, correction=0))


def test_clips_are_pooled_in_the_tables_order(tmp_path: Path) -> None:
    model = small_model(HubertForGMPATL)
    trainer = trainer_for(model, tmp_path)
    whole = pool_clips(trainer, model, TABLE)
    for row in (0, 7):
        alone = pool_clips(trainer, model, TABLE.select([row]))
        torch.testing.assert_close(alone.vectors[0], whole.vectors[row], rtol=1e-4, atol=1e-5)
        assert alone.labels[0] == whole.labels[row] == TABLE["emotion"][row]


def test_heads_first_leave_the_later_draws_alone(tmp_path: Path) -> None:
    """Dropout of the training itself draws the same with and without."""
    draws = []
    for epochs in (0, 2):
        torch.manual_seed(5)
        prepare_heads(trainer_for(small_model(HubertForGMPATL, dropout=0.3, seed=5), tmp_path, head_epochs=epochs))
        draws.append(torch.rand(3))
    assert torch.equal(*draws)


def test_a_resumed_training_does_not_begin_with_the_heads_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields, prepared = {"head_epochs": 2, "layer_decay": 0.5}, Mock(wraps=prepare)
    monkeypatch.setattr("gmp_atl_hf.training.trainer.prepare_heads", prepared)
    whole = trainer_in(tmp_path / "whole", **fields)
    whole.train()
    again = resumed_in(tmp_path / "cut", CutOffAt(4), **fields)
    assert prepared.call_count == 2, "once for each, and not again after the resume"
    assert not changed(weights_of(whole.model), weights_of(again.model))


def test_heads_that_diverge_are_said(tmp_path: Path) -> None:
    model = small_model(HubertForGMPATLMultiTask)
    model.emotion_classifier.bias.data[0] = float("nan")
    trainer = trainer_for(model, tmp_path, head_epochs=2)
    with pytest.raises(DivergenceError, match="heads diverged before the encoder"):
        prepare_heads(trainer)


def test_heads_of_frames_cannot_come_first(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="head_epochs is 2 for training on frame labels"):
        trainer_for(small_model(HubertForGMPATLFrameClassification), tmp_path, head_epochs=2)


@pytest.mark.parametrize("stable", [False, True])
def test_rates_fall_by_layer(stable: bool, tmp_path: Path) -> None:
    norm = "layer" if stable else "group"
    fields = {"do_stable_layer_norm": stable, "feat_extract_norm": norm, "conv_bias": stable, "readout": "sum"}
    model = small_model(HubertForGMPATL, **fields)
    trainer = trainer_for(model, tmp_path, learning_rate=1e-3, head_learning_rate=1e-2, layer_decay=0.5)
    trainer.create_optimizer()
    rates = {id(p): group["lr"] for group in trainer.optimizer.param_groups for p in group["params"]}
    expected = {
        "classifier.": 1e-2,
        "hubert.layer_weights": 1e-2,
        "hubert.encoder.layers.1.": 1e-3,
        "hubert.encoder.layers.0.": 5e-4,
        "hubert.encoder.layer_norm.": 1e-3 if stable else 2.5e-4,
        "hubert.encoder.pos_conv_embed.": 2.5e-4,
        "hubert.feature_projection.": 2.5e-4,
        "hubert.feature_extractor.": 2.5e-4,
        "hubert.masked_spec_embed": 2.5e-4,
    }
    for name, parameter in model.named_parameters():
        wanted = next(rate for start, rate in expected.items() if name.startswith(start))
        assert rates[id(parameter)] == pytest.approx(wanted), name
