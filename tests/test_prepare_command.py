from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from corpus_trees import read_corpus
from gmp_atl_hf.cli.verbs import main
from gmp_atl_hf.data.corpora import MODULES
from gmp_atl_hf.data.corpora import from_file as outside
from gmp_atl_hf.data.corpora.base import REGISTERED

EMODB = ["03a01Fa", "03a01Wa", "08a01Fa", "08a02Na"]


@pytest.fixture
def emodb(tmp_path: Path) -> Path:
    """Four half seconds of EMO-DB's file names, and a file that is not part of it."""
    folder = tmp_path / "emodb" / "wav"
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
    for name in EMODB:
        soundfile.write(folder / f"{name}.wav", noise, 16_000)
    return tmp_path / "emodb"


def test_prepare_tells_what_is_in_a_corpus(emodb: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "emodb", str(emodb)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("emodb: 4 recordings, 2 speakers, 0.00 hours\n")
    assert [line.split() for line in said.splitlines()[2:7]] == [
        ["female", "male", "all"],
        ["anger", "0", "1", "1"],
        ["happiness", "1", "1", "2"],
        ["neutral", "1", "0", "1"],
        ["all", "2", "2", "4"],
    ]
    assert "lengths: shortest 0.50 s, 5 % 0.50 s, median 0.50 s" in said
    assert "left out: nothing" in said
    assert "problems:\n  emodb differs from the complete corpus" in said


def test_prepare_counts_nobody_whom_nobody_has_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
    for place in ("anger/anna", "anger/unknown", "sadness/bert", "sadness/unknown"):
        (tmp_path / place).mkdir(parents=True)
        soundfile.write(tmp_path / place / "one.wav", noise, 16_000)
    assert main(["prepare", "folder", str(tmp_path), "--options", "speaker=parent"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("folder: 4 recordings, 2 speakers and unknown ones, ")
    assert "speakers: 2 of unknown gender; recordings of each: 1 to 1, median 1\n" in said
    assert "  anna 1, bert 1, unknown 2\n" in said
    for place in ("anger/anna", "sadness/bert"):
        (tmp_path / place / "one.wav").unlink()
    assert main(["prepare", "folder", str(tmp_path), "--options", "speaker=parent"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("folder: 2 recordings, unknown speakers, ") and "\nspeakers: unknown\n" in said


def test_prepare_names_what_is_left_out(emodb: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = np.zeros(100, dtype=np.float32)
    for number in range(12):
        soundfile.write(emodb / "wav" / f"09a{number + 1:02}Na.wav", short, 16_000)
    words = ["prepare", "emodb", str(emodb), "--options", "short_clips=drop"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "left out: 12\n  12: " in said
    assert "and 2 more (--all lists them)" in said
    assert "09a12Na" not in said.partition("problems:")[0]
    assert main([*words, "--all"]) == 0
    assert "09a12Na" in capsys.readouterr().out.partition("problems:")[0]


def test_prepare_tells_who_speaks_how_much_and_what_suits_the_corpus(
    emodb: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", "emodb", str(emodb)]) == 0
    said = capsys.readouterr().out
    assert "speakers: 1 female, 1 male; recordings of each: 2 to 2, median 2\n  03 2, 08 2\n" in said
    assert "protocol that suits it: leave-one-speaker-out" in said
    assert "has the same sound under several names" in said  # the fixture writes one noise four times


def test_prepare_says_where_the_protocol_that_suits_a_corpus_cannot_be_followed(
    emodb: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted(emodb.rglob("*.wav"))[:2]
    rows = "".join(f"{file},{emotion},one\n" for file, emotion in zip(files, ("anger", "joy"), strict=True))
    (tmp_path / "one.csv").write_text(f"file,emotion,speaker\n{rows}", encoding="utf-8")
    assert main(["prepare", "csv", str(tmp_path / "one.csv")]) == 0
    assert (
        "suits it: group-k-fold; but not with all its labels and speakers as they are: the table has 1 speaker, but"
        in capsys.readouterr().out
    )


def test_prepare_draws_a_picture_that_is_the_same_every_time(emodb: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pictures = [tmp_path / "new" / name for name in ("a.png", "b.png")]
    for picture in pictures:
        assert main(["prepare", "emodb", str(emodb), "--picture", str(picture)]) == 0
    first, second = (picture.read_bytes() for picture in pictures)
    assert first.startswith(b"\x89PNG")
    assert len(first) > 20_000
    assert first == second


def test_a_picture_that_cannot_be_drawn_is_refused_before_the_corpus_is_read(
    emodb: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", "emodb", "/nowhere", "--picture", "x.jpg"]) == 2
    assert "ends in .png" in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["prepare", "emodb", "/nowhere", "--picture", str(tmp_path / "x.png")]) == 2
    assert "gmp-atl-hf[plots]" in capsys.readouterr().err


def test_the_list_of_corpora_has_every_name_and_its_facts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["corpora"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert {*MODULES} <= {*lines}
    for fact in ("7,442", "5.3", "91 (43 f, 48 m)", "group-k-fold", "ODbL"):
        assert fact in lines["cremad"]
    assert lines["corpus"].index("recordings") + len("recordings") == lines["cremad"].index("7,442") + len("7,442")


def test_one_corpus_is_told_about_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["corpora", "msp-podcast", "savee"]) == 0
    said = capsys.readouterr().out
    assert "unknown_speakers" in said
    assert "caution   four men" in said
    assert main(["corpora", "savvee"]) == 2
    assert "did you mean `savee`" in capsys.readouterr().err


OWN = """
from gmp_atl_hf.data.corpora import CorpusInfo, Recording, audio_files, register_corpus


@register_corpus(CorpusInfo(name="{name}", layout="<speaker>_<emotion>_<number>.wav"))
def read(root, genders=None):
    for path in audio_files(root):
        speaker, emotion, _ = path.stem.split("_")
        yield Recording(path.stem, path, emotion, speaker)
"""


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Path]:
    """A file with a reader that is not part of the package, and a recording."""
    noise = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
    (tmp_path / "data").mkdir()
    soundfile.write(tmp_path / "data" / "anna_joy_1.wav", noise, 16_000)
    file = tmp_path / "mine.py"
    file.write_text(OWN.format(name="my-corpus"))
    before = dict(REGISTERED)
    yield file
    REGISTERED.clear()
    REGISTERED.update(before)
    outside._LOADED.clear()


def test_a_corpus_is_read_by_a_file_of_ones_own(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", str(own), str(own.parent / "data")]) == 0
    assert capsys.readouterr().out.startswith("my-corpus: 1 recording, 1 speaker, ")
    table = read_corpus(str(own), own.parent / "data").table  # a second time: the file is run once
    assert (table[0]["id"], table[0]["speaker"]) == ("my-corpus/anna_joy_1", "my-corpus/anna")
    assert main(["corpora", str(own)]) == 0
    assert "options   genders" in capsys.readouterr().out
    assert main(["prepare", str(own), str(own.parent / "data"), "--options", "gender=x"]) == 2
    assert "did you mean `genders`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "registers no corpus"),
        ("1 / 0", "ZeroDivisionError"),
        ("from gmp_atl_hf.data.corpora import no_such_thing", "no_such_thing"),
        (OWN.format(name="emodb"), "'emodb', which is taken"),
        (OWN.format(name="one") + OWN.format(name="two"), "registers one, two"),
    ],
)
def test_a_file_that_is_no_corpus_is_refused(
    own: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    own.write_text(text)
    assert main(["prepare", str(own), str(own.parent / "data")]) == 2
    assert message in capsys.readouterr().err
    assert "emodb" not in REGISTERED or REGISTERED["emodb"].info.homepage


def test_one_of_several_readers_of_a_file_is_named_behind_a_colon(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own.write_text(OWN.format(name="one") + OWN.format(name="two"))
    assert main(["prepare", f"{own}:two", str(own.parent / "data")]) == 0
    assert capsys.readouterr().out.startswith("two: 1 recording")
    assert main(["prepare", f"{own}:three", str(own.parent / "data")]) == 2
    assert main(["prepare", str(own.with_name("gone.py")), "."]) == 2
    assert "there is no file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["emodbb"], "did you mean"),
        (["emodb"], "no folder was given"),
        (["emodb", "/nowhere/at/all"], "nothing at /nowhere/at/all"),
        (["emodb", ".", "--options", "short_clips"], "key.path=value"),
    ],
)
def test_a_corpus_that_cannot_be_read_is_a_wrong_request(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", *words]) == 2
    assert message in capsys.readouterr().err
