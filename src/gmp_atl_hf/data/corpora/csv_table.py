"""Any list of recordings in a CSV, TSV or JSONL file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ...errors import RequestError
from ..spelling import is_missing
from .base import UNKNOWN_SPEAKER, UNLABELLED, CorpusInfo, LeftOut, Recording, register_corpus
from .column_mapping import NEEDED, OPTIONAL, column_of_field
from .tables import heading, read_json_lines, read_table

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

_JSON_LINES = {".jsonl", ".ndjson", ".json"}


@register_corpus(
    CorpusInfo(
        name="csv",
        layout="a CSV, TSV or JSONL file with a row per recording: file, emotion, speaker and, where known, gender, "
        "session and split, and start and end in seconds for parts of files (other column names through `columns`)",
        protocol="group-k-fold",
        own_speakers=False,
    )
)
def read(
    root: Path | None,
    columns: Mapping[str, str | None] | None = None,
    manifest: str = "metadata.csv",
    audio_root: str | None = None,
) -> Iterator[Recording | LeftOut]:
    """List the recordings named in a file.

    Every value is read as text: a speaker called 03 stays 03.

    Args:
        root: The file itself, or the folder it is in.
        columns: Field to column: `{file: path, emotion: label, speaker: spk}`; fields not named are looked for under
            their own names, `start`, `end` and `duration` also under other usual ones. `emotion: null` reads plain
            speech, all of it under the one label "unlabelled", and there `speaker: null` speech of people whom nobody
            has named.
        manifest: The file's name, when `root` is a folder.
        audio_root: The folder that relative paths start at; the file's own folder by default.

    Yields:
        Recordings by their path as the file has it; segments as `x.wav#t=1.5,3`, which are held in memory.

    Raises:
        RequestError: When the file or a needed column is missing.
    """
    table = _manifest(root, manifest)
    base = table.parent if audio_root is None else Path(audio_root).expanduser()
    if table.suffix.lower() in _JSON_LINES:
        rows = read_json_lines(table)
        names = list(dict.fromkeys(name for _, row in rows for name in row))
    else:
        names, rows = read_table(table)
    if not rows:
        raise RequestError(
            f"csv found no recordings in {table}: there is nothing below the headings {', '.join(names)}",
            "a row per recording",
            "add a row for each recording below the headings",
        )
    # Plain speech for pre-training has no emotions, and says so.
    labelled = not (columns is not None and "emotion" in columns and columns["emotion"] is None)
    plain = () if labelled else tuple(name for name in NEEDED if (columns or {}).get(name, name) is None)
    needed = ("file", *(name for name in NEEDED if name not in plain))
    asked = {name: column for name, column in (columns or {}).items() if name not in plain}
    segments = _segment_columns(asked, names, table)
    found = column_of_field(segments | asked, names, str(table), needed, (*OPTIONAL, *SEGMENT))
    for number, row in rows:
        fields = {field: row.get(column, "") for field, column in found.items()}
        file = fields["file"]
        if not file:
            raise RequestError(
                f"line {number} of {table} names no file", "a file in every row", "fill it or remove the line"
            )
        shown = Path(os.path.relpath(file, base) if Path(file).is_absolute() else file).as_posix()
        start, end = _segment(fields, f"line {number} of {table}")
        if start is not None or end is not None:
            shown += f"#t={start or 0:.9g}" + ("" if end is None else f",{end:.9g}")
        if end is not None and end <= (start or 0):
            yield LeftOut(shown, f"its segment ends before it begins (line {number})")
            continue
        yield Recording(
            shown,
            base / file,
            fields.get("emotion", UNLABELLED),
            # Nobody tests on plain speech, so there a speaker may be unknown.
            fields["speaker"] if labelled else fields.get("speaker") or UNKNOWN_SPEAKER,
            gender=fields.get("gender"),
            session=fields.get("session"),
            split=fields.get("split"),
            start=start,
            end=end,
            line=number,
        )


def _segment_columns(columns: Mapping[str, str | None] | None, names: list[str], table: Path) -> dict[str, str | None]:
    """Find the columns that say which part of a file is meant, under their usual names."""
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
            "add them; or read whole files: columns: {start: null, end: null}",
        )
    if found["start"] is None and found["end"] is None:
        found["duration"] = None  # alone it says how long the file is
    return found


def _segment(fields: Mapping[str, str], where: str) -> tuple[float | None, float | None]:
    """Read the beginning and the end of a segment in seconds; None where the row has none."""
    times: dict[str, float | None] = {}
    for field in SEGMENT:
        text = fields.get(field, "")
        if not is_missing(text) and not SECONDS.fullmatch(text):
            raise RequestError(
                f"{where}: {field} is {text!r}",
                "seconds from the beginning of the file, such as 12.5",
                "write seconds; or read whole files: columns: {start: null, end: null}",
            )
        times[field] = None if is_missing(text) else float(text.replace(",", "."))
    start, end, duration = times["start"], times["end"], times["duration"]
    return start, end if end is not None or duration is None else round((start or 0) + duration, 9)


def _manifest(root: Path | None, manifest: str) -> Path:
    """Find the file that lists the recordings."""
    if root is None:
        raise RequestError("no file was given for the corpus csv", "a CSV, TSV or JSONL file", "give it as corpus.root")
    table = root / manifest if root.is_dir() else root
    if not table.is_file():
        raise RequestError(
            f"there is no file {table}", "a CSV, TSV or JSONL file", "give the file as corpus.root, or corpus.manifest"
        )
    return table
