"""The table: what is in it, what is not and why, and what is refused."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import pytest
from datasets import Audio, ClassLabel

from audio_files import encoded, tone, write_audio
from corpus_trees import read_corpus
from gmp_atl_hf.data.audio import read_audio, read_clip
from gmp_atl_hf.data.corpora import (
    MODULES,
    CorpusInfo,
    LeftOut,
    Recording,
    corpus_names,
    corpus_reader,
    register_corpus,
)
from gmp_atl_hf.data.corpora.base import REGISTERED
from gmp_atl_hf.data.table import (
    COLUMNS,
    concatenate,
    load_corpus,
    make_table,
    read_corpora,
    validate_table,
)
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.protocols.fold import Fold
from gmp_atl_hf.protocols.shuffled_labels import shuffle_labels


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """Corpora that a test registers are gone after it."""
    yield
    for name in {*REGISTERED} - {*MODULES}:
        del REGISTERED[name]


def register(items: list[Recording | LeftOut], name: str = "mine", **info: object) -> None:
    """Make a corpus of these recordings."""

    @register_corpus(CorpusInfo(name=name, needs_root=False, **info))  # type: ignore[arg-type]
    def read(root: Path | None, loud: bool = False) -> Iterator[Recording | LeftOut]:
        yield from items


def clip(file: str, emotion: str = "angry", speaker: str = "03", samples: int = 800, **more: object) -> Recording:
    """A recording that is held in memory; another file has another sound."""
    sound = encoded(tone(samples, seed=zlib.crc32(f"{file} {speaker}".encode())))
    return Recording(file, None, emotion, speaker, audio_bytes=sound, **more)  # type: ignore[arg-type]


def refused(*args: object, **kwargs: object) -> RequestError:
    with pytest.raises(RequestError) as raised:
        read_corpus(*args, **kwargs)  # type: ignore[arg-type]
    assert raised.value.fix
    return raised.value


def test_the_table_has_the_promised_columns_types_and_prefixes(tmp_path):
    path = write_audio(tmp_path / "b.wav", 22_050, rate=22_050)
    register(
        [
            Recording("b", path, "sad", "03", gender="F", session="s1", split="validation"),
            clip("a", "angry", "3", gender="male", samples=1_234),
        ]
    )
    table = read_corpus("mine").table
    assert table.column_names == list(COLUMNS)
    assert table.features["emotion"] == ClassLabel(names=["angry", "sad"])
    assert table.features["gender"] == ClassLabel(names=["female", "male"])
    assert table.features["audio"] == Audio(decode=False)
    assert table["id"][:] == ["mine/a", "mine/b"]
    assert table["speaker"][:] == ["mine/3", "mine/03"]
    assert table["gender"][:] == [1, 0]
    assert table["session"][:] == [None, "s1"]
    assert table["split"][:] == [None, "dev"]
    assert table["num_samples"][:] == [1_234, 16_000] == [len(read_audio(cell)) for cell in table["audio"]]
    assert table[1]["audio"] == {"path": str(path), "bytes": None}
    validate_table(table)


def test_the_order_in_which_a_reader_lists_its_recordings_does_not_matter():
    items = [clip(f"{n}", "ab"[n % 2]) for n in range(6)]
    register(items)
    register(items[::-1], "reversed", own_speakers=False)
    assert load_corpus("mine")[:] == load_corpus("reversed", corpus_name="mine")[:]


def test_labels_are_merged_and_dropped_only_as_the_map_says():
    register([clip("1", "happy"), clip("2", "excited"), clip("3", "sad"), clip("4", "other"), LeftOut("5", "no sound")])
    corpus = read_corpus("mine", labels={"happy": "joy", "excited": "joy", "sad": "sad", "other": None})
    names = corpus.table.features["emotion"].names
    assert names == ["joy", "sad"]
    assert [names[n] for n in corpus.table["emotion"]] == ["joy", "joy", "sad"]
    assert corpus.left_out == [LeftOut("mine/4", "label other dropped by the label map"), LeftOut("mine/5", "no sound")]


def test_a_label_the_map_forgets_is_named_with_its_count():
    register([clip("1", "happy"), clip("2", "sad"), clip("3", "sad")])
    assert "'sad' (2 recordings)" in refused("mine", labels={"happy": "happy"}).found


def test_a_label_that_never_occurs_is_refused_with_the_nearest_right_one():
    register([clip("1", "happiness")])
    error = refused("mine", labels={"hapiness": "happy", "happiness": "happy"})
    assert "'hapiness'" in error.found
    assert "did you mean `happiness`" in str(error.fix)


def test_a_missing_blank_behind_a_colon_is_named():
    register([clip("1", "anger"), clip("2", "joy")])
    error = refused("mine", labels={"anger:anger": None, "joy": "joy"})
    assert error.fix == "put a blank behind the colon: {anger: anger}"


def test_a_label_map_with_a_yaml_word_that_is_no_text_is_refused():
    register([clip("1", "no")])
    assert "quotes" in str(refused("mine", labels={False: "no"}).fix)


def test_a_map_that_drops_everything_is_refused():
    register([clip("1", "sad")])
    assert "dropped by the label map" in refused("mine", labels={"sad": None}).found


def test_a_recording_without_a_label_is_left_out_with_that_reason():
    register([clip("1"), clip("2", " ")])
    assert read_corpus("mine").left_out == [LeftOut("mine/2", "it has no emotion label")]


def test_a_clip_below_one_frame_is_named_and_handled_as_asked():
    register([clip("long"), clip("short", samples=120)])
    error = refused("mine")
    assert "mine/short has 120 samples (7.5 ms)" in error.found
    assert "short_clips: pad" in str(error.fix)

    padded = read_corpus("mine", short_clips="pad")
    assert padded.table["num_samples"][:] == [800, 400]
    assert [len(read_clip(cell)) for cell in padded.table["audio"]] == [800, 400]
    assert padded.left_out == []

    dropped = read_corpus("mine", short_clips="drop")
    assert dropped.table["file"][:] == ["long"]
    assert dropped.left_out[0].file == "mine/short"
    assert "120 samples" in dropped.left_out[0].reason

    assert "'crop'" in refused("mine", short_clips="crop").found


def test_unreadable_recordings_are_named_and_counted_before_any_work(tmp_path):
    broken = [tmp_path / f"broken{n}.wav" for n in range(7)]
    for path in broken:
        path.write_bytes(b"nothing")
    register([clip("good"), *(Recording(path.stem, path, "sad", "1") for path in broken)])
    error = refused("mine")
    assert "7 of 8 recordings of mine cannot be read" in error.found
    assert str(broken[0]) in error.found
    assert "and 2 more" in error.found

    corpus = read_corpus("mine", unreadable="drop")
    assert corpus.table["file"][:] == ["good"]
    assert [one.file for one in corpus.left_out] == [f"mine/broken{n}" for n in range(7)]
    assert "not audio" in corpus.left_out[0].reason


def test_a_recording_whose_channels_cancel_each_other_is_unreadable_and_not_silent(tmp_path):
    opposite = write_audio(tmp_path / "opposite.wav", np.stack([tone(), -tone()], axis=1))
    register([clip("good"), Recording(opposite.name, opposite, "sad", "1")])
    assert "1 of 2 recordings of mine cannot be read" in refused("mine").found
    [left_out] = read_corpus("mine", unreadable="drop").left_out
    assert left_out.reason == "the channels of opposite.wav cancel each other: their mean is silent"


def test_lengths_are_the_same_with_and_without_decoding(tmp_path):
    paths = [write_audio(tmp_path / f"{n}.{e}", 3_000 + n, 11_025) for n, e in enumerate(["wav", "flac", "ogg", "mp3"])]
    register([Recording(path.name, path, "sad", "1") for path in paths])
    checked, unchecked = load_corpus("mine"), load_corpus("mine", check_audio=False)
    expected = [len(read_clip(cell)) for cell in checked["audio"]]
    assert checked["num_samples"][:] == unchecked["num_samples"][:] == expected


def test_the_same_id_twice_is_refused_and_named():
    register([clip("1"), clip("1"), clip("2")])
    assert "mine/1" in refused("mine").found


@pytest.mark.parametrize("word", ["f", "F", "female", "Female", " w "])
def test_usual_words_for_female_are_understood(word):
    register([clip("1", gender=word)])
    assert load_corpus("mine")["gender"][:] == [0]


@pytest.mark.parametrize("word", [None, "", "unknown", "NaN"])
def test_an_unknown_gender_is_missing(word):
    register([clip("1", gender=word)])
    assert load_corpus("mine")["gender"][:] == [None]


def test_words_for_gender_or_split_that_mean_nothing_are_refused_with_the_recording():
    register([clip("1", gender="robot")])
    assert refused("mine").found.startswith("mine/1: 'robot'")
    register([clip("1", split="fold1")])
    assert refused("mine").found.startswith("mine/1: 'fold1'")


def test_a_recording_without_a_speaker_is_refused():
    register([clip("1", speaker=" ")])
    assert "mine/1 has no speaker" in refused("mine").found


def test_a_speaker_of_two_genders_is_a_problem_that_is_told():
    register([clip("1", gender="f"), clip("2", gender="m"), clip("3", gender="m")])
    assert read_corpus("mine").problems == [
        "speaker 03 is female in 1 recording and male in 2: two people of one number? Then gender and number together "
        "are the speaker"
    ]


def test_a_count_that_differs_is_told_by_label_and_by_file():
    register(
        [clip("1", "sad"), clip("2", "sad"), clip("x", "angry")],
        expected={"sad": 2, "angry": 1, "bored": 1},
        expected_files=lambda: ["1", "2", "3", "4"],
        speakers=2,
    )
    assert read_corpus("mine").problems == [
        "mine differs from the complete corpus: bored 0 instead of 1 recordings",
        "2 files of mine are missing: 3, 4",
        "1 file of mine is not part of the complete corpus: x",
        "mine has 1 speaker instead of 2",
    ]


def test_a_missing_folder_is_answered_with_what_belongs_there(tmp_path):
    error = refused("emodb", tmp_path / "gone")
    assert f"nothing at {tmp_path / 'gone'}" in error.found
    assert "03a01Fa.wav" in str(error.expected)
    assert "emodb.bilderbar.info" in str(error.expected)
    assert "no folder was given" in refused("emodb").found


def test_a_folder_without_recordings_is_refused(tmp_path):
    empty = refused("emodb", tmp_path)
    assert empty.found == f"the folder {tmp_path} is empty" and "03a01Fa.wav" in str(empty.expected)
    (tmp_path / "notes.txt").write_text("x")
    assert "found no recordings" in refused("emodb", tmp_path).found


def test_wrong_names_are_answered_with_the_nearest_right_ones():
    register([clip("1")])
    assert "did you mean `emodb`" in str(refused("emo-db").fix)
    assert "did you mean `loud`" in str(refused("mine", lout=True).fix)
    assert refused("mine", lout=True).found == "the corpus 'mine' has no option 'lout'"
    assert "did you mean `short_clips`" in str(refused("mine", short_clip="pad").fix)
    assert {"csv", "demo", "emodb", "folder", "hub", "mine"} <= set(corpus_names())
    with pytest.raises(RequestError, match="without a name"):
        read_corpora([{"root": "x"}])
    with pytest.raises(RequestError, match="no corpus"):
        read_corpora([])


def test_several_corpora_share_one_label_map_whose_words_need_occur_only_once():
    register([clip("1", "happy"), clip("2", "sad")], "first", language="de", citation="A")
    register([clip("1", "joy"), clip("2", "sad")], "second", language="en", citation="B")
    entries = [{"name": "first"}, {"name": "second", "corpus_name": "other"}]
    corpus = read_corpora(entries, labels={"happy": "happy", "joy": "happy", "sad": "sad"})
    assert corpus.table["id"][:] == ["first/1", "first/2", "other/1", "other/2"]
    assert corpus.table["speaker"][:] == ["first/03", "first/03", "second/03", "second/03"]
    assert corpus.table["emotion"][:] == [0, 1, 0, 1]
    assert corpus.problems == ["2 recordings are in several corpora: first/1 = other/1; first/2 = other/2"]
    assert (corpus.info.name, corpus.info.language) == ("first+other", "de+en")
    with pytest.raises(RequestError, match="'joy'"):
        read_corpora(entries, labels={"happy": "happy", "sad": "sad"})
    own = [{"name": "first", "labels": {"happy": "joy", "sad": "sad"}}, {"name": "second"}]
    assert read_corpora(own).table.features["emotion"].names == ["joy", "sad"]


def test_a_person_of_a_known_corpus_is_the_same_person_in_a_copy_read_under_another_name():
    register([clip("1", speaker="a"), clip("2", speaker="b")])
    register([clip("1", speaker="a")], "anybody", own_speakers=False)
    table = read_corpora([{"name": "mine"}, {"name": "mine", "corpus_name": "phone"}]).table
    assert table["id"][:] == ["mine/1", "mine/2", "phone/1", "phone/2"]
    assert table["speaker"][:] == ["mine/a", "mine/b", "mine/a", "mine/b"]
    assert load_corpus("anybody", corpus_name="theirs")["speaker"][:] == ["theirs/a"]
    ours = {name for name in MODULES if not corpus_reader(name).info.own_speakers}
    assert ours == {"csv", "folder", "hub", "demo"}


def test_joining_keeps_every_label_right_and_tells_which_corpus_lacks_one():
    register([clip("1", "b")], "first")
    register([clip("2", "a"), clip("3", "b")], "second")
    corpus = concatenate([read_corpus("first"), read_corpus("second")])
    names = corpus.table.features["emotion"].names
    assert [names[n] for n in corpus.table["emotion"]] == ["b", "a", "b"]
    assert corpus.problems == ["first has no a, which another corpus of this table has"]
    with pytest.raises(RequestError, match="corpus_name"):
        concatenate([read_corpus("first"), read_corpus("first")])


def test_the_table_survives_map_save_and_load(tmp_path):
    path = write_audio(tmp_path / "x.wav")
    register([clip("1", gender="f"), Recording("2", path, "sad", "4")])
    table = load_corpus("mine").map(lambda row: {"gmp_layer10_k50": [1, 2, 3]})
    table.save_to_disk(str(tmp_path / "saved"))
    loaded = datasets.load_from_disk(str(tmp_path / "saved"))
    validate_table(loaded)
    # datasets puts the sound itself into a saved table.
    path.unlink()
    assert loaded.remove_columns("audio")[:] == table.remove_columns("audio")[:]
    assert [len(read_clip(cell)) for cell in loaded["audio"]] == loaded["num_samples"][:]


def columns() -> dict[str, list[object]]:
    return {
        "id": ["m/1", "m/2"],
        "file": ["1", "2"],
        "audio": [{"path": None, "bytes": encoded(500)}] * 2,
        "emotion": ["a", "b"],
        "speaker": ["m/x", "m/y"],
        "corpus": ["m", "m"],
        "num_samples": [500, 500],
    }


def test_a_table_somebody_brings_is_checked_column_by_column():
    good = make_table(columns(), ["a", "b"])
    validate_table(good)
    validate_table(good.remove_columns(["session", "split"]))
    with pytest.raises(RequestError, match=r"lacks gender \(ClassLabel.*speaker \(string with the corpus whose"):
        validate_table(good.remove_columns(["gender", "speaker"]))
    with pytest.raises(RequestError, match="emotion is Value"):
        validate_table(good.cast_column("emotion", datasets.Value("int64")))
    with pytest.raises(RequestError, match="audio is"):
        validate_table(good.cast_column("audio", Audio(decode=True)))
    with pytest.raises(RequestError, match="DatasetDict"):
        validate_table(datasets.DatasetDict({"train": good}))


def test_values_that_cannot_be_used_are_all_named_at_once():
    wrong = columns() | {"id": ["m/1", "m/1"], "speaker": ["m/x", None], "num_samples": [500, 399]}
    with pytest.raises(RequestError) as raised:
        validate_table(make_table(wrong, ["a", "b"]))
    for words in ("id 'm/1' occurs more than once", "speaker is empty in 1 row,", "num_samples is below 400"):
        assert words in raised.value.found


def test_shuffling_permutes_labels_within_each_speaker_and_spares_the_test():
    pairs = [(speaker, number) for speaker in range(3) for number in range(20)]
    register([clip(f"{s}{n:02d}", "abcd"[n % (2 + s)], f"s{s}", samples=400) for s, n in pairs])
    table = load_corpus("mine")
    fold = Fold(1, ("mine/s0",), ("mine/s1",), ("mine/s2",))
    shuffled = shuffle_labels(table, fold, seed=1)
    assert shuffled.features == table.features
    assert shuffled.column_names == table.column_names
    assert shuffled.remove_columns("emotion")[:] == table.remove_columns("emotion")[:]
    for start, changed in ((0, True), (20, True), (40, False)):
        before, after = table["emotion"][start : start + 20], shuffled["emotion"][start : start + 20]
        assert sorted(before) == sorted(after)
        assert (before != after) == changed
    assert shuffle_labels(table, fold, seed=1)["emotion"][:] == shuffled["emotion"][:]
    assert shuffle_labels(table, fold, seed=2)["emotion"][:] != shuffled["emotion"][:]
    picked = table.select(range(59, -1, -1))
    assert shuffle_labels(picked, fold, seed=1)["emotion"][:20] == picked["emotion"][:20]


def test_errors_read_as_found_expected_fix():
    register([clip("1", samples=3)])
    assert re.fullmatch(r".+\n  expected: .+\n  fix: .+", str(refused("mine")))


def test_recordings_that_differ_in_rate_and_channels_end_up_alike(tmp_path):
    wave = tone(8_000, rate=8_000)
    path = write_audio(tmp_path / "stereo.wav", np.stack([wave, wave], axis=1), 8_000, subtype="FLOAT")
    register([Recording("1", path, "sad", "1")])
    assert load_corpus("mine")["num_samples"][:] == [16_000]
