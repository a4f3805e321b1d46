"""Values in a table that a model cannot be trained or evaluated on, found in one pass over the columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc  # type: ignore[import-untyped]

from ..errors import RequestError, counted

_SHOWN = 3


def refuse_unusable_emotions(table: datasets.Dataset, emotions: list[str], scores_alone: bool) -> None:
    """Refuse, by a `RequestError`, rows whose emotion is not known: they would be in no loss and no figure.

    With `scores_alone` a table may have no emotions at all: then there are scores, and no figures to be wrong.
    """
    values = _column(table, "emotion")
    if scores_alone and values.null_count == len(values):
        return
    _refuse(
        table,
        "emotion",
        ~_holds(values, _within(values, len(emotions))),
        f"a whole number from 0 to {len(emotions) - 1} in each row ({', '.join(emotions)})",
        f"label these rows, or leave them out: table.filter(lambda emotion: emotion in range({len(emotions)}), "
        'input_columns="emotion")',
    )


def _column(table: datasets.Dataset, name: str) -> Any:
    """A column as it is stored, with nothing decoded: a `pyarrow.ChunkedArray`."""
    return table.select_columns([name]).with_format("arrow")[:][name]


def _within(values: Any, count: int) -> Any:
    """Whether values are class numbers, or say that there is none; null where a value is."""
    return pc.and_(pc.greater_equal(values, 0), pc.less(values, count))


def _holds(values: Any, condition: Any, unknown: bool = False) -> npt.NDArray[np.bool_]:
    """A condition for each value as a numpy array; `unknown` for values that are not there."""
    return np.asarray(pc.if_else(pc.is_null(values), unknown, condition), dtype=bool)


def _refuse(
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
    named = table.select_columns([column for column in ("id", name) if column in table.column_names])
    first = [(place, named[place]) for place in places[:_SHOWN]]
    rows = ", ".join(f"{row.get('id', f'row {place}')} has {shown(row[name])}" for place, row in first)
    more = f" and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
    raise RequestError(
        f"{len(places)} of {counted(len(table), 'row')} cannot be used by their {name}: {rows}{more}",
        expected,
        fix,
    )
