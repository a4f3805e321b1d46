"""What each variant does, and that what two of them share is done once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from gmp_atl_hf import HubertForGMPATLMultiTask
from gmp_atl_hf.checkpoints import load_model
from gmp_atl_hf.pseudo_labels.features import encoder_hash
from gmp_atl_hf.run import fold_plan as plan
from runs import EMOTIONS, SPLIT, digests, files_of, given_split, read_json, run, write_corpus

ABLATIONS = [
    "no-gender",
    "last-layer",
    "two-layers",
    "per-emotion",
    "per-gender",
    "all-frames",
    "windows",
    "retrain-from-multitask",
    "joint",
    "cross-entropy",
    "frozen-encoder",
    "averaged",
    "shuffled-labels",
    "oracle-labels",
]
CUSTOM = [
    {"name": "k4", "base": "single-scale", "set": {"pseudo_labels.clusters": [4]}},
    {"name": "deeper", "base": "multitask-only", "set": {"backbone.num_hidden_layers": 4}},
    {"name": "quarter-way", "set": {"stages.finetune.start_weight": 0.25, "stages.finetune.freeze_encoder": True}},
    {
        "name": "slow",
        "set": {
            "pseudo_labels.windows": [0.02, 0.06],
            "pseudo_labels.normalize": "speaker",
            "pseudo_labels.positions": "remove",
        },
    },
]
NAMES = ["gmp-atl", "direct", "tapt", "multitask-only", "direct-long", *ABLATIONS, *(one["name"] for one in CUSTOM)]


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
        variants=[*NAMES[: -len(CUSTOM)], *CUSTOM],
    )
    folder = tmp_path_factory.mktemp("compared") / "run"
    performed: list[str] = []

    def noted(original: Any) -> Any:
        def perform(path: Path, *args: Any, **named: Any) -> None:
            performed.append(path.relative_to(folder).as_posix().removesuffix(".unfinished"))
            original(path, *args, **named)

        return perform

    with pytest.MonkeyPatch.context() as patch:
        for name in ("train", "make_pseudo_labels", "make_oracle_labels"):
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
        "per-emotion": ["2-pseudo-labels", "3-retrain", "4-finetune"],
        "per-gender": ["2-pseudo-labels", "3-retrain", "4-finetune"],
        "all-frames": ["3-retrain", "4-finetune"],
        "windows": ["2-pseudo-labels", "3-retrain", "4-finetune"],
        "retrain-from-multitask": ["3-retrain", "4-finetune"],
        "joint": ["4-finetune"],
        "cross-entropy": ["4-finetune"],
        "frozen-encoder": ["4-finetune"],
        "averaged": ["4-finetune"],
        "shuffled-labels": ["2-pseudo-labels", "3-retrain", "4-finetune"],
        "oracle-labels": ["2-pseudo-labels", "3-retrain", "4-finetune"],
        "k4": ["2-pseudo-labels", "3-retrain", "4-finetune"],
        "deeper": ["1-multitask", "4-finetune"],
        "quarter-way": ["4-finetune"],
        "slow": ["2-pseudo-labels", "3-retrain", "4-finetune"],
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


def test_the_mean_of_the_last_epochs_is_that_of_the_same_training(compared: dict[str, Any]) -> None:
    method, averaged = (
        read_json(step(compared, name, "4-finetune") / "training.json") for name in ("gmp-atl", "averaged")
    )
    # 1.5 epochs of 3 updates: averaged are the weights after updates 2 and 5.
    assert averaged["log"][0] == method["log"][0]
    assert averaged["best_step"] == averaged["updates"] == method["updates"] == 5


def test_frame_labels_as_a_second_loss_are_those_of_the_method(compared: dict[str, Any]) -> None:
    labels = [
        read_json(step(compared, *of) / "step.json")["inputs"]["pseudo_labels"]
        for of in (("joint", "4-finetune"), ("gmp-atl", "3-retrain"))
    ]
    assert labels[0] == labels[1]
    start = read_json(step(compared, "joint", "4-finetune") / "step.json")["inputs"]["start"]
    assert start["step"] == "backbone"
    assert not step(compared, "joint", "3-retrain").exists()


def test_a_frozen_encoder_is_the_one_that_retraining_made(compared: dict[str, Any]) -> None:
    weights = [
        load_file(folder / "model.safetensors")
        for folder in (step(compared, "gmp-atl", "3-retrain"), step(compared, "frozen-encoder", "4-finetune"))
    ]
    encoder = [name for name in weights[1] if name.startswith("hubert.")]
    assert encoder and all(torch.equal(weights[0][name], weights[1][name]) for name in encoder)
    tuned = load_file(step(compared, "gmp-atl", "4-finetune") / "model.safetensors")
    assert not all(torch.equal(weights[0][name], tuned[name]) for name in encoder)


def labels_of(compared: dict[str, Any], variant: str) -> dict[str, dict[str, list[int]]]:
    """Column → id → frame labels."""
    table = pq.read_table(step(compared, variant, "2-pseudo-labels") / "labels.parquet").to_pydict()
    names = table.pop("id")
    return {column: dict(zip(names, rows, strict=True)) for column, rows in table.items()}


def test_shuffled_labels_are_those_of_the_method_at_other_frames(compared: dict[str, Any]) -> None:
    whole, shuffled = labels_of(compared, "gmp-atl"), labels_of(compared, "shuffled-labels")
    assert list(shuffled) == list(whole)
    parts = read_json(step(compared, "gmp-atl", "split.json"))
    for column in whole:
        assert whole[column] != shuffled[column]
        assert {name: len(row) for name, row in whole[column].items()} == {
            name: len(row) for name, row in shuffled[column].items()
        }
        for part in ("train", "dev"):
            speakers = {speaker.partition("/")[2] for speaker in parts[part]}
            counts = [
                Counter(label for name, row in labels[column].items() if name[-8:-6] in speakers for label in row)
                for labels in (whole, shuffled)
            ]
            assert counts[0] == counts[1] and counts[0].total() > 20
    same = [digests(step(compared, one, "2-pseudo-labels"), "*.safetensors") for one in ("gmp-atl", "shuffled-labels")]
    assert same[0] == same[1], "the clusters are the method's own"


def test_oracle_labels_are_the_emotion_of_the_clip(compared: dict[str, Any]) -> None:
    found = labels_of(compared, "oracle-labels")
    assert list(found) == ["gmp_oracle_k3"]
    for name, row in found["gmp_oracle_k3"].items():
        assert set(row) == {EMOTIONS.index(name.split("/")[-2])}
    assert read_json(step(compared, "oracle-labels", "3-retrain") / "config.json")["frame_scales"] == {
        "gmp_oracle_k3": 3
    }


def test_controls_are_called_so_beside_their_numbers(compared: dict[str, Any]) -> None:
    called = {note.partition(":")[0] for note in compared["report"]["notes"] if "a control, not the method" in note}
    assert called == {"shuffled-labels", "oracle-labels"}
    for name in ("report.md", "report.html"):
        text = (compared["folder"] / name).read_text(encoding="utf-8")
        assert "oracle-labels: a control, not the method: the label of each frame was the emotion of its clip" in text


def test_settings_that_came_later_are_in_no_key_unless_they_are_set(compared: dict[str, Any]) -> None:
    inputs = {
        one: read_json(step(compared, one, "2-pseudo-labels") / "step.json")["inputs"] for one in ("gmp-atl", "slow")
    }
    earlier = {"step", "data", "source", "layers", "clusters", "sample_frames", "seed"}
    assert set(inputs["gmp-atl"]) - {"front_end"} == earlier
    assert (inputs["slow"]["windows"], inputs["slow"]["normalize"]) == ([0.02, 0.06], "speaker")
    assert inputs["slow"]["positions"] == "removed"
    assert "start_weight" not in read_json(step(compared, "gmp-atl", "4-finetune") / "step.json")["inputs"]


def test_windows_and_speakers_have_scales_of_their_own(compared: dict[str, Any]) -> None:
    scales = ["gmp_layer2_k3", "gmp_layer2_k5", "gmp_layer2_w60ms_k3", "gmp_layer2_w60ms_k5"]
    assert list(labels_of(compared, "slow")) == scales
    assert set(read_json(step(compared, "slow", "3-retrain") / "config.json")["frame_scales"]) == set(scales)
    said = read_json(step(compared, "slow", "2-pseudo-labels") / "codebooks.json")
    train = read_json(step(compared, "slow", "split.json"))["train"]
    assert said["normalized_by"]["groups"] == sorted(train)
    assert said["positions"] == "removed"


def test_a_start_may_lie_between_the_backbone_and_the_retrained_encoder(compared: dict[str, Any]) -> None:
    backbone = load_file(compared["folder"] / "backbone" / "seed-0" / "model.safetensors")
    retrained = load_file(step(compared, "gmp-atl", "3-retrain") / "model.safetensors")
    begun = load_file(step(compared, "quarter-way", "4-finetune") / "model.safetensors")
    moved = 0
    for name, values in backbone.items():
        expected = torch.lerp(values, retrained[f"hubert.{name}"], 0.25)
        assert torch.equal(begun[f"hubert.{name}"], expected), name
        moved += not torch.equal(values, expected)
    assert moved > 10


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
