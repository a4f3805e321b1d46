"""What each variant does, and that what two of them share is done once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from gmp_atl_hf import HubertForGMPATLMultiTask
from gmp_atl_hf.checkpoints import load_model
from gmp_atl_hf.pseudo_labels.features import encoder_hash
from gmp_atl_hf.run import fold_plan as plan
from runs import SPLIT, digests, files_of, given_split, read_json, run, write_corpus

ABLATIONS = [
    "no-gender",
    "last-layer",
    "two-layers",
    "all-frames",
    "retrain-from-multitask",
    "cross-entropy",
    "frozen-encoder",
]
NAMES = ["gmp-atl", "direct", "tapt", "multitask-only", "direct-long", *ABLATIONS, "k4", "deeper"]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every built-in variant and two custom ones: `folder`, `report` and the steps that were `performed`."""
    root = write_corpus(tmp_path_factory.mktemp("corpus"), split=SPLIT)
    recipe = given_split(
        root,
        final=False,
        stages__multitask__num_train_epochs=1,
        stages__retrain__num_train_epochs=2,
        stages__retrain__model={"hidden_dropout": 0.3},
        stages__finetune__num_train_epochs=1.5,
        variants=[
            *NAMES[:-2],
            {"name": "k4", "base": "single-scale", "set": {"pseudo_labels.clusters": [4]}},
            {"name": "deeper", "base": "multitask-only", "set": {"backbone.num_hidden_layers": 4}},
        ],
    )
    folder = tmp_path_factory.mktemp("compared") / "run"
    performed: list[str] = []

    def noted(original: Any) -> Any:
        def perform(path: Path, *args: Any) -> None:
            performed.append(path.relative_to(folder).as_posix().removesuffix(".unfinished"))
            original(path, *args)

        return perform

    with pytest.MonkeyPatch.context() as patch:
        for name in ("train", "make_pseudo_labels"):
            patch.setattr(plan, name, noted(getattr(plan, name)))
        report = run(recipe, folder)
    return {"folder": folder, "report": report, "performed": performed}


def step(compared: dict[str, Any], variant: str, name: str) -> Path:
    path: Path = compared["folder"] / variant / "seed-0/fold-01" / name
    return path


def test_every_variant_is_tested_on_the_same_recordings(compared: dict[str, Any]) -> None:
    assert list(compared["report"]["variants"]) == NAMES
    assert {summary["utterances"] for summary in compared["report"]["variants"].values()} == {12}
    predictions = [digests(step(compared, name, "."), "predictions.jsonl") for name in NAMES]
    assert all(predictions)


def test_each_variant_performs_its_own_steps_and_shares_the_others(compared: dict[str, Any]) -> None:
    steps = {
        "gmp-atl": ["1-multitask", "2-pseudo-labels", "3-retrain", "4-finetune"],
        "direct": ["4-finetune"],
        "tapt": ["2-pseudo-labels", "3-retrain", "4-finetune"],
        "multitask-only": ["4-finetune"],
        "direct-long": ["4-finetune"],
        "no-gender": ["1-multitask", "2-pseudo-labels", "3-retrain", "4-finetune"],
        "last-layer": ["2-pseudo-labels", "3-retrain", "4-finetune"],
        "two-layers": ["2-pseudo-labels", "3-retrain", "4-finetune"],
        "all-frames": ["3-retrain", "4-finetune"],
        "retrain-from-multitask": ["3-retrain", "4-finetune"],
        "cross-entropy": ["4-finetune"],
        "frozen-encoder": ["4-finetune"],
        "k4": ["2-pseudo-labels", "3-retrain", "4-finetune"],
        "deeper": ["1-multitask", "4-finetune"],
    }
    expected = [f"{variant}/seed-0/fold-01/{name}" for variant in NAMES for name in steps[variant]]
    assert compared["performed"] == expected
    assert max(Counter(compared["performed"]).values()) == 1


@pytest.mark.parametrize("variant", ["multitask-only", "cross-entropy", "last-layer", "k4"])
def test_a_shared_step_points_to_where_it_was_done(compared: dict[str, Any], variant: str) -> None:
    folder = step(compared, variant, "1-multitask")
    assert files_of(folder) == {"step.json"}
    note, other = read_json(folder / "step.json"), step(compared, "gmp-atl", "1-multitask")
    assert (folder / note["same_as"]).resolve() == other.resolve()
    assert note["key"] == read_json(other / "step.json")["key"]


def test_direct_long_makes_as_many_updates_as_all_stages_of_the_method(compared: dict[str, Any]) -> None:
    trained = ("1-multitask", "3-retrain", "4-finetune")
    updates = [read_json(step(compared, "gmp-atl", name) / "training.json")["updates"] for name in trained]
    assert updates == [3, 6, 5]
    assert read_json(step(compared, "direct-long", "4-finetune") / "training.json")["updates"] == sum(updates)
    assert read_json(step(compared, "direct", "4-finetune") / "training.json")["updates"] == 5


def test_tapt_takes_its_labels_from_the_untouched_backbone(compared: dict[str, Any]) -> None:
    backbone = compared["folder"] / "backbone" / "seed-0"
    untouched = encoder_hash(load_model(HubertForGMPATLMultiTask, backbone, seed=3), layer=2)
    hashes = {
        variant: read_json(step(compared, variant, "2-pseudo-labels") / "codebooks.json")["source"]["checkpoint"]["2"]
        for variant in ("tapt", "gmp-atl")
    }
    assert hashes["tapt"] == untouched
    assert hashes["gmp-atl"] != untouched
    assert not step(compared, "tapt", "1-multitask").exists()


def test_multitask_only_is_fine_tuned_from_the_multitask_model(compared: dict[str, Any]) -> None:
    start = read_json(step(compared, "multitask-only", "4-finetune") / "step.json")["inputs"]["start"]
    multitask = read_json(step(compared, "gmp-atl", "1-multitask") / "step.json")
    assert start == {"step": "multitask", "key": multitask["key"]}
    assert not step(compared, "multitask-only", "3-retrain").exists()


def test_a_custom_variant_changes_what_it_sets(compared: dict[str, Any]) -> None:
    scales = read_json(step(compared, "k4", "2-pseudo-labels") / "codebooks.json")["scales"]
    assert list(scales) == ["gmp_layer2_k4"]
    assert read_json(step(compared, "k4", "3-retrain") / "config.json")["frame_scales"] == {"gmp_layer2_k4": 4}


def test_each_ablation_changes_what_its_name_says(compared: dict[str, Any]) -> None:
    def config(variant: str, name: str) -> Any:
        return read_json(step(compared, variant, name) / "config.json")

    assert config("no-gender", "1-multitask")["emotion_weight"] == 1.0
    assert set(config("last-layer", "3-retrain")["frame_scales"]) == {"gmp_layer3_k3", "gmp_layer3_k5"}
    assert len(config("two-layers", "3-retrain")["frame_scales"]) == 4
    assert config("all-frames", "3-retrain")["frame_targets"] == "all"
    assert config("cross-entropy", "4-finetune")["emotion_loss"] == "cross-entropy"
    start = read_json(step(compared, "retrain-from-multitask", "3-retrain") / "step.json")["inputs"]["start"]
    assert start["step"] == "multitask"


def test_a_frozen_encoder_is_the_one_that_retraining_made(compared: dict[str, Any]) -> None:
    weights = [
        load_file(folder / "model.safetensors")
        for folder in (step(compared, "gmp-atl", "3-retrain"), step(compared, "frozen-encoder", "4-finetune"))
    ]
    encoder = [name for name in weights[1] if name.startswith("hubert.")]
    assert encoder and all(torch.equal(weights[0][name], weights[1][name]) for name in encoder)
    tuned = load_file(step(compared, "gmp-atl", "4-finetune") / "model.safetensors")
    assert not all(torch.equal(weights[0][name], tuned[name]) for name in encoder)


def test_a_variant_with_a_backbone_of_its_own_leaves_that_of_the_others_where_it_is(compared: dict[str, Any]) -> None:
    folder = compared["folder"] / "backbone"
    assert {path.name for path in folder.iterdir()} == {"seed-0", "deeper"}
    assert read_json(folder / "deeper" / "seed-0" / "config.json")["num_hidden_layers"] == 4
    assert read_json(step(compared, "deeper", "4-finetune") / "config.json")["num_hidden_layers"] == 4


def test_no_stage_inherits_masks_or_dropout_of_the_one_before(compared: dict[str, Any]) -> None:
    stages = ("1-multitask", "3-retrain", "4-finetune")
    configs = [read_json(step(compared, "gmp-atl", name) / "config.json") for name in stages]
    assert [config["mask_time_prob"] for config in configs] == [0.05, 0.8, 0.05]
    assert [config["hidden_dropout"] for config in configs] == [0.1, 0.3, 0.1]
