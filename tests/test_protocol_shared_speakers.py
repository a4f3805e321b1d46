"""Protocols of splits with speakers on both sides, and with speakers whom nobody knows."""

from __future__ import annotations

import datasets
import pytest

from gmp_atl_hf.data.columns import replace_column
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.protocols.protocol import Protocol, select
from test_protocol import EMOTIONS, people, table_of


def shared_table():
    """EmoBox-like: every speaker is trained and tested on; two recordings of each emotion go to training."""
    both = {f"s{n}": {"gender": ("female", "male")[n % 2], "emotions": EMOTIONS * 2} for n in range(5)}
    train = table_of({name: {**facts, "split": "train"} for name, facts in both.items()})
    test = table_of({name: {"gender": facts["gender"], "split": "test"} for name, facts in both.items()})
    test = test.map(lambda row: {"id": row["id"] + "-test"})
    return datasets.concatenate_datasets([train, test])


def test_a_split_that_shares_speakers_needs_permission_and_then_follows_the_recordings():
    table = shared_table()
    with pytest.raises(RequestError, match="speaker c/s0 .* is in train and in test") as raised:
        Protocol("given").folds(table)
    assert "protocol.allow_shared_speakers: true" in raised.value.fix
    protocol = Protocol("given", allow_shared_speakers=True)
    (fold,) = protocol.folds(table)
    assert not fold.speaker_independent
    assert fold.test == tuple(f"c/s{n}" for n in range(5))
    assert len(fold.dev) == 2
    rows = select(table, fold)
    assert {part: len(own) for part, own in rows.items()} == {"train": 18, "dev": 12, "test": 15}
    assert all(name.endswith("-test") for name in rows["test"]["id"])
    assert not set(rows["train"]["speaker"]) & set(rows["dev"]["speaker"])
    assert fold.to_json()["recordings"] == {part: rows[part]["id"][:] for part in rows}


def test_the_description_of_shared_folds_says_what_they_are_not():
    facts = Protocol("given", allow_shared_speakers=True).describe(shared_table())
    assert facts["speaker_independent"] is False
    assert facts["shared_speakers"] == [f"c/s{n}" for n in range(5)]
    assert "not speaker-independent: 5 speakers of the test also trained on" in facts["sentence"]
    assert "no speaker is in two parts" not in facts["sentence"]


def test_permission_changes_nothing_where_no_speaker_is_shared():
    speakers = people(6)
    for number, facts in enumerate(speakers.values()):
        facts["split"] = "test" if number > 3 else "train"
    table = table_of(speakers)
    assert Protocol("given", allow_shared_speakers=True).folds(table) == Protocol("given").folds(table)
    assert Protocol("given", allow_shared_speakers=True).describe(table)["speaker_independent"] is True


@pytest.mark.parametrize("kind", ["leave-one-speaker-out", "group-k-fold"])
def test_recordings_of_nobody_knows_whom_are_refused_where_folds_are_made_of_speakers(kind):
    table = table_of(people(6) | {"unknown": {}})
    with pytest.raises(RequestError, match="nobody knows who speaks 3 recordings: their speaker is c/unknown"):
        Protocol(kind).folds(table)


@pytest.mark.parametrize("side", ["train", "test"])
def test_an_unknown_speaker_on_one_side_may_be_anybody_on_the_other(side):
    speakers = people(6)
    for number, facts in enumerate(speakers.values()):
        facts["split"] = "test" if number > 3 else "train"
    table = table_of(speakers | {"unknown": {"split": side}})
    with pytest.raises(RequestError, match="nobody knows who speaks 3 recordings"):
        Protocol("given").folds(table)
    facts = Protocol("given", allow_shared_speakers=True).describe(table)
    assert facts["speaker_independent"] is False
    assert facts["unknown_speakers"] == 3
    assert "nobody knows who speaks 3 recordings" in facts["sentence"]


def test_a_corpus_of_unknown_speakers_alone_has_no_development_part_of_its_own():
    parts = [table_of({"unknown": {"split": part}}) for part in ("train", "test")]
    parts[1] = parts[1].map(lambda row: {"id": row["id"] + "-test"})
    table = datasets.concatenate_datasets(parts)
    (fold,) = Protocol("given", allow_shared_speakers=True).folds(table)
    assert (fold.train, fold.dev, fold.test) == (("c/unknown",), (), ("c/unknown",))


def test_an_emotion_of_the_test_recordings_alone_does_not_count_as_trained_on():
    table = shared_table()
    rare = table_of({"s0": {"split": "test", "emotions": ["disgust"]}}, labels=["angry", "disgust", "happy", "sad"])
    rare = rare.map(lambda row: {"id": "c/rare"})
    order = ["angry", "disgust", "happy", "sad"]
    names = table.features["emotion"].names
    moved = [order.index(names[number]) for number in table["emotion"]]
    table = replace_column(table, "emotion", moved, feature=datasets.ClassLabel(names=order))
    with pytest.raises(RequestError, match="no recording of disgust"):
        Protocol("given", allow_shared_speakers=True).folds(datasets.concatenate_datasets([table, rare]))


def with_unknown(named: int, clips: int, gender: str | None = None) -> datasets.Dataset:
    """A corpus c to train on, most of it of unknown speakers, and a corpus d to test on."""
    train = table_of(people(named) | {"unknown": {"emotions": EMOTIONS * clips, "gender": gender}})
    test = table_of(people(2)).map(
        lambda row: {"corpus": "d", "speaker": "d" + row["speaker"][1:], "id": "d" + row["id"][1:]}
    )
    return datasets.concatenate_datasets([train, test])


@pytest.mark.parametrize("gender", [None, "female"])
def test_recordings_of_unknown_speakers_stay_in_training(gender):
    table = with_unknown(named=10, clips=20, gender=gender)
    for seed in range(5):
        (fold,) = Protocol("cross-corpus", test_corpora=("d",), seed=seed).folds(table)
        assert "c/unknown" in fold.train
        assert len(fold.dev) == 2
    (fold,) = Protocol("cross-corpus", test_corpora=("d",), dev_speakers=10).folds(table)
    assert fold.train == ("c/unknown",)
    with pytest.raises(RequestError, match="has 10 known speakers on its training side and can spare 10 of them"):
        Protocol("cross-corpus", test_corpora=("d",), dev_speakers=11).folds(table)


def test_a_training_side_of_unknown_speakers_alone_has_no_development_speakers():
    protocol = Protocol("cross-corpus", test_corpora=("d",))
    (fold,) = protocol.folds(with_unknown(named=0, clips=2))
    assert (fold.train, fold.dev) == (("c/unknown",), ())


def test_unknown_speakers_are_not_counted_as_one_person():
    facts = Protocol("cross-corpus", test_corpora=("d",)).describe(with_unknown(named=10, clips=2))
    assert facts["speakers"]["total"] == 12
    assert "12 speakers (" in facts["sentence"]
    assert "no known speaker is in two parts, and nobody knows who speaks" in facts["sentence"]
    nobody = Protocol("cross-corpus", test_corpora=("d",)).describe(with_unknown(named=0, clips=2))
    assert nobody["train"]["speakers"] == [0, 0]
    assert "unknown ones for training" in nobody["sentence"]
    parts = [table_of({"unknown": {"split": part}}) for part in ("train", "dev", "test")]
    named = [
        part.map(lambda row, place, number=number: {"id": f"{row['id']}-{number}"}, with_indices=True)
        for number, part in enumerate(parts)
    ]
    shared = Protocol("given", allow_shared_speakers=True).describe(datasets.concatenate_datasets(named))
    assert "unknown ones of the training side for development" in shared["sentence"]
    assert "also trained on" not in shared["sentence"]
