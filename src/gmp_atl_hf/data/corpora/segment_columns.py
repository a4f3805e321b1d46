"""Which part of a file a row of a table means, in seconds, under the names that lists have for it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...errors import RequestError
from ..segments import WHOLE_FILES
from ..spelling import is_missing
from .tables import heading

SEGMENT = {
    "start": ("start", "start time", "start s", "start sec", "start seconds", "begin", "begin time", "onset", "offset"),
    "end": ("end", "end time", "end s", "end sec", "end seconds", "stop", "stop time", "offset"),
    "duration": ("duration", "duration s", "duration sec", "duration seconds", "dur"),
}
"""What says which part of a file is meant, under the names that lists have for it, in seconds."""
OTHER_UNITS = re.compile(
    r"(start|begin|end|stop|onset|offset)[\W_]*(time)?[\W_]*\(?(ms|msecs?|millis\w*|samples?|frames?)\)?|frame_?offset",
    re.IGNORECASE,
)
SECONDS = re.compile(r"\d+([.,]\d*)?(e[+-]?\d+)?", re.IGNORECASE)


def find_segment_columns(
    columns: Mapping[str, str | None] | None, names: Sequence[str], table: Path
) -> dict[str, str | None]:
    """Find the columns that say which part of a file is meant, under their usual names.

    Args:
        columns: Those that somebody has named, by the field that they hold.
        names: The columns there are.
        table: The table, for messages.

    Returns:
        The column of each field of `SEGMENT`; None where there is none.

    Raises:
        RequestError: A column looks like a place in the file in another unit than seconds.
    """
    given = columns or {}
    if any(field in given for field in SEGMENT):
        return {field: None for field in SEGMENT if field not in given}
    found: dict[str, str | None] = {}
    for field, usual in SEGMENT.items():
        found[field] = next(
            (there for name in usual if (there := heading(name, names)) not in (None, *found.values())), None
        )
    if found["start"] is None and (other := next(filter(OTHER_UNITS.fullmatch, names), None)):
        raise RequestError(
            f"the column {other!r} of {table} looks like a place in the file, but not in seconds",
            "columns start and end (or duration) in seconds",
            f"add them; or read whole files: {WHOLE_FILES}",
        )
    if found["start"] is None and found["end"] is None:
        found["duration"] = None  # alone it says how long the file is
    return found


def read_segment(fields: Mapping[str, str], where: str) -> tuple[float | None, float | None]:
    """Read the beginning and the end of a segment in seconds; None where the row has none.

    Args:
        fields: What the row says of each field of `SEGMENT`, in words.
        where: Which row of which table it is, for messages.

    Raises:
        RequestError: A value is no number of seconds.
    """
    times: dict[str, float | None] = {}
    for field in SEGMENT:
        text = fields.get(field, "")
        if not is_missing(text) and not (SECONDS.fullmatch(text) and math.isfinite(float(text.replace(",", ".")))):
            raise RequestError(
                f"{where}: {field} is {text!r}",
                "seconds from the beginning of the file, such as 12.5",
                f"write seconds; or read whole files: {WHOLE_FILES}",
            )
        times[field] = None if is_missing(text) else float(text.replace(",", "."))
    start, end, duration = times["start"], times["end"], times["duration"]
    return start, end if end is not None or duration is None else round((start or 0) + duration, 9)
