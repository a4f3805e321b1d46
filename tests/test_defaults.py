"""What a training is set to where a recipe says nothing."""

from __future__ import annotations

from typing import Any

import pytest

from gmp_atl_hf.recipe.method import Method
from gmp_atl_hf.recipe.recipe import Recipe
from gmp_atl_hf.run.stages import stage_arguments, stage_model_fields

LABELS = ["anger", "neutral"]
SCRATCH = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}


def method(backbone: Any, **more: Any) -> Method:
    plain = {"name": "r", "corpus": {"name": "demo"}, "backbone": backbone, **more}
    return Recipe.from_dict(plain).method("gmp-atl")


@pytest.mark.parametrize("stage", ["multitask", "finetune"])
def test_a_pre_trained_encoder_is_trained_heads_first_on_standardised_states(stage: Any) -> None:
    made = method("small")
    arguments, fields = stage_arguments(made, stage), stage_model_fields(made, stage, LABELS)
    assert (arguments["head_epochs"], arguments["layer_decay"], arguments["num_train_epochs"]) == (20, 0.7, 4)
    assert (fields["readout"], fields["pooling"], fields["standardize"]) == (-1, "statistics", True)


@pytest.mark.parametrize("stage", ["multitask", "finetune"])
def test_an_encoder_from_scratch_learns_from_the_first_step_on(stage: Any) -> None:
    made = method(SCRATCH)
    assert stage_arguments(made, stage).keys() >= {"learning_rate"}
    assert not {"head_epochs", "layer_decay"} & stage_arguments(made, stage).keys()
    assert not {"readout", "standardize"} & stage_model_fields(made, stage, LABELS).keys()


def test_the_recipe_has_the_last_word() -> None:
    made = method("small", model={"standardize": False}, stages={"finetune": {"head_epochs": 0, "layer_decay": None}})
    arguments = stage_arguments(made, "finetune")
    assert (arguments["head_epochs"], arguments["layer_decay"]) == (0, None)
    assert stage_model_fields(made, "finetune", LABELS)["standardize"] is False


def test_retraining_has_no_head_on_clips_to_set() -> None:
    made = method("small")
    assert "head_epochs" not in stage_arguments(made, "retrain")
    assert "standardize" not in stage_model_fields(made, "retrain", LABELS, {"gmp_layer1_k2": 2})


@pytest.mark.parametrize("stage", ["multitask", "retrain", "finetune"])
def test_adapters_learn_alike_in_every_layer_and_ten_times_as_fast_as_an_encoder(stage: Any) -> None:
    for backbone in ("small", SCRATCH):
        arguments = stage_arguments(method(backbone, stages={stage: {"lora": {}}}), stage)
        assert arguments["learning_rate"] == 1e-3 and "layer_decay" not in arguments
    chosen = {"lora": {}, "layer_decay": 0.5, "learning_rate": 3e-4}
    arguments = stage_arguments(method("small", stages={stage: chosen}), stage)
    assert (arguments["learning_rate"], arguments["layer_decay"]) == (3e-4, 0.5)
    untouched = stage_arguments(method("small", stages={stage: {"lora": None}}), stage)
    assert untouched == stage_arguments(method("small"), stage)
