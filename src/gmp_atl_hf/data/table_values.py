"""What is missing in a table, and values in it that cannot be used, found in one pass over the columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]

from ..errors import RequestError, counted
from .columns import GENDERS

_SHOWN = 3

CLIPS = {
    "id": "a name of its own for each recording, as text",
    "audio": "the encoded recording, `datasets.Audio(decode=False)`",
    "num_samples": "the clip's length in samples at 16 kHz",
}
"""Columns without which nothing can be read for a model, and what they hold."""


def refuse_no_feature_extractor(given: Any, called: str) -> None:
    """Refuse, by a `RequestError` that calls it `called`, what is no feature extractor, such as its name."""
    if not hasattr(given, "do_normalize"):
        what = f"{given!r}" if given is None or isinstance(given, (str, int)) else f"of type {type(given).__name__}"
        raise RequestError(
            f"{called} is {what}",
            "the checkpoint's feature extractor: it says whether clips are normalised",
            "load_feature_extractor(checkpoint)",
        )


def refuse_other_tables(table: Any) -> None:
    """Refuse, by a `RequestError`, what is no table: several under their names, or one that is streamed."""
    if not isinstance(table, datasets.Dataset):
        kind = type(table)
        raise RequestError(
            f"the table is a {kind.__module__.partition('.')[0]} {kind.__name__}",
            "a datasets.Dataset, whose rows are counted, sorted by length and dealt to processes",
            "pick one of a DatasetDict; load it without streaming, or make one: "
            "datasets.Dataset.from_generator(..., features=...)",
        )


def plain(table: Any) -> Any:
    """A table as it is stored, whatever a format or decoded audio would show of it; anything else as it is."""
    if not isinstance(table, datasets.Dataset):
        return table
    if table.format["type"] == "custom":
        raise RequestError(
            "the table has a transform (set_transform or with_transform), which would not be heard",
            "a table whose rows are what is stored; waveforms are decoded and varied here",
            "table.map(...) changes what is stored; `augment` of the arguments varies waveforms",
        )
    if table.format["type"] is not None or table.format["columns"] != table.column_names:
        table = table.with_format(None)
    audio = table.features.get("audio")
    if isinstance(audio, datasets.Audio) and audio.decode:
        table = table.cast_column("audio", datasets.Audio(decode=False))
    return table


def refuse_missing_columns(
    table: datasets.Dataset, needed: Mapping[str, str], fix: str = "rename or add the column"
) -> None:
    """Refuse, by a `RequestError`, a table that lacks a column; `needed` says what each of them holds."""
    missing = [name for name in needed if name not in table.column_names]
    if missing:
        raise RequestError(
            f"the table has no column {', '.join(missing)}; it has {', '.join(table.column_names)}",
            "; ".join(f"{name}: {needed[name]}" for name in missing),
            fix,
        )


def usable_clips(table: datasets.Dataset) -> datasets.Dataset:
    """Give a table as `plain` does, or a `RequestError` where a model cannot read its clips: no column or no length."""
    table = plain(table)
    refuse_other_tables(table)
    refuse_missing_columns(table, CLIPS)
    refuse_other_text(table, "id")
    refuse_unusable_lengths(table)
    return table


def refuse_unusable_lengths(table: datasets.Dataset) -> None:
    """Refuse, by a `RequestError`, rows without a length: batches are made by it."""
    values = whole_numbers(table, "num_samples")
    wrong = ~holds(values, pc.greater(values, 0))
    refuse_rows(
        table,
        "num_samples",
        wrong,
        "a whole number above 0 in each row: the clip's samples at 16 kHz",
        "write the clip's length into the column, or leave the rows out",
    )


def refuse_unusable_emotions(table: datasets.Dataset, emotions: list[str], scores_alone: bool = False) -> None:
    """Refuse, by a `RequestError`, rows whose emotion is not known: they would be in no loss and no figure.

    With `scores_alone` a table may have no emotions at all: then there are scores, and no figures to be wrong.
    """
    values = whole_numbers(table, "emotion")
    if scores_alone and values.null_count == len(values):
        return
    refuse_rows(
        table,
        "emotion",
        ~holds(values, within(values, len(emotions))),
        f"a whole number from 0 to {len(emotions) - 1} in each row ({', '.join(emotions)})",
        f"label these rows, or leave them out: table.filter(lambda emotion: emotion in range({len(emotions)}), "
        'input_columns="emotion")',
    )


def refuse_unnamed_emotions(table: datasets.Dataset, emotions: Sequence[str]) -> None:
    """Refuse, by a `RequestError`, emotions that have a number and no name; None and -1 are one that is not known."""
    values = whole_numbers(table, "emotion")
    refuse_rows(
        table,
        "emotion",
        ~holds(values, pc.less(values, len(emotions)), unknown=True),
        f"a whole number from 0 to {len(emotions) - 1} ({', '.join(emotions)}), None where not known",
        "correct the column, or name all emotions of its datasets.ClassLabel",
    )


def emotions_of_table(table: datasets.Dataset) -> list[str]:
    """The emotions of a table in the order of their numbers.

    Raises:
        RequestError: The table has no emotions of `datasets.ClassLabel`.
    """
    refuse_other_tables(table)
    names: list[str] | None = getattr(table.features.get("emotion"), "names", None)
    if names is None:
        raise RequestError(
            f"the table has the columns {', '.join(table.column_names)}, and no emotion of datasets.ClassLabel",
            "the emotion of each recording as a datasets.ClassLabel",
            'load_corpus makes one; table.class_encode_column("emotion") makes one of names',
        )
    return names


def refuse_unusable_genders(table: datasets.Dataset, lenient: bool = False, without: str = "remove it") -> None:
    """Refuse, by a `RequestError`, genders that are none, or numbers that mean others; None is one that is not known.

    Args:
        table: Has a column `gender`.
        lenient: Whether plain numbers without names will do, and -1 for a gender that is not known, as in `datasets`.
        without: What to do instead of a column of the right type.
    """
    names = getattr(table.features["gender"], "names", None)
    kind = table.data.schema.field("gender").type
    plain = names is None and (pa.types.is_integer(kind) or pa.types.is_null(kind))
    if names != GENDERS and not (lenient and plain):
        raise RequestError(
            f"the table's genders are {names}",
            f"a ClassLabel of {', '.join(GENDERS)} in this order, None where not known",
            f'table.cast_column("gender", datasets.ClassLabel(names={GENDERS})) for a column of these words; '
            f"else map the column, or {without}",
        )
    values, least = whole_numbers(table, "gender"), -1 if lenient else 0
    refuse_rows(
        table,
        "gender",
        ~holds(values, pc.and_(pc.greater_equal(values, least), pc.less(values, len(GENDERS))), unknown=True),
        f"0 or 1 ({', '.join(GENDERS)}), None where not known",
        'table.map(lambda gender: {"gender": gender if gender in (0, 1) else None}, input_columns="gender")',
    )


def refuse_other_text(table: datasets.Dataset, name: str) -> None:
    """Refuse, by a `RequestError`, a column that holds something else than text, such as numbers of speakers."""
    kind = table.data.schema.field(name).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
        raise RequestError(
            f"the column {name} holds {kind}",
            "text",
            f"table.cast_column({name!r}, datasets.Value('string'))",
        )


def refuse_empty_text(table: datasets.Dataset, name: str, expected: str, fix: str) -> None:
    """Refuse, by a `RequestError`, rows where a column holds nothing, and a column that holds no text."""
    refuse_other_text(table, name)
    empty = np.array([not value for value in table.with_format(None)[name]], dtype=np.bool_)
    refuse_rows(table, name, empty, expected, fix)


def whole_numbers(table: datasets.Dataset, name: str) -> Any:
    """A column of whole numbers as it is stored, with nothing decoded: a `pyarrow.ChunkedArray`."""
    values = table.select_columns([name]).with_format("arrow")[:][name]
    if not (pa.types.is_integer(values.type) or pa.types.is_null(values.type)):
        raise RequestError(
            f"the column {name} holds {values.type}",
            "whole numbers",
            f"table.cast_column({name!r}, datasets.Value('int64')), or make the column anew",
        )
    return values


def within(values: Any, count: int) -> Any:
    """Whether values are class numbers, or say that there is none; null where a value is."""
    return pc.and_(pc.greater_equal(values, 0), pc.less(values, count))


def holds(values: Any, condition: Any, unknown: bool = False) -> npt.NDArray[np.bool_]:
    """A condition for each value as a numpy array; `unknown` for values that are not there."""
    return np.asarray(pc.if_else(pc.is_null(values), unknown, condition), dtype=bool)


def refuse_rows(
    table: datasets.Dataset,
    name: str,
    wrong: npt.NDArray[np.bool_],
    expected: str,
    fix: str,
    shown: Callable[[Any], Any] = lambda value: value,
) -> None:
    """Raise a `RequestError` with the number of wrong rows and the first of them, if there is any."""
    places = np.flatnonzero(wrong).tolist()
    if not places:
        return
    # Without the table's own format, which may have no such columns, or other values for what is missing.
    columns = [column for column in ("id", name) if column in table.column_names]
    named = table.with_format(None).select_columns(columns)
    first = [(place, named[place]) for place in places[:_SHOWN]]
    rows = ", ".join(f"{row.get('id') or f'row {place}'} has {shown(row[name])}" for place, row in first)
    more = f" and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
    raise RequestError(
        f"{len(places)} of {counted(len(table), 'row')} cannot be used by their {name}: {rows}{more}",
        expected,
        fix,
    )
