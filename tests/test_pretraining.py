"""Pre-training from plain speech: the retraining step with labels from MFCCs first, from the model itself then."""

from __future__ import annotations

import errno
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import HubertModel, TrainerCallback

from gmp_atl_hf import HubertForGMPATL
from gmp_atl_hf.checkpoints import describe_backbone, load_model, seen_speakers, speakers_seen_by
from gmp_atl_hf.cli.verbs import main
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.modeling.modeling_gmp_atl import HubertForGMPATLFrameClassification
from gmp_atl_hf.pretraining import run as run_module
from gmp_atl_hf.pretraining.curves import describe_labels, label_agreement
from gmp_atl_hf.pretraining.recipe import PretrainRecipe, check_pretraining_names
from gmp_atl_hf.recipe.recipe import Recipe
from gmp_atl_hf.run import steps
from gmp_atl_hf.training.trainer import GMPATLTrainer
from pretrainings import pretrain, pretrain_dict, write_speech
from runs import read_json, read_lines, results, stamps, write_recipe


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speech(tmp_path_factory.mktemp("speech"))


@pytest.fixture(scope="module")
def finished(speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretraining") / "run"
    pretrain(pretrain_dict(speech), folder)
    return folder


def test_the_encoder_is_a_plain_hubert_in_half_precision(finished: Path) -> None:
    encoder = HubertModel.from_pretrained(finished / "model")
    trained = load_model(HubertForGMPATLFrameClassification, finished / "iteration-2" / "2-training", seed=0)
    assert encoder.dtype == torch.float16
    for name, tensor in encoder.state_dict().items():
        torch.testing.assert_close(tensor, trained.hubert.state_dict()[name].half(), rtol=0, atol=0, msg=name)


def test_a_training_that_starts_from_it_has_float32_parameters(finished: Path) -> None:
    model = load_model(HubertForGMPATL, finished / "model", seed=0)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_every_weight_of_the_encoder_has_learned(finished: Path) -> None:
    start = HubertModel.from_pretrained(finished / "backbone").state_dict()
    end = HubertModel.from_pretrained(finished / "model", dtype=torch.float32).state_dict()
    # What is added to every key alike, softmax takes out again: that bias has no gradient but rounding.
    learns = {name: tensor for name, tensor in start.items() if not name.endswith("k_proj.bias")}
    assert not [name for name, tensor in learns.items() if torch.equal(tensor.half().float(), end[name])]


@pytest.mark.parametrize(("start", "origin"), [("previous", "iteration-1/2-training"), ("scratch", "backbone")])
def test_an_iteration_starts_where_it_says(start: str, origin: str, speech: Path, tmp_path: Path) -> None:
    recipe = pretrain_dict(speech)
    recipe["iterations"][1] |= {"start": start, "max_steps": 1, "learning_rate": 1e-9}
    pretrain(recipe, tmp_path)
    second = load_model(HubertForGMPATLFrameClassification, tmp_path / "iteration-2" / "2-training", seed=0)
    begin = load_model(HubertForGMPATLFrameClassification, tmp_path / origin, seed=0)
    for name, tensor in begin.hubert.state_dict().items():
        torch.testing.assert_close(second.hubert.state_dict()[name], tensor, rtol=0, atol=1e-7, msg=name)


def test_the_report_has_curves_perplexity_and_the_stability_of_clusters(finished: Path) -> None:
    report = read_json(finished / "report.json")
    first, second = report["iterations"]
    assert set(first["labels"]) == {"gmp_layer0_k4", "gmp_layer0_k6"} and set(second["labels"]) == {"gmp_layer2_k5"}
    assert 1 < first["labels"]["gmp_layer0_k6"]["perplexity"] <= 6
    assert all(0 <= value <= 1 for value in second["agreement_with_labels_before"]["gmp_layer2_k5"].values())
    assert [row["step"] for row in first["log"] if "eval_accuracy_gmp_layer0_k4" in row] == [
        first["updates"] // 2,
        first["updates"],
    ]
    assert report["speech"]["train"]["speakers"] == 4 and report["speech"]["dev"]["speakers"] == 1
    assert (finished / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("targets", ["masked", "all"])
def test_masked_frames_are_counted_apart_whatever_the_training_counts(
    targets: str, speech: Path, tmp_path: Path
) -> None:
    report = pretrain(pretrain_dict(speech, model__frame_targets=targets, model__mask_time_prob=0.4), tmp_path)
    assert report["frame_targets"] == targets
    for entry in report["iterations"]:
        logged = entry["log"][-1] if "eval_loss" in entry["log"][-1] else entry["log"][-2]
        as_logged = [
            logged[f"eval_accuracy_{name}"] == pytest.approx(value, abs=1e-4)
            for name, value in entry["masked_frames_right"].items()
        ]
        assert len(as_logged) == len(entry["labels"])
        assert all(as_logged) if targets == "masked" else not all(as_logged)


def test_the_speakers_that_are_only_listened_to_are_not_in_the_codebooks(finished: Path) -> None:
    for number in (1, 2):
        scales = read_json(finished / f"iteration-{number}" / "1-frame-labels" / "codebooks.json")["scales"]
        assert {len(scale["training_speakers"]) for scale in scales.values()} == {4}


def test_a_finished_pretraining_has_nothing_left_to_do(
    finished: Path, speech: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GMPATLTrainer, "evaluate", None)
    monkeypatch.setattr(run_module, "describe_environment", None)  # that of the trainings stays
    before = {name: time for name, time in stamps(finished).items() if "iteration" in name or "model" in name}
    pretrain(pretrain_dict(speech), finished)
    after = stamps(finished)
    assert {name: after[name] for name in before} == before
    assert "nothing was left to do" in capsys.readouterr().out


def test_a_finished_pretraining_on_a_read_only_disk_is_shown(
    finished: Path, speech: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(path: Path, *_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    (report := finished / "report.json").write_text(report.read_text().replace("run_pretraining", "earlier"))
    (finished / "hashes.json").unlink()
    monkeypatch.setattr("gmp_atl_hf.run_folder.lock._lock", read_only)
    monkeypatch.setattr("gmp_atl_hf.files.write_whole", read_only)
    assert pretrain(pretrain_dict(speech), finished)["command"] == "run_pretraining(murmurs)"
    assert "nothing was left to do" in capsys.readouterr().out
    assert "earlier" in report.read_text()
    (finished.parent / "another").mkdir()
    with pytest.raises(OSError, match="Read-only file system"):
        pretrain(pretrain_dict(speech), finished.parent / "another")


@pytest.mark.parametrize("iteration", [1, 2])
def test_an_interrupted_pretraining_ends_like_an_undisturbed_one(
    iteration: int, finished: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupt(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            # Behind the first checkpoint, in the middle of the second epoch.
            if state.epoch > 1:
                raise KeyboardInterrupt

    class Interrupted(steps.GMPATLTrainer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            if f"iteration {iteration}" in kwargs["description"]:
                kwargs["callbacks"] = [*kwargs["callbacks"], Interrupt()]
            super().__init__(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(steps, "GMPATLTrainer", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            pretrain(pretrain_dict(speech), tmp_path)
    assert not (tmp_path / f"iteration-{iteration}" / "2-training").exists()
    pretrain(pretrain_dict(speech), tmp_path)
    ours, theirs = results(tmp_path), results(finished)
    # The loss of the interrupted epoch is that of its second part.
    different = {name for name in theirs if ours.get(name) != theirs[name]}
    assert different <= {f"iteration-{iteration}/2-training/training.json"}
    assert set(ours) == set(theirs)


def test_what_is_beyond_a_speakers_hours_is_left_out_and_listed(speech: Path, tmp_path: Path) -> None:
    recipe = pretrain_dict(
        speech, data__hours_of={"csv/s0": 0.0002}, iterations=[{"features": "mfcc", "clusters": [4]}]
    )
    recipe["arguments"]["max_steps"] = 1
    report = pretrain(recipe, tmp_path)
    left_out = read_lines(tmp_path / "left_out.jsonl")
    assert len(left_out) == report["left_out"] > 0
    assert {row["reason"] for row in left_out} == {"beyond 0.0002 hours of its speaker"}
    assert all("/0/" in row["file"] for row in left_out)


@pytest.fixture
def nameless(speech: Path) -> dict[str, Any]:
    lines = [line.split(",")[0] for line in speech.read_text().splitlines()]
    (table := speech.with_name("nameless.csv")).write_text("\n".join(lines) + "\n")
    recipe = pretrain_dict(table, iterations=[{"features": "mfcc", "clusters": [4], "max_steps": 1}])
    recipe["data"]["dev_speakers"] = 8
    return recipe


def test_speech_of_people_nobody_has_named_is_divided_by_recordings(nameless: dict[str, Any], tmp_path: Path) -> None:
    nameless["corpus"]["columns"]["speaker"] = None
    report = pretrain(nameless, tmp_path / "run")
    assert report["speech"]["dev"]["recordings"] == 2  # a twentieth of 24, rounded up
    assert report["speech"]["train"]["recordings"] == 22
    assert seen_speakers(tmp_path / "run/model") == ["csv/unknown"]


def test_a_missing_column_of_speakers_is_named_with_what_to_say_where_nobody_knows_them(
    nameless: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match="no column 'speaker'") as caught:
        pretrain(nameless, tmp_path / "run")
    assert "folds" not in str(caught.value) and "speaker: null" in str(caught.value.fix)


def test_another_setting_does_not_silently_change_a_finished_step(finished: Path, speech: Path) -> None:
    with pytest.raises(RequestError, match="made from other settings"):
        pretrain(pretrain_dict(speech, seed=1), finished)


def test_a_checkpoint_can_be_gone_on_with(finished: Path, speech: Path, tmp_path: Path) -> None:
    recipe = pretrain_dict(speech, backbone=str(finished / "model"))
    recipe["iterations"] = [{"features": "hidden-states", "layers": [1], "clusters": [4], "max_steps": 1}]
    report = pretrain(recipe, tmp_path)
    assert report["iterations"][0]["updates"] == 1 and not (tmp_path / "backbone").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"iterations": [{"features": "hidden-states"}]}, "learned nothing yet"),
        ({"iterations": [{"features": "mfcc", "start": "previous"}]}, "there is none before it"),
        ({"iterations": [{"features": "mfcc", "clustres": [4]}]}, "clustres"),
        ({"data__dev_speakers": 5}, "held out"),
        ({"data__hours_of": {"s9": 1.0}}, "s9"),
        ({"data__max_hours_per_speaker": 1e-8}, "data.max_hours_per_speaker leaves nothing to train on"),
        ({"iterations": [{"features": "mfcc", "clusters": [5000]}]}, "smaller numbers under `clusters`"),
        ({"model__mask_time_prob": 0}, "no frame would be masked"),
        ({"model__mask_time_prob": 0, "model__frame_targets": "all"}, "no frame would be masked"),
        ({"model__frame_tagets": "all"}, "did you mean `frame_targets`"),
        ({"backbone__num_hiden_layers": 1}, "did you mean `num_hidden_layers`"),
        ({"arguments__learning_rat": 1e-3}, "unknown key `learning_rat` in `arguments`"),
        ({"arguments__seed": 1}, "use `seed` at the top of the recipe"),
        ({"arguments__load_best_model_at_end": True}, "leave it out: the pre-training sets it"),
        ({"arguments__label_smoothing_factor": 0.1}, "does not look at"),
        ({"model__num_hidden_layers": 1}, "they belong to `backbone`"),
        ({"backbone__conv_stride": [9, 9, 5]}, "405 samples apart"),
        ({"modell": {}}, "modell"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_is_trained(
    changes: dict[str, Any], words: str, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", pretrain_dict(speech, **changes))
    assert main(["pretrain", str(recipe), "--output-dir", str(tmp_path / "run")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run" / "iteration-1" / "2-training").exists()


def test_layers_that_mfccs_do_not_have_are_not_looked_for(speech: Path, tmp_path: Path) -> None:
    iterations = [{"features": "mfcc", "clusters": [4], "max_steps": 1}]
    recipe = pretrain_dict(speech, iterations=iterations, backbone__num_hidden_layers=2)  # layers: [-3] by default
    assert pretrain(recipe, tmp_path / "run")["iterations"][0]["updates"] == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"layers": [7]}, "`iterations.0.layers` is [7], but its features are mfcc"),
        ({"copied_rate": 0.5}, "`iterations.0.copied_rate` is 0.5, but its start is scratch"),
    ],
)
def test_a_setting_without_effect_is_refused(settings: dict[str, Any], words: str, speech: Path) -> None:
    with pytest.raises(RequestError, match=re.escape(words)):
        PretrainRecipe.from_dict(pretrain_dict(speech, iterations=[{"features": "mfcc", **settings}]))


def test_a_recipe_that_is_written_out_reads_again(speech: Path) -> None:
    recipe = PretrainRecipe.from_dict(pretrain_dict(speech))
    assert PretrainRecipe.from_dict(recipe.to_dict()) == recipe


def test_without_matplotlib_there_is_a_report_and_no_picture(
    speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_module, "can_draw", lambda: False)
    iterations = [{"features": "mfcc", "clusters": [4], "max_steps": 1}]
    report = pretrain(pretrain_dict(speech, iterations=iterations), tmp_path / "run")
    assert read_json(tmp_path / "run/report.json") == report
    assert not (tmp_path / "run/curves.png").exists()
    assert "matplotlib is not installed" in capsys.readouterr().out


def test_the_packaged_recipe_reads() -> None:
    recipe = PretrainRecipe.from_yaml("pretrain-mini-mfcc")
    assert [spec.features for spec in recipe.iterations] == ["mfcc", "hidden-states"]
    assert PretrainRecipe.from_dict(recipe.to_dict()) == recipe
    assert isinstance(recipe.backbone, dict)
    check_pretraining_names(recipe)
    check_pretraining_names(replace(recipe, backbone={**recipe.backbone, "model_type": "hubert"}))


def test_perplexity_is_the_number_of_clusters_when_all_are_used_alike(tmp_path: Path) -> None:
    write_labels(tmp_path / "a", [0, 1, 2, 3] * 5)
    write_labels(tmp_path / "b", [3, 3, 3, 3] * 5)
    assert describe_labels(tmp_path / "a", {"labels": 4})["labels"]["perplexity"] == 4
    assert describe_labels(tmp_path / "b", {"labels": 4})["labels"] == {"clusters": 4, "used": 1, "perplexity": 1}


def test_labels_agree_fully_with_their_own_renaming_and_not_with_chance(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=4_000)
    write_labels(tmp_path / "a", labels.tolist())
    write_labels(tmp_path / "b", ((labels + 1) % 4).tolist())
    write_labels(tmp_path / "c", rng.integers(4, size=4_000).tolist())
    assert label_agreement(tmp_path / "a", tmp_path / "b")["labels"]["labels"] == 1
    assert label_agreement(tmp_path / "a", tmp_path / "c")["labels"]["labels"] < 0.01


def write_labels(folder: Path, labels: list[int]) -> None:
    import pyarrow
    import pyarrow.parquet

    folder.mkdir()
    table = pyarrow.table({"id": ["x"], "labels": pyarrow.array([labels], pyarrow.list_(pyarrow.int32()))})
    pyarrow.parquet.write_table(table, folder / steps.LABELS_FILE)


@pytest.mark.parametrize("verb", [["card"], ["push", "--dry-run"], ["compare"]])
def test_a_pretraining_given_in_place_of_a_run_is_called_one(
    verb: list[str], finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    behind = {"card": [], "push": ["somebody/model"], "compare": [str(finished.parent)]}[verb[0]]
    assert main([*verb, str(finished), *behind]) == 2
    said = capsys.readouterr().err
    assert f"{finished} is a pre-training" in said and f"its encoder is {finished / 'model'}" in said


def test_a_recipe_for_the_other_verb_is_called_one(speech: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "pre.yaml", pretrain_dict(speech))
    with pytest.raises(RequestError, match="pre.yaml is for gmp-atl pretrain: it has `iterations`"):
        Recipe.from_yaml(recipe)
    with pytest.raises(RequestError, match="demo.yaml is for gmp-atl run: it has `protocol`"):
        PretrainRecipe.from_yaml("demo")


def test_the_encoder_says_whom_it_was_trained_on(finished: Path) -> None:
    seen = seen_speakers(finished / "model")
    assert seen == speakers_seen_by(describe_backbone(str(finished / "model")))
    assert seen == [f"csv/s{speaker}" for speaker in range(5)]


def test_an_encoder_of_another_precision_is_not_taken_for_this_one(finished: Path, speech: Path) -> None:
    with pytest.raises(RequestError, match="precision"):
        pretrain(pretrain_dict(speech, precision="float32"), finished)
