"""What a training is set to where a recipe says nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from transformers import HubertConfig

from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.recipe.method import Method
from gmp_atl_hf.recipe.packaged import packaged_recipes
from gmp_atl_hf.recipe.recipe import Recipe
from gmp_atl_hf.recipe.sections import STAGE_NAMES
from gmp_atl_hf.recipe.variants import BUILT_IN_VARIANTS
from gmp_atl_hf.run.stages import check_stage_settings, stage_arguments, stage_model_fields

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


def test_retraining_reads_what_the_fine_tuning_begins_from() -> None:
    made = method("small")
    assert "head_epochs" not in stage_arguments(made, "retrain")
    assert stage_model_fields(made, "retrain", LABELS, {"gmp_layer1_k2": 2})["readout"] == -1


def test_retraining_moves_an_encoder_little_unless_it_is_told_to() -> None:
    assert stage_arguments(method("small"), "retrain")["learning_rate"] == 1e-5
    quicker = method("small", stages={"retrain": {"learning_rate": 1e-4}})
    assert stage_arguments(quicker, "retrain")["learning_rate"] == 1e-4


@pytest.mark.parametrize("name", ["emodb-mini", "ravdess"])
def test_the_recipes_on_encoders_of_the_package_have_the_defaults(name: str) -> None:
    recipe = Recipe.from_yaml(packaged_recipes()[name])
    for stage in STAGE_NAMES:
        assert stage_arguments(recipe.method("gmp-atl"), stage) == stage_arguments(method("small"), stage)


def test_written_out_the_defaults_change_nothing() -> None:
    written = method("small", model={"readout": -1, "pooling": "statistics", "standardize": True})
    for stage in STAGE_NAMES:
        assert stage_model_fields(written, stage, LABELS) == stage_model_fields(method("small"), stage, LABELS)


PACKAGED = [name for name in packaged_recipes() if not name.startswith("pretrain-")]
BASE = {"config": HubertConfig().to_dict()}  # as `describe_backbone` gives it


@pytest.mark.parametrize("name", PACKAGED)
def test_the_stages_of_every_packaged_recipe_fit_together(name: str) -> None:
    made = Recipe.from_yaml(packaged_recipes()[name])
    for changed in map(made.method, made.variant_names):
        scratch = isinstance(changed.backbone, Mapping)
        check_stage_settings(changed, {"scratch": changed.backbone} if scratch else BASE, None)


@pytest.mark.parametrize("variant", sorted(BUILT_IN_VARIANTS))
def test_the_stages_of_every_variant_fit_together_by_default(variant: str) -> None:
    changed = Recipe.from_dict({"name": "r", "corpus": {"name": "demo"}, "variants": [variant]}).method(variant)
    check_stage_settings(changed, BASE, None)


def test_clips_are_normalised_by_speaker_in_the_whole_method() -> None:
    check_stage_settings(method("small", model={"speaker_normalization": "speaker"}), BASE, LABELS)


def test_the_weight_of_the_second_loss_reaches_the_fine_tuning_alone() -> None:
    made = method("small", model={"frame_weight": 0.3}, variants=["gmp-atl"])
    assert "frame_weight" not in stage_model_fields(made, "multitask", LABELS)
    assert stage_model_fields(made, "finetune", LABELS)["frame_weight"] == 0.3
    with pytest.raises(RequestError, match=r"stages\.multitask\.model\.frame_weight"):
        method("small", stages={"multitask": {"model": {"frame_weight": 0.3}}})


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
