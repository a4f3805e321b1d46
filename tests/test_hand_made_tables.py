"""Tables that people make by hand: what is missing in them is refused by name and row, before any work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from gmp_atl_hf import GMPATLTrainer, MultiScaleKMeans, Protocol, attach_pseudo_labels, extract_features, label_maps
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.modeling.modeling_gmp_atl import GMPATLPreTrainedModel, HubertForGMPATLMultiTask
from gmp_atl_hf.protocols.leakage import HeldOut
from gmp_atl_hf.protocols.speakers import natural_order
from tables import SCALES, feature_extractor, small_model, speech_table, training_arguments
from test_protocol import people, table_of


def altered(table: Dataset, column: str, change: Callable[[list[Any]], list[Any]], feature: Any = None) -> Dataset:
    """The same table with other values in a column, of another type where `feature` is given."""
    columns = {name: table.data.table[name].to_pylist() for name in table.column_names}
    columns[column] = change(columns[column])
    features = Features({**table.features, column: feature or table.features[column]})
    return Dataset(pa.Table.from_pydict(columns, schema=features.arrow_schema))


def third(value: Any) -> Callable[[list[Any]], list[Any]]:
    """Another value in the third row."""
    return lambda values: [*values[:2], value, *values[3:]]


def every(value: Any) -> Callable[[list[Any]], list[Any]]:
    return lambda values: [value] * len(values)


@pytest.fixture(scope="module")
def rows() -> Dataset:
    """Rows without sound, of ten people in two sessions."""
    return table_of(people(10, sessions=2))


@pytest.fixture(scope="module")
def clips() -> Dataset:
    """Tones of four people, two of each."""
    return speech_table(8).remove_columns(list(SCALES)).add_column("speaker", [f"m/{row % 4}" for row in range(8)])


@pytest.fixture(scope="module")
def model() -> GMPATLPreTrainedModel:
    return small_model(HubertForGMPATLMultiTask)


def fitted(table: Dataset, model: GMPATLPreTrainedModel, **options: Any) -> MultiScaleKMeans:
    return MultiScaleKMeans([5], **options).fit_model(model, table, feature_extractor(), [1], description=None)


# Protocol


@pytest.mark.parametrize("column", ["speaker", "emotion", "gender"])
def test_folds_name_a_column_that_is_missing(rows: Dataset, column: str) -> None:
    for method in (Protocol().folds, Protocol().describe):
        with pytest.raises(RequestError, match=f"the table has no column {column}; it has id"):
            method(rows.remove_columns(column))


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("speaker", None, "by their speaker: c/s0-2 has None"),
        ("speaker", "", "by their speaker: c/s0-2 has "),
        ("emotion", None, "by their emotion: c/s0-2 has None"),
        ("emotion", -1, "by their emotion: c/s0-2 has -1"),
        ("gender", 5, "by their gender: c/s0-2 has 5"),
    ],
)
def test_folds_name_the_row_that_cannot_be_used(rows: Dataset, column: str, value: Any, said: str) -> None:
    table = altered(rows, column, third(value))
    with pytest.raises(RequestError, match=f"1 of 30 rows cannot be used {said}"):
        Protocol().folds(table)
    with pytest.raises(RequestError, match=said.replace("c/s0-2", "row 2")):
        Protocol().folds(table.remove_columns("id"))


@pytest.mark.parametrize(
    ("column", "value", "feature", "said"),
    [
        ("emotion", "anger", Value("string"), "no emotion of datasets.ClassLabel"),
        ("gender", "male", Value("string"), "genders are None"),
        ("gender", 0, ClassLabel(names=["male", "female"]), r"genders are \['male', 'female'\]"),
        ("speaker", 3, Value("int64"), "the column speaker holds int64"),
    ],
)
def test_folds_refuse_columns_of_another_type(rows: Dataset, column: str, value: Any, feature: Any, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        Protocol().folds(altered(rows, column, every(value), feature))


def test_a_fix_that_is_offered_works(rows: Dataset) -> None:
    genders = altered(rows, "gender", lambda values: [("female", "male")[value] for value in values], Value("string"))
    cast = genders.cast_column("gender", ClassLabel(names=["female", "male"]))
    assert Protocol().folds(cast) == Protocol().folds(rows)


def test_a_gender_may_be_unknown_in_both_usual_ways(rows: Dataset) -> None:
    unknown = [Protocol().folds(altered(rows, "gender", every(value))) for value in (None, -1)]
    assert unknown[0] == unknown[1]


def test_genders_may_be_plain_numbers_where_no_model_learns_them(rows: Dataset) -> None:
    numbers = altered(rows, "gender", lambda values: values, Value("int64"))
    assert Protocol().folds(numbers) == Protocol().folds(rows)
    nobodys = altered(rows, "gender", every(None), Value("null"))
    assert Protocol().folds(nobodys) == Protocol().folds(altered(rows, "gender", every(None)))


def test_a_session_may_be_called_zero(rows: Dataset) -> None:
    table = altered(rows, "session", lambda values: [int(value == "Ses1") for value in values], Value("int64"))
    assert [fold.test for fold in Protocol("leave-one-session-out").folds(table)] == [
        fold.test for fold in Protocol("leave-one-session-out").folds(rows)
    ]


def test_cross_corpus_names_rows_without_a_corpus(rows: Dataset) -> None:
    protocol = Protocol("cross-corpus", test_corpora=("c",))
    with pytest.raises(RequestError, match="no column corpus"):
        protocol.folds(rows.remove_columns("corpus"))
    with pytest.raises(RequestError, match="by their corpus: c/s0-2 has None"):
        protocol.folds(altered(rows, "corpus", third(None)))


def test_a_split_that_shares_speakers_needs_ids_that_differ(rows: Dataset) -> None:
    halves = altered(rows, "split", lambda values: ["test" if row % 3 == 0 else "train" for row in range(len(values))])
    protocol = Protocol("given", allow_shared_speakers=True, dev_speakers=0)
    table = halves.filter(lambda emotion: emotion < 3, input_columns="emotion")
    table = altered(table, "emotion", lambda values: [0, 1, 2, 2, 1, 0] * 5)
    assert len(protocol.folds(table)) == 1
    with pytest.raises(RequestError, match="no column id"):
        protocol.folds(table.remove_columns("id"))
    with pytest.raises(RequestError, match="by their id: row 2 has None"):
        protocol.folds(altered(table, "id", third(None)))
    with pytest.raises(RequestError, match="30 rows have the id a"):
        protocol.folds(altered(table, "id", every("a")))


def test_several_tables_under_their_names_are_no_table(rows: Dataset, clips: Dataset, model: Any) -> None:
    several = DatasetDict(train=rows)
    fold = Protocol().folds(rows)[0]
    kmeans = fitted(clips, model)
    for use in (
        Protocol().folds,
        fold.select,
        label_maps,
        HeldOut.of,
        lambda table: fitted(table, model),
        lambda table: attach_pseudo_labels(table, kmeans, model, feature_extractor()),
    ):
        with pytest.raises(RequestError, match="the table is a datasets DatasetDict"):
            use(several)


def test_a_fold_names_the_column_that_it_selects_by(rows: Dataset) -> None:
    fold = Protocol().folds(rows)[0]
    with pytest.raises(RequestError, match="no column speaker"):
        fold.select(rows.remove_columns("speaker"))
    assert fold.held_out(rows.remove_columns("id")).speakers == {"c/s0"}


def test_speakers_may_have_any_digits_in_their_names(rows: Dataset) -> None:
    longest = "s" + "9" * 5000
    assert natural_order([longest, "s10", "s3²", "①", "s3", "s٣", "s03"]) == [
        "s03", "s3", "s3²", "s10", longest, "s٣", "①",
    ]  # fmt: skip
    table = altered(rows, "speaker", third("c/3²"))
    assert Protocol().folds(table)[0].test == ("c/3²",)


# Held-out rows


def test_rows_that_do_not_say_who_speaks_are_of_one_unknown_speaker(clips: Dataset) -> None:
    nameless = altered(clips, "speaker", third(None))
    tested, others = HeldOut.of(nameless.select([2])), nameless.select([3, 4])
    assert tested.speakers == {"unknown"}
    tested.refuse_training(others, [], [])
    HeldOut.of(clips.select([3])).refuse_training(nameless.select([1, 2]), [], [])
    with pytest.raises(RequestError, match="training would use the test speaker m/3"):
        HeldOut.of(clips.select([3])).refuse_training(nameless.select([2, 7]), [], [])
    with pytest.raises(RequestError, match="choosing the epoch would use the test speaker unknown"):
        HeldOut.of(nameless.select([2])).refuse_training(others, [nameless.select([2]).remove_columns("id")], [])


def test_rows_without_ids_share_none(clips: Dataset) -> None:
    nameless = altered(clips, "id", every(None))
    HeldOut.of(nameless.select([0])).refuse_training(nameless.select([1]), [], [])


def test_held_out_rows_that_nobody_would_know_again_are_refused(clips: Dataset) -> None:
    with pytest.raises(RequestError, match="by which nobody knows them again"):
        HeldOut.of(clips.remove_columns(["id", "speaker"]))


# Training


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table.remove_columns("id"), "the table has no column id"),
        (
            lambda table: altered(table, "speaker", lambda values: list(range(len(values))), Value("int64")),
            "the column speaker holds int64",
        ),
    ],
)
def test_a_trainer_refuses_the_table_before_it_trains(
    clips: Dataset, tmp_path: Path, change: Callable[[Dataset], Dataset], said: str
) -> None:
    model = small_model(HubertForGMPATLMultiTask)
    with pytest.raises(RequestError, match=said):
        GMPATLTrainer(model, training_arguments(tmp_path), change(clips), None, feature_extractor())


def test_a_trainer_takes_held_out_rows_that_do_not_say_who_speaks(clips: Dataset, tmp_path: Path) -> None:
    model, nameless = small_model(HubertForGMPATLMultiTask), altered(clips, "speaker", third(None))
    trainer = GMPATLTrainer(
        model,
        training_arguments(tmp_path),
        clips.select([0, 1]),
        None,
        feature_extractor(),
        held_out=nameless.select([2, 3]),
    )
    assert trainer.held_out.speakers == {"unknown", "m/3"}


# Frame labels


@pytest.mark.parametrize("column", ["id", "audio", "num_samples"])
def test_frame_labels_name_a_column_that_is_missing(clips: Dataset, model: GMPATLPreTrainedModel, column: str) -> None:
    kmeans, table = fitted(clips, model), clips.remove_columns(column)
    for use in (
        lambda: fitted(table, model),
        lambda: attach_pseudo_labels(table, kmeans, model, feature_extractor()),
        lambda: next(extract_features(model, table, [1], feature_extractor())),
    ):
        with pytest.raises(RequestError, match=f"the table has no column {column}"):
            use()


def test_frame_labels_name_rows_without_a_length(clips: Dataset, model: GMPATLPreTrainedModel) -> None:
    kmeans, table = fitted(clips, model), altered(clips, "num_samples", third(None))
    for use in (
        lambda: fitted(table, model),
        lambda: attach_pseudo_labels(table, kmeans, model, feature_extractor()),
    ):
        with pytest.raises(RequestError, match="by their num_samples: tones/2 has None"):
            use()


@pytest.mark.parametrize(
    ("column", "value", "feature", "options", "said"),
    [
        ("emotion", "anger", Value("string"), {"per": "emotion"}, "no emotion of datasets.ClassLabel"),
        ("emotion", 3, None, {"per": "emotion"}, "by their emotion: tones/0 has 3"),
        ("gender", "male", Value("string"), {"per": "gender"}, "genders are None"),
        ("gender", 0, ClassLabel(names=["male", "female"]), {"normalize": "gender"}, "genders are"),
        ("gender", 7, None, {"normalize": "gender"}, "by their gender: tones/0 has 7"),
        ("speaker", 3, Value("int64"), {"normalize": "speaker"}, "the column speaker holds int64"),
        ("speaker", 3, Value("int64"), {}, "the column speaker holds int64"),
    ],
)
def test_frame_labels_refuse_columns_of_another_type(
    clips: Dataset, model: GMPATLPreTrainedModel, column: str, value: Any, feature: Any, options: Any, said: str
) -> None:
    table = altered(clips, column, every(value), feature)
    with pytest.raises(RequestError, match=said):
        fitted(table, model, **options)
    if options:
        with pytest.raises(RequestError, match=said):
            attach_pseudo_labels(table, fitted(clips, model, **options), model, feature_extractor())


def test_codebooks_note_that_somebody_unknown_was_clustered(clips: Dataset, model: GMPATLPreTrainedModel) -> None:
    nameless = altered(clips, "speaker", third(None))
    kmeans = fitted(nameless, model, per="emotion")
    assert [*kmeans.scales["gmp_layer1_k5"].training_speakers] == ["m/0", "m/1", "m/2", "m/3", "unknown"]
    # Whoever was clustered is labelled by the centres of the row's own emotion, also where nobody knows who it is.
    labels = attach_pseudo_labels(nameless, kmeans, model, feature_extractor(), description=None)
    own = kmeans.classes.centres(("anger", "neutral", "sadness")[nameless[2]["emotion"]], 5)
    assert set(labels[2]["gmp_layer1_k5"]) <= set(range(own.start, own.stop))
