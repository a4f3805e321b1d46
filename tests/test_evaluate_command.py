"""`gmp-atl evaluate`: a finished model on a corpus that it was not trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gmp_atl_hf.cli.verbs import main
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.evaluation.metrics import emotion_metrics
from gmp_atl_hf.files import write_known
from gmp_atl_hf.run import evaluate, own_model
from gmp_atl_hf.run.evaluate import evaluate_model
from runs import (
    EMOTIONS,
    SPEAKER_PATTERN,
    SPLIT,
    SPLIT_EMOTION_PATTERN,
    digests,
    given_split,
    read_json,
    read_lines,
    run,
    write_corpus,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of fine-tuning alone and its model; must not be changed."""
    root = write_corpus(tmp_path_factory.mktemp("corpus") / "split", split=SPLIT)
    folder = tmp_path_factory.mktemp("finished") / "run"
    run(given_split(root, variants=["direct"]), folder)
    return folder


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six speakers that the model was not trained on."""
    return write_corpus(tmp_path_factory.mktemp("others"), speakers=("f7", "f8", "f9", "m7", "m8", "m9"), first=6)


def corpus_of(root: Path, **options: Any) -> dict[str, Any]:
    return {"name": "folder", "root": str(root), "speaker": SPEAKER_PATTERN, **options}


def test_new_speakers_are_tested_and_the_numbers_are_those_of_the_predictions(
    finished: Path, others: Path, tmp_path: Path
) -> None:
    report = evaluate_model(finished / "model", corpus_of(others), output_dir=tmp_path / "out")
    summary = report["variants"]["model"]
    rows = read_lines(tmp_path / "out/model/seed-0/fold-01/predictions.jsonl")
    true, guess = ([EMOTIONS.index(row[key]) for row in rows] for key in ("emotion", "predicted"))
    for metric, value in emotion_metrics(true, guess, 3).items():
        assert summary[metric]["pooled"] == pytest.approx(value)
    assert len(rows) == summary["utterances"] == 36
    assert summary["uar_ci95"] is not None and summary["gender_gap"]["ci95"] is not None
    assert summary["calibration"]["ece"] is not None
    assert report["stamps"] == []
    assert report["name"] == "run/model on folder"
    assert report["protocol"]["sentence"].startswith(
        "the finished model run/model, trained on 4 speakers of folder, tested once on folder: 6 speakers"
    )
    assert read_json(tmp_path / "out/report.json") == report
    assert (tmp_path / "out/report.html").is_file()


def test_one_new_speaker_is_no_speakers(finished: Path, tmp_path: Path) -> None:
    report = evaluate_model(finished / "model", corpus_of(write_corpus(tmp_path / "one", ["f9"], first=6)))
    assert report["protocol"]["sentence"].endswith(": 1 speaker, whom it is not known to have been trained on.")


def test_a_speaker_that_the_model_has_seen_is_refused_by_name(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_corpus(tmp_path / "same")
    words = ["evaluate", str(finished / "model"), "--corpus", "folder", "--root", str(root)]
    words += ["--options", f"speaker={json.dumps(SPEAKER_PATTERN)}"]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "has seen the test speaker folder/f1 (and 3 more speakers)" in error
    assert "--unseen-only" in error
    assert main([*words, "--unseen-only", "--json", "--output-dir", str(tmp_path / "out")]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report["variants"]["model"]["per_speaker"]) == {"folder/f3", "folder/m3"}
    assert report["left_out"] == {"the model has seen the speaker": 24}
    listed = read_lines(tmp_path / "out/left_out.jsonl")
    tested = read_lines(tmp_path / "out/model/seed-0/fold-01/predictions.jsonl")
    assert len({one["file"] for one in listed}) == 24
    assert {one["file"] for one in listed}.isdisjoint(one["id"] for one in tested)


def test_recordings_that_are_windows_elsewhere_are_counted(
    finished: Path, others: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["evaluate", str(finished / "model"), "--corpus", "folder", "--root", str(others), "--json"]
    words += ["--options", f"speaker={json.dumps(SPEAKER_PATTERN)}"]
    for seconds, counts in ((0.01, [36]), (60.0, [])):
        monkeypatch.setattr(own_model, "LONGEST_SECONDS", seconds)
        assert main(words) == 0
        notes = json.loads(capsys.readouterr().out)["notes"]
        told = [note for note in notes if "in one piece each" in note]
        assert told == [
            f"{count} recordings longer than {seconds:g} s: tested in one piece each, as in a run. "
            "SpeechEmotionClassifier and `gmp-atl predict` score such recordings in windows."
            for count in counts
        ]


def test_words_of_the_corpus_are_mapped_and_strange_ones_refused(
    finished: Path, others: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "renamed"
    for source, name in (("anger", "wrath"), ("neutral", "neutral"), ("sadness", "boredom")):
        for file in (others / source).iterdir():
            target = root / name / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    words = ["evaluate", str(finished / "model"), "--corpus", "folder", "--root", str(root)]
    words += ["--options", f"speaker={json.dumps(SPEAKER_PATTERN)}"]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "boredom (12), wrath (12), which the model does not tell" in error
    assert "anger, neutral, sadness" in error
    assert "--labels boredom=null" in error
    assert main([*words, "--labels", "wrath=ire", "neutral=neutral", "boredom=null"]) == 2
    assert "--labels wrath=null" in capsys.readouterr().err
    assert main([*words, "--labels", "wrath=angr", "neutral=neutral", "boredom=null"]) == 2
    assert "--labels wrath=anger, or wrath=null" in capsys.readouterr().err
    assert main([*words, "--labels", "wrath=anger", "neutral=neutral", "boredom=null", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    summary = report["variants"]["model"]
    assert summary["absent_labels"] == ["sadness"]
    assert (summary["utterances"], summary["chance_uar"]) == (24, 0.5)
    assert report["left_out"] == {"label boredom dropped by the label map": 12}
    assert "wrath → anger" in " ".join(report["notes"])
    assert "one emotion" not in report["protocol"]["sentence"]
    assert main([*words, "--labels", "wrath=anger,neutral=null,boredom=null", "--json"]) == 0
    assert "All recordings are of one emotion" in json.loads(capsys.readouterr().out)["protocol"]["sentence"]


def test_one_part_of_a_corpus_with_a_split_is_tested_alone(finished: Path, tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "corpus", split=SPLIT)
    corpus = {**corpus_of(root), "speaker": SPLIT_EMOTION_PATTERN}
    report = evaluate_model(finished / "model", corpus, split="test")
    before = read_json(finished / "report.json")["variants"]["direct"]
    # Fine-tuning's own test, made again from the shipped model.
    assert report["variants"]["model"]["uar"]["pooled"] == before["uar"]["pooled"]
    assert report["variants"]["model"]["confusion"] == before["confusion"]


def test_what_is_no_emotion_classifier_of_ours_is_refused(
    finished: Path, others: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--corpus", "folder", "--root", str(others), "--options", f"speaker={json.dumps(SPEAKER_PATTERN)}"]
    assert main(["evaluate", str(finished / "backbone/seed-0"), *words]) == 2
    assert "no fine-tuned emotion classifier" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path / "nowhere"), *words]) == 2


def test_a_test_is_not_written_among_a_models_files_or_recordings(finished: Path, others: Path) -> None:
    corpus = corpus_of(others)
    for folder, said in ((finished / "model", "is the folder of a model"), (others, "is the folder of the corpus")):
        before = digests(folder)
        with pytest.raises(RequestError, match=said):
            evaluate_model(finished / "model", corpus, output_dir=folder)
        assert digests(folder) == before


def test_a_report_of_something_else_is_not_replaced(
    finished: Path, others: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, corpus = tmp_path / "out", corpus_of(others)
    report = evaluate_model(finished / "model", corpus, output_dir=out)
    monkeypatch.chdir(finished)
    again = evaluate_model("model", corpus, batch_size=3, output_dir=out)  # the same test by another path
    assert again["variants"]["model"]["uar"] == report["variants"]["model"]["uar"]
    before = digests(out)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something is computed")

    monkeypatch.setattr(evaluate, "_open", refuse)
    for changed, said in (
        ({"labels": {"anger": None}}, "labels: null → "),
        ({"unseen_only": True}, "unseen_only: false → true"),
        ({"corpus": corpus_of(others, corpus_name="theirs")}, "corpus.corpus_name: nothing → theirs"),
        ({"model": finished / "gmp-atl"}, f"model: {finished / 'model'} → {finished / 'gmp-atl'}"),
    ):
        with pytest.raises(RequestError, match="holds a test of") as refused:
            evaluate_model(**{"model": finished / "model", "corpus": corpus, "output_dir": out, **changed})
        assert said in refused.value.found and refused.value.fix == f"choose another --output-dir, or delete {out}"
    words = ["evaluate", str(finished / "model"), "--corpus", "folder", "--root", str(others), "--output-dir"]
    assert main([*words, str(out), "--options", "speaker=parent"]) == 2
    said = f"holds a test of {finished / 'model'} that was made from other settings: corpus.speaker: "
    assert said in capsys.readouterr().err
    assert digests(out) == before
    for damage in ("{}", "{", "[]", '{"settings": 3}', '{"settings": {"model": "m"}}'):
        write_known(out / "model/seed-0/fold-01", {"metrics.json": damage})
        with pytest.raises(
            RequestError, match="earlier version|nobody can say what was tested|made from other settings"
        ):
            evaluate_model(finished / "model", corpus, output_dir=out)
    (out / "model/seed-0/fold-01/metrics.json").unlink()
    with pytest.raises(RequestError, match="a report of something else"):
        evaluate_model(finished / "model", corpus, output_dir=out)
    with pytest.raises(RequestError, match="is the folder of a run"):
        evaluate_model(finished / "model", corpus, output_dir=finished)
