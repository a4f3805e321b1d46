"""Protocols: who is in which part, and the proof that nobody is in two."""

from __future__ import annotations

import json
import random
from collections import Counter

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmp_atl_hf.data.columns import replace_column
from gmp_atl_hf.data.protocol_kinds import KINDS
from gmp_atl_hf.data.table import make_table
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.protocols.protocol import Fold, Protocol, select
from gmp_atl_hf.protocols.shuffled_labels import shuffle_labels
from gmp_atl_hf.protocols.speakers import natural_order
from gmp_atl_hf.protocols.splitters import SPLITTERS

EMOTIONS = ["angry", "happy", "sad"]


def table_of(speakers: dict[str, dict[str, object]], emotions: list[str] = EMOTIONS, labels: list[str] | None = None):
    """A table without sound: speaker to gender, session, split and, where not all, emotions."""
    columns: dict[str, list[object]] = {
        name: [] for name in ("id", "file", "emotion", "gender", "speaker", "session", "split", "corpus", "num_samples")
    }
    for speaker, facts in speakers.items():
        for emotion in facts.get("emotions", emotions):  # type: ignore[attr-defined]
            file = f"{speaker}-{len(columns['id'])}"
            values = {"id": f"c/{file}", "file": file, "emotion": emotion, "speaker": f"c/{speaker}", "corpus": "c"}
            values |= {name: facts.get(name) for name in ("gender", "session", "split")} | {"num_samples": 400}
            for name, value in values.items():
                columns[name].append(value)
    columns["audio"] = [{"path": "x.wav", "bytes": None}] * len(columns["id"])
    return make_table(columns, labels or sorted(set(emotions)))


def people(count: int, sessions: int = 1) -> dict[str, dict[str, object]]:
    """Women and men in turn, two per session."""
    return {f"s{n}": {"gender": ("female", "male")[n % 2], "session": f"Ses{n // 2 % sessions}"} for n in range(count)}


def parts(fold: Fold) -> list[set[str]]:
    return [set(fold.train), set(fold.dev), set(fold.test)]


def check(folds: list[Fold], speakers: set[str]) -> None:
    """What has to hold of all folds of any protocol that tests everybody."""
    assert [fold.number for fold in folds] == list(range(1, len(folds) + 1))
    for fold in folds:
        train, dev, test = parts(fold)
        assert train
        assert test
        assert not train & dev
        assert not train & test
        assert not dev & test
        assert train | dev | test == speakers
    assert Counter(s for fold in folds for s in fold.test) == dict.fromkeys(speakers, 1)


def genders_of(table, speakers: tuple[str, ...]) -> Counter[int | None]:
    by_speaker = dict(zip(table["speaker"], table["gender"], strict=True))
    return Counter(by_speaker[speaker] for speaker in speakers)


def test_leave_one_speaker_out_tests_every_speaker_once_with_both_genders_in_development():
    table = table_of(people(10))
    folds = Protocol("leave-one-speaker-out").folds(table)
    check(folds, set(table["speaker"]))
    assert [fold.test for fold in folds] == [(f"c/s{n}",) for n in range(10)]
    for fold in folds:
        assert genders_of(table, fold.dev) == {0: 1, 1: 1}
    assert Counter(s for fold in folds for s in fold.dev) == {f"c/s{n}": 2 for n in range(10)}


def test_leave_one_session_out_leaves_whole_sessions_out_and_develops_on_another_whole_one():
    table = table_of(people(10, sessions=5))
    folds = Protocol("leave-one-session-out").folds(table)
    check(folds, set(table["speaker"]))
    assert [fold.test for fold in folds] == [(f"c/s{2 * n}", f"c/s{2 * n + 1}") for n in range(5)]
    assert [fold.dev for fold in folds] == [folds[(n + 1) % 5].test for n in range(5)]
    by_speaker = Protocol("leave-one-session-out", dev_speakers=3).folds(table)
    assert all(len(fold.dev) == 3 for fold in by_speaker)


def copied(table: datasets.Dataset, corpus: str) -> datasets.Dataset:
    """The table and a copy of it under another name: other recordings, the same people."""
    other = table.map(lambda row: {"corpus": corpus, "id": f"{corpus}-{row['id']}"}, features=table.features)
    return datasets.concatenate_datasets([table, other])


def test_a_session_is_the_same_in_a_copy_under_another_name():
    table = table_of(people(8, sessions=4))
    folds = Protocol("leave-one-session-out").folds(table)
    assert [fold.test for fold in Protocol("leave-one-session-out").folds(copied(table, "phone"))] == [
        fold.test for fold in folds
    ]


def test_every_corpus_that_is_trained_on_is_named():
    strangers = table_of({f"t{n}": {"gender": "male"} for n in range(3)}).map(lambda row: {"corpus": "target"})
    table = datasets.concatenate_datasets([copied(table_of(people(8)), "phone"), strangers])
    sentence = Protocol("cross-corpus", test_corpora=("target",)).describe(table)["sentence"]
    assert "trained on c and phone, tested on target" in sentence


def test_two_sessions_still_leave_somebody_to_develop_on():
    table = table_of(people(8, sessions=2))
    folds = Protocol("leave-one-session-out").folds(table)
    check(folds, set(table["speaker"]))
    assert [genders_of(table, fold.dev) for fold in folds] == [{0: 1, 1: 1}] * 2


def test_group_k_fold_gives_each_fold_like_shares_of_emotions_and_genders():
    table = table_of(people(20), emotions=["angry", "angry", "happy", "sad"], labels=EMOTIONS)
    folds = Protocol("group-k-fold", num_folds=5).folds(table)
    check(folds, set(table["speaker"]))
    for fold in folds:
        assert genders_of(table, fold.test) == {0: 2, 1: 2}
        assert genders_of(table, fold.dev)[0] in (1, 2)
    assert len(Protocol("group-k-fold").folds(table)) == 5
    other = Protocol("group-k-fold", num_folds=5, seed=1).folds(table)
    assert [fold.test for fold in other] != [fold.test for fold in folds]


@pytest.mark.parametrize("kind", ["leave-one-speaker-out", "leave-one-session-out", "group-k-fold"])
def test_folds_do_not_depend_on_the_order_of_rows_and_come_out_the_same_twice(kind):
    table = table_of(people(12, sessions=4))
    order = list(range(len(table)))
    random.Random(0).shuffle(order)
    protocol = Protocol(kind, num_folds=3 if kind == "group-k-fold" else None)
    assert protocol.folds(table) == protocol.folds(table.select(order)) == protocol.folds(table)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(["female", "male", None]), min_size=3, max_size=14),
    st.sampled_from(["leave-one-speaker-out", "group-k-fold"]),
    st.integers(0, 3),
)
def test_no_speaker_is_ever_in_two_parts_whoever_the_speakers_are(genders, kind, seed):
    table = table_of({f"s{n}": {"gender": gender} for n, gender in enumerate(genders)})
    folds = Protocol(kind, num_folds=3 if kind == "group-k-fold" else None, seed=seed).folds(table)
    check(folds, set(table["speaker"]))
    assert all(fold.dev for fold in folds)
    served = Counter(s for fold in folds for s in fold.dev)
    if kind == "leave-one-speaker-out" and len(set(genders)) == 1:
        assert max(served.values()) - min(served[s] for s in set(table["speaker"])) <= 2


def test_about_a_fifth_of_the_training_speakers_develop_and_never_more_than_twenty():
    for count, expected in ((3, 1), (6, 2), (10, 2), (21, 4), (60, 12), (150, 20)):
        fold = Protocol().folds(table_of(people(count)))[0]
        assert len(fold.dev) == expected


def test_the_number_of_development_speakers_can_be_set_down_to_none():
    table = table_of(people(10))
    for number in (0, 1, 3, 8):
        folds = Protocol(dev_speakers=number).folds(table)
        assert {len(fold.dev) for fold in folds} == {number}
    with pytest.raises(RequestError, match="fold 1 has 9 speakers on its training side and can spare 8"):
        Protocol(dev_speakers=9).folds(table)


def test_fewer_than_three_speakers_leave_nobody_for_development_unless_somebody_insists():
    table = table_of(people(2))
    folds = Protocol().folds(table)
    check(folds, {"c/s0", "c/s1"})
    assert [fold.dev for fold in folds] == [(), ()]
    assert "none for development (fixed number of epochs, no calibration)" in Protocol().describe(table)["sentence"]
    with pytest.raises(RequestError, match="can spare 0"):
        Protocol(dev_speakers=1).folds(table)


def test_the_last_training_speaker_of_a_gender_stays_in_training():
    speakers = {f"s{n}": {"gender": "female"} for n in range(8)} | {"x": {"gender": "male"}}
    for fold in Protocol(dev_speakers=3).folds(table_of(speakers)):
        assert "c/x" not in fold.dev


def test_no_development_speaker_takes_the_last_example_of_an_emotion_with_them():
    speakers = people(8) | {
        "rare1": {"gender": "female", "emotions": ["disgust"]},
        "rare2": {"gender": "female", "emotions": ["disgust"]},
    }
    table = table_of(speakers, labels=["angry", "disgust", "happy", "sad"])
    for fold in Protocol().folds(table):
        assert {"c/rare1", "c/rare2"} & set(fold.train)


def test_a_given_split_is_followed_with_its_usual_words():
    speakers = people(6)
    for number, facts in enumerate(speakers.values()):
        facts["split"] = ["train", "train", "train", "train", "validation", "test"][number]
    table = table_of(speakers)
    (fold,) = Protocol("given").folds(table)
    assert fold == Fold(1, ("c/s0", "c/s1", "c/s2", "c/s3"), ("c/s4",), ("c/s5",))
    with pytest.raises(RequestError, match="development speakers of its own"):
        Protocol("given", dev_speakers=2).folds(table)
    speakers["s4"]["split"] = "train"
    (fold,) = Protocol("given").folds(table_of(speakers))
    assert fold.test == ("c/s5",)
    assert genders_of(table, fold.dev) == {0: 1, 1: 1}


@pytest.mark.parametrize(("one", "other"), [("train", "test"), ("train", "dev"), ("dev", "test")])
def test_a_speaker_on_both_sides_of_a_given_split_is_named_with_both(one, other):
    table = table_of({"a": {"split": "train"}, "b": {"split": "test"}, "c": {"split": "dev"}, "x": {"split": one}})
    rest = table_of({"x": {"split": other}})
    with pytest.raises(RequestError, match=f"speaker c/x is in {one} and in {other} of the given split"):
        Protocol("given").folds(datasets.concatenate_datasets([table, rest]))


@pytest.mark.parametrize("missing", ["train", "test"])
def test_a_given_split_needs_both_sides(missing):
    other = {"train": "test", "test": "train"}[missing]
    with pytest.raises(RequestError, match=f"no {missing} recordings"):
        Protocol("given").folds(table_of({"a": {"split": other}, "b": {"split": other}}))


def test_a_missing_column_or_value_is_answered_with_another_protocol():
    table = table_of(people(4))
    for kind, column in (("given", "split"), ("leave-one-session-out", "session")):
        with pytest.raises(RequestError, match=f"has no {column}s") as raised:
            Protocol(kind).folds(table.remove_columns(column))
        assert "group-k-fold" in str(raised.value.fix)
    speakers = people(4) | {"x": {"gender": "male"}}
    with pytest.raises(RequestError, match=r"3 of 15 recordings have no session, the first is c/x-12"):
        Protocol("leave-one-session-out").folds(table_of(speakers))


def test_a_speaker_in_two_sessions_is_named_with_both():
    table = datasets.concatenate_datasets([table_of({"x": {"session": "1"}}), table_of({"x": {"session": "2"}})])
    with pytest.raises(RequestError, match="speaker c/x is in the sessions c/1 and c/2"):
        Protocol("leave-one-session-out").folds(table)


def test_fewer_speakers_than_folds_is_refused_with_both_numbers():
    with pytest.raises(RequestError, match=r"4 speakers, but group-k-fold with 5 folds needs at least 5") as raised:
        Protocol("group-k-fold", num_folds=5).folds(table_of(people(4)))
    assert raised.value.fix == "ask for 4 folds or fewer"
    with pytest.raises(RequestError, match="1 speaker, but leave-one-speaker-out needs at least 2") as raised:
        Protocol().folds(table_of(people(1)))
    assert "recordings of other speakers; or give each recording a split" in str(raised.value.fix)
    with pytest.raises(RequestError, match="1 session, but") as raised:
        Protocol("leave-one-session-out").folds(table_of(people(4)))
    assert "recordings of other sessions" in str(raised.value.fix)


def test_settings_may_have_the_names_of_recipes():
    assert Protocol("group-k-fold", folds=3) == Protocol("group-k-fold", num_folds=3) == Protocol("group-k-fold", 3)
    sides = Protocol("cross-corpus", train=("a",), test=("b",))
    assert (sides.train_corpora, sides.test_corpora) == (("a",), ("b",))
    with pytest.raises(RequestError, match="num_folds and folds, which are one setting"):
        Protocol("group-k-fold", 5, folds=3)


@pytest.mark.parametrize(("name", "meant"), [("fold", "folds"), ("dev_speaker", "dev_speakers"), ("test_corpus", None)])
def test_a_setting_that_protocol_does_not_have_is_refused_with_those_it_has(name, meant):
    with pytest.raises(RequestError, match=f"Protocol has no setting '{name}'") as raised:
        Protocol("group-k-fold", **{name: 3})
    assert "num_folds, dev_speakers, " in str(raised.value.expected)
    assert "as in recipes, folds for num_folds, " in str(raised.value.expected)
    assert meant is None or raised.value.fix == f"did you mean `{meant}`?"


def test_an_emotion_that_a_training_part_lacks_is_named_with_the_fold():
    speakers = people(6)
    speakers["s2"]["emotions"] = [*EMOTIONS, "disgust"]
    table = table_of(speakers, labels=["angry", "disgust", "happy", "sad"])
    with pytest.raises(RequestError, match="training part of fold 3 has no recording of disgust") as raised:
        Protocol().folds(table)
    assert "disgust: null" in str(raised.value.fix)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "leave-one-speaker"}, "did you mean `leave-one-speaker-out`"),
        ({"kind": "loso"}, "one of leave-one-speaker-out"),
        ({"kind": "given", "num_folds": 5}, "with kind: group-k-fold only"),
        ({"kind": "group-k-fold", "num_folds": 1}, "at least 2"),
        ({"dev_speakers": -1}, "0 \\(none\\) or more"),
        ({"seed": -1}, "0 or more"),
        ({"kind": "group-k-fold", "allow_shared_speakers": True}, "kind: given only"),
        ({"kind": "given", "test_corpora": ("a",)}, "with cross-corpus only"),
    ],
)
def test_a_protocol_that_makes_no_sense_is_refused_when_it_is_made(options, words):
    with pytest.raises(RequestError, match=words):
        Protocol(**options)


def test_a_fold_with_a_speaker_in_two_parts_cannot_exist():
    for shared in ({"train": ("a",)}, {"dev": ("a",)}):
        with pytest.raises(RequestError, match=r"speaker a is in (train|dev) and in test of fold 2"):
            Fold(**({"number": 2, "train": ("x",), "dev": (), "test": ("a",)} | shared))
    with pytest.raises(RequestError, match="speaker a is in train and in dev"):
        Fold(1, ("a",), ("a",), ("b",))


def test_a_fold_can_be_written_as_json():
    fold = Fold(3, ("a", "b"), ("c",), ("d",))
    content = json.loads(json.dumps(fold.to_json()))
    assert content == {"fold": 3, "train": ["a", "b"], "dev": ["c"], "test": ["d"]}


def test_selecting_gives_every_row_to_the_part_of_its_speaker():
    table = table_of(people(6))
    fold = Protocol().folds(table)[1]
    rows = select(table, fold)
    assert sum(len(part) for part in rows.values()) == len(table)
    for part in ("train", "dev", "test"):
        assert set(rows[part]["speaker"]) == set(getattr(fold, part))
    with pytest.raises(RequestError, match="speaker c/new is in no part of fold 2"):
        select(table_of(people(6) | {"new": {}}), fold)


def test_the_description_says_what_the_protocol_does():
    table = table_of(people(9) | {"x": {}})
    facts = Protocol("leave-one-speaker-out").describe(table)
    assert facts["kind"] == "leave-one-speaker-out"
    assert facts["num_folds"] == 10
    assert facts["speakers"] == {"total": 10, "female": 5, "male": 4, "unknown": 1}
    assert facts["test"] == {"speakers": [1, 1], "recordings": [3, 3]}
    assert facts["train"]["speakers"] == [7, 7]
    assert "10 speakers (5 female, 4 male, 1 of unknown gender)" in facts["sentence"]
    assert "7 for training, 2 of the training side for development, 1 for the test" in facts["sentence"]
    json.dumps(facts)
    assert "none for development" in Protocol(dev_speakers=0).describe(table)["sentence"]
    assert tuple(SPLITTERS) == KINDS
    assert facts["speaker_independent"] is True


# ---- across corpora ------------------------------------------------------------------------------------------------


def two_corpora():
    one = table_of(people(6))
    other = table_of(people(4)).map(
        lambda row: {"corpus": "d", "speaker": "d" + row["speaker"][1:], "id": "d" + row["id"][1:]}
    )
    return datasets.concatenate_datasets([one, other])


def test_cross_corpus_trains_on_some_corpora_and_tests_on_the_others():
    table = two_corpora()
    (fold,) = Protocol("cross-corpus", test_corpora=("d",)).folds(table)
    assert fold.test == tuple(f"d/s{n}" for n in range(4))
    assert len(fold.dev) == 2
    assert {*fold.train, *fold.dev} == {f"c/s{n}" for n in range(6)}
    facts = Protocol("cross-corpus", test_corpora=("d",)).describe(table)
    assert facts["sentence"].startswith("cross-corpus (trained on c, tested on d), 1 fold, 10 speakers")
    assert Protocol("cross-corpus", train_corpora=("c",), test_corpora=("d",)).folds(table) == [fold]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "without a corpus to test on"),
        ({"test_corpora": ("e",)}, "names 'e', which is no corpus of the table"),
        ({"test_corpora": ("c", "d")}, "none is left to train on"),
        ({"train_corpora": ("c", "d"), "test_corpora": ("d",)}, "d is on both sides"),
    ],
)
def test_cross_corpus_needs_every_corpus_on_one_side(options, words):
    with pytest.raises(RequestError, match=words):
        Protocol("cross-corpus", **options).folds(two_corpora())


@pytest.mark.parametrize(
    "other", ["jos\u00e9", "Jose\u0301", " Jos\u00e9 ", "Jos\u00e9\u200b", "\u00a0Jos\u00e9", "JOS\u00c9"], ids=ascii
)
def test_a_table_with_two_spellings_of_one_speaker_is_refused(other):
    table = table_of({"José": {}, other: {}, "Ana": {}})
    with pytest.raises(RequestError, match="differ in case, blanks or the form"):
        Protocol("leave-one-speaker-out").folds(table)


def test_a_table_of_one_emotion_is_refused_and_a_test_of_one_is_told():
    with pytest.raises(RequestError, match="every recording of the table is anger"):
        Protocol("leave-one-speaker-out").folds(table_of(people(4), emotions=["anger"]))
    table = table_of({f"s{n}": {"split": part} for n, part in enumerate(["train", "train", "test"])})
    assert "one emotion" not in Protocol("given").describe(table)["sentence"]
    anger = table.features["emotion"].str2int(table.features["emotion"].names[0])
    rows = [row for row in range(len(table)) if table[row]["split"] != "test" or table[row]["emotion"] == anger]
    sentence = Protocol("given").describe(table.select(rows))["sentence"]
    assert "the test of fold 1 has recordings of one emotion only" in sentence


def test_settings_of_another_type_are_refused_and_lists_are_tuples():
    for wrong, said in (
        ({"kind": "group-k-fold", "folds": "5"}, "num_folds is '5'"),
        ({"dev_speakers": True}, "dev_speakers is True"),
        ({"kind": "cross-corpus", "test": "emodb"}, "test_corpora is 'emodb'"),
    ):
        with pytest.raises(RequestError, match=said):
            Protocol(**wrong)
    listed = Protocol("cross-corpus", test=["emodb"])
    assert listed == Protocol("cross-corpus", test=("emodb",)) and hash(listed)


def test_names_are_ordered_as_people_order_them():
    assert natural_order(["s10", "s2", "b", "3", "03", "a1b2"]) == ["03", "3", "a1b2", "b", "s2", "s10"]


@pytest.mark.parametrize("emotions", [[0] * 7 + [1] * 7 + [2] * 7, [0] * 9 + [1] * 2 + [2] * 4, [1] * 3])
def test_shuffled_labels_are_permuted_within_a_speaker_and_say_nothing_about_the_true_ones(emotions):
    names = ["a", "b", "c"]
    table = table_of({name: {"gender": None} for name in names}, emotions=EMOTIONS)
    first = table.select([0] * (3 * len(emotions)))
    rows = {"id": [f"c/{n}" for n in range(len(first))], "speaker": [f"c/{s}" for s in names for _ in emotions]}
    for column, values in {**rows, "emotion": emotions * 3}.items():
        first = replace_column(first, column, values)
    fold = Fold(1, ("c/a",), ("c/b",), ("c/c",))
    counts: Counter[tuple[int, int]] = Counter()
    for seed in range(200):
        told = list(shuffle_labels(first, fold, seed)["emotion"])
        for start in (0, len(emotions)):
            own = told[start : start + len(emotions)]
            assert sorted(own) == sorted(emotions)
            cells = Counter(zip(emotions, own, strict=True))
            counts += cells
            if len(set(Counter(emotions).values())) == 1:
                assert max(cells.values()) - min(cells.values()) <= (1 if len(set(emotions)) > 1 else 0)
        assert told[2 * len(emotions) :] == emotions
    total = sum(counts.values())
    matches = sum(count for (true, label), count in counts.items() if true == label) / total
    by_chance = sum((emotions.count(kind) / len(emotions)) ** 2 for kind in set(emotions))
    assert matches == pytest.approx(by_chance, abs=0.02)
