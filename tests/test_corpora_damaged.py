"""Tables and folders as they come out of spreadsheets, archives, git and broken downloads: read, listed or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from audio_files import encoded, tone, write_audio
from corpus_trees import clip, people, read_corpus, reasons, refused, touch
from gmp_atl_hf.data import segments
from gmp_atl_hf.data.audio import read_audio
from gmp_atl_hf.data.corpora.demo.corpus import DemoCorpus
from gmp_atl_hf.data.listing import Listed, list_recordings
from gmp_atl_hf.data.segments import cut_segment
from gmp_atl_hf.data.table import read_corpora
from test_corpora_layouts import NEMO
from test_corpora_tables import MSP, MSP_ROWS, emobox, meld
from test_iemocap import turn

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"


# every reader of tables, with its table spelt otherwise


def _meld(root: Path) -> Path:
    touch(root, "train_splits/dia0_utt0.wav", "train_splits/dia0_utt1.wav", "dev_splits/dia0_utt0.wav")
    return meld(root) / "train_sent_emo.csv"


def _msp(root: Path) -> Path:
    touch(root, *(f"Audios/{row.split(',')[0]}" for row in MSP_ROWS))
    (root / "labels_consensus.csv").write_text(MSP + "\n".join(MSP_ROWS) + "\n")
    return root / "labels_consensus.csv"


def _nemo(root: Path) -> Path:
    names = {"WR0_anger_1": "WR0", "EB0_neutral_13": "EB0"}
    lines = [f"{name}.wav\t{name.split('_')[1]}\tUcho\tx\t {who}\tmale\t23\n" for name, who in names.items()]
    touch(root, *(f"samples/{name}.wav" for name in names))
    (root / "data.tsv").write_text(NEMO + "".join(lines))
    return root / "data.tsv"


def _cremad(root: Path) -> Path:
    touch(root, "AudioWAV/1001_DFA_ANG_XX.wav", "AudioWAV/1002_DFA_ANG_XX.wav")
    (root / "VideoDemographics.csv").write_text('"ActorID","Age","Sex"\n1001,51,"Male"\n1002,21,"Female"\n')
    return root / "VideoDemographics.csv"


def _csv(root: Path) -> Path:
    touch(root, "1.wav", "2.wav")
    (root / "metadata.csv").write_text("file,emotion,speaker,gender\n1.wav,sad,José,f\n2.wav,happy,bo,m\n", "utf-8")
    return root / "metadata.csv"


def _demo(root: Path) -> Path:
    touch(root, "wav/a.wav", "wav/b.wav")
    (root / "demo.json").write_text(json.dumps({"format": 1, **asdict(DemoCorpus())}))
    lines = ["file,emotion,gender,speaker,split,text", "wav/a.wav,sad,male,m,train,x", "wav/b.wav,sad,male,n,test,y"]
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    return root / "metadata.csv"


def _iemocap(root: Path) -> Path:
    for name, label in (("F000", "neu"), ("M003", "exc")):
        turn(root, 1, "Ses01F_impro01", f"Ses01F_impro01_{name}", label)
    return root / "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"


def _emobox(root: Path) -> Path:
    lists = {"train": [("DC/a01.wav", "a"), ("DC/a02.wav", "a")], "test": [("KL/d01.wav", "d")]}
    emobox(root, "savee", lists, {"a": "Angry", "d": "Disgust"})
    touch(root / "downloads/savee", "DC/a01.wav", "DC/a02.wav", "KL/d01.wav")
    return root / "data/savee/fold_1/savee_train_fold_1.jsonl"


TREES: dict[str, Callable[[Path], Path]] = {
    "meld": _meld,
    "msp-podcast": _msp,
    "nemo": _nemo,
    "cremad": _cremad,
    "csv": _csv,
    "demo": _demo,
    "iemocap": _iemocap,
    "emobox": _emobox,
}


def listed(corpus: str, root: Path) -> Listed:
    return list_recordings(corpus, root / "data/savee" if corpus == "emobox" else root)


def _semicolons(text: str) -> bytes:
    return text.replace(",", ";").encode()


SPELLINGS: dict[str, Callable[[str], bytes]] = {
    "utf-8-sig": lambda text: text.encode("utf-8-sig"),
    "utf-16": lambda text: text.encode("utf-16"),
    "utf-16 without its mark": lambda text: text.encode("utf-16-le"),
    "utf-32": lambda text: text.encode("utf-32"),
    "latin-1": lambda text: text.encode("latin-1", "replace"),
    "old Mac lines": lambda text: text.replace("\n", "\r").encode(),
    "semicolons": _semicolons,
    "sep=": lambda text: b"sep=;\n" + _semicolons(text),
    "tabs": lambda text: text.replace(",", "\t").encode(),
    "capitals": lambda text: (text.split("\n", 1)[0].upper() + "\n" + text.split("\n", 1)[1]).encode(),
    "blank lines": lambda text: ("\n\n" + text.replace("\n", "\n\n")).encode(),
    "cut": lambda text: text.rstrip().encode()[:-24],
    "open quote": lambda text: text.replace("\n", '\n"', 1).encode(),
    "long value": lambda text: text.rstrip().encode() + b"x" * 200_000,
    "empty": lambda text: b"",
    "LFS": lambda text: LFS,
    "git-annex": lambda text: b"/annex/objects/SHA256E-s12--00.csv\n",
    "zeros": lambda text: b"\0" * 4096,
    "list": lambda text: b"[1, 2]\n",
    "deep": lambda text: b"[" * 100_000 + text.encode(),
}
SAME = {"utf-8-sig", "utf-16", "utf-16 without its mark", "utf-32", "old Mac lines", "blank lines"}


@pytest.mark.parametrize("corpus", TREES)
def test_a_table_spelt_otherwise_is_the_same_table_or_refused_by_name_and_nothing_vanishes(
    corpus: str, tmp_path: Path
) -> None:
    table = TREES[corpus](tmp_path)
    text, whole = table.read_text("utf-8"), people(listed(corpus, tmp_path))
    for spelling, respelt in SPELLINGS.items():
        table.write_bytes(respelt(text))
        try:
            found = listed(corpus, tmp_path)
        except ValueError as error:
            assert table.name in str(error) or "csv/2.wav" in str(error), (spelling, error)
            assert len(str(error)) < 2_000
            assert spelling not in SAME, (spelling, error)
            continue
        there, why = people(found), " ".join([*reasons(found), *reasons(found).values()])
        assert there.items() <= whole.items(), spelling
        assert all(name.removeprefix("train/") in why for name in whole.keys() - there.keys()), spelling
        assert there == whole or spelling not in SAME, spelling


@pytest.mark.parametrize("corpus", ["meld", "msp-podcast", "csv", "cremad", "demo"])
@pytest.mark.parametrize("spelling", ["semicolons", "sep=", "tabs", "capitals"])
def test_separators_and_headings_of_spreadsheets_make_no_difference(corpus: str, spelling: str, tmp_path: Path) -> None:
    table = TREES[corpus](tmp_path)
    if corpus == "meld":
        table.write_text("".join(line.replace('"“Oh, no”"', "Oh") for line in table.open(encoding="utf-8")), "utf-8")
    whole = listed(corpus, tmp_path)
    table.write_bytes(SPELLINGS[spelling](table.read_text("utf-8")))
    again = listed(corpus, tmp_path)
    assert (people(again), reasons(again), again.problems) == (people(whole), reasons(whole), whole.problems)


def test_cremads_table_of_genders_is_not_needed(tmp_path: Path) -> None:
    _cremad(tmp_path).write_bytes(LFS)
    found = listed("cremad", tmp_path)
    assert {one[2] for one in people(found).values()} == {"male", "female"}
    assert any("VideoDemographics.csv is a pointer" in problem for problem in found.problems)


@pytest.mark.parametrize("content", ["[1]", '{"a": ', "[" * 100_000, ""])
def test_a_label_map_that_is_none_is_refused_by_name(content: str, tmp_path: Path) -> None:
    _emobox(tmp_path)
    (tmp_path / "data/savee/label_map.json").write_text(content)
    assert "label_map.json" in refused("emobox", tmp_path / "data/savee").found


# files nobody asked for, and files that are not there


@pytest.mark.parametrize("corpus", [*sorted(TREES.keys() - {"demo", "emobox"}), "folder", "savee"])
def test_every_file_that_is_no_text_is_read_or_listed(corpus: str, tmp_path: Path) -> None:
    if corpus in TREES:
        TREES[corpus](tmp_path)
    else:
        touch(tmp_path, "DC/DC/a01.wav")
    odd = ["x.mp4", "x.3gp", "x.caf", "x.CAF", "deep/y.wav", "deep/y", "z.bin", ".annex/1.wav", "photo.jpg"]
    for name in odd:
        touch(tmp_path, name)
        (tmp_path / name).write_bytes(b"\x00\x01RIFF")
    (tmp_path / "gone.wav").symlink_to(tmp_path / ".git/annex/objects/gone.wav")
    (tmp_path / "loop").symlink_to(tmp_path)
    for name in ("readme.txt", "LICENSE", "a.TextGrid", "paper.pdf"):
        (tmp_path / name).write_bytes("“text”".encode("utf-16" if name == "a.TextGrid" else "utf-8"))
    options = {"speaker": "(?P<speaker>[^/]+)/[^/]+$"} if corpus == "folder" else {}
    found = list_recordings(corpus, tmp_path, **options)
    listed = {*people(found), *reasons(found)}
    for name in [*odd, "gone.wav"]:
        assert {name, name.removeprefix("deep/"), f"metadata.csv/{name}"} & listed, name
    assert not any("loop" in name or Path(name).suffix in (".txt", ".pdf", ".TextGrid", "E") for name in listed)


def test_links_to_folders_elsewhere_are_followed_and_git_annex_is_not_read_twice(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/anna/1.wav", "data/.git/annex/objects/2.wav", "data/sad/anna/x.txt")
    (tmp_path / "data/happy").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/sad/anna/2.wav").symlink_to("../../.git/annex/objects/2.wav")
    found = list_recordings("folder", tmp_path / "data", speaker="parent")
    assert [*people(found)] == ["happy/anna/1.wav", "sad/anna/2.wav"]
    assert reasons(found) == {}


def test_two_files_of_one_name_that_are_left_out_are_told_apart(tmp_path: Path) -> None:
    touch(tmp_path, "DC/a01.wav", "DC/x01.wav", "JE/x01.wav", "JE/y01.wav")
    assert set(reasons(list_recordings("savee", tmp_path))) == {"DC/x01.wav", "JE/x01.wav", "y01.wav"}


# IEMOCAP


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("[6.2901 - 8.2357]\t{}\tneu;hap\t[2.5, 2.5, 2.5]", "neu;hap"),
        ("[6.2901 - 8.2357]\t{}\t\t[2.5, 2.5, 2.5]", "none of"),
        ("[6.2901 - 8.2357]\t{}\tneu", "none of"),
        ("[6.2901", "names no turn"),
    ],
)
def test_a_line_of_iemocap_that_is_not_understood_is_listed(line: str, word: str, tmp_path: Path) -> None:
    table = _iemocap(tmp_path)
    name = "Ses01F_impro01_F001"
    clip(tmp_path / f"Session1/sentences/wav/Ses01F_impro01/{name}.wav")
    table.write_text(table.read_text() + line.format(name) + "\n")
    found = listed("iemocap", tmp_path)
    assert len(found.recordings) == 2
    assert word in " ".join(reasons(found).values())
    assert any(name in one for one in reasons(found))


@pytest.mark.parametrize("change", [("\t", "    "), (".", ","), ("neu", "NEU"), ("[6", "  [6"), ("- ", "-")])
def test_blanks_for_tabs_and_decimal_commas_make_no_difference(change: tuple[str, str], tmp_path: Path) -> None:
    table = _iemocap(tmp_path)
    whole = people(listed("iemocap", tmp_path))
    table.write_text(table.read_text().replace(*change))
    assert people(listed("iemocap", tmp_path)) == whole


def test_a_copy_of_an_evaluation_file_of_iemocap_says_nothing_twice(tmp_path: Path) -> None:
    table = _iemocap(tmp_path)
    copy = table.with_name(f"Copy of {table.name}")
    copy.write_text(table.read_text())
    found = listed("iemocap", tmp_path)
    assert (len(found.recordings), reasons(found)) == (2, {})
    copy.write_text(table.read_text().replace("neu", "ang"))
    assert people(listed("iemocap", tmp_path)) == people(found)
    assert [*reasons(listed("iemocap", tmp_path))] == [f"{copy.name}, line 3"]


# one person, one label


def table_of(root: Path, *rows: tuple[str, str], name: str = "x.csv") -> Path:
    lines = ["file,emotion,speaker"]
    for number, (emotion, speaker) in enumerate(rows):
        clip(root / f"{number}.wav")
        lines.append(f"{number}.wav,{emotion},{speaker}")
    (root / name).write_text("\n".join(lines), encoding="utf-8")
    return root / name


@pytest.mark.parametrize(
    "other",
    ["Jose\u0301", "jos\u00e9", " Jos\u00e9\u00a0", "Jos\u200b\u00e9", "\uff2aos\u00e9", "JOSE\u0301"],
    ids=ascii,
)
def test_a_person_under_two_spellings_is_one_person(other: str, tmp_path: Path) -> None:
    manifest = table_of(tmp_path, ("sad", "José"), ("happy", other), ("sad", "José"), ("happy", "Ana"))
    assert {one.speaker for one in list_recordings("csv", manifest).recordings} == {"José", "Ana"}


def test_names_that_may_be_two_people_stay_two_with_a_remark(tmp_path: Path) -> None:
    found = list_recordings("csv", table_of(tmp_path, ("sad", "03"), ("happy", "3"), ("sad", "s03"), ("sad", "30")))
    assert {one.speaker for one in found.recordings} == {"03", "3", "s03", "30"}
    assert [one for one in found.problems if "leading" in one] == [
        "speakers 03 and 3 differ in leading zeros only: is that one person?"
    ]


@pytest.mark.parametrize("speaker", ["nan", "None", " ", "\u200b"])
def test_a_speaker_who_is_no_name_is_refused(speaker: str, tmp_path: Path) -> None:
    assert "has no speaker" in refused("csv", table_of(tmp_path, ("sad", speaker))).found


def test_labels_that_are_none_are_missing_and_labels_alike_are_told(tmp_path: Path) -> None:
    words = ["happy", "Happy", "HAPPY ", "\u00a0happy", "nan", "None", "", "NULL"]
    manifest = table_of(tmp_path, *((word, f"s{number}") for number, word in enumerate(words)))
    corpus = read_corpus("csv", manifest)
    assert corpus.table.features["emotion"].names == ["HAPPY", "Happy", "happy"]
    assert {one.file: one.reason for one in corpus.left_out} == dict.fromkeys(
        [f"csv/{number}.wav" for number in range(4, 8)], "it has no emotion label"
    )
    [told] = [one for one in corpus.problems if "labels" in one]
    assert told.startswith("the labels HAPPY and Happy and happy")
    merged = read_corpora(
        [{"name": "csv", "root": manifest}], labels=dict.fromkeys(["HAPPY ", "Happy", "happy"], "joy")
    )
    assert not any("labels" in one for one in merged.problems)


def test_a_row_with_half_a_letter_is_listed_and_stops_nothing(tmp_path: Path) -> None:
    clip(tmp_path / "1.wav")
    rows = [{"file": "1.wav", "emotion": "sad", "speaker": "x"}, {"file": "2.wav", "emotion": "\ud800", "speaker": "x"}]
    rows += [{"file": "\udcff.wav", "emotion": "sad", "speaker": "x"}]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    corpus = read_corpus("csv", tmp_path / "x.jsonl")
    assert {one.file: one.reason for one in corpus.left_out} == {
        "csv/2.wav": "its emotion is no valid text",
        "csv/\\udcff.wav": "its file is no valid text",
    }


def test_a_second_row_of_a_recording_that_says_nothing_is_told_from_the_first(tmp_path: Path) -> None:
    manifest = table_of(tmp_path, ("sad", "x"))
    manifest.write_text(manifest.read_text() + "\n0.wav,,x\n")
    assert reasons(list_recordings("csv", manifest)) == {
        "0.wav": "it has no emotion label; another entry of this name is read"
    }


# segments


@pytest.mark.parametrize(
    ("header", "times"),
    [
        ("start,end", ["0.5,1.25", "1.25,2", ",", "1.5,"]),
        ("Start_Time,Duration", ["0.5,0.75", "1.25,0.75", ",", "1.5,"]),
        ("offset,duration", ["0.5,0.75", "1.25,0.75", ",", "1.5,"]),
        ("onset,offset", ["0.5,1.25", "1.25,2.00001", ",", "1.5,nan"]),
        ("begin,stop", ['"0,5","1,25"', '"1,25","2,0"', ",", '"1,5",']),
        ("utt_start_s,utt_end_s", ["0.5,1.25", "1.25,2", ",", "1.5,"]),
        ("Segment Start (s),Segment End (s)", ["0.5,1.25", "1.25,2", ",", "1.5,"]),
        ("t0,t1", ["0.5,1.25", "1.25,2", ",", "1.5,"]),
        ("dur,end_time_sec", ["0.75,1.25", "0.75,2", ",", "0.5,2"]),
        ("start_offset,end_offset", ["0.5,1.25", "1.25,2", ",", "1.5,"]),
        ("Begin Time - ss.msec,End Time - ss.msec", ["0.5,1.25", "1.25,2", ",", "1.5,"]),
        ("start,end,offset", ["0.5,1.25,7", "1.25,2,7", ",,7", "1.5,,7"]),
        ("start,end,duration", ["0.5,1.25,60", "1.25,2,60", ",,60", "1.5,,60"]),
    ],
)
@pytest.mark.parametrize("suffix", ["wav", "mp3"])
def test_a_row_with_a_segment_hears_that_and_nothing_else(
    header: str, times: list[str], suffix: str, tmp_path: Path
) -> None:
    wave = tone(32_000)
    whole = read_audio(write_audio(tmp_path / f"long.{suffix}", wave))
    lines = [f"file,emotion,speaker,{header}", *(f"long.{suffix},sad,x,{time}" for time in times)]
    (tmp_path / "x.csv").write_text("\n".join(lines))
    table = read_corpus("csv", tmp_path / "x.csv").table
    rows = sorted(table, key=lambda row: row["id"])
    spans = [(0, 32_000), (8_000, 20_000), (20_000, 32_000), (24_000, 32_000)]
    assert [row["num_samples"] for row in rows[:3]] == [len(whole), 12_000, rows[2]["num_samples"]]
    assert len({row["id"] for row in rows}) == 4
    assert rows[1]["file"] == f"long.{suffix}#t=0.5,1.25"
    for row, (first, last) in zip(rows, spans, strict=True):
        read = read_audio(row["audio"])
        assert len(read) == row["num_samples"]
        assert (read[: last - first] == whole[first : first + len(read)][: last - first]).all()


@pytest.mark.parametrize(
    ("header", "time", "found"),
    [
        ("start,end", "1,5", "is 2 s long, its segment is from 1 s to 5 s"),
        ("start,end", "2,3", "is 2 s long"),
        ("start,end", "00:01,00:02", "line 2 of"),
        ("start,end", "-1,2", "line 2 of"),
        ("start_ms,end_ms", "100,200", "'start_ms'"),
        ("frame_offset,num_frames", "100,200", "'frame_offset'"),
        ("start,duration_ms", "1,200", "'duration_ms'"),
        ("utt_start_ms,utt_end_ms", "100,200", "'utt_start_ms'"),
        ("end,length", "1,1.5", "begins before its file"),
        ("commencement,end", "1,2", "'end' of"),
        ("turn_start,clip_start,end", "0,1,2", "'turn_start' and 'clip_start'"),
    ],
)
def test_a_segment_that_cannot_be_meant_is_refused_and_can_be_ignored(
    header: str, time: str, found: str, tmp_path: Path
) -> None:
    (tmp_path / "a.wav").write_bytes(encoded(32_000))
    (tmp_path / "x.csv").write_text(f"file,emotion,speaker,{header}\na.wav,sad,x,{time}\n")
    with pytest.raises(ValueError, match="start: null") as raised:
        read_corpus("csv", tmp_path / "x.csv")
    assert found in str(raised.value)
    table = read_corpus("csv", tmp_path / "x.csv", columns={"start": None, "end": None}).table
    assert (table[0]["id"], table[0]["num_samples"]) == ("csv/a.wav", 32_000)


@pytest.mark.parametrize(
    "header",
    ["duration,length", "season_start_page,episode", "xmin,xmax,ymin,ymax", "to,time", "duration_ms"],
)
def test_other_columns_of_numbers_are_no_times(header: str, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(encoded(32_000))
    values = ",".join("1" for _ in header.split(","))
    (tmp_path / "x.csv").write_text(f"file,emotion,speaker,{header}\na.wav,sad,x,{values}\n")
    assert read_corpus("csv", tmp_path / "x.csv").table["num_samples"] == [32_000]


def test_columns_that_are_named_for_something_else_are_no_times(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(encoded(32_000))
    (tmp_path / "x.csv").write_text("file,emotion,from,to\na.wav,sad,anna,ben\n")
    table = read_corpus("csv", tmp_path / "x.csv", columns={"speaker": "from"}).table
    assert (table[0]["speaker"], table[0]["num_samples"]) == ("csv/anna", 32_000)


def test_a_compressed_file_is_decoded_once_for_all_of_its_segments_and_again_when_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[Path] = []
    monkeypatch.setattr(segments, "read_audio", lambda path: decoded.append(path) or read_audio(path))
    for pitch in (220.0, 330.0):
        path = write_audio(tmp_path / "long.mp3", tone(32_000, pitch))
        decoded.clear()
        parts = [cut_segment(path, start, start + 0.5) for start in (0.0, 0.5, 1.0, 1.5)]
        assert decoded == [path]
        assert (np.concatenate([read_audio(part) for part in parts]) == read_audio(path)[:32_000]).all()


def test_a_segment_of_no_length_is_listed_and_the_length_of_a_file_is_no_segment(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(encoded(32_000))
    (tmp_path / "x.csv").write_text("file,emotion,speaker,start,end\na.wav,sad,x,1,1\na.wav,sad,x,0,1\n")
    corpus = read_corpus("csv", tmp_path / "x.csv")
    assert [one.file for one in corpus.left_out] == ["csv/a.wav#t=1,1"]
    (tmp_path / "y.csv").write_text("file,emotion,speaker,duration\na.wav,sad,x,1\n")
    assert read_corpus("csv", tmp_path / "y.csv").table["num_samples"] == [32_000]
