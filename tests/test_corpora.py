"""The readers: what they find in the layouts people have, and what they say when something is missing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import Literal

import datasets
import numpy as np
import pyarrow as pa
import pytest

from audio_files import encoded, write_audio
from corpus_trees import read_corpus
from gmp_atl_hf.data.corpora.emodb import complete_corpus
from gmp_atl_hf.data.option_kinds import kinds_of, refuse_other_kind
from gmp_atl_hf.data.table import Corpus
from gmp_atl_hf.errors import RequestError


def rows(corpus: Corpus, *columns: str) -> list[tuple[object, ...]]:
    table = corpus.table
    emotions, genders = table.features["emotion"].names, ["female", "male"]
    words = {"emotion": lambda n: emotions[n], "gender": lambda n: None if n is None else genders[n]}
    return [tuple(words.get(name, lambda value: value)(row[name]) for name in columns) for row in table]


def refused(*args: object, **kwargs: object) -> RequestError:
    with pytest.raises(RequestError) as raised:
        read_corpus(*args, **kwargs)  # type: ignore[arg-type]
    assert raised.value.expected
    assert raised.value.fix
    return raised.value


# EMO-DB


def test_emodb_is_read_from_its_original_names_at_any_depth(tmp_path):
    for name in ("wav/03a01Fa.wav", "wav/08b10Wc.wav", "audio/16a07Ea.flac", "09a02Tb.wav"):
        write_audio(tmp_path / name)
    write_audio(tmp_path / "wav/noise.wav")
    write_audio(tmp_path / "wav/03a01Xa.wav")
    write_audio(tmp_path / "wav/99a01Fa.wav")
    (tmp_path / "wav/._03a01Fa.wav").write_bytes(b"a shadow file of another system")
    (tmp_path / "readme.txt").write_text("not a recording")
    corpus = read_corpus("emodb", tmp_path)
    assert rows(corpus, "id", "speaker", "emotion", "gender") == [
        ("emodb/03a01Fa", "emodb/03", "happiness", "male"),
        ("emodb/08b10Wc", "emodb/08", "anger", "female"),
        ("emodb/09a02Tb", "emodb/09", "sadness", "female"),
        ("emodb/16a07Ea", "emodb/16", "disgust", "female"),
    ]
    reasons = {one.file: one.reason for one in corpus.left_out}
    assert set(reasons) == {
        "emodb/noise.wav",
        "emodb/03a01Xa.wav",
        "emodb/99a01Fa.wav",
        "emodb/wav/._03a01Fa.wav",
    }
    assert "'X' is no emotion" in reasons["emodb/03a01Xa.wav"]
    assert "'99' is no speaker" in reasons["emodb/99a01Fa.wav"]
    assert any("files of emodb are missing" in problem for problem in corpus.problems)


def test_emodb_twice_in_one_folder_is_refused(tmp_path):
    write_audio(tmp_path / "wav/03a01Fa.wav")
    write_audio(tmp_path / "flac/03a01Fa.flac")
    error = refused("emodb", tmp_path)
    assert error.found == "1 id occurs more than once: emodb/03a01Fa" and "remove the copies" in str(error.fix)


def test_emodb_knows_every_recording_of_the_complete_corpus():
    letters = Counter(name[5] for name in complete_corpus())
    assert letters == {"W": 127, "L": 81, "E": 46, "A": 69, "F": 71, "T": 62, "N": 79}
    assert len(set(complete_corpus())) == 535


@pytest.mark.skipif("GMP_ATL_EMODB" not in os.environ, reason="GMP_ATL_EMODB does not name the folder of EMO-DB")
def test_the_real_emodb_is_complete():
    corpus = read_corpus("emodb", os.environ["GMP_ATL_EMODB"])
    assert corpus.left_out == []
    assert corpus.problems == []
    counts = Counter(emotion for (emotion,) in rows(corpus, "emotion"))
    assert counts == {
        "anger": 127,
        "boredom": 81,
        "disgust": 46,
        "fear": 69,
        "happiness": 71,
        "sadness": 62,
        "neutral": 79,
    }
    assert Counter(rows(corpus, "gender")) == {("female",): 302, ("male",): 233}
    assert len(set(corpus.table["speaker"])) == 10


# folder


def test_a_folder_with_a_folder_per_emotion_and_speaker_is_read(tmp_path):
    write_audio(tmp_path / "happy/anna/1.wav")
    write_audio(tmp_path / "happy/03/1.flac")
    write_audio(tmp_path / "sad/anna/take 2/x.wav")
    corpus = read_corpus("folder", tmp_path, speaker="parent", corpus_name="own")
    assert rows(corpus, "id", "speaker", "emotion", "gender") == [
        ("own/happy/03/1.flac", "own/03", "happy", None),
        ("own/happy/anna/1.wav", "own/anna", "happy", None),
        ("own/sad/anna/take 2/x.wav", "own/take 2", "sad", None),
    ]
    [told] = [told for told in corpus.problems if "depths" in told]
    assert told.startswith("happy/03/1.flac and sad/anna/take 2/x.wav lie at different depths: ")


def test_a_regular_expression_finds_speaker_gender_session_and_emotion(tmp_path):
    write_audio(tmp_path / "s1/f_anna_happy_1.wav")
    write_audio(tmp_path / "s2/m_03_sad_1.wav")
    write_audio(tmp_path / "s2/other.wav")
    corpus = read_corpus(
        "folder", tmp_path, speaker=r"(?P<session>s\d)/(?P<gender>[fm])_(?P<speaker>[^_]+)_(?P<emotion>[a-z]+)_\d"
    )
    assert rows(corpus, "speaker", "emotion", "gender", "session") == [
        ("folder/anna", "happy", "female", "s1"),
        ("folder/03", "sad", "male", "s2"),
    ]
    assert [one.file for one in corpus.left_out] == ["folder/s2/other.wav"]
    assert "does not match" in corpus.left_out[0].reason


def test_a_folder_without_word_of_its_speakers_is_refused_with_the_reason(tmp_path):
    write_audio(tmp_path / "happy/1.wav")
    error = refused("folder", tmp_path)
    assert "folds are made of speakers" in str(error.expected)
    assert "speaker: parent" in str(error.fix)
    assert "directly in the folder of its emotion" in refused("folder", tmp_path, speaker="parent").found
    assert "no group called speaker" in refused("folder", tmp_path, speaker=r"\d+").found
    assert "no regular expression" in refused("folder", tmp_path, speaker="(?P<speaker>").found
    assert "'age'" in refused("folder", tmp_path, speaker=r"(?P<speaker>.)(?P<age>.)").found


def test_a_folder_of_takes_does_not_pass_for_a_speaker(tmp_path):
    files = ["happy/anna/s1/1.wav", "sad/bob/s1/2.wav"]
    for file in files:
        write_audio(tmp_path / file)
    error = refused("folder", tmp_path, speaker="parent")
    assert error.found.startswith("happy/anna/s1/1.wav and sad/bob/s1/2.wav leave open")
    first, last = re.findall(r"'([^']+)'", error.fix)
    speakers = {row["speaker"] for row in read_corpus("folder", tmp_path, speaker=first).table}
    assert speakers == {"folder/anna", "folder/bob"}
    speakers = {row["speaker"] for row in read_corpus("folder", tmp_path, speaker=last).table}
    assert speakers == {"folder/s1"}


def test_folders_above_the_speaker_are_fine_while_names_stay_apart(tmp_path):
    for file in ("happy/s1/anna/1.wav", "sad/s2/bob/2.wav", "sad/s1/anna/3.wav"):
        write_audio(tmp_path / file)
    corpus = read_corpus("folder", tmp_path, speaker="parent")
    assert set(corpus.table["speaker"]) == {"folder/anna", "folder/bob"}


def test_a_recording_in_a_format_that_cannot_be_read_is_not_passed_over(tmp_path):
    write_audio(tmp_path / "happy/anna/1.wav")
    (tmp_path / "happy/anna/2.m4a").write_bytes(b"\x00\x00\x00\x20ftypM4A \x00\x00\x00\x00")
    assert "2.m4a" in refused("folder", tmp_path, speaker="parent").found


@pytest.mark.parametrize("speaker", ["(?P<speaker>anna)", "parent"])
def test_a_recording_outside_every_emotion_folder_is_listed(tmp_path, speaker):
    write_audio(tmp_path / "happy/anna/1.wav")
    write_audio(tmp_path / "anna.wav")
    corpus = read_corpus("folder", tmp_path, speaker=speaker)
    assert [(one.file, one.reason) for one in corpus.left_out] == [
        ("folder/anna.wav", "it lies in no folder that names its emotion")
    ]


# csv


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    for name in ("a/1.wav", "a/2.wav"):
        write_audio(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_csv_file_is_read_as_text_whatever_its_delimiter(clips, delimiter):
    lines = [["path", "label", "spk", "sex", "part"], ["a/1.wav", "sad", "03", "f", "train"]]
    lines += [["a/2.wav", '"very; happy, indeed\t"', "3", "", "test"]]
    manifest = clips / "list.csv"
    manifest.write_text("\ufeff" + "\n".join(delimiter.join(line) for line in lines), encoding="utf-8")
    mapping = {"file": "path", "emotion": "label", "speaker": "spk", "gender": "sex", "split": "part"}
    corpus = read_corpus("csv", manifest, columns=mapping)
    assert rows(corpus, "file", "speaker", "emotion", "gender", "split") == [
        ("a/1.wav", "csv/03", "sad", "female", "train"),
        ("a/2.wav", "csv/3", "very; happy, indeed", None, "test"),
    ]


def test_json_lines_are_read_as_text_too(clips):
    manifest = clips / "list.jsonl"
    lines = [
        {"file": "a/1.wav", "emotion": "sad", "speaker": "03", "session": 1},
        {"file": str(clips / "a/2.wav"), "emotion": "sad", "speaker": 4.50, "gender": None},
    ]
    manifest.write_text("\n".join(json.dumps(line) for line in lines).replace("4.5", "4.50"))
    assert rows(read_corpus("csv", manifest), "file", "speaker", "session") == [
        ("a/1.wav", "csv/03", "1"),
        ("a/2.wav", "csv/4.50", None),
    ]


def test_a_manifest_is_found_in_its_folder_and_paths_may_start_elsewhere(clips, tmp_path_factory):
    lists = tmp_path_factory.mktemp("lists")
    for name in ("metadata.csv", "mine.csv"):
        (lists / name).write_text("file,emotion,speaker\n1.wav,sad,x\n")
    for options in ({}, {"manifest": "mine.csv"}):
        corpus = read_corpus("csv", lists, audio_root=str(clips / "a"), **options)
        assert corpus.table[0]["audio"]["path"] == str(clips / "a/1.wav")
    assert "gone.csv" in refused("csv", lists, manifest="gone.csv").found


def test_a_missing_column_is_answered_with_the_columns_there_are_and_the_nearest(clips):
    manifest = clips / "list.csv"
    manifest.write_text("file,emotions,speaker\na/1.wav,sad,x\n")
    error = refused("csv", manifest)
    assert "no column 'emotion'" in error.found
    assert "file, emotions, speaker" in error.found
    assert "{emotion: emotions}" in str(error.fix)
    assert "--options 'columns={emotion: emotions}'" in str(error.fix)
    for heading in ("path", "File Name", "audio-path"):  # not like `file` at all, but what such columns are called
        (clips / "other.csv").write_text(f"speaker,{heading},emotion\nx,a/1.wav,sad\n")
        assert f"columns={{file: {heading}}}" in str(refused("csv", clips / "other.csv").fix)
    assert "'sex'" in refused("csv", manifest, columns={"emotion": "emotions", "gender": "sex"}).found
    assert "did you mean `speaker`" in str(refused("csv", manifest, columns={"speakers": "x"}).fix)


def test_a_manifest_without_speakers_says_why_they_are_needed(clips):
    (clips / "list.csv").write_text("file,emotion\na/1.wav,sad\n")
    assert "folds are made of speakers" in str(refused("csv", clips / "list.csv").expected)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("x.csv", "file,emotion,speaker\n,sad,x\n", "line 2 of"),
        ("x.csv", "file,emotion,speaker\na/1.wav,sad,x,y\n", "more values"),
        ("x.jsonl", '{"file": "a/1.wav"\n', "line 1 of"),
        ("x.jsonl", "[1, 2]\n", "not a JSON object"),
        ("x.jsonl", '{"file": "a/1.wav", "emotion": ["sad"], "speaker": "x"}\n', 'emotion is ["sad"]'),
        ("x.jsonl", '{"file": "a/1.wav", "emotion": true, "speaker": "x"}\n', "emotion is true"),
        ("x.jsonl", '{"file": {"path": "a/1.wav"}, "emotion": "sad", "speaker": "x"}\n', 'file is {"path"'),
        ("x.csv", "PK\x03\x04 sheet", "is a zip archive or a spreadsheet"),
        ("x.csv", "file,emotion,speaker\ngone.wav,sad,x\n", "there is no file"),
        ("x.csv", "file,emotion,speaker\n", "found no recordings"),
    ],
)
def test_a_broken_manifest_is_refused_with_the_place(clips, name, text, words):
    (clips / name).write_text(text)
    assert words in refused("csv", clips / name).found


def test_an_array_in_place_of_json_lines_is_told_to_be_taken_apart(clips):
    (clips / "x.jsonl").write_text('[{"file": "a/1.wav", "emotion": "sad", "speaker": "x"}]\n')
    assert refused("csv", clips / "x.jsonl").fix == "write each object of the array on a line of its own"


def test_a_manifest_without_a_recording_is_to_be_completed_and_not_looked_for_elsewhere(clips):
    (clips / "x.csv").write_text("file,emotion,speaker\n")
    assert refused("csv", clips / "x.csv").fix == "add a row for each recording below the headings"
    (clips / "x.csv").write_text("file,emotion,speaker\na/1.wav,,x\n")
    error = refused("csv", clips / "x.csv")
    assert "1 was left out, the first (a/1.wav): it has no emotion label" in error.found
    assert error.fix == "correct the rows that were left out"


def test_a_recording_in_two_rows_is_refused_with_the_lines_and_what_differs(clips):
    (clips / "x.csv").write_text("file,emotion,speaker\na/1.wav,sad,x\na/2.wav,sad,x\na/1.wav,happy,y\n")
    error = refused("csv", clips / "x.csv")
    assert error.found == (
        "1 id occurs more than once: csv/a/1.wav (lines 2 and 4, which differ in emotion and speaker)"
    )
    assert "keep one of the lines" in str(error.fix)
    rows = ["a/1.wav,sad,x", "a/1.wav, sad,x", "a/1.wav,,x", "a/2.wav,sad,x", "a/2.wav,sad,x"]
    (clips / "x.csv").write_text("\n".join(["file,emotion,speaker", *rows]))
    assert refused("csv", clips / "x.csv").found == (
        "2 ids occur more than once: csv/a/1.wav (lines 2 and 3, which say the same), "
        "csv/a/2.wav (lines 5 and 6, which say the same)"
    )


def test_where_the_last_recordings_of_a_table_cannot_be_read_those_left_out_before_are_named_too(clips):
    (clips / "a/1.wav").write_bytes(b"nothing")
    rows = ["a/2.wav,sad,x,3,1", "a/1.wav,sad,x,,"]
    (clips / "x.csv").write_text("\n".join(["file,emotion,speaker,start,end", *rows]))
    found = refused("csv", clips / "x.csv").found
    assert found.startswith("1 of 1 recording of csv cannot be read:\n    csv/a/1.wav: ")
    assert found.endswith(
        "\n    1 other was left out before: csv/a/2.wav#t=3,1: its segment ends before it begins (line 2)"
    )
    (clips / "x.csv").write_text("\n".join(["file,emotion,speaker,start,end", "a/2.wav,sad,x,2,1", *rows]))
    found = refused("csv", clips / "x.csv").found
    assert "\n    2 others were left out before, the first is csv/a/2.wav#t=2,1: its segment" in found


def test_a_manifest_that_is_not_utf8_is_refused(clips):
    (clips / "x.csv").write_bytes("file,emotion,speaker\na/1.wav,Ärger,x\n".encode("latin-1"))
    assert "UTF-8" in refused("csv", clips / "x.csv").found


# hub


def audio_dataset(names: list[str | None], **columns: list[object]) -> datasets.Dataset:
    """A dataset with its sound inside, as one that was pushed to the Hub."""
    features = datasets.Features(
        {
            "speech": datasets.Audio(),
            "label": datasets.ClassLabel(names=["sad", "happy"]),
            "speaker_id": datasets.Value("int64"),
            **{name: datasets.Value("string") for name in columns},
        }
    )
    data = {
        "speech": [{"bytes": encoded(500 + number), "path": name} for number, name in enumerate(names)],
        "label": [number % 2 for number in range(len(names))],
        "speaker_id": list(range(len(names))),
        **columns,
    }
    return datasets.Dataset(pa.Table.from_pydict(data, schema=features.arrow_schema))


MAPPING = {"audio": "speech", "emotion": "label", "speaker": "speaker_id"}


def test_a_dataset_on_disk_is_read_with_its_splits_and_class_names(tmp_path):
    parts = {"train": audio_dataset(["x.wav", "y.wav"]), "validation": audio_dataset(["x.wav"])}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "saved"))
    corpus = read_corpus("hub", path=str(tmp_path / "saved"), columns=MAPPING)
    assert rows(corpus, "id", "speaker", "emotion", "split", "num_samples") == [
        ("hub/train/x.wav", "hub/0", "sad", "train", 500),
        ("hub/train/y.wav", "hub/1", "happy", "train", 501),
        ("hub/validation/x.wav", "hub/0", "sad", "dev", 500),
    ]
    one = read_corpus("hub", tmp_path / "saved", columns=MAPPING, split="validation")
    assert rows(one, "id", "split") == [("hub/x.wav", None)]
    assert "cannot be loaded" in refused("hub", tmp_path / "saved", columns=MAPPING, split="dev").found


def test_a_dataset_without_file_names_gets_row_numbers_or_a_column(tmp_path):
    audio_dataset([None, "same.wav", "same.wav"], utterance=["u1", "u2", "u3"]).save_to_disk(str(tmp_path / "saved"))
    corpus = read_corpus("hub", tmp_path / "saved", columns=MAPPING)
    assert rows(corpus, "file") == [("000000",), ("000001",), ("000002",)]
    corpus = read_corpus("hub", tmp_path / "saved", columns=MAPPING | {"file": "utterance"})
    assert not any("read whole" in problem for problem in corpus.problems)
    assert rows(corpus, "file") == [("u1",), ("u2",), ("u3",)]


def test_places_in_a_file_that_a_dataset_has_are_told_not_to_be_read(tmp_path):
    audio_dataset(["a.wav"], Start=["0.1"], End=["0.2"]).save_to_disk(str(tmp_path / "saved"))
    corpus = read_corpus("hub", tmp_path / "saved", columns=MAPPING)
    assert any("every row is read whole" in problem for problem in corpus.problems)


def test_a_local_parquet_folder_is_read_as_load_dataset_reads_it(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "data").mkdir()
    audio_dataset(["x.wav", "y.wav"]).to_parquet(str(tmp_path / "data/train.parquet"))
    corpus = read_corpus("hub", path=str(tmp_path / "data"), columns=MAPPING)
    assert rows(corpus, "id", "split") == [("hub/train/x.wav", "train"), ("hub/train/y.wav", "train")]


def test_a_folder_of_recordings_with_metadata_is_read_without_torchcodec(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    for name in ("train/1.wav", "train/2.wav", "test/3.wav"):
        write_audio(tmp_path / "data" / name)
    for part, rows_of_part in (("train", "1.wav,sad,x\n2.wav,happy,y\n"), ("test", "3.wav,sad,z\n")):
        (tmp_path / "data" / part / "metadata.csv").write_text(f"file_name,emotion,speaker\n{rows_of_part}")
    corpus = read_corpus("hub", tmp_path / "data")
    assert rows(corpus, "id", "emotion", "split", "num_samples") == [
        ("hub/test/3.wav", "sad", "test", 8_000),
        ("hub/train/1.wav", "sad", "train", 8_000),
        ("hub/train/2.wav", "happy", "train", 8_000),
    ]


def test_of_a_folder_with_metadata_names_are_text_and_nothing_vanishes(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for number, name in enumerate(("a.wav", "b.wav", "c.wav", "deep/d.wav", "x.mp4", "notes.txt")):
        (write_audio if name.endswith("wav") else touch_text)(tmp_path / "data" / name, 8_000 + number)
    header, rows_of = (
        "file_name,emotion,speaker,session,begin_s,end_s",
        "a.wav,sad,01,,0,1\nb.wav,sad,1,2,0,1\nc.wav,,2,2,0,1\n",
    )
    (tmp_path / "data/metadata.csv").write_text(f"{header}\n{rows_of}")
    corpus = read_corpus("hub", tmp_path / "data")
    assert rows(corpus, "id", "speaker", "session") == [
        ("hub/train/a.wav", "hub/01", None),
        ("hub/train/b.wav", "hub/1", "2"),
    ]
    assert {one.file for one in corpus.left_out} == {"hub/train/c.wav", "hub/deep/d.wav", "hub/x.mp4"}
    assert any("begin_s and end_s are not read: every row is read whole" in told for told in corpus.problems)


def test_of_a_folder_with_metadata_what_datasets_reads_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for name in ("a.wav", "b.wav"):
        write_audio(tmp_path / "data" / name)
    # A short row, which pandas fills, and a word that it takes for no value.
    (tmp_path / "data/metadata.csv").write_text("file_name,emotion,speaker,gender\na.wav,sad,x,NA\nb.wav,sad,y\n")
    corpus = read_corpus("hub", tmp_path / "data")
    assert rows(corpus, "id", "speaker", "gender") == [
        ("hub/train/a.wav", "hub/x", None),
        ("hub/train/b.wav", "hub/y", None),
    ]
    (tmp_path / "data/metadata.csv").write_text("file_name,emotion,speaker,gender\na.wav,sad,01,NA\nb.wav,sad,1,f\n")
    corpus = read_corpus("hub", tmp_path / "data")
    assert rows(corpus, "speaker", "gender") == [("hub/01", None), ("hub/1", "female")]


def test_a_link_to_a_folder_above_shows_nothing_twice(tmp_path):
    write_audio(tmp_path / "calls/happy/anna/1.wav")
    write_audio(tmp_path / "happy/bob/2.wav")
    (tmp_path / "calls/up").symlink_to(tmp_path)
    assert [row["file"] for row in read_corpus("folder", tmp_path / "calls", speaker="parent").table] == [
        "happy/anna/1.wav"
    ]


def touch_text(path, number):
    path.write_text(f"{number}")


def test_the_cause_of_a_dataset_that_cannot_be_made_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/x.jsonl").write_text('{"emotion": "sad"')
    assert re.search(r"An error occurred.*\(.*JSON", refused("hub", tmp_path / "data").found)


def test_a_dataset_that_cannot_serve_is_refused_with_the_reason(tmp_path):
    audio_dataset(["x.wav"]).save_to_disk(str(tmp_path / "saved"))
    assert "no column 'audio'" in refused("hub", tmp_path / "saved").found
    assert "not audio" in refused("hub", tmp_path / "saved", columns=MAPPING | {"audio": "label"}).found
    assert "cannot be loaded" in refused("hub", tmp_path / "gone/away").found
    assert "no dataset was named" in refused("hub").found


# the kinds of options


@pytest.mark.parametrize(
    ("reader", "options", "found", "expected"),
    [
        ("csv", {"columns": "label"}, "columns is 'label'", "a mapping"),
        ("csv", {"columns": {"file": 5}}, "columns is {'file': 5}", "a mapping"),
        ("csv", {"audio_root": 5}, "audio_root is 5", "text"),
        ("folder", {"speaker": [1, 2]}, "speaker is [1, 2]", "text"),
        ("hub", {"columns": 5}, "columns is 5", "a mapping"),
        ("hub", {"config": True}, "config is True", "text"),
        ("ravdess", {"corpus_name": 2024}, "corpus_name is 2024", "text"),
        ("csv", {"check_audio": "no"}, "check_audio is 'no'", "true or false"),
    ],
)
def test_an_option_of_another_kind_is_refused(clips, reader, options, found, expected):
    error = refused(reader, clips, **options)
    assert error.found == found and str(error.expected).startswith(expected)


def test_a_number_that_was_meant_as_text_is_to_be_put_in_quotes(clips):
    fix = refused("folder", clips, speaker="parent", corpus_name=2024).fix
    assert fix == """corpus_name: "2024" in a recipe, corpus_name='"2024"' in the shell"""
    assert "root is 5" in refused("folder", 5, speaker="parent").found


def test_hints_that_are_not_known_let_everything_pass():
    refuse_other_kind("x", object(), np.ndarray)
    refuse_other_kind("x", 3, float)
    refuse_other_kind("x", ("a", "b"), tuple[str, ...])
    refuse_other_kind("x", "b", Literal["a", "b"])
    refuse_other_kind("x", ("a", 1.0), tuple[str, float])
    refuse_other_kind("x", "a", StrEnum("Mode", ["a"]))
    refuse_other_kind("x", np.int64(3), int)
    refuse_other_kind("x", {"a": 1}, Counter[str])

    def read(root, names: "no hint", limit: int = None): ...  # noqa: F722

    assert kinds_of(read) == {}
    del read.__annotations__["names"]
    refuse_other_kind("limit", None, kinds_of(read)["limit"])
    for value, kind in ((True, int), (3, bool), ("a", list[str]), ([1], list[str]), ("c", Literal["a"])):
        with pytest.raises(ValueError, match="x is"):
            refuse_other_kind("x", value, kind)


# the registry


def test_looking_at_the_registry_loads_no_heavy_library():
    code = (
        "import sys; from gmp_atl_hf.data.corpora import corpus_names, corpus_reader; "
        "[corpus_reader(n).info for n in corpus_names()]; "
        "print([m for m in ('datasets', 'sklearn', 'pandas', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
