from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from gmp_atl_hf.cli import main

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
