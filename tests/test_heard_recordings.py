"""What a model was trained or chosen on is known by its samples, whatever it is called where the model is tested."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from gmp_atl_hf.checkpoints import heard_recordings
from gmp_atl_hf.cli.verbs import main
from gmp_atl_hf.data.table import read_corpora
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.pretraining.probe import probe_model
from gmp_atl_hf.recipe.recipe import Recipe
from gmp_atl_hf.run.evaluate import evaluate_model
from gmp_atl_hf.run.plan import plan_run
from runs import SPLIT, given_split, read_json, read_lines, run, write_corpus

FILE = "heard_recordings.json"
HEARD_PARTS = ("train", "dev")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six speakers in a folder for each part; must not be changed."""
    return write_corpus(tmp_path_factory.mktemp("corpus"), split=SPLIT)


@pytest.fixture(scope="module")
def finished(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the whole method on it; must not be changed."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    run(given_split(corpus), folder)
    return folder


@pytest.fixture(scope="module")
def table(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same recordings as somebody else lists them: other names, another reader; must not be changed."""
    folder = tmp_path_factory.mktemp("table")
    lines = ["file,emotion,speaker"]
    for number, file in enumerate(sorted(corpus.rglob("*.wav"))):
        shutil.copy(file, folder / f"{number:03d}.wav")
        lines.append(f"{number:03d}.wav,{file.parent.name},someone {file.name[:2]}")
    (folder / "mine.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "mine.csv"


def shipped(finished: Path, folder: Path, *names: str) -> Path:
    """The model as it is after it was sent to somebody, with some of its files."""
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "preprocessor_config.json", *names):
        shutil.copy(finished / "model" / name, folder / name)
    return folder


def test_every_model_of_a_run_has_short_hashes_of_what_it_was_trained_and_chosen_on(
    corpus: Path, finished: Path
) -> None:
    recipe = given_split(corpus)
    read = read_corpora([recipe["corpus"]])
    parts = zip(read.table["id"], read.table["split"], strict=True)
    expected = sorted(read.digests[one][:16] for one, part in parts if part in HEARD_PARTS)
    fold = finished / "gmp-atl/seed-0/fold-01"
    for place in (fold / "1-multitask", fold / "3-retrain", fold / "4-finetune", finished / "model"):
        assert read_json(place / FILE) == {"format_version": 1, "recordings": expected}
        assert FILE in read_json(place / "step.json")["files"]
    assert len(set(expected)) == 24 and heard_recordings(fold / "2-pseudo-labels") == set()


def test_the_same_recordings_under_other_names_are_refused_and_left_out_where_that_is_asked_for(
    finished: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shipped(finished, tmp_path / "copy", FILE)
    words = ["evaluate", str(model), "--corpus", "csv", "--root", str(table)]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "trained or chosen on 24 recordings of this corpus" in error
    assert "csv/000.wav, csv/001.wav" in error and "and 19 more" in error and "--unseen-only" in error
    assert "24 of the 36 recordings to test on are among them or of their speakers" in error
    assert main([*words, "--unseen-only", "--json", "--output-dir", str(tmp_path / "out")]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report["variants"]["model"]["per_speaker"]) == {"csv/someone f3", "csv/someone m3"}
    assert report["left_out"] == {"the model has heard the speaker, under this name or another": 24}
    assert len(read_lines(tmp_path / "out/left_out.jsonl")) == 24


def test_of_a_speaker_who_was_heard_no_other_recording_is_tested_and_of_nobody_only_what_was_heard(
    finished: Path, table: Path, tmp_path: Path
) -> None:
    def tested(speaker: str, file: Path) -> int:
        rows = table.read_text(encoding="utf-8").splitlines()
        # One heard recording and all unheard ones, of one person.
        others = [row.rpartition(",")[0] for row in rows[1:] if row.endswith(("f3", "m3"))]
        listed = [rows[0], *(f"{row},{speaker}" for row in ["000.wav,anger", *others])]
        file.write_text("\n".join(listed) + "\n", encoding="utf-8")
        report = evaluate_model(finished / "model", {"name": "csv", "root": str(file)}, unseen_only=True)
        return int(report["variants"]["model"]["utterances"])

    assert tested("unknown", table.with_name("nobody.csv")) == 12
    with pytest.raises(RequestError, match="recordings of every speaker of this test"):
        tested("one person", table.with_name("one.csv"))


def test_a_model_without_the_list_is_tested_as_it_was_before(finished: Path, table: Path, tmp_path: Path) -> None:
    model = shipped(finished, tmp_path / "older")
    report = evaluate_model(model, {"name": "csv", "root": str(table)})
    assert report["variants"]["model"]["utterances"] == 36
    assert "none of whom it is known to have been trained on" in report["protocol"]["sentence"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"format_version": 2, "recordings": []}', "has the format version 2.* update gmp-atl-hf"),
        ('{"format_version": 1, "recordings": [1]}', "holds no list of hashes"),
        ('{"format_version": 1}', "heard_recordings.json of .* cannot be read"),
        ('{"format_version": 1, "reco', "is no JSON"),
    ],
)
def test_a_list_that_cannot_be_read_is_refused_before_the_corpus_is(
    content: str, said: str, finished: Path, tmp_path: Path
) -> None:
    model = shipped(finished, tmp_path / "copy", FILE)
    (model / FILE).write_text(content, encoding="utf-8")
    with pytest.raises(RequestError, match=f"(?s){said}"):
        evaluate_model(model, {"name": "csv", "root": "nowhere"})


def test_a_model_knows_what_the_one_it_began_with_has_heard_and_nothing_of_what_was_not_decoded(
    finished: Path, tmp_path: Path
) -> None:
    split = {"f7": "train", "m7": "train", "f8": "dev", "m8": "test"}
    root = write_corpus(tmp_path / "others", speakers=split, split=split, first=6)
    recipe = given_split(root, backbone=str(finished / "model"), variants=["direct"])
    recipe["corpus"]["check_audio"] = False
    run(recipe, tmp_path / "run")
    assert heard_recordings(tmp_path / "run/model") == heard_recordings(finished / "model")
    recipe["corpus"]["check_audio"] = True
    run(recipe, tmp_path / "checked")
    assert len(heard_recordings(tmp_path / "checked/model") - heard_recordings(finished / "model")) == 18


def test_a_speaker_who_was_heard_in_one_part_of_a_split_is_not_tested_in_another(finished: Path, table: Path) -> None:
    rows = [row.split(",") for row in table.read_text(encoding="utf-8").splitlines()[1:]]
    heard = next(row for row in rows if not row[2].endswith(("f3", "m3")))
    unheard = [row for row in rows if row[2].endswith(("f3", "m3"))]
    lines = [f"{heard[0]},{heard[1]},somebody,train"]
    lines += [f"{file},{emotion},{'somebody' if who.endswith('f3') else who},test" for file, emotion, who in unheard]
    file = table.with_name("parts.csv")
    file.write_text("\n".join(["file,emotion,speaker,split", *lines]) + "\n", encoding="utf-8")
    corpus = {"name": "csv", "root": str(file)}
    with pytest.raises(RequestError, match="6 of the 12 recordings to test on are among them or of their speakers"):
        evaluate_model(finished / "model", corpus, split="test")
    report = evaluate_model(finished / "model", corpus, split="test", unseen_only=True)
    assert set(report["variants"]["model"]["per_speaker"]) == {"csv/someone m3"}


def test_a_run_and_a_probe_on_an_encoder_that_has_heard_the_test_are_refused(
    finished: Path, table: Path, tmp_path: Path
) -> None:
    said = "trained or chosen on 24 recordings of this corpus"
    recipe = given_split(table, backbone=str(finished / "model"), variants=["direct"])
    recipe["corpus"] = {"name": "csv", "root": str(table)}
    recipe["protocol"] = {"kind": "leave-one-speaker-out"}
    with pytest.raises(RequestError, match=f"the backbone .*/model was {said}"):
        plan_run(Recipe.from_dict(recipe), tmp_path / "run")
    with pytest.raises(RequestError, match=f"the encoder .*/model was {said}"):
        probe_model(finished / "model", {"name": "csv", "root": str(table)})


def test_whether_the_hub_has_a_list_is_known_or_said_to_be_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = sys.modules["gmp_atl_hf.checkpoints.heard_recordings"]
    ours, nobody = SimpleNamespace(model_type="gmp_atl"), SimpleNamespace(model_type="hubert")
    absent, unreachable = EntryNotFoundError("no such file"), LocalEntryNotFoundError("no connection")

    def answers(config: Any, error: Exception, kept: Any = None) -> None:
        def download(*_: Any) -> str:
            raise error

        monkeypatch.setattr(module, "read_config", lambda _: config)
        monkeypatch.setattr(module, "hf_hub_download", download)
        monkeypatch.setattr(module, "try_to_load_from_cache", lambda *_: kept)
        monkeypatch.setattr(module.Adapter, "find", lambda _: None)

    answers(nobody, AssertionError("the Hub is asked for an encoder of somebody else"))
    assert heard_recordings("somebody/encoder") == frozenset()
    answers(ours, absent)
    assert heard_recordings("somebody/model") == frozenset()
    answers(ours, unreachable, kept=object())  # known from before to be absent
    assert heard_recordings("somebody/model") == frozenset()
    answers(ours, unreachable)
    with pytest.raises(RequestError, match="nobody knows whether somebody/model has a list") as refused:
        heard_recordings("somebody/model")
    assert "connect to the Hub" in refused.value.fix
