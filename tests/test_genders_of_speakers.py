"""A speaker has one gender everywhere, where not all of the recordings say it."""

from __future__ import annotations

from typing import Any

import pytest

from audio_files import tone, write_audio
from gmp_atl_hf.data.table import read_corpora
from gmp_atl_hf.evaluation.genders import genders_of_speakers
from gmp_atl_hf.evaluation.results import FoldResult
from gmp_atl_hf.evaluation.summary import variant_summary
from gmp_atl_hf.evaluation.verdict import CorpusResults, verdict_over_corpora
from gmp_atl_hf.protocols.speakers import Speakers
from gmp_atl_hf.report import corpus_picture

LABELS = ["anger", "joy"]
SAID = {"a": ["female", "female", None], "b": [None, "male", None], "c": [None, None, None]}
"""The genders of each speaker's recordings; those of joy have none."""
PEOPLE = {"x/a": "female", "x/b": "male", "x/c": None}


def tested() -> list[FoldResult]:
    rows = [
        {
            "id": f"x/{name}-{take}",
            "speaker": f"x/{name}",
            "gender": gender,
            "emotion": LABELS[take == 2],
            "predicted": LABELS[take % 2],
        }
        for name, genders in SAID.items()
        for take, gender in enumerate(genders)
    ]
    return [FoldResult(0, 1, rows)]


def test_the_gender_that_most_recordings_have_counts_and_one_that_is_missing_does_not() -> None:
    pairs = [("a", None), ("a", None), ("a", "male"), ("b", "female"), ("b", "male"), ("b", "male"), ("c", None)]
    assert genders_of_speakers(pairs) == {"a": "male", "b": "male", "c": None}


def test_a_verdict_has_the_genders_of_speakers_of_whom_some_recordings_say_it() -> None:
    found = verdict_over_corpora({"x": CorpusResults(LABELS, tested(), tested())})
    assert {gender: one["n"] for gender, one in found["per_gender"].items()} == {"female": 1, "male": 1}
    assert found["unknown_gender"] == 1


def test_a_report_has_them_too() -> None:
    people = variant_summary(tested(), LABELS, 1, [0], True)["per_speaker"]
    assert {name: one["gender"] for name, one in people.items()} == {
        name: gender or "unknown" for name, gender in PEOPLE.items()
    }


def test_protocol_and_picture_say_the_same_of_a_corpus(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["file,emotion,speaker,gender"]
    for name, genders in SAID.items():
        for take, gender in enumerate(genders):
            write_audio(tmp_path / f"{name}{take}.wav", tone(1_600, seed=len(lines)))
            lines.append(f"{name}{take}.wav,{LABELS[take == 2]},{name},{gender or ''}")
    (tmp_path / "list.csv").write_text("\n".join(lines), encoding="utf-8")
    corpus = read_corpora([{"name": "csv", "root": tmp_path / "list.csv", "corpus_name": "x"}])
    assert Speakers.of(corpus.table).genders == PEOPLE
    drawn: list[dict[str, str]] = []
    monkeypatch.setattr(corpus_picture, "_speakers", lambda axes, counts, genders: drawn.append(genders))
    corpus_picture.corpus_png(corpus)
    assert drawn == [{name: gender or "unknown" for name, gender in PEOPLE.items()}]
