"""What a finished run consists of, and that nobody who is tested touched it before."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

from audio_files import write_audio
from gmp_atl_hf import HubertForGMPATLMultiTask, MultiScaleKMeans
from gmp_atl_hf.data.audio import read_clip
from gmp_atl_hf.recipe.recipe import Recipe
from runs import (
    EMOTIONS,
    SPEAKERS,
    SPLIT,
    changed_recipe,
    digests,
    files_of,
    given_split,
    read_json,
    read_lines,
    recipe_dict,
    results,
    run,
    write_corpus,
)
from test_verify_report import verify

STEPS = ("1-multitask", "2-pseudo-labels", "3-retrain", "4-finetune")
WEIGHTS = {"config.json", "model.safetensors", "preprocessor_config.json"}
MODEL = WEIGHTS | {"heard_recordings.json", "step.json", "training.json"}
FAMILIES = ("families", "family", "family_data2vec", "family_wavlm", "family_whisper")
CONFIGURATION_CODE = {f"{name}_gmp_atl.py" for name in ("configuration", "frames", *FAMILIES)}
CLASSIFIER = ("adapters", "encoding", "heads", "losses", "modeling")
CLASSIFIER_CODE = CONFIGURATION_CODE | {f"{name}_gmp_atl.py" for name in CLASSIFIER}
FILES = {
    "backbone": WEIGHTS | {"step.json"},
    "1-multitask": MODEL | CONFIGURATION_CODE | {"dev_logits.jsonl"},
    "2-pseudo-labels": {"codebooks.json", "codebooks.safetensors", "labels.parquet", "step.json"},
    "3-retrain": MODEL | CONFIGURATION_CODE,
    "4-finetune": MODEL | CLASSIFIER_CODE | {"dev_logits.jsonl"},
    "model": (MODEL | CLASSIFIER_CODE | {"README.md", "confusion.png", "usage.json", "hashes.json"})
    - {"training.json"},
}
FOLD_FILES = {"split.json", "predictions.jsonl", "metrics.json", "hashes.json"}
TOP_FILES = {
    "recipe.yaml",
    "environment.json",
    "left_out.jsonl",
    "corpus-index.json",
    "report.json",
    "report.md",
    "report.html",
    "hashes.json",
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def crossed(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The method and fine-tuning alone in two folds, and a final model; must not be changed."""
    folder = tmp_path_factory.mktemp("crossed") / "run"
    run(recipe_dict(corpus), folder)
    return folder


@pytest.fixture(scope="module")
def split_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("split-corpus"), split=SPLIT)


@pytest.fixture(scope="module")
def single(split_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The method in the one fold that the corpus prescribes, and its model; must not be changed."""
    folder = tmp_path_factory.mktemp("single") / "run"
    run(given_split(split_corpus), folder)
    return folder


def step_folders(folder: Path) -> list[Path]:
    return sorted(file.parent for file in folder.rglob("step.json"))


# ---- the folder ------------------------------------------------------------------------------------------------------


def test_a_run_writes_these_files_and_no_others(crossed: Path) -> None:
    expected = set(TOP_FILES) | {f"backbone/seed-0/{name}" for name in FILES["backbone"]}
    for fold in ("fold-01", "fold-02"):
        for variant, steps in (("gmp-atl", STEPS), ("direct", STEPS[3:])):
            expected |= {f"{variant}/seed-0/{fold}/{step}/{name}" for step in steps for name in FILES[step]}
            expected |= {f"{variant}/seed-0/{fold}/{name}" for name in FOLD_FILES}
    # Nobody is left to choose a model on, so there are no development logits.
    everyone = {f"gmp-atl/seed-0/all-speakers/{step}/{name}" for step in STEPS for name in FILES[step]}
    expected |= {name for name in everyone if not name.endswith("dev_logits.jsonl")}
    expected |= {f"model/{name}" for name in FILES["model"]}
    found = files_of(crossed)
    assert {name for name in found if not name.startswith("figures/")} == expected
    empty = [path for path in crossed.rglob("*") if path.is_dir() and not any(path.iterdir())]
    assert empty == []


def test_nothing_unfinished_no_checkpoints_and_no_pickle_is_left(crossed: Path) -> None:
    for path in crossed.rglob("*"):
        assert not path.name.endswith((".unfinished", ".writing", ".tmp", ".bin", ".pt", ".pth", ".pkl", ".ckpt"))
        assert not path.name.startswith(("checkpoint", "."))
        if path.is_file():
            # Pickles of protocol 2 and later, and the zip archives that torch.save makes of them.
            assert not path.read_bytes().startswith((b"\x80\x02", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")), path


def test_a_run_writes_nothing_outside_its_folder(
    split_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    run(given_split(split_corpus, variants=["tapt"], final=False), Path("out"))
    assert {path.name for path in tmp_path.iterdir()} <= {"out"}


def test_split_json_names_the_speakers_of_each_part(crossed: Path, single: Path) -> None:
    tested: list[str] = []
    for number in (1, 2):
        split = read_json(crossed / f"gmp-atl/seed-0/fold-0{number}/split.json")
        assert list(split) == ["fold", "train", "dev", "test"]
        assert split["fold"] == number
        everyone = split["train"] + split["dev"] + split["test"]
        assert sorted(everyone) == [f"folder/{name}" for name in SPEAKERS]
        assert read_json(crossed / f"direct/seed-0/fold-0{number}/split.json") == split
        tested += split["test"]
    assert sorted(tested) == [f"folder/{name}" for name in SPEAKERS]
    given = read_json(single / "gmp-atl/seed-0/fold-01/split.json")
    for part in ("train", "dev", "test"):
        assert given[part] == sorted(f"folder/{name}" for name, where in SPLIT.items() if where == part)


def test_predictions_have_one_row_for_each_test_recording(crossed: Path) -> None:
    for variant in ("gmp-atl", "direct"):
        seen = []
        for fold in ("fold-01", "fold-02"):
            folder = crossed / variant / "seed-0" / fold
            rows, split = read_lines(folder / "predictions.jsonl"), read_json(folder / "split.json")
            assert {row["speaker"] for row in rows} == set(split["test"])
            for row in rows:
                assert list(row) == ["id", "file", "speaker", "gender", "emotion", "predicted", "scores"]
                assert row["id"] == f"folder/{row['file']}"
                assert row["emotion"] == row["file"].split("/")[0]
                assert row["gender"] == {"f": "female", "m": "male"}[row["speaker"].removeprefix("folder/")[0]]
                assert list(row["scores"]) == list(EMOTIONS)
                assert sum(row["scores"].values()) == pytest.approx(1)
                assert row["predicted"] == max(row["scores"], key=row["scores"].get)
            seen += [row["id"] for row in rows]
        assert len(seen) == len(set(seen)) == len(SPEAKERS) * len(EMOTIONS) * 2


def test_metrics_json_is_what_the_predictions_say(crossed: Path) -> None:
    for folder in sorted(crossed.glob("*/seed-0/fold-*")):
        rows, metrics = read_lines(folder / "predictions.jsonl"), read_json(folder / "metrics.json")
        right = [row["emotion"] == row["predicted"] for row in rows]
        recalls = [
            np.mean([hit for hit, row in zip(right, rows, strict=True) if row["emotion"] == name]) for name in EMOTIONS
        ]
        assert metrics["war"] == pytest.approx(np.mean(right))
        assert metrics["uar"] == pytest.approx(np.mean(recalls))
        assert (metrics["utterances"], metrics["test_speakers"]) == (len(rows), 3)
        assert (metrics["protocol"], metrics["folds"], metrics["seed"]) == ("group-k-fold", 2, 0)
        assert (metrics["variant"], f"fold-0{metrics['fold']}") == (folder.parts[-3], folder.name)


def test_step_json_says_what_the_step_was_made_from(crossed: Path) -> None:
    folders = step_folders(crossed)
    assert len(folders) == 1 + 2 * (4 + 1) + 4 + 1
    for folder in folders:
        note = read_json(folder / "step.json")
        times = {"started", "finished", "seconds_since_last_start"}
        assert set(note) == {"format_version", "key", "inputs", "manner", "files", "sha256"} | times
        assert note["inputs"]["step"] in (*STEPS, "backbone", "model")
    for fold in ("fold-01", "fold-02"):
        inputs = {step: read_json(crossed / "gmp-atl/seed-0" / fold / step / "step.json")["inputs"] for step in STEPS}
        keys = {step: read_json(crossed / "gmp-atl/seed-0" / fold / step / "step.json")["key"] for step in STEPS}
        split = read_json(crossed / "gmp-atl/seed-0" / fold / "split.json")
        for one in inputs.values():
            assert (one["data"]["train"], one["data"]["dev"]) == (split["train"], split["dev"])
        assert inputs["2-pseudo-labels"]["source"]["key"] == keys["1-multitask"]
        assert inputs["3-retrain"]["pseudo_labels"] == keys["2-pseudo-labels"]
        assert inputs["3-retrain"]["start"] == inputs["1-multitask"]["start"]  # retraining is of HuBERT itself
        assert inputs["4-finetune"]["start"]["key"] == keys["3-retrain"]


def test_training_json_has_the_log_and_the_best_step(crossed: Path) -> None:
    for step in ("1-multitask", "3-retrain", "4-finetune"):
        training = read_json(crossed / "gmp-atl/seed-0/fold-01" / step / "training.json")
        assert training["updates"] == training["planned_updates"] == 4
        losses = [entry for entry in training["log"] if "loss" in entry]
        assert [entry["step"] for entry in losses] == [2, 4]
        parts = {
            "1-multitask": ["emotion", "gender"],
            "3-retrain": ["gmp_layer2_k3", "gmp_layer2_k5"],
            "4-finetune": ["emotion"],
        }
        assert all(f"loss_{part}" in entry for entry in losses for part in parts[step])
        dev = [entry for entry in training["log"] if "eval_loss" in entry]
        if step == "3-retrain":
            assert training["best_step"] == training["updates"]
            assert all(f"eval_accuracy_{part}" in entry for entry in dev for part in parts[step])
        else:
            best = max(dev, key=lambda entry: entry["eval_uar"])
            assert (training["best_step"], training["best_dev_uar"]) == (best["step"], best["eval_uar"])


def test_the_report_has_what_is_promised(crossed: Path) -> None:
    report = read_json(crossed / "report.json")
    assert report["protocol"]["kind"] == "group-k-fold"
    assert list(report["variants"]) == ["gmp-atl", "direct"]
    assert report["command"] == "run_recipe(tones)"
    assert report["stamps"] == []
    for name, summary in report["variants"].items():
        rows = [row for file in sorted(crossed.glob(f"{name}/*/*/predictions.jsonl")) for row in read_lines(file)]
        assert summary["war"]["pooled"] == pytest.approx(np.mean([r["emotion"] == r["predicted"] for r in rows]))
        for metric in ("war", "uar", "macro_f1"):
            assert set(summary[metric]) == {"pooled", "folds_mean", "folds_std", "seeds_mean", "seeds_std"}
        assert {"per_class_recall", "confusion", "uar_ci95", "per_gender"} <= set(summary)
        assert summary["folds_done"] == "2 of 2 folds"
        assert (summary["utterances"], summary["speakers"]) == (36, 6)
    assert report["corpus"]["recordings"] == 36
    assert report["left_out"] == {}
    text = (crossed / "report.md").read_text()
    assert "run_recipe(tones)" in text
    assert report["protocol"]["sentence"] in text


def test_the_report_follows_from_the_predictions_by_the_example_without_this_package(
    crossed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert verify(crossed, monkeypatch) == 0
    shutil.copytree(crossed, tmp_path / "run")
    file = tmp_path / "run/direct/seed-0/fold-02/predictions.jsonl"
    first, *others = read_lines(file)
    first["predicted"] = next(name for name in EMOTIONS if name != first["predicted"])
    file.write_text("".join(json.dumps(row) + "\n" for row in (first, *others)), encoding="utf-8")
    found = verify(tmp_path / "run", monkeypatch)
    assert isinstance(found, str)
    assert "direct uar pooled: " in found
    assert "gmp-atl uar pooled: " not in found


def test_recipe_yaml_makes_the_same_run_again(crossed: Path, corpus: Path) -> None:
    assert Recipe.from_yaml(crossed / "recipe.yaml") == Recipe.from_dict(recipe_dict(corpus))


# ---- nobody who is tested touches anything before --------------------------------------------------------------------


def test_codebooks_and_frame_labels_know_training_and_development_speakers_only(crossed: Path) -> None:
    speaker = {f"folder/{emotion}/{name}_{take}.wav": f"folder/{name}"
               for emotion in EMOTIONS for name in SPEAKERS for take in range(2)}  # fmt: skip
    for fold in ("fold-01", "fold-02"):
        folder = crossed / "gmp-atl/seed-0" / fold
        split = read_json(folder / "split.json")
        codebooks = read_json(folder / "2-pseudo-labels" / "codebooks.json")
        assert set(codebooks["scales"]) == {"gmp_layer2_k3", "gmp_layer2_k5"}
        for scale in codebooks["scales"].values():
            assert scale["training_speakers"] == sorted(split["train"])
            assert {"kind", "checkpoint", "layer", "settings"} <= set(scale["feature"])
        labelled = pq.read_table(folder / "2-pseudo-labels" / "labels.parquet")["id"].to_pylist()
        assert {speaker[one] for one in labelled} == {*split["train"], *split["dev"]}
    everyone = read_json(crossed / "gmp-atl/seed-0/all-speakers/2-pseudo-labels/codebooks.json")
    assert everyone["scales"]["gmp_layer2_k3"]["training_speakers"] == [f"folder/{name}" for name in SPEAKERS]


def test_what_the_test_speakers_say_and_how_changes_their_predictions_and_nothing_else(
    single: Path, tmp_path: Path
) -> None:
    root = write_corpus(tmp_path / "corpus", split=SPLIT)
    tested = sorted((root / "test").rglob("*.wav"))
    for number, file in enumerate(tested):
        noise = np.random.default_rng(number).standard_normal(2_000 + 500 * number).astype(np.float32)
        write_audio(file, 0.1 * noise)
    # Their emotions, too: anger becomes sadness.
    (root / "test" / "sadness").rename(root / "test" / "was-sadness")
    (root / "test" / "anger").rename(root / "test" / "sadness")
    (root / "test" / "was-sadness").rename(root / "test" / "anger")
    run(given_split(root), tmp_path / "run")
    before, after = results(single), results(tmp_path / "run")
    differing = {name for name in before if before[name] != after.get(name)}
    fold = "gmp-atl/seed-0/fold-01"
    assert differing == {f"{fold}/predictions.jsonl", f"{fold}/metrics.json"}
    assert set(before) == set(after)
    for folder in step_folders(single):
        other = tmp_path / "run" / folder.relative_to(single) / "step.json"
        assert read_json(other)["key"] == read_json(folder / "step.json")["key"]


def test_every_row_is_labelled_by_the_nearest_centre_of_its_layer(single: Path, split_corpus: Path) -> None:
    folder = single / "gmp-atl/seed-0/fold-01"
    model = HubertForGMPATLMultiTask.from_pretrained(folder / "1-multitask").eval()
    centres = load_file(folder / "2-pseudo-labels" / "codebooks.safetensors")
    assert MultiScaleKMeans.load(folder / "2-pseudo-labels").columns == list(centres)
    labels = {row["id"]: row for row in pq.read_table(folder / "2-pseudo-labels" / "labels.parquet").to_pylist()}
    assert len(labels) == 4 * 3 * 2
    # Development rows are labelled, but the clusters have not seen them.
    split = read_json(folder / "split.json")
    frames = {"train": 0, "dev": 0}
    for name, row in labels.items():
        part = name.split("/")[1]
        assert f"folder/{name.split('/')[3].split('_')[0]}" in split[part]
        frames[part] += len(row["gmp_layer2_k3"])
    for scale in read_json(folder / "2-pseudo-labels" / "codebooks.json")["scales"].values():
        assert scale["frames"] == frames["train"]
    assert frames["dev"] > 0
    for part in ("train", "dev"):
        file = sorted((split_corpus / part).rglob("*.wav"))[0]
        wave = torch.from_numpy(read_clip(str(file)))[None]
        with torch.no_grad():
            states = model(wave, output_hidden_states=True).hidden_states[2][0]
        row = labels[f"folder/{file.relative_to(split_corpus).as_posix()}"]
        for name, centre in centres.items():
            distances = torch.cdist(states, centre, compute_mode="donot_use_mm_for_euclid_dist")
            assert row[name] == distances.argmin(1).tolist()


# ---- the model -------------------------------------------------------------------------------------------------------


def test_the_model_gives_the_scores_of_the_test_at_its_temperature(single: Path, split_corpus: Path) -> None:
    model = AutoModelForAudioClassification.from_pretrained(single / "model").eval()
    extractor = AutoFeatureExtractor.from_pretrained(single / "model")
    assert extractor.return_attention_mask
    temperature = model.config.logit_temperature
    assert temperature != 1
    for row in read_lines(single / "gmp-atl/seed-0/fold-01/predictions.jsonl"):
        wave = read_clip(str(split_corpus / row["file"]))
        with torch.no_grad():
            logits = model(**extractor(wave, sampling_rate=16_000, return_tensors="pt")).logits[0]
        scores = np.asarray([row["scores"][model.config.id2label[index]] for index in range(3)])
        expected = np.log(scores) / temperature
        expected = np.exp(expected - expected.max())
        np.testing.assert_allclose(logits.softmax(-1).numpy(), expected / expected.sum(), atol=1e-5)


def test_a_fold_of_its_own_is_shipped_bit_for_bit(single: Path) -> None:
    shipped, own = single / "model", single / "gmp-atl/seed-0/fold-01/4-finetune"
    assert digests(shipped, "*.safetensors") == digests(own, "*.safetensors")
    different = {"logit_temperature"}
    ours, theirs = read_json(shipped / "config.json"), read_json(own / "config.json")
    assert {key for key in ours if ours[key] != theirs[key]} == different
    assert theirs["logit_temperature"] == 1


def test_two_folders_hold_the_same_numbers(single: Path, split_corpus: Path, tmp_path: Path) -> None:
    # The corpus, too, lies somewhere else, and this process has drawn random numbers since.
    torch.manual_seed(1234)
    shutil.copytree(split_corpus, tmp_path / "elsewhere")
    run(given_split(tmp_path / "elsewhere"), tmp_path / "run")
    assert results(tmp_path / "run") == results(single)
    assert len(results(single)) > 20
    first, second = read_json(single / "report.json"), read_json(tmp_path / "run" / "report.json")
    for name in ("command", "environment"):
        first.pop(name), second.pop(name)
    assert first == second


# ---- other corpora and settings --------------------------------------------------------------------------------------


def listed_recipe(tmp_path: Path, genders: dict[str, str], **changes: Any) -> dict[str, Any]:
    """A corpus listed in a file, with these genders."""
    rows = []
    write_corpus(tmp_path / "corpus", takes=1)
    for file in sorted((tmp_path / "corpus").rglob("*.wav")):
        speaker = file.name.split("_")[0]
        row = {"file": str(file), "emotion": file.parent.name, "speaker": speaker}
        rows.append(row | ({"gender": genders[speaker]} if genders.get(speaker) else {}))
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    recipe = recipe_dict(tmp_path, corpus={"name": "csv", "root": str(tmp_path / "list.jsonl")}, final=False)
    for stage in recipe["stages"].values():
        stage["num_train_epochs"] = 1
    return changed_recipe(recipe, variants=["gmp-atl"], **changes)


@pytest.mark.parametrize(
    "genders",
    [
        pytest.param(dict.fromkeys(SPEAKERS, "female"), id="one gender"),
        pytest.param({}, id="no gender"),
        pytest.param({"f1": "female", "m1": "male"}, id="some genders"),
    ],
)
def test_corpora_with_one_gender_some_or_none_run(tmp_path: Path, genders: dict[str, str]) -> None:
    report = run(listed_recipe(tmp_path, genders), tmp_path / "run", folds=[1])
    assert report["variants"]["gmp-atl"]["folds_done"] == "1 of 2 folds"
    rows = read_lines(tmp_path / "run/gmp-atl/seed-0/fold-01/predictions.jsonl")
    assert {row["speaker"]: row["gender"] for row in rows} == {
        row["speaker"]: genders.get(row["speaker"].removeprefix("csv/")) for row in rows
    }
    log = read_json(tmp_path / "run/gmp-atl/seed-0/fold-01/1-multitask/training.json")["log"]
    trained = {genders.get(name.removeprefix("csv/")) for name in
               read_json(tmp_path / "run/gmp-atl/seed-0/fold-01/split.json")["train"]} - {None}  # fmt: skip
    assert any("loss_gender" in entry for entry in log if "loss" in entry) == bool(trained)


def test_shuffled_labels_are_stamped_and_leave_test_labels_alone(corpus: Path, tmp_path: Path) -> None:
    recipe = recipe_dict(corpus, data__shuffle_labels=True, variants=["direct"], final=False)
    report = run(recipe, tmp_path, folds=[1])
    [stamp] = report["stamps"]
    assert "shuffled" in stamp
    assert stamp in (tmp_path / "report.md").read_text()
    fold = tmp_path / "direct/seed-0/fold-01"
    assert all(row["emotion"] == row["file"].split("/")[0] for row in read_lines(fold / "predictions.jsonl"))
    logits = read_lines(fold / "4-finetune" / "dev_logits.jsonl")
    told = [row["emotion"] for row in logits]
    true = [row["id"].split("/")[1] for row in logits]
    assert told != true
    assert sorted(told) == sorted(true)  # each speaker keeps its own share of every emotion
    assert read_json(fold / "4-finetune/step.json")["inputs"]["data"]["labels_dealt_with_seed"] == 0


def test_whole_clips_can_be_trained_on(corpus: Path, tmp_path: Path) -> None:
    recipe = recipe_dict(corpus, data__max_seconds=None, variants=["gmp-atl"], final=False)
    run(recipe, tmp_path / "whole", folds=[1])
    inputs = read_json(tmp_path / "whole/gmp-atl/seed-0/fold-01/3-retrain/step.json")["inputs"]
    assert inputs["arguments"]["max_seconds"] is None


def test_a_recording_that_is_too_short_is_padded_or_listed_and_dropped(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "corpus")
    write_audio(root / "anger" / "f1_0.wav", 120)
    for short_clips, tested in (("pad", True), ("drop", False)):
        recipe = recipe_dict(root, data__short_clips=short_clips, variants=["direct"], final=False)
        report = run(recipe, tmp_path / short_clips)
        rows = [row for file in (tmp_path / short_clips).rglob("predictions.jsonl") for row in read_lines(file)]
        assert ("folder/anger/f1_0.wav" in {row["id"] for row in rows}) is tested
        left_out = read_lines(tmp_path / short_clips / "left_out.jsonl")
        assert [row["file"] for row in left_out] == ([] if tested else ["folder/anger/f1_0.wav"])
        assert sum(report["left_out"].values()) == len(left_out)
