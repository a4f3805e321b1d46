"""The IEMOCAP reader on a miniature tree in the original layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from corpus_trees import read_corpus

FOUR = {"anger": "anger", "excited": "happiness", "happiness": "happiness", "neutral": "neutral", "no agreement": None}


def turn(root: Path, session: int, dialog: str, name: str, label: str, audio: bool = True) -> None:
    evaluation = root / f"Session{session}" / "dialog" / "EmoEvaluation" / f"{dialog}.txt"
    evaluation.parent.mkdir(parents=True, exist_ok=True)
    if not evaluation.exists():
        evaluation.write_text("% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n")
    with evaluation.open("a") as file:
        file.write(f"[6.2901 - 8.2357]\t{name}\t{label}\t[2.5000, 2.5000, 2.5000]\nC-E2:\tNeutral;\t()\n\n")
    if audio:
        wav = root / f"Session{session}" / "sentences" / "wav" / dialog / f"{name}.wav"
        wav.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(wav, np.random.default_rng(0).normal(0, 0.1, 1600), 16_000)


@pytest.fixture
def iemocap(tmp_path: Path) -> Path:
    turn(tmp_path, 1, "Ses01F_impro01", "Ses01F_impro01_F000", "neu")
    turn(tmp_path, 1, "Ses01F_impro01", "Ses01F_impro01_M003", "exc")
    turn(tmp_path, 2, "Ses02M_script01_1", "Ses02M_script01_1_F001", "hap")
    turn(tmp_path, 2, "Ses02M_script01_1", "Ses02M_script01_1_M001", "xxx")
    turn(tmp_path, 2, "Ses02M_script01_1", "Ses02M_script01_1_M002", "ang", audio=False)
    return tmp_path


def test_speaker_and_gender_come_from_the_turn_and_not_from_the_markers(iemocap: Path) -> None:
    table = read_corpus("iemocap", iemocap).table
    speaker = dict(zip(table["id"], table["speaker"], strict=True))
    gender = dict(zip(table["id"], table["gender"], strict=True))
    assert speaker["iemocap/Ses01F_impro01_M003"] == "iemocap/Ses01M"
    assert gender["iemocap/Ses01F_impro01_M003"] == table.features["gender"].str2int("male")
    assert speaker["iemocap/Ses02M_script01_1_F001"] == "iemocap/Ses02F"
    assert set(table["session"]) == {"Ses01", "Ses02"}


def test_excited_is_merged_into_happiness_where_the_recipe_says_so(iemocap: Path) -> None:
    labels = {name: target for name, target in FOUR.items() if name != "anger"}
    table = read_corpus("iemocap", iemocap, labels=labels).table
    names = table.features["emotion"].names
    assert sorted(names[number] for number in table["emotion"]) == ["happiness", "happiness", "neutral"]


def test_an_annotated_turn_without_audio_is_listed(iemocap: Path) -> None:
    left_out = {one.file: one.reason for one in read_corpus("iemocap", iemocap).left_out}
    assert left_out == {"iemocap/Ses02M_script01_1_M002": "annotated, but its wav file is missing"}
