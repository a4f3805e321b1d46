"""The columns of the table: what each holds, how a table is built from them, and the check of a table people bring."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
from datasets import Audio, ClassLabel, Dataset, Features, Value

from ..errors import RequestError, counted
from .audio import MINIMUM_SAMPLES
from .spelling import tidy_text

GENDERS = ["female", "male"]

COLUMNS = {
    "id": "string, unique and stable: <corpus>/<file>",
    "file": "string, the name people know the recording by",
    "audio": "Audio(decode=False): {'path', 'bytes'}",
    "emotion": "ClassLabel",
    "gender": "ClassLabel(names=['female', 'male']), None where it is not known",
    "speaker": "string with the corpus whose speaker it is as prefix: <corpus>/<speaker>",
    "session": "string, None where the corpus has no sessions",
    "split": "string: train, dev or test, None where the corpus gives none",
    "corpus": "string",
    "num_samples": "int64, number of samples at 16 kHz",
}
"""Every column of the table in its order, and what it holds."""

_OPTIONAL = {"session", "split"}

_GENDER_WORDS = {
    **dict.fromkeys(["female", "f", "w", "woman", "fem", "weiblich", "girl"], "female"),
    **dict.fromkeys(["male", "m", "man", "männlich", "boy"], "male"),
    **dict.fromkeys(["", "unknown", "unk", "u", "-", "?", "n/a", "na", "nan", "none", "null"], None),
}
_SPLIT_WORDS = {
    **dict.fromkeys(["train", "training"], "train"),
    **dict.fromkeys(["dev", "valid", "validation", "development", "val"], "dev"),
    **dict.fromkeys(["test", "testing"], "test"),
    **dict.fromkeys(["", "none", "null"], None),
}


def table_features(labels: Sequence[str]) -> Features:
    """Give the types of the table's columns, in the order of `COLUMNS`, for emotions in the order of their numbers."""
    features = {name: Value("string") for name in COLUMNS}
    features["audio"] = Audio(decode=False)
    features["emotion"] = ClassLabel(names=list(labels))
    features["gender"] = ClassLabel(names=GENDERS)
    features["num_samples"] = Value("int64")
    return Features(features)


def make_table(columns: Mapping[str, Sequence[Any]], labels: Sequence[str]) -> Dataset:
    """Build a table with exactly the columns of `COLUMNS`, from plain columns.

    Goes through pyarrow, since `Dataset.from_dict` wants torchcodec for any audio column, decoded or not.

    Args:
        columns: Column name to values: `emotion` and `gender` as names, `audio` as {"path", "bytes"}. `gender`,
            `session` and `split` may be left out and are then None in every row.
        labels: Names of the emotions, in the order of their class numbers.

    Raises:
        KeyError: When another column is missing, or an emotion or gender is not among the names.
    """
    features = table_features(labels)
    length = len(columns["id"])
    values = {name: [None] * length for name in ("gender", "session", "split")} | {
        k: list(v) for k, v in columns.items()
    }
    for name, names in (("emotion", list(labels)), ("gender", GENDERS)):
        numbers: dict[str | None, int | None] = {None: None, **{word: number for number, word in enumerate(names)}}
        values[name] = [numbers[value] for value in values[name]]
    return Dataset(pa.Table.from_pydict({name: values[name] for name in COLUMNS}, schema=features.arrow_schema))


def row_in_words(row: Mapping[str, Any], emotions: Sequence[str]) -> dict[str, Any]:
    """What a row says of its recording, with the words for gender and emotion in place of their numbers."""
    gender = None if row["gender"] is None else GENDERS[row["gender"]]
    said = {name: row[name] for name in ("id", "file", "speaker")}
    return {**said, "gender": gender, "emotion": emotions[row["emotion"]]}


def gender_word(text: str | None) -> str | None:
    """Read any usual word or letter for a gender; None for "" and for words that say it is not known.

    Raises:
        RequestError: When the word is none of those known.
    """
    return _word(text, _GENDER_WORDS, "gender", "leave the gender empty where it is neither or not known")


def split_word(text: str | None) -> str | None:
    """Read any usual word for a part of a given split as `train`, `dev` or `test`; None where none is given.

    Raises:
        RequestError: When the word is none of those known.
    """
    return _word(text, _SPLIT_WORDS, "split", "use the words train, dev and test")


def _word(text: str | None, words: Mapping[str, str | None], what: str, fix: str) -> str | None:
    word = tidy_text(text or "").lower()
    if word not in words:
        known = ", ".join(repr(known) for known, meaning in words.items() if meaning)
        raise RequestError(f"{(text or '')[:80]!r} is no {what} that is known here", f"one of {known}", fix)
    return words[word]


def validate_table(table: Dataset) -> None:
    """Check a table somebody brings: every column there, of its type, with sound values.

    Raises:
        RequestError: Names everything that is wrong, not only the first thing.
    """
    if not isinstance(table, Dataset):
        raise RequestError(f"a {type(table).__name__}", "a datasets.Dataset", "pick one split of a DatasetDict")
    missing = [name for name in COLUMNS if name not in table.column_names and name not in _OPTIONAL]
    if missing:
        raise RequestError(
            "the table lacks " + "; ".join(f"{name} ({COLUMNS[name]})" for name in missing),
            f"the columns {', '.join(COLUMNS)} ({' and '.join(sorted(_OPTIONAL))} may be missing)",
            "add them with table.add_column, or read the recordings with load_corpus, which makes them",
        )
    wrong = _wrong_types(table) or _wrong_values(table)
    if wrong:
        raise RequestError(
            "the table cannot be used: " + "; ".join(wrong),
            "the columns as load_corpus makes them",
            "correct these columns",
        )


def _wrong_types(table: Dataset) -> list[str]:
    """Name the columns whose type is not the table's."""
    wrong = []
    emotion = table.features["emotion"]
    labels = emotion.names if isinstance(emotion, ClassLabel) else []
    for name, wanted in table_features(labels or ["?"]).items():
        has = table.features.get(name)
        if name == "emotion" and labels:
            continue
        if name == "audio" and isinstance(has, Audio) and not has.decode:
            continue
        if has is not None and has != wanted:
            wrong.append(f"{name} is {has}, not {COLUMNS[name]}")
    return wrong


def _wrong_values(table: Dataset) -> list[str]:
    """Name the columns whose values cannot be used."""
    wrong = []
    ids = list(table["id"])
    if len(set(ids)) < len(ids):
        again = Counter(ids).most_common(1)[0][0]
        wrong.append(f"id {again!r} occurs more than once")
    for name in ("id", "emotion", "speaker", "num_samples"):
        empty = [number for number, value in enumerate(table[name]) if value in (None, "", -1)]
        if empty:
            wrong.append(f"{name} is empty in {counted(len(empty), 'row')}, the first is row {empty[0]}")
    lengths = enumerate(table["num_samples"])
    short = [number for number, value in lengths if value is not None and value < MINIMUM_SAMPLES]
    if short:
        wrong.append(
            f"num_samples is below {MINIMUM_SAMPLES} (one frame) in {counted(len(short), 'row')}, the first is row "
            f"{short[0]}"
        )
    return wrong


def replace_column(table: Dataset, name: str, values: Sequence[object], feature: object | None = None) -> Dataset:
    """A new table with other values in a column, at the same place; of another type where `feature` is given."""
    order = table.column_names
    feature = feature or table.features[name]
    return table.remove_columns(name).add_column(name, list(values), feature=feature).select_columns(order)
