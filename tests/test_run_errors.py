"""Wrong requests end with exit status 2 before anything is trained, and name what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import BertConfig, HubertConfig, HubertModel

from audio_files import write_audio
from gmp_atl_hf.cli.verbs import main
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.modeling.configuration_gmp_atl import GMPATLConfig
from gmp_atl_hf.modeling.modeling_gmp_atl import HubertForGMPATL
from gmp_atl_hf.recipe.recipe import Recipe
from gmp_atl_hf.run.plan import plan_run
from gmp_atl_hf.run.run import run_recipe
from runs import (
    BACKBONE,
    SPLIT,
    changed_recipe,
    given_split,
    recipe_dict,
    run,
    stamps,
    write_corpus,
    write_recipe,
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


class Refusal:
    """Runs a recipe by the command and gives what it said; fails unless it was refused before anything was made."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys

    def __call__(self, recipe: dict[str, Any], *words: str) -> str:
        out = self.folder / "run"
        before = stamps(out)
        file = write_recipe(self.folder / "recipe.yaml", recipe)
        self.capsys.readouterr()
        status = main(["run", str(file), "--output-dir", str(out), *words])
        said = self.capsys.readouterr()
        assert status == 2, said.err
        assert "Traceback" not in said.err
        assert said.err.startswith("gmp-atl: error: ")
        assert stamps(out) == before, "something was written"
        return said.err


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refusal:
    return Refusal(tmp_path, capsys)


# ---- requests that are refused ---------------------------------------------------------------------------------------


def test_an_unknown_key_is_refused_with_the_nearest_right_one(corpus: Path, refused: Refusal) -> None:
    said = refused(recipe_dict(corpus, pseudo_labels__cluster=[3]))
    assert "cluster" in said
    assert "clusters" in said.split("fix:")[1]


def test_a_missing_corpus_folder_is_named(tmp_path: Path, refused: Refusal) -> None:
    assert str(tmp_path / "nowhere") in refused(recipe_dict(tmp_path / "nowhere"))


@pytest.mark.parametrize("column", ["speaker", "emotion", "file"])
def test_a_corpus_without_a_needed_column_is_refused(tmp_path: Path, refused: Refusal, column: str) -> None:
    names = [name for name in ("file", "emotion", "speaker", "gender") if name != column]
    table = tmp_path / "list.csv"
    table.write_text(",".join(names) + "\n" + ",".join("x" for _ in names) + "\n", encoding="utf-8")
    said = refused(recipe_dict(tmp_path, corpus={"name": "csv", "root": str(table)}))
    assert f"no column '{column}'" in said
    assert str(table) in said


def test_an_unreadable_recording_is_named(tmp_path: Path, refused: Refusal) -> None:
    root = write_corpus(tmp_path / "corpus")
    (root / "anger" / "f1_0.wav").write_bytes(b"not a recording")
    assert "anger/f1_0.wav" in refused(recipe_dict(root))


def test_a_clip_too_short_for_one_frame_is_named_with_the_ways_to_handle_it(tmp_path: Path, refused: Refusal) -> None:
    root = write_corpus(tmp_path / "corpus")
    write_audio(root / "anger" / "m2_1.wav", 399)
    said = refused(recipe_dict(root))
    assert "anger/m2_1.wav" in said
    assert "399 samples" in said
    assert "pad" in said
    assert "drop" in said


def test_a_speaker_on_both_sides_of_a_given_split_is_named(tmp_path: Path, refused: Refusal) -> None:
    root = write_corpus(tmp_path / "corpus", split=SPLIT)
    write_audio(root / "test" / "anger" / "f1_7.wav")
    said = refused(given_split(root))
    assert "speaker folder/f1" in said
    assert "train" in said
    assert "test" in said


def test_more_clusters_than_frames_are_refused(corpus: Path, refused: Refusal) -> None:
    assert "5000 clusters" in refused(recipe_dict(corpus, pseudo_labels__clusters=[3, 5000]))


def test_more_clusters_than_frames_sampled_are_refused(corpus: Path, refused: Refusal) -> None:
    said = refused(recipe_dict(corpus, pseudo_labels={"layers": [-2], "clusters": [24], "sample_frames": 23}))
    assert "24 clusters" in said
    assert "sample_frames 23" in said


def test_as_many_sampled_frames_as_clusters_are_enough(corpus: Path, tmp_path: Path) -> None:
    for seed in range(3):
        labels = {"layers": [-2], "clusters": [24], "sample_frames": 24, "seed": seed}
        recipe = Recipe.from_dict(recipe_dict(corpus, pseudo_labels=labels, variants=["gmp-atl"]))
        [step, _] = [each.steps[2].folder for each in plan_run(recipe, tmp_path / "run").planned]
        assert step.inputs["step"] == "2-pseudo-labels"


def test_an_emotion_that_a_training_fold_lacks_is_named(tmp_path: Path, refused: Refusal) -> None:
    root = write_corpus(tmp_path / "corpus")
    write_audio(root / "disgust" / "f1_0.wav")
    said = refused(recipe_dict(root))
    assert "disgust" in said
    assert "training part of fold" in said


def test_a_backbone_folder_that_does_not_exist_is_named(corpus: Path, tmp_path: Path, refused: Refusal) -> None:
    assert str(tmp_path / "no-model") in refused(recipe_dict(corpus, backbone=str(tmp_path / "no-model")))


def test_a_backbone_that_the_hub_does_not_give_is_named(
    corpus: Path, refused: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    said = refused(recipe_dict(corpus, backbone="nobody/has-this-model"))
    assert "nobody/has-this-model" in said
    assert "facebook/hubert-base-ls960" in said


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"stages__multitask__learning_rate": 0.5}, "arguments.learning_rate: 0.001 → 0.5"),
        ({"stages__finetune__num_train_epochs": 7}, "arguments.num_train_epochs: 1 → 7"),
        ({"pseudo_labels__clusters": [3]}, "clusters: [3, 5] → [3]"),
        ({"model": {"am_softmax_margin": 0.1}}, "model.am_softmax_margin: nothing → 0.1"),
        ({"backbone__hidden_dropout": 0.3}, "hidden_dropout"),
        ({"protocol__seed": 3}, "data.train"),
        ({"data__shuffle_labels": True}, "labels_dealt_with_seed"),
        ({"stages__retrain__bf16": True}, "arguments.bf16: nothing → true"),
    ],
)
def test_a_change_that_a_finished_step_contradicts_is_refused_and_named(
    grown: dict[str, Any], refused: Refusal, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    (tmp_path / "run").symlink_to(grown["folder"])
    said = refused(changed_recipe(grown["recipe"], **change))
    assert "is finished" in said
    changed = ".".join(next(iter(change)).split("__"))
    assert f"made from other settings: {changed}" in said, "what was changed by hand comes before what follows from it"
    assert named in said
    assert "--output-dir" in said


def test_a_change_that_no_step_knows_of_is_not_named_as_the_cause(
    grown: dict[str, Any], refused: Refusal, tmp_path: Path
) -> None:
    (tmp_path / "run").symlink_to(grown["folder"])
    moved = shutil.copytree(grown["recipe"]["corpus"]["root"], tmp_path / "moved", copy_function=shutil.copy2)
    harmless = {
        "corpus__root": str(moved),
        "data__front_end_cache": str(tmp_path / "cache"),
        "stages__finetune__run_name": "another",
    }
    said = refused(changed_recipe(grown["recipe"], stages__multitask__learning_rate=0.5, **harmless))
    assert "made from other settings: stages.multitask.learning_rate: 0.001 → 0.5 (in the step: arguments.lea" in said
    (moved / "anger/f1_0.wav").unlink()
    said = refused(changed_recipe(grown["recipe"], **harmless))
    assert "made from other settings: corpus.root: " in said


@pytest.fixture(scope="module")
def grown(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A finished run that must not be changed."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    recipe = recipe_dict(corpus, variants=["gmp-atl"])
    for stage in recipe["stages"].values():
        stage["num_train_epochs"] = 1
    run(recipe, folder)
    return {"folder": folder, "recipe": recipe}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"variants": ["direct", "gmp-atl"]}, "the first variant of this recipe is direct, its first seed 0"),
        ({"seeds": [1, 0]}, "the first variant of this recipe is gmp-atl, its first seed 1"),
    ],
)
def test_a_finished_model_of_another_variant_or_seed_is_refused_before_the_training(
    grown: dict[str, Any], refused: Refusal, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    (tmp_path / "run").symlink_to(grown["folder"])
    said = refused(changed_recipe(grown["recipe"], **change))
    assert named in said
    assert "is the model of gmp-atl, seed 0;" in said
    assert "list the variant gmp-atl and the seed 0 first" in said


# ---- and more --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"stages__finetune__learningrate": 0.1}, ["learningrate", "learning_rate"]),
        ({"stages__finetune__class_weights": [1.0, 2.0]}, ["stages.finetune", "2 numbers for 3 emotions"]),
        ({"stages__finetune__class_weights": "all"}, ["stages.finetune", "class_weights", "balanced"]),
        ({"stages__retrain__early_stopping_patience": 2}, ["stages.retrain", "early_stopping_patience"]),
        ({"stages__multitask__max_seconds": -1}, ["stages.multitask", "max_seconds"]),
        ({"stages__finetune__eval_strategy": "sometimes"}, ["stages.finetune", "sometimes"]),
        (
            {
                "model": {"standardize": True, "speaker_normalization": "speaker"},
                "stages__finetune__eval_strategy": "steps",
                "stages__finetune__save_strategy": "steps",
            },
            ["stages.finetune", "save_strategy is steps", "at the ends of epochs"],
        ),
        ({"pseudo_labels__layers": [9]}, ["layers", "9", "3 transformer layers"]),
        ({"model": {"am_softmax_margin": 1.5}}, ["am_softmax_margin", "1.5"]),
        ({"model": {"pooling": "max"}}, ["pooling", "max", "mean"]),
        ({"stages__finetune__model": {"emotion_weight": -1}}, ["stages.finetune", "emotion_weight"]),
        ({"stages__finetune__model": {"hidden_size": 32}}, ["stages.finetune", "shape of the encoder"]),
        ({"model": {"num_hidden_layers": 2}}, ["shape of the encoder"]),
        ({"backbone__conv_dim": [8, 8]}, ["backbone"]),
        ({"backbone__num_attention_heads": 3}, ["backbone", "divisible"]),
        ({"backbone__hidden_act": "nope"}, ["backbone", "nope"]),
        ({"labels": {"anger": "anger"}}, ["neutral", "sadness"]),
        ({"variants": []}, ["variants"]),
        ({"variants": ["gmp-alt"]}, ["gmp-alt", "gmp-atl"]),
    ],
)
def test_settings_that_cannot_work_are_refused(
    corpus: Path, refused: Refusal, changes: dict[str, Any], named: list[str]
) -> None:
    said = refused(recipe_dict(corpus, **changes))
    for word in named:
        assert word in said


def test_a_fold_that_is_not_there_is_refused(corpus: Path, refused: Refusal) -> None:
    assert "folds 1 to 2 of group-k-fold" in refused(recipe_dict(corpus), "--folds", "1,3")


def test_an_output_folder_that_is_a_file_is_refused(corpus: Path, tmp_path: Path, refused: Refusal) -> None:
    (tmp_path / "run").write_text("something else")
    assert "is a file" in refused(recipe_dict(corpus))


def test_a_variant_that_is_never_fine_tuned_is_refused(corpus: Path, refused: Refusal) -> None:
    recipe = recipe_dict(corpus, variants=[{"name": "half", "set": {"stages.finetune.skip": True}}])
    assert "half" in refused(recipe)


# ---- backbones that are there, but will not do -----------------------------------------------------------------------


def hubert_folder(folder: Path, **fields: Any) -> Path:
    torch.manual_seed(0)
    HubertModel(HubertConfig(**{**BACKBONE, **fields})).save_pretrained(folder)
    return folder


def test_a_backbone_of_another_kind_is_refused(corpus: Path, tmp_path: Path, refused: Refusal) -> None:
    BertConfig().save_pretrained(tmp_path / "bert")
    said = refused(recipe_dict(corpus, backbone=str(tmp_path / "bert")))
    assert "'bert'" in said
    assert "hubert, wav2vec2" in said


@pytest.mark.parametrize("content", ["{}", "{", "[]", '{"model_type": "hubert", "conv_dim": [1]}'])
def test_a_backbone_with_a_broken_configuration_is_refused(
    corpus: Path, tmp_path: Path, refused: Refusal, content: str
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text(content)
    assert str(tmp_path / "broken") in refused(recipe_dict(corpus, backbone=str(tmp_path / "broken")))


def test_a_backbone_without_weights_is_refused(corpus: Path, tmp_path: Path, refused: Refusal) -> None:
    HubertConfig(**BACKBONE).save_pretrained(tmp_path / "bare")
    assert "holds no weights" in refused(recipe_dict(corpus, backbone=str(tmp_path / "bare")))


def test_a_backbone_of_which_a_file_is_missing_is_refused(corpus: Path, tmp_path: Path, refused: Refusal) -> None:
    folder = tmp_path / "sharded"
    HubertModel(HubertConfig(**BACKBONE)).save_pretrained(folder, max_shard_size="10KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    shards[0].rename(tmp_path / "away")
    assert shards[0].name in refused(recipe_dict(corpus, backbone=str(folder)))


def test_a_layer_that_the_backbone_in_a_folder_does_not_have_is_refused(
    corpus: Path, tmp_path: Path, refused: Refusal
) -> None:
    folder = hubert_folder(tmp_path / "hubert")
    said = refused(recipe_dict(corpus, backbone=str(folder), pseudo_labels__layers=[-4]))
    assert "layer -4" in said
    assert "3 transformer layers" in said


def test_weights_that_do_not_belong_to_their_configuration_are_refused(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = hubert_folder(tmp_path / "hubert")
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, "intermediate_size": 48}))
    file = write_recipe(tmp_path / "recipe.yaml", recipe_dict(corpus, backbone=str(folder)))
    assert main(["run", str(file), "--output-dir", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "in another shape: hubert.encoder.layers" in said
    assert "feed_forward" in said


def test_a_calibrated_model_as_backbone_starts_without_its_temperature(corpus: Path, tmp_path: Path) -> None:
    labels = {0: "a", 1: "b"}
    config = GMPATLConfig(**BACKBONE, logit_temperature=7.0, id2label=labels, label2id={"a": 0, "b": 1})
    HubertForGMPATL(config).save_pretrained(tmp_path / "model")
    recipe = recipe_dict(corpus, backbone=str(tmp_path / "model"), variants=["direct"], final=False)
    run(recipe, tmp_path / "run", folds=[1])
    trained = GMPATLConfig.from_pretrained(tmp_path / "run/direct/seed-0/fold-01/4-finetune")
    assert trained.logit_temperature == 1
    assert list(trained.id2label.values()) == ["anger", "neutral", "sadness"]


def test_an_encoder_with_a_tensor_missing_is_refused(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = hubert_folder(tmp_path / "hubert")
    tensors = HubertModel.from_pretrained(folder).state_dict()
    lost = "encoder.layers.1.attention.k_proj.weight"
    kept = {name: tensor.contiguous() for name, tensor in tensors.items() if name != lost}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    file = write_recipe(tmp_path / "recipe.yaml", recipe_dict(corpus, backbone=str(folder)))
    assert main(["run", str(file), "--output-dir", str(tmp_path / "run")]) == 2
    assert f"hubert.{lost}" in capsys.readouterr().err


# ---- a training that fails -------------------------------------------------------------------------------------------


def test_a_training_that_diverges_is_not_finished_and_says_the_same_when_started_again(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rate = {"stages__multitask__learning_rate": 1e38, "stages__multitask__max_grad_norm": 0}
    file = write_recipe(tmp_path / "recipe.yaml", recipe_dict(corpus, **rate))
    said = []
    for _ in range(2):
        assert main(["run", str(file), "--output-dir", str(tmp_path / "run")]) == 1
        said.append(capsys.readouterr().err)
    sentences = [text[text.index("gmp-atl: error: training diverged at step ") :] for text in said]
    assert sentences[0] == sentences[1]
    assert "Traceback" not in said[0] and "a learning_rate below 1e+38" in said[0]
    assert not list((tmp_path / "run").rglob("predictions.jsonl"))
    assert not list((tmp_path / "run").rglob("*multitask*/step.json"))


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"folds": 1}, "folds is 1"),
        ({"folds": "1"}, "folds is '1'"),
        ({"folds": []}, r"folds is \[\]"),
        ({"folds": ["1"]}, "there is no fold '1'"),
        ({"folds": [True]}, "there is no fold True"),
        ({"jobs": "2"}, "--jobs is '2'"),
    ],
)
def test_arguments_of_another_kind_are_refused(
    corpus: Path, tmp_path: Path, arguments: dict[str, Any], found: str
) -> None:
    with pytest.raises(RequestError, match=found):
        run_recipe(Recipe.from_dict(recipe_dict(corpus)), tmp_path / "run", **arguments)


@pytest.mark.parametrize("recipe", [{"name": "x"}, None, 5])
def test_what_is_no_recipe_is_refused(tmp_path: Path, recipe: Any) -> None:
    with pytest.raises(RequestError, match=r"the recipe is (\{|None|5)(.|\n)*Recipe.from_dict"):
        run_recipe(recipe, tmp_path / "run")


def test_folds_may_be_numbers_of_numpy(corpus: Path, tmp_path: Path) -> None:
    recipe = Recipe.from_dict(recipe_dict(corpus))
    assert plan_run(recipe, tmp_path / "run", np.array([1])).asked == {1}
