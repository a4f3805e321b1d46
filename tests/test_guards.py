"""Nobody who is tested touches anything before: a leak into any of the four places stops the run and is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from corpus_trees import clip
from gmp_atl_hf import Protocol
from gmp_atl_hf.checkpoints import seen_speakers
from gmp_atl_hf.cli.verbs import main
from gmp_atl_hf.data.table import read_corpora
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.files import write_known
from gmp_atl_hf.protocols.fold import Fold
from gmp_atl_hf.protocols.leakage import MAYBE_SEEN_STAMP, NO_TEST_SET, HeldOut, maybe_seen
from gmp_atl_hf.pseudo_labels.codebook import codebook_speakers
from gmp_atl_hf.run import fold_plan as plan
from gmp_atl_hf.run import perform, temperature
from runs import SPLIT, given_split, read_json, read_lines, recipe_dict, run, write_corpus, write_recipe

TESTED = [f"folder/{name}" for name, part in SPLIT.items() if part == "test"]
SEEN = [f"folder/{name}" for name, part in SPLIT.items() if part != "test"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), split=SPLIT)


@pytest.fixture(scope="module")
def finished(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The method in the one fold that the corpus prescribes, and its model; must not be changed."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    run(given_split(corpus), folder)
    return folder


def leak(monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Let the plan of every fold get other parts than it should."""
    honest = plan.select

    def leaking(table: datasets.Dataset, fold: Fold) -> dict[str, Any]:
        return change(honest(table, fold))

    monkeypatch.setattr(plan, "select", leaking)


def test_a_test_speaker_in_training_stops_the_run(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leak(monkeypatch, lambda parts: {**parts, "train": datasets.concatenate_datasets([parts["train"], parts["test"]])})
    for variant in ("gmp-atl", "direct"):
        with pytest.raises(RequestError, match="training would use the test speaker folder/f3 .* before being tested"):
            run(given_split(corpus, variants=[variant], final=False), tmp_path / variant)
        assert not list((tmp_path / variant).rglob("predictions.jsonl"))


def test_one_test_recording_under_another_name_of_its_speaker_stops_the_run(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(parts: dict[str, Any]) -> dict[str, Any]:
        renamed = parts["test"].select([0]).map(lambda row: {"speaker": parts["train"][0]["speaker"]})
        return {**parts, "train": datasets.concatenate_datasets([parts["train"], renamed])}

    leak(monkeypatch, change)
    with pytest.raises(RequestError, match=r"training would use the test recording folder/.*\.wav"):
        run(given_split(corpus, variants=["direct"], final=False), tmp_path / "run")


def test_a_test_speaker_in_the_choice_of_the_epoch_stops_the_run(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leak(monkeypatch, lambda parts: {**parts, "dev": parts["test"]})
    with pytest.raises(RequestError, match="choosing the epoch would use the test speaker folder/f3"):
        run(given_split(corpus, variants=["direct"], final=False), tmp_path / "run")


@pytest.mark.parametrize(("part", "words"), [(4, "k-means"), (5, "frame labelling")])
def test_a_test_speaker_in_k_means_or_its_labels_stops_the_run(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int, words: str
) -> None:
    honest, tested = plan.make_pseudo_labels, []
    select = plan.select

    def remembered(table: datasets.Dataset, fold: Fold) -> dict[str, Any]:
        parts = select(table, fold)
        tested.append(parts["test"])
        return parts

    def leaking(*arguments: Any) -> None:
        changed = list(arguments)
        changed[part] = datasets.concatenate_datasets([changed[part], tested[-1]])
        honest(*changed)

    monkeypatch.setattr(plan, "select", remembered)
    monkeypatch.setattr(plan, "make_pseudo_labels", leaking)
    with pytest.raises(RequestError, match=f"{words} would use the test speaker folder/f3"):
        run(given_split(corpus, variants=["tapt"], final=False), tmp_path / "run")


def test_codebooks_that_know_a_test_speaker_are_not_retrained_on(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = plan.make_pseudo_labels

    def foreign(folder: Path, *arguments: Any) -> None:
        honest(folder, *arguments)
        codebooks = read_json(folder / "codebooks.json")
        for scale in codebooks["scales"].values():
            scale["training_speakers"].append("folder/m3")
        write_known(folder, {"codebooks.json": json.dumps(codebooks)})

    monkeypatch.setattr(plan, "make_pseudo_labels", foreign)
    with pytest.raises(RequestError, match=r"codebooks in .* were fitted on the test speaker folder/m3"):
        run(given_split(corpus, variants=["tapt"], final=False), tmp_path / "run")


def test_a_test_speaker_in_calibration_stops_the_run(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, leaked = temperature.read_jsonl, "folder/test/anger/f3_0.wav"

    def leaking(path: Path) -> list[dict[str, Any]]:
        rows = honest(path)
        return [*rows, {**rows[0], "id": leaked}] if path.name == "dev_logits.jsonl" else rows

    monkeypatch.setattr(temperature, "read_jsonl", leaking)
    with pytest.raises(RequestError, match=f"calibration would use the test recording {leaked}"):
        run(given_split(corpus, variants=["direct"], final=False), tmp_path / "run")


def test_development_speakers_of_other_folds_calibrate_nothing_that_they_are_tested_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = perform.development_temperature

    def leaking(one: Any, folds: Any, held_out: HeldOut) -> Any:
        everything = [each for each in one.planned if each.folder.metrics.is_file() or each in folds]
        return honest(one, everything, held_out)

    monkeypatch.setattr(perform, "development_temperature", leaking)
    with pytest.raises(RequestError, match=r"calibration would use the test recording"):
        run(recipe_dict(write_corpus(tmp_path / "corpus"), variants=["direct"], final=False), tmp_path / "run")


def test_a_model_that_has_seen_a_test_speaker_is_not_tested(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = plan.train

    def foreign(folder: Path, task: Any) -> None:
        honest(folder, task)
        config = read_json(folder / "config.json")
        write_known(folder, {"config.json": json.dumps({**config, "seen_speakers": ["folder/m3"]})})

    monkeypatch.setattr(plan, "train", foreign)
    with pytest.raises(RequestError, match=r"4-finetune has seen the test speaker folder/m3"):
        run(given_split(corpus, variants=["direct"], final=False), tmp_path / "run")


# ---- what artefacts say of themselves ------------------------------------------------------------------------------


def test_models_codebooks_and_splits_say_whom_they_have_seen(finished: Path) -> None:
    fold = finished / "gmp-atl/seed-0/fold-01"
    for step in ("1-multitask", "3-retrain", "4-finetune"):
        assert seen_speakers(fold / step) == sorted(SEEN)
    assert codebook_speakers(fold / "2-pseudo-labels") == sorted(n for n in SEEN if SPLIT[n[-2:]] == "train")
    assert seen_speakers(finished / "model") == sorted(SEEN)
    assert seen_speakers(finished / "backbone/seed-0") == []


def test_a_model_of_ours_makes_no_backbone_for_folds_that_test_its_speakers(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_corpus(tmp_path / "corpus")
    for folder in ("model", "gmp-atl/seed-0/fold-01/1-multitask"):
        recipe = recipe_dict(root, backbone=str(finished / folder), variants=["direct"], final=False)
        file = write_recipe(tmp_path / "recipe.yaml", recipe)
        assert main(["run", str(file), "--output-dir", str(tmp_path / "run")]) == 2
        error = capsys.readouterr().err
        assert "has seen the test speaker folder/f1" in error
        assert str(finished / folder) in error
        assert not (tmp_path / "run").exists()


def test_it_does_make_one_for_other_speakers_and_what_comes_out_has_seen_both(
    finished: Path, corpus: Path, tmp_path: Path
) -> None:
    recipe = given_split(corpus, backbone=str(finished / "model"), variants=["direct"])
    report = run(recipe, tmp_path / "same")
    assert report["stamps"] == []
    other = given_split(corpus, backbone=str(finished / "model"), variants=["direct"])
    other["corpus"]["corpus_name"] = "others"
    run(other, tmp_path / "other")
    expected = {*SEEN, *(name.replace("folder/", "others/") for name in SEEN)}
    assert seen_speakers(tmp_path / "other/model") == sorted(expected)


def test_a_backbone_that_does_not_say_whom_it_has_seen_stamps_every_number(
    finished: Path, corpus: Path, tmp_path: Path
) -> None:
    silent = tmp_path / "silent"
    silent.mkdir()
    for file in (finished / "model").iterdir():
        if file.name != "step.json":
            (silent / file.name).write_bytes(file.read_bytes())
    config = read_json(silent / "config.json")
    del config["seen_speakers"]
    (silent / "config.json").write_text(json.dumps(config), encoding="utf-8")
    report = run(given_split(corpus, backbone=str(silent), variants=["direct"], final=False), tmp_path / "run")
    assert report["stamps"] == [MAYBE_SEEN_STAMP]
    assert seen_speakers(tmp_path / "run/direct/seed-0/fold-01/4-finetune") == sorted([*SEEN, "unknown"])


# ---- corpora that cannot keep the promise --------------------------------------------------------------------------


def shared_corpus(root: Path) -> Path:
    """Every speaker is trained and tested on."""
    for takes, part in ((3, "train"), (1, "test")):
        write_corpus(root, takes=takes, split=dict.fromkeys(SPLIT, part))
    return root


def test_shared_speakers_stamp_the_screen_the_report_the_card_and_every_fold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = given_split(shared_corpus(tmp_path / "corpus"), variants=["gmp-atl", "direct"])
    with pytest.raises(RequestError, match="speaker folder/f1 .* is in train and in test"):
        run(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    report = run({**recipe, "protocol": {"kind": "given", "allow_shared_speakers": True}}, tmp_path / "run")
    words = "not speaker-independent"
    assert report["stamps"] == [words]
    assert f"*** {words} ***" in capsys.readouterr().out
    for summary in report["variants"].values():
        assert summary["uar_ci95"] is None
        assert summary["gender_gap"]["ci95"] is None
    assert report["comparisons"][0]["ci95"] is None
    for file in ("report.md", "report.html", "model/README.md"):
        assert words in (tmp_path / "run" / file).read_text(encoding="utf-8")
    fold = tmp_path / "run/gmp-atl/seed-0/fold-01"
    assert read_json(fold / "metrics.json")["stamps"] == [words]
    split = read_json(fold / "split.json")
    assert split["speaker_independent"] is False
    # Recordings are still never on both sides.
    tested = {row["id"] for row in read_lines(fold / "predictions.jsonl")}
    assert tested == set(split["recordings"]["test"])
    assert not tested & {*split["recordings"]["train"], *split["recordings"]["dev"]}


def test_two_speakers_of_one_gender_are_trained_without_development_calibration_or_gender(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_corpus(tmp_path / "corpus", speakers=("f1", "f2"), takes=3)
    recipe = recipe_dict(root, protocol={"kind": "leave-one-speaker-out"}, pseudo_labels__clusters=[3])
    report = run({**recipe, "variants": ["gmp-atl"]}, tmp_path / "run")
    said = capsys.readouterr().out
    assert said.count("the gender part of the multi-task training is off") == 2  # at the start, and in the report
    assert len(report["notes"]) == len(set(report["notes"]))
    assert any("No development speakers" in note for note in report["notes"])
    for fold in ("fold-01", "fold-02"):
        folder = tmp_path / "run/gmp-atl/seed-0" / fold
        assert read_json(folder / "split.json")["dev"] == []
        assert read_json(folder / "metrics.json")["temperature"] is None
        training = read_json(folder / "4-finetune/training.json")
        assert training["best_step"] == training["updates"] == training["planned_updates"]
        assert read_json(folder / "1-multitask/config.json")["emotion_weight"] == 1.0
    assert read_json(tmp_path / "run/model/config.json").get("logit_temperature", 1.0) == 1.0
    assert report["variants"]["gmp-atl"]["calibration"]["ece_calibrated"] is None


def test_a_run_across_corpora_trains_on_one_and_tests_on_the_other(tmp_path: Path) -> None:
    roots = [write_corpus(tmp_path / name, speakers=names) for name, names in
             (("one", ("f1", "f2", "m1", "m2")), ("two", ("f8", "m8")))]  # fmt: skip
    pattern = recipe_dict(roots[0])["corpus"]["speaker"]
    recipe = recipe_dict(roots[0], variants=["direct"])
    recipe["corpus"] = [
        {"name": "folder", "root": str(root), "speaker": pattern, "corpus_name": root.name} for root in roots
    ]
    recipe["protocol"] = {"kind": "cross-corpus", "test": ["two"]}
    with pytest.raises(RequestError, match="cross-corpus without a label map for one"):
        run(recipe, tmp_path / "run")
    recipe["corpus"][0]["labels"] = {"anger": "angry", "neutral": "calm", "sadness": "calm"}
    recipe["corpus"][1]["labels"] = {"anger": "angry", "neutral": "calm", "sadness": None}
    report = run(recipe, tmp_path / "run")
    assert report["labels"] == ["angry", "calm"]
    assert "trained on one, tested on two" in report["protocol"]["sentence"]
    rows = read_lines(tmp_path / "run/direct/seed-0/fold-01/predictions.jsonl")
    assert {row["speaker"] for row in rows} == {"two/f8", "two/m8"}
    assert report["left_out"] == {"label sadness dropped by the label map": 4}


def test_a_person_in_both_corpora_is_refused_by_name(tmp_path: Path) -> None:
    clip(tmp_path / "Actor_01/03-01-05-01-01-01-01.wav")
    clip(tmp_path / "Actor_01/03-02-05-01-01-01-01.wav")
    clip(tmp_path / "Actor_02/03-01-05-01-01-01-02.wav")
    entries = [{"name": name, "root": tmp_path, "labels": {"anger": "anger"}} for name in ("ravdess", "ravdess-song")]
    table = read_corpora(entries).table
    with pytest.raises(RequestError, match=r"speaker ravdess/01 is on both sides \(1 are\)"):
        Protocol("cross-corpus", test_corpora=("ravdess-song",)).folds(table)


# ---- the guard itself ------------------------------------------------------------------------------------------------


def test_the_guard_knows_speakers_and_recordings() -> None:
    held_out = HeldOut(frozenset({"c/a", "c/b10", "c/b9"}), frozenset({"c/1"}))
    held_out.refuse_speakers(["c/x"], "the model has seen")
    held_out.refuse_recordings(["c/2"], "training")
    with pytest.raises(RequestError, match=r"the model has seen the test speaker c/b9 \(and 1 more speaker\)"):
        held_out.refuse_speakers(["c/b10", "c/b9"], "the model has seen")
    with pytest.raises(RequestError, match="training would use the test recording c/1"):
        held_out.refuse_recordings(["c/1"], "training")
    NO_TEST_SET.refuse_speakers(["c/a"], "anything has seen")


@pytest.mark.parametrize(
    ("seen", "tested", "maybe"),
    [
        ([], ["c/a"], False),
        (["c/b"], ["c/a"], False),
        (["c/unknown"], ["c/a"], True),
        (["d/Unknown"], ["c/a"], False),
        (["unknown"], ["c/a"], True),
    ],
)
def test_unknown_speakers_may_be_anybody_of_their_corpus(seen: list[str], tested: list[str], maybe: bool) -> None:
    assert maybe_seen(seen, tested) is maybe
