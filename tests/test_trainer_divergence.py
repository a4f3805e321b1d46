"""A training that diverges stops with a sentence and is never finished, resumed or scored."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.trainer_utils import get_last_checkpoint

from gmp_atl_hf.errors import DivergenceError
from gmp_atl_hf.modeling.modeling_gmp_atl import HubertForGMPATL
from gmp_atl_hf.training.trainer import GMPATLTrainer
from models import MODELS
from tables import feature_extractor, small_model, speech_table, training_arguments

TABLE = speech_table(9)


def trainer_for(folder: Path, model: Any = None, **fields: Any) -> GMPATLTrainer:
    model = small_model(HubertForGMPATL) if model is None else model
    arguments = training_arguments(folder, **{"max_steps": 6, **fields})
    return GMPATLTrainer(model, arguments, TABLE, TABLE, feature_extractor())


def sentence_of(trainer: GMPATLTrainer, **how: Any) -> str:
    with pytest.raises(DivergenceError) as caught:
        trainer.train(**how)
    return str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"learning_rate": 1e38},
        {"learning_rate": 1e38, "max_grad_norm": 0.0},
        {"learning_rate": 1e38, "optim": "sgd", "bf16": True},
        {"learning_rate": 1e38, "max_steps": 1},  # seen by no further step
        {"learning_rate": 1e38, "gradient_accumulation_steps": 2, "logging_nan_inf_filter": False},
    ],
)
@pytest.mark.parametrize("model_class", MODELS)
def test_a_training_that_diverges_stops_and_says_where_and_what_to_change(
    model_class: Any, fields: dict[str, Any], tmp_path: Path
) -> None:
    trainer = trainer_for(tmp_path, small_model(model_class), save_strategy="steps", save_steps=1, **fields)
    said = sentence_of(trainer)
    assert re.search(rf"diverged at step {trainer.state.global_step}: the loss is .*(nan|inf)", said)
    assert "a learning_rate below 1e+38" in said and "max_grad_norm" in said
    assert ("float32 in place of bf16" in said) == fields.get("bf16", False)
    for kept in tmp_path.glob("checkpoint-*"):
        step = json.loads((kept / "trainer_state.json").read_text())["global_step"]
        assert step < trainer.state.global_step


def test_a_training_that_is_started_again_stops_with_the_same_sentence(tmp_path: Path) -> None:
    # The warm-up lets some steps through.
    fields = {"save_strategy": "steps", "save_steps": 1, "warmup_steps": 4, "learning_rate": 1e30, "optim": "sgd"}
    first = sentence_of(trainer_for(tmp_path, **fields))
    kept = get_last_checkpoint(str(tmp_path))
    assert kept is not None
    assert sentence_of(trainer_for(tmp_path, **fields), resume_from_checkpoint=kept) == first


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e25])
def test_a_gradient_whose_norm_is_no_number_stops_the_training(value: float, tmp_path: Path) -> None:
    model = small_model(HubertForGMPATL)
    model.classifier.weight.register_hook(lambda gradient: torch.full_like(gradient, value))
    assert "the gradient norm is" in sentence_of(trainer_for(tmp_path, model))


def test_a_model_that_has_no_finite_scores_is_not_scored(tmp_path: Path) -> None:
    model = small_model(HubertForGMPATL)
    model.classifier.weight.data[0, 0] = math.nan
    trainer = trainer_for(tmp_path, model)
    for ask in (trainer.evaluate, lambda: trainer.predict(TABLE)):
        with pytest.raises(DivergenceError, match="9 of 9 clips"):
            ask()
    assert "the weights that it starts from" in sentence_of(trainer)


@pytest.mark.parametrize(("steps", "said"), [(40, "step 17: gradients overflow"), (5, "all 5 steps .* nothing was")])
def test_float16_that_overflows_without_end_stops_the_training(steps: int, said: str, tmp_path: Path) -> None:
    model = small_model(HubertForGMPATL)
    model.classifier.weight.register_hook(lambda gradient: torch.full_like(gradient, math.inf))
    trainer = trainer_for(tmp_path, model, max_steps=steps)
    # As on a GPU: the loss scale, which begins at 65,536 and is halved at each overflow.
    trainer.accelerator.scaler, trainer.args.fp16 = torch.amp.GradScaler("cpu"), True
    assert re.search(rf"(?s){said}.*bf16 or float32 in place of fp16", sentence_of(trainer))


def test_float16_may_pass_over_a_step(tmp_path: Path) -> None:
    model = small_model(HubertForGMPATL)
    overflows = iter([True, False, True])
    model.classifier.weight.register_hook(lambda gradient: gradient * math.inf if next(overflows, False) else gradient)
    trainer = trainer_for(tmp_path, model)
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu")
    trainer.train()
    assert trainer.state.global_step == 6
