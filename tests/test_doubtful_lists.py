"""What a list says and may not mean is told: speakers, sessions, segments and labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from audio_files import tone, write_audio
from gmp_atl_hf.data.table import Corpus, read_corpora
from gmp_atl_hf.errors import RequestError


def read(root: Path, header: str, *rows: str, labels: dict[str, Any] | None = None) -> Corpus:
    """Read a list of recordings of two seconds, each a row; without a column `start` each has a file of its own."""
    for number in range(len(rows)):
        write_audio(root / f"{number}.wav", tone(32_000, seed=number))
    numbered = [row if "start" in header else f"{number}.wav,{row}" for number, row in enumerate(rows)]
    (root / "list.csv").write_text("\n".join([f"file,{header}", *numbered]), encoding="utf-8")
    return read_corpora([{"name": "csv", "root": root / "list.csv"}], labels=labels)


# ---- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (("01", "1"), "leading zeros"),
        (("1", "1.0"), "the way of writing a number (.0 at the end)"),
        (("01", "1.0"), "the way of writing a number (.0 at the end)"),
        (("S01", "s1"), "case or the way of writing a number"),
    ],
)
@pytest.mark.parametrize("column", ["speaker", "session"])
def test_names_that_may_be_one_are_told(tmp_path, column, names, what):
    rows = [f"sad,{name}" if column == "speaker" else f"sad,{number},{name}" for number, name in enumerate(names)]
    corpus = read(tmp_path, "emotion,speaker" + (",session" if column == "session" else ""), *rows)
    is_one = "person" if column == "speaker" else "session"
    first, second = sorted(names)
    assert corpus.problems == [f"{column}s {first} and {second} differ in {what} only: is that one {is_one}?"]


def test_sessions_that_differ_in_case_are_told(tmp_path):
    corpus = read(tmp_path, "emotion,speaker,session", "sad,a,Ses1", "sad,b,ses1", "sad,c,Ses2")
    told = "sessions Ses1 and ses1 differ in case or the form of their letters only: is that one session?"
    assert corpus.problems == [told]


@pytest.mark.parametrize("names", [("1.0", "2.0"), ("1", "10"), ("v1.0", "1"), ("1.05", "1")])
def test_names_that_are_not_one_are_not_told(tmp_path, names):
    assert read(tmp_path, "emotion,speaker,session", *(f"sad,{name},{name}" for name in names)).problems == []


def test_the_word_for_nobody_that_an_error_names_is_one_that_a_list_may_hold(tmp_path):
    with pytest.raises(RequestError, match="fix: give each recording its speaker"):
        read(tmp_path, "emotion,speaker", "sad,", "sad,b")
    try:
        read(tmp_path, "emotion,speaker", "sad,", "sad,b")
    except RequestError as error:
        word = str(error.fix).partition("(")[2].partition(" ")[0]
    [told] = read(tmp_path, "emotion,speaker", f"sad,{word}", "sad,b").problems
    assert told.startswith("the speaker of 1 of 2 recordings is not known")


# ---- segments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "differ"),
    [
        (("sad,a,0,1", "sad,b,0.5,1.5"), "speakers"),
        (("sad,a,0,1", "joy,a,0.5,1.5"), "emotions"),
        (("sad,a,0,2", "joy,b,0.5,1"), "emotions and speakers"),
        (("sad,a,1,", "sad,b,0.5,1.5"), "speakers"),
        (("sad,a,0,1.5", "sad,a,0.2,0.4", "sad,b,1,2"), "speakers"),
    ],
)
def test_segments_of_one_file_that_overlap_are_told(tmp_path, rows, differ):
    [told] = read(tmp_path, "emotion,speaker,start,end", *(f"0.wav,{row}" for row in rows)).problems
    assert told.startswith(
        "csv: 1 segment overlaps another one of the same file, so that the same sound is there twice"
    )
    assert told.endswith(f"(under different {differ})") and "0.wav#t=" in told


def test_of_many_segments_that_overlap_a_few_are_named(tmp_path):
    rows = [f"0.wav,{['sad', 'joy'][number % 2]},s{number},{0.01 * number},1.{number}" for number in range(9)]
    [told] = read(tmp_path, "emotion,speaker,start,end", *rows).problems
    assert told.startswith("csv: 8 segments overlap another one") and told.endswith("; and 5 more")


@pytest.mark.parametrize(
    "rows",
    [
        ("0.wav,sad,a,0,1", "0.wav,joy,b,1,2"),
        ("0.wav,sad,a,0,1.005", "0.wav,joy,b,1,2"),  # rounded times
        ("0.wav,sad,a,0,1", "0.wav,sad,a,0.5,2"),  # one person, one emotion
        ("0.wav,sad,a,0,1", "1.wav,joy,b,0,1"),
    ],
)
def test_segments_that_do_not_contradict_each_other_are_not_told(tmp_path, rows):
    assert read(tmp_path, "emotion,speaker,start,end", *rows).problems == []


# ---- labels ----------------------------------------------------------------------------------------------------------


def test_both_sides_of_a_label_map_are_spelt_as_the_corpus_is(tmp_path):
    labels = {"anger ": "joy ", "joy": "joy", "neutral": " neutral"}
    corpus = read(tmp_path, "emotion,speaker", "anger,a", "joy,b", "neutral,c", labels=labels)
    assert corpus.table.features["emotion"].names == ["joy", "neutral"] and corpus.problems == []


def test_a_word_that_a_label_map_has_twice_is_refused_where_it_means_two_things(tmp_path):
    with pytest.raises(RequestError, match="the label map gives 'joy' twice, as 'happy' and as None"):
        read(tmp_path, "emotion,speaker", "joy,a", labels={"joy": "happy", "joy ": None})


@pytest.mark.parametrize("word", ["?", "unknown", "Unk", "--", "unlabelled", "no agreement"])
def test_a_label_that_may_stand_for_none_is_told_unless_a_map_names_it(tmp_path, word):
    rows = [f"{word},a", f"{word},b", "sad,a", "sad,b"]
    corpus = read(tmp_path, "emotion,speaker", *rows)
    assert corpus.problems == [
        f"2 recordings have the label {word!r}, which is taken for an emotion: map it to null in labels if it stands "
        f"for none, or to {word!r} if it is meant"
    ]
    meant = read(tmp_path, "emotion,speaker", *rows, labels={word: word, "sad": "sad"})
    assert meant.problems == [] and word in meant.table.features["emotion"].names
    dropped = read(tmp_path, "emotion,speaker", *rows, labels={word: None, "sad": "sad"})
    assert dropped.problems == [] and len(dropped.left_out) == 2


def test_speech_without_emotions_has_no_label_to_be_told_of(tmp_path):
    write_audio(tmp_path / "0.wav")
    (tmp_path / "list.csv").write_text("file,speaker\n0.wav,a\n", encoding="utf-8")
    columns = {"emotion": None}
    assert read_corpora([{"name": "csv", "root": tmp_path / "list.csv", "columns": columns}]).problems == []
