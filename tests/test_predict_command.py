"""`gmp-atl predict`: what it prints, where, and with which exit status."""

from __future__ import annotations

import csv
import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audio_files import RATE, encoded, tone, write_audio
from classifiers import alone
from gmp_atl_hf import HubertForGMPATL, SpeechEmotionClassifier
from gmp_atl_hf.checkpoints import default_feature_extractor
from gmp_atl_hf.cli.predict import format_predictions
from gmp_atl_hf.cli.verbs import main
from gmp_atl_hf.inference.predictions import Prediction, WindowScores
from models import EMOTIONS, build
from runs import digests

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    built = build(HubertForGMPATL)
    built.save_pretrained(folder)
    default_feature_extractor(built.config).save_pretrained(folder)
    return folder


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    for number, name in enumerate(("b.wav", "a/ä c.flac", "a/d.wav")):
        write_audio(tmp_path / "in" / name, tone(8_000 + 100 * number, 100 * (number + 1)))
    return tmp_path / "in"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], model: Path) -> Run:
    def perform(*words: object) -> tuple[int, str, str]:
        status = main(["predict", str(model), *map(str, words)])
        return status, *capsys.readouterr()

    return perform


def test_the_table_has_a_line_for_each_recording_and_aligned_columns(run: Run, recordings: Path):
    status, out, err = run(recordings)
    assert status == 0
    header, *lines = out.splitlines()
    assert header.split() == ["file", "seconds", "label", *EMOTIONS]
    assert [line[: header.index("seconds")].strip() for line in lines] == sorted(map(str, recordings.rglob("*.*")))
    for line in lines:
        *_, label, a, b, c, d = line.split()
        scores = dict(zip(EMOTIONS, map(float, (a, b, c, d)), strict=True))
        assert label == max(scores, key=scores.__getitem__)
        assert len(line) == len(header)
    assert "predict: 100%" in err
    assert "Traceback" not in err


def test_options_may_stand_between_the_model_and_the_recordings(
    model: Path, recordings: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["predict", str(model), "--format", "jsonl", str(recordings)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_jsonl_is_an_object_for_each_input_with_the_scores_of_the_classifier(run: Run, recordings: Path, model: Path):
    status, out, _ = run(recordings / "b.wav", recordings / "a", recordings / "b.wav", "--format", "jsonl")
    assert status == 0
    rows = [json.loads(line) for line in out.splitlines()]
    files = [recordings / "b.wav", recordings / "a/d.wav", recordings / "a/ä c.flac", recordings / "b.wav"]
    assert [row["file"] for row in rows] == list(map(str, files))
    classifier = SpeechEmotionClassifier.from_pretrained(model)
    for row, file in zip(rows, files, strict=True):
        prediction = classifier(file)
        assert isinstance(prediction, Prediction)
        assert row["scores"] == pytest.approx(prediction.scores, abs=1e-4)
        assert (row["label"], row["seconds"]) == (prediction.label, prediction.seconds)
        assert (row["windows"], row["error"]) == (None, None)


def test_csv_has_a_column_for_each_label(run: Run, recordings: Path):
    status, out, _ = run(recordings, "--format", "csv")
    assert status == 0
    rows = list(csv.DictReader(out.splitlines()))
    assert list(rows[0]) == ["file", "seconds", "label", *EMOTIONS, "error"]
    assert len(rows) == 3
    for row in rows:
        assert sum(float(row[label]) for label in EMOTIONS) == pytest.approx(1)


def test_each_folder_is_a_speaker_to_adapt_to_and_rows_say_so(
    adaptable: Path, recordings: Path, capsys: pytest.CaptureFixture[str]
):
    command = ["predict", str(adaptable), str(recordings), "--speakers", "parent", "--format"]
    assert main([*command, "jsonl"]) == 0
    out, err = capsys.readouterr()
    assert "adapted to each speaker's unlabelled recordings: 2 speakers" in err
    found = {Path(row["file"]).name: row for row in map(json.loads, out.splitlines())}
    assert {name: row["speaker_clips"] for name, row in found.items()} == {"b.wav": 1, "ä c.flac": 2, "d.wav": 2}
    assert found["d.wav"]["speaker"] == str(recordings / "a")
    classifier = SpeechEmotionClassifier.from_pretrained(adaptable)
    wanted = classifier(recordings / "a/d.wav", speaker=classifier.adapt(recordings / "a"))
    assert found["d.wav"]["scores"] == pytest.approx(wanted.scores, abs=1e-5)
    assert main([*command, "csv"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["speaker_clips"] for row in rows] == ["2", "2", "1"]
    assert main([*command, "table"]) == 0
    assert capsys.readouterr().out.splitlines()[1].endswith("2 of the speaker")


@pytest.mark.parametrize("by", ["parent", "caller"])
def test_a_speaker_none_of_whose_recordings_can_be_read_is_not_counted(
    adaptable: Path, recordings: Path, by: str, capsys: pytest.CaptureFixture[str]
):
    (recordings / "b.wav").write_bytes(b"no sound")
    table = recordings / "calls.csv"
    table.write_text("caller;file\nanna;b.wav\nben;a/d.wav\nben;a/ä c.flac\n", encoding="utf-8")
    paths = [str(recordings / "b.wav"), str(recordings / "a")] if by == "parent" else [str(table)]
    assert main(["predict", str(adaptable), *paths, "--speakers", by]) == 1
    assert "recordings: 1 speaker, by" in capsys.readouterr().err


def test_folders_of_one_name_are_different_people_and_that_is_said_once(
    adaptable: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for place in ("anger/11", "anger/12", "neutral/11", "neutral/13"):
        write_audio(tmp_path / "in" / place / "x.wav", tone())
    options = ["--speakers", "parent", "--format", "jsonl"]
    folders = [str(tmp_path / "in" / name) for name in ("anger", "neutral")]
    assert main(["predict", str(adaptable), *folders, *options]) == 0
    out, err = capsys.readouterr()
    shared = [str(tmp_path / "in" / name / "11") for name in ("anger", "neutral")]
    assert err.count("11 is the name of 2 folders, which are taken as different people: " + ", ".join(shared)) == 1
    assert "--speakers COLUMN" in err
    assert [json.loads(line)["speaker_clips"] for line in out.splitlines()] == [1, 1, 1, 1]
    assert main(["predict", str(adaptable), folders[0], *options]) == 0
    assert "different people" not in capsys.readouterr().err


@pytest.fixture
def adaptable(tmp_path: Path) -> Path:
    built = build(HubertForGMPATL, standardize=True)
    built.standardization.emotion_means.fill_(0.1)
    built.save_pretrained(tmp_path / "adaptable")
    default_feature_extractor(built.config).save_pretrained(tmp_path / "adaptable")
    return tmp_path / "adaptable"


def test_a_column_of_a_table_may_say_whose_recordings_are(
    adaptable: Path, recordings: Path, capsys: pytest.CaptureFixture[str]
):
    table = recordings / "calls.csv"
    table.write_text("caller;file\nanna;b.wav\nben;a/ä c.flac\nanna;a/d.wav\n", encoding="utf-8")
    command = ["predict", str(adaptable), str(table), "--format", "jsonl", "--speakers"]
    assert main([*command, "caller"]) == 0
    out, err = capsys.readouterr()
    assert "2 speakers, by the column caller" in err
    rows = list(map(json.loads, out.splitlines()))
    assert [(row["speaker"], row["speaker_clips"]) for row in rows] == [("anna", 2), ("ben", 1), ("anna", 2)]
    assert rows[0]["file"] == str(recordings / "b.wav")
    table.write_text("caller,file\n,b.wav\n", encoding="utf-8")
    for column, message in (("caller", "line 2 of .* names no speaker"), ("voice", "no column voice")):
        assert main([*command, column]) == 2
        assert re.search(message, capsys.readouterr().err)
    for head, column, fix in (
        ("caller,file", "callr", "did you mean `--speakers caller`?"),
        ("caller,file", "who", "did you mean `--speakers caller`?"),  # there is no other
        ("caller,room,file", "who", "give --speakers one of its columns"),
        ("caller,path", "callr", "rename its headings"),
    ):
        table.write_text(f"{head}\n", encoding="utf-8")
        assert main([*command, column]) == 2
        assert fix in capsys.readouterr().err
    assert main(["predict", str(adaptable), str(recordings), "--speakers", "caller"]) == 2
    assert "is no table" in capsys.readouterr().err


def test_rows_of_a_table_may_be_segments_of_a_file(
    adaptable: Path, recordings: Path, capsys: pytest.CaptureFixture[str]
):
    file, table = recordings / "b.wav", recordings / "calls.csv"
    command = ["predict", str(adaptable), str(table), "--format", "jsonl", "--speakers", "caller"]
    table.write_text("file,start,end,caller\nb.wav,0,0.2,anna\nb.wav,0.2,,ben\nb.wav,0.3,9,ben\n", encoding="utf-8")
    assert main(command) == 1
    out, err = capsys.readouterr()
    rows = list(map(json.loads, out.splitlines()))
    assert [row["file"] for row in rows] == [f"{file}#t=0,0.2", f"{file}#t=0.2", f"{file}#t=0.3,9"]
    assert [row["seconds"] for row in rows[:2]] == [0.2, 0.3]
    assert rows[0]["scores"] != rows[1]["scores"]
    assert [row.get("speaker_clips") for row in rows] == [1, 1, None]
    assert "its segment is from 0.3 s to 9 s" in err
    assert "where they mean something else: give the column another name" in err
    write_audio(recordings / "cut.wav", tone(8_000, 100)[:3_200])
    classifier = SpeechEmotionClassifier.from_pretrained(adaptable)
    wanted = classifier(recordings / "cut.wav", speaker=classifier.adapt([recordings / "cut.wav"]))
    assert rows[0]["scores"] == pytest.approx(wanted.scores, abs=1e-4)
    table.write_text("file,start,end,caller\n" + "b.wav,0,0.2,anna\n" * 2 + "b.wav,0.3,0.1,anna\n", encoding="utf-8")
    assert main(command) == 1
    out, err = capsys.readouterr()
    clips = [json.loads(line).get("speaker_clips") for line in out.splitlines()]
    assert clips == [1, 1, None], "a segment that is listed twice counts once"
    assert f"line 4 of {table}: its segment ends before it begins" in err
    table.write_text("file,start,start,caller\nb.wav,0,0.2,anna\n", encoding="utf-8")
    assert main(command) == 2
    assert "has two columns start" in capsys.readouterr().err
    for head, value, said in (("start", "soon", "line 2 of .*: start is 'soon'"), ("start_ms", "200", "in seconds")):
        table.write_text(f"file,{head},caller\nb.wav,{value},anna\n", encoding="utf-8")
        assert main(command) == 2
        err = capsys.readouterr().err
        assert re.search(said, err)
        assert "give the column another name" in err


def test_recordings_of_unknown_speakers_are_scored_as_they_are_and_names_of_two_tables_are_two_people(
    adaptable: Path, recordings: Path, capsys: pytest.CaptureFixture[str]
):
    files = ("b.wav", "a/ä c.flac", "a/d.wav")
    lines = {
        "one.csv": [("anna", files[0]), ("Unknown", files[1]), ("unknown", files[2])],
        "two.csv": [("anna", files[2])],
    }
    for name, rows in lines.items():
        text = "".join(f"{who},{file}\n" for who, file in rows)
        (recordings / name).write_text(f"caller,file\n{text}", encoding="utf-8")
    tables = [str(recordings / name) for name in lines]
    assert main(["predict", str(adaptable), *tables, "--format", "jsonl", "--speakers", "caller"]) == 0
    out, err = capsys.readouterr()
    assert "2 speakers, by the column caller" in err
    assert "2 recordings of unknown speakers: adapted to nobody" in err
    assert "anna, named in several tables, is taken as different people in each" in err
    found = list(map(json.loads, out.splitlines()))
    assert [row["speaker"] for row in found] == ["anna", "Unknown", "unknown", "anna"]
    assert [row.get("speaker_clips") for row in found] == [1, None, None, 1]
    classifier = SpeechEmotionClassifier.from_pretrained(adaptable)
    assert found[2]["scores"] == pytest.approx(classifier(recordings / files[2]).scores, abs=1e-6)
    adapted = classifier(recordings / files[2], speaker=classifier.adapt(recordings / files[2]))
    assert found[3]["scores"] == pytest.approx(adapted.scores, abs=1e-5)


def test_a_recording_that_is_given_twice_counts_once_for_its_speaker(
    adaptable: Path, recordings: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(recordings)
    (recordings / "linked").symlink_to(recordings / "a")
    first, second = "a/ä c.flac", str(recordings / "a/d.wav")

    def rows(*words: str) -> list[dict[str, Any]]:
        assert main(["predict", str(adaptable), *words, "--format", "jsonl"]) == 0
        out, err = capsys.readouterr()
        assert ": 1 speaker, by" in err and "different people" not in err
        return list(map(json.loads, out.splitlines()))

    once = rows("a", "--speakers", "parent")
    found = rows(first, second, "linked/d.wav", "a", "--speakers", "parent")
    assert [row["file"] for row in found] == [first, second, "linked/d.wav", "a/d.wav", "a/ä c.flac"]
    assert {(row["speaker"], row["speaker_clips"]) for row in found} == {("a", 2)}
    for row in found:
        (same,) = (one for one in once if Path(one["file"]).name == Path(row["file"]).name)
        assert row["scores"] == pytest.approx(same["scores"], abs=1e-6)
    lines = [first, first, second]
    Path("calls.csv").write_text("caller,file\n" + "".join(f"anna,{file}\n" for file in lines), encoding="utf-8")
    found = rows("calls.csv", str(recordings / "calls.csv"), "--speakers", "caller")
    assert [row["speaker_clips"] for row in found] == [2] * 6
    classifier = SpeechEmotionClassifier.from_pretrained(adaptable)
    assert classifier.adapt([first, recordings / first, second, recordings / "a"]).clips == 2


def test_a_speaker_who_is_spelt_in_two_ways_is_one_and_nobody_is_none(
    adaptable: Path, recordings: Path, capsys: pytest.CaptureFixture[str]
):
    table, files = recordings / "calls.csv", ("b.wav", "a/d.wav", "a/ä c.flac")
    command = ["predict", str(adaptable), str(table), "--format", "jsonl", "--speakers", "caller"]

    def write(*names: str) -> None:
        rows = "".join(f"{name},{file}\n" for name, file in zip(names, files, strict=False))
        table.write_text(f"caller,file\n{rows}", encoding="utf-8")

    write("Jos\u00e9", "Jose\u0301", " JOS\u00c9")
    assert main(command) == 0
    out, err = capsys.readouterr()
    rows = list(map(json.loads, out.splitlines()))
    assert [(row["speaker"], row["speaker_clips"]) for row in rows] == [("Jos\u00e9", 3)] * 3
    assert "spelt in two ways are one speaker's" in err and "1 speaker, by" in err
    for nobody in ("nan", "None", "N/A"):
        write("anna", nobody)
        assert main(command) == 2
        assert re.search(r"line 3 of .* names no speaker(.|\n)*is called unknown", capsys.readouterr().err)
    table.write_text("caller,file,since\nanna,b.wav,0\nben,b.wav,2\n", encoding="utf-8")
    assert main(command) == 2
    assert "all of b.wav is ben's, and in another row anna's" in capsys.readouterr().err


def test_what_is_read_is_not_written_over(
    adaptable: Path, recordings: Path, run: Run, capsys: pytest.CaptureFixture[str]
):
    table = recordings / "calls.csv"
    table.write_text("caller,file\nanna,b.wav\n", encoding="utf-8")
    before = digests(recordings)
    (recordings.parent / "link.csv").symlink_to(table)
    for output in (table, recordings.parent / "link.csv"):
        command = ["predict", str(adaptable), str(table), "--speakers", "caller", "--output", str(output)]
        assert main(command) == 2
        assert "is what is read" in capsys.readouterr().err
    for words in ((recordings / "b.wav",), (recordings,)):
        status, _, err = run(*words, "--output", recordings / "b.wav")
        assert status == 2 and ("is what is read" in err or "has the name of a recording" in err)
    assert digests(recordings) == before


def test_a_name_that_a_terminal_would_obey_is_shown_as_a_code(run: Run, tmp_path: Path):
    path = write_audio(tmp_path / "a\nb\x1b[2J.wav", RATE)
    _, table, _ = run(path)
    assert "a\\nb\\x1b[2J.wav" in table and len(table.splitlines()) == 2


def test_folders_that_links_lead_to_are_scored_as_well(
    run: Run, recordings: Path, tmp_path_factory: pytest.TempPathFactory
):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write_audio(elsewhere / "e.wav")
    (recordings / "linked").symlink_to(elsewhere)
    status, out, _ = run(recordings, "--format", "csv")
    assert status == 0 and str(recordings / "linked/e.wav") in out


def test_a_model_that_cannot_be_adapted_is_refused(run: Run, recordings: Path):
    status, _, err = run(recordings, "--speakers", "parent")
    assert status == 2 and "standardize: false" in err


def test_windows_are_lines_of_the_table_rows_of_csv_and_a_list_in_jsonl(run: Run, tmp_path: Path):
    path = write_audio(tmp_path / "x.wav", int(2.5 * RATE))
    windows = (path, "--window", 1, "--hop", 0.5)
    times = [(0, 1), (0.5, 1.5), (1, 2), (1.5, 2.5)]
    _, table, _ = run(*windows)
    assert [line.split()[:3] for line in table.splitlines()[2:]] == [[f"{a:.2f}", "to", f"{b:.2f}"] for a, b in times]
    _, text, _ = run(*windows, "--format", "csv")
    rows = list(csv.DictReader(text.splitlines()))
    assert list(rows[0]) == ["file", "start", "end", "label", *EMOTIONS, "error"]
    assert [(float(row["start"]), float(row["end"])) for row in rows] == times
    _, text, _ = run(*windows, "--format", "jsonl")
    [row] = map(json.loads, text.splitlines())
    assert [(one["start"], one["end"]) for one in row["windows"]] == times
    assert row["windows"][2]["scores"]["anger"] == pytest.approx(float(rows[2]["anger"]), abs=1e-4)


def test_a_bad_file_is_told_on_stderr_and_sets_status_1_while_the_others_are_scored(run: Run, recordings: Path):
    (recordings / "broken.wav").write_text("no audio")
    (recordings / "notes.txt").write_text("no audio")
    status, out, err = run(recordings, "--format", "jsonl", "--batch-seconds", 2)
    assert status == 1
    rows = {Path(row["file"]).name: row for row in map(json.loads, out.splitlines())}
    assert len(rows) == 4
    assert [name for name, row in rows.items() if row["error"]] == ["broken.wav"]
    assert all(row["label"] in EMOTIONS for name, row in rows.items() if name != "broken.wav")
    assert f"{recordings / 'broken.wav'} is not audio" in err
    assert "1 of 4 recordings could not be scored" in err
    assert "passed over: " + str(recordings / "notes.txt") in err
    for format in ("table", "csv"):
        status, out, _ = run(recordings, "--format", format)
        assert status == 1
        assert len(out.splitlines()) == 5
    assert run(recordings / "broken.wav")[0] == 1


def test_wrong_requests_end_with_status_2_before_a_model_is_loaded(
    run: Run, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(SpeechEmotionClassifier, "from_pretrained", None)
    (tmp_path / "void").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/x.txt").touch()
    (tmp_path / "calls.csv").touch()
    good = recordings / "b.wav"
    for words, message in [
        ([], "fix: gmp-atl predict MODEL PATH; see gmp-atl predict --help"),
        ([tmp_path / "no.wav", good], f"there is nothing at {tmp_path / 'no.wav'}"),
        (["-"], "use /dev/stdin"),
        ([good, tmp_path / "*.wav"], "without quotes"),
        ([good, tmp_path / "void"], "void holds no recordings"),
        ([tmp_path / "texts"], "texts holds no recordings (1 other file)"),
        ([good, tmp_path / "calls.csv"], f"{tmp_path / 'calls.csv'} is a table, no recording"),
        ([tmp_path / "calls.csv", "--speakers", "parent"], "add --speakers COLUMN"),
        ([good, "--hop", 1], "no window"),
        ([good, "--window", 1, "--hop", 0.00001], "at least 0.0000625 (one sample)"),
        ([good, "--output", tmp_path / "out.json"], f"--output {tmp_path / 'out.jsonl'}, or say what"),
        ([good, "--window", 1, "--hop", 2], "skipped"),
        ([good, "--window", "x"], "'x'"),
        ([good, "--format", "xml"], "'xml'"),
        ([good, "--output", tmp_path / "void"], "is a folder"),
        ([good, "--output", tmp_path / "none/x.csv"], "mkdir -p"),
        ([good, "--output", os.devnull], "a device"),
    ]:
        status, out, err = run(*words)
        assert (status, out) == (2, ""), words
        assert err.startswith("gmp-atl: error: ")
        assert message in err


def test_a_place_that_takes_no_files_is_named_by_the_name_asked_for(
    run: Run, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(dir: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system", f"{dir}/tmpx")

    monkeypatch.setattr("gmp_atl_hf.cli.arguments.TemporaryFile", refuse)
    status, out, err = run(recordings / "b.wav", "--output", tmp_path / "x.csv")
    assert (status, out) == (2, "")
    assert f"--output {tmp_path / 'x.csv'} cannot be written (Read-only file system)" in err
    assert "fix: choose another place" in err and "tmpx" not in err


def test_a_wrong_model_device_or_batch_ends_with_status_2(
    run: Run, recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["predict", str(tmp_path / "no/model"), str(recordings)]) == 2
    assert f"there is no folder {tmp_path / 'no/model'}" in capsys.readouterr().err
    assert main(["predict", str(recordings), str(recordings)]) == 2
    assert "it has no config.json" in capsys.readouterr().err
    assert run(recordings, "--device", "cuda:77")[0] == 2
    assert run(recordings, "--batch-seconds", 0)[0] == 2


@pytest.mark.parametrize(
    ("name", "format", "starts"),
    [("x.csv", None, "file,"), ("x.jsonl", None, "{"), ("x.out", None, "file "), ("x.csv", "jsonl", "{")],
)
def test_output_goes_to_a_file_in_the_format_of_its_ending(
    run: Run, recordings: Path, tmp_path: Path, name: str, format: str | None, starts: str
):
    target = tmp_path / "out" / name
    target.parent.mkdir()
    target.write_text("old")
    status, out, _ = run(recordings, "--output", target, *(["--format", format] if format else []))
    assert (status, out) == (0, "")
    assert target.read_text(encoding="utf-8").startswith(starts)
    assert list(target.parent.iterdir()) == [target]  # nothing half-written is left beside it
    assert target.stat().st_mode & 0o777 == recordings.joinpath("b.wav").stat().st_mode & 0o777


def test_of_several_processes_one_predicts(run: Run, recordings: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run(recordings) == (0, "", "")


def test_names_that_are_no_text_are_written_as_escapes(run: Run, tmp_path: Path):
    name = os.fsdecode(bytes(tmp_path) + b"/\xe9.wav")
    write_audio(Path(name))
    _, out, _ = run(name, "--format", "jsonl")
    assert json.loads(out)["file"] == name


def test_long_recordings_cut_unasked_are_one_row_of_csv():
    scores = dict(zip(EMOTIONS, (0.1, 0.2, 0.3, 0.4), strict=True))
    windows = [WindowScores(0, 60, scores), WindowScores(10, 70, scores)]
    prediction = Prediction("x.wav", "sadness", scores, 70.0, windows)
    assert len(format_predictions([prediction], EMOTIONS, "csv", windowed=False).splitlines()) == 2
    assert len(format_predictions([prediction], EMOTIONS, "csv", windowed=True).splitlines()) == 3


def test_the_program_works_without_a_network_and_says_nothing_else(model: Path, recordings: Path, tmp_path: Path):
    block = tmp_path / "sitecustomize.py"
    block.write_text("import socket\nsocket.socket.connect = None\nsocket.getaddrinfo = None\n")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", "gmp_atl_hf.cli", "predict", str(model), str(recordings), "--format", "csv"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "HF_HOME": str(tmp_path / "cache")},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    scores = [[float(row[label]) for label in EMOTIONS] for row in csv.DictReader(done.stdout.splitlines())]
    assert np.isfinite(scores).all()
    assert len(scores) == 3
    said = [line for line in done.stderr.replace("\r", "\n").splitlines() if line.strip()]
    assert all(line.startswith("predict: ") for line in said), done.stderr


def test_a_folder_of_everything_people_have_is_scored_or_named(run: Run, model: Path, tmp_path: Path):
    folder = tmp_path / "recordings"
    stereo = np.stack([tone(44_100, rate=44_100), tone(44_100, 300, rate=44_100)], axis=1)
    good = [
        write_audio(folder / "telephone.wav", tone(8_000, rate=8_000), 8_000),
        write_audio(folder / "music.wav", stereo, 44_100, "PCM_24"),
        write_audio(folder / "a/phone.mp3", stereo, 44_100),
        write_audio(folder / "a/chat.opus", tone(48_000, rate=48_000), 48_000, "OPUS"),
        write_audio(folder / "a/float.wav", tone(20_000), subtype="FLOAT"),
        write_audio(folder / "10 ms.wav", tone(160)),
        write_audio(folder / "silence.flac", np.zeros(RATE, dtype=np.float32)),
        write_audio(Path(os.fsdecode(bytes(folder) + b"/caf\xe9.wav")), tone(9_000)),
    ]
    write_audio(folder / "nan.wav", np.full(8_000, np.nan, dtype=np.float32), subtype="FLOAT")
    write_audio(folder / "opposite.wav", np.stack([tone(), -tone()], axis=1))
    (folder / "cut.wav").write_bytes(encoded(8_000)[:5_000])
    (folder / "cut.mp3").write_bytes(encoded(64_000, format="MP3")[:4_000])
    (folder / "text.wav").write_text("this is no audio at all")
    Path(os.fsdecode(bytes(folder) + b"/\xe9mpty.wav")).touch()
    (folder / "notes.txt").write_text("not meant")
    (folder / "void").mkdir()
    bad = ["nan.wav", "opposite.wav", "cut.wav", "cut.mp3", "text.wav", os.fsdecode(b"\xe9mpty.wav")]
    status, out, err = run(folder, "--format", "jsonl")
    assert status == 1
    rows = {row["file"]: row for row in map(json.loads, out.splitlines())}
    assert set(rows) == {*map(str, good), *(str(folder / name) for name in bad)}
    classifier = SpeechEmotionClassifier.from_pretrained(model, device="cpu")
    for path in good:
        assert rows[str(path)]["error"] is None
        np.testing.assert_allclose(list(rows[str(path)]["scores"].values()), alone(classifier, path), atol=1e-4)
    for name in bad:
        assert rows[str(folder / name)]["scores"] == {}
        assert str(folder / name) in rows[str(folder / name)]["error"]
    assert "cancel each other" in rows[str(folder / "opposite.wav")]["error"]
    assert "6 of 14 recordings could not be scored" in err
    assert f"passed over: {folder / 'notes.txt'}" in err
    for format in ("table", "csv"):
        status, out, _ = run(folder, "--format", format)
        assert status == 1
        assert "caf\\udce9.wav" in out


def test_the_precision_is_passed_on(run: Run, recordings: Path):
    status, out, err = run(recordings, "--precision", "int4")
    assert (status, out) == (2, "")
    assert "precision is 'int4'" in err
    exact, rounded = (
        [json.loads(line)["scores"]["anger"] for line in run(recordings, "--format", "jsonl", *words)[1].splitlines()]
        for words in ([], ["--precision", "bfloat16"])
    )
    assert exact != rounded
    np.testing.assert_allclose(exact, rounded, atol=0.2)
