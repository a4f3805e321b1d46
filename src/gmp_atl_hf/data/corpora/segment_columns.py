"""Which part of a file a row of a table means, in seconds, under the names that lists have for it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import RequestError
from ..segments import WHOLE_FILES
from ..spelling import is_missing
from .tables import heading

SEGMENT = ("start", "end", "duration")
"""What says which part of a file is meant, in seconds."""

_NAMES = {
    **dict.fromkeys(("start", "begin", "onset", "starttime", "begintime", "tstart", "start offset"), "start"),
    **dict.fromkeys(("end", "stop", "endtime", "stoptime", "tend", "end offset"), "end"),
    **dict.fromkeys(("duration", "dur", "length"), "duration"),
}
_PAIRS = (("from", "to"), ("t0", "t1"), ("tmin", "tmax"), ("xmin", "xmax"))
"""Words that mean times where both of them are there, and may mean anything alone."""
_EITHER = "offset"
"""Where a segment ends beside a column `onset`, and where it begins without one."""
_AROUND = {"s", "sec", "secs", "second", "seconds", "t", "ts", "time", "times", "timestamp"} | {
    *("audio", "clip", "interval", "seg", "segment", "speech", "turn", "utt", "utterance")
}
"""Words that may stand beside these, as in `utt_start_s`."""
_OTHER_UNITS = re.compile(r"ms|msecs?|millis\w*|us|ns|samples?|frames?")
_WORDS = re.compile(r"[A-Z]+(?![a-z])\d*|[A-Z]?[a-z]+\d*|\d+")
SECONDS = re.compile(r"\d+([.,]\d*)?(e[+-]?\d+)?", re.IGNORECASE)

_ROUNDED = 0.1
"""Seconds by which rounded times may contradict each other."""


@dataclass(frozen=True)
class TimeColumns:
    """The columns of a table that look like times in a file, shortest names first.

    Args:
        seconds: Of each field of `SEGMENT`, those in seconds.
        others: Of each field, those in other units.
    """

    seconds: Mapping[str, Sequence[str]]
    others: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, names: Iterable[str]) -> TimeColumns:
        """Tell by the names alone."""
        seconds: dict[str, list[str]] = {field: [] for field in SEGMENT}
        others: dict[str, list[str]] = {field: [] for field in SEGMENT}
        # ELAN writes seconds as `ss.msec`.
        spelt = {name: name.replace("ss.msec", "s") for name in dict.fromkeys(names)}
        words = {name: [word.lower() for word in _WORDS.findall(text)] for name, text in spelt.items()}
        meant = {name: [word for word in own if not _OTHER_UNITS.fullmatch(word)] for name, own in words.items()}
        core = {name: " ".join(w for w in own if w not in _AROUND) or " ".join(own) for name, own in meant.items()}
        known = dict(_NAMES)
        for first, last in _PAIRS:
            if {first, last} <= {*core.values()} and "ymin" not in core.values():
                known |= {first: "start", last: "end"}
        known[_EITHER] = "end" if any(known.get(one) == "start" for one in core.values()) else "start"
        for name in sorted(words, key=lambda one: len(words[one])):
            if field := known.get(core[name]):
                (seconds if len(meant[name]) == len(words[name]) else others)[field].append(name)
        for field in SEGMENT:  # a field's own name leaves no doubt
            if own := heading(field, list(words)):
                seconds[field] = [own]
        return cls(seconds, others)


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
        RequestError: A column looks like a place in the file in another unit than seconds, two columns may be meant, or
            nothing says where the segments begin.
    """
    given = columns or {}
    if any(field in given for field in SEGMENT):
        return {field: None for field in SEGMENT if field not in given}
    taken = {heading(column, names) for column in given.values() if column is not None}
    there = TimeColumns.of(name for name in names if name not in taken)
    # A duration says something where one end of the segment is known, and not both.
    one_end = bool(there.seconds["start"]) != bool(there.seconds["end"])
    for field, alike in there.seconds.items():
        if (
            (field != "duration" or one_end)
            and len(alike) > 1
            and len(_WORDS.findall(alike[0])) == len(_WORDS.findall(alike[1]))
        ):
            raise RequestError(
                f"the columns {alike[0]!r} and {alike[1]!r} of {table} may both be the {field} of a segment",
                "one of them",
                f"in a recipe name it, columns: {{{field}: {alike[0]}}}; or read whole files: {WHOLE_FILES}",
            )
    found = {field: alike[0] if alike else None for field, alike in there.seconds.items()}
    start, end, duration = (found[field] for field in SEGMENT)
    length_is_missing = end is None and duration is None
    wrong = [*there.others["start"]] if start is None else []
    wrong += [*there.others["end"]] if length_is_missing else []
    wrong += [*there.others["duration"]] if length_is_missing and start is not None else []
    if wrong:
        raise RequestError(
            f"the column {wrong[0]!r} of {table} looks like a place in the file, but not in seconds",
            "columns start and end (or duration) in seconds",
            f"add them; or read whole files: {WHOLE_FILES}",
        )
    if not one_end:
        found["duration"] = None
    if start is None and end is not None and duration is None:
        raise RequestError(
            f"the column {end!r} of {table} says where segments end, and none where they begin",
            "columns start and end (or duration) in seconds",
            f"call the other one start; where all begin at 0, in a recipe columns: {{end: {end}}}; or read whole "
            f"files: {WHOLE_FILES}",
        )
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
    if duration is None:
        return start, end
    if end is None:
        return start, round((start or 0) + duration, 9)
    if start is None and duration > end + _ROUNDED:
        raise RequestError(
            f"{where}: a segment of {duration:g} s ends at {end:g} s, so it begins before its file",
            "an end that is not before the duration",
            f"correct the row; or read whole files: {WHOLE_FILES}",
        )
    return max(0.0, round(end - duration, 9)) if start is None else start, end
