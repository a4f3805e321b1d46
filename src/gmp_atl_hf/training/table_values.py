"""Values in a table that a model cannot be trained or evaluated on, found in one pass over the columns."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]

from ..errors import RequestError, counted
from ..modeling.configuration_gmp_atl import GMPATLConfig
from ..modeling.losses_gmp_atl import IGNORED
from ..modeling.modeling_gmp_atl import GENDERS

_SHOWN = 3
_ROWS_AT_ONCE = 10_000


def refuse_unusable_lengths(table: datasets.Dataset) -> None:
    """Refuse, by a `RequestError`, rows without a length: batches are made by it."""
    values = _column(table, "num_samples")
    wrong = ~_holds(values, pc.greater(values, 0))
    _refuse(
        table,
        "num_samples",
        wrong,
        "a whole number above 0 in each row: the clip's samples at 16 kHz",
        "write the clip's length into the column, or leave the rows out",
    )


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


def refuse_unusable_genders(table: datasets.Dataset) -> None:
    """Refuse, by a `RequestError`, genders that are none; None stands for one that is not known."""
    values = _column(table, "gender")
    _refuse(
        table,
        "gender",
        ~_holds(values, _within(values, len(GENDERS)), unknown=True),
        f"0 or 1 ({', '.join(GENDERS)}), None where not known",
        'table.map(lambda gender: {"gender": gender if gender in (0, 1) else None}, input_columns="gender")',
    )


def refuse_unusable_frame_labels(table: datasets.Dataset, config: GMPATLConfig) -> None:
    """Refuse, by a `RequestError`, pseudo-labels beyond the model's clusters, and rows without pseudo-labels."""
    for name, clusters in (config.frame_scales or {}).items():
        kind = table.data.schema.field(name).type
        lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
        if not (lists and pa.types.is_integer(kind.value_type)):
            raise RequestError(
                f"the column {name} holds {kind}",
                "a list of whole numbers in each row, one per frame",
                "attach_pseudo_labels(...) makes the column",
            )
        _refuse(
            table,
            name,
            _rows_of_wrong_frames(table, name, clusters),
            f"a whole number from 0 to {clusters - 1} for each frame, {IGNORED} where a frame has no label",
            f"attach_pseudo_labels(...) anew, or the number of clusters that was fitted in frame_scales: {name} "
            f"has {clusters} there",
            shown=partial(_first_wrong, clusters=clusters),
        )


def _column(table: datasets.Dataset, name: str) -> Any:
    """A column of whole numbers as it is stored, with nothing decoded: a `pyarrow.ChunkedArray`."""
    values = table.select_columns([name]).with_format("arrow")[:][name]
    if not (pa.types.is_integer(values.type) or pa.types.is_null(values.type)):
        raise RequestError(
            f"the column {name} holds {values.type}",
            "whole numbers",
            f"table.cast_column({name!r}, datasets.Value('int64')), or make the column anew",
        )
    return values


def _within(values: Any, count: int) -> Any:
    """Whether values are class numbers, or say that there is none; null where a value is."""
    return pc.and_(pc.greater_equal(values, 0), pc.less(values, count))


def _holds(values: Any, condition: Any, unknown: bool = False) -> npt.NDArray[np.bool_]:
    """A condition for each value as a numpy array; `unknown` for values that are not there."""
    return np.asarray(pc.if_else(pc.is_null(values), unknown, condition), dtype=bool)


def _rows_of_wrong_frames(table: datasets.Dataset, name: str, clusters: int) -> npt.NDArray[np.bool_]:
    """Rows that have no list of labels, or one with a label that is no cluster."""
    wrong = np.zeros(len(table), dtype=bool)
    start = 0
    # Some rows at a time: the labels of a large corpus stay on the disk.
    for batch in table.select_columns([name]).with_format("arrow").iter(_ROWS_AT_ONCE):
        for lists in batch[name].chunks:
            labels = pc.list_flatten(lists)
            held = _holds(labels, pc.or_(_within(labels, clusters), pc.equal(labels, IGNORED)))
            missing = np.flatnonzero(pc.is_null(lists))
            wrong[start + missing] = True
            if not held.all():
                wrong[start + np.asarray(pc.list_parent_indices(lists))[~held]] = True
            start += len(lists)
    return wrong


def _first_wrong(labels: list[int | None] | None, clusters: int) -> int | None:
    if labels is None:
        return None
    return next(one for one in labels if one is None or (one != IGNORED and not 0 <= one < clusters))


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
    # Without the table's own format, which may have no such columns, or other values for what is missing.
    columns = [column for column in ("id", name) if column in table.column_names]
    named = table.with_format(None).select_columns(columns)
    first = [(place, named[place]) for place in places[:_SHOWN]]
    rows = ", ".join(f"{row.get('id', f'row {place}')} has {shown(row[name])}" for place, row in first)
    more = f" and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
    raise RequestError(
        f"{len(places)} of {counted(len(table), 'row')} cannot be used by their {name}: {rows}{more}",
        expected,
        fix,
    )
