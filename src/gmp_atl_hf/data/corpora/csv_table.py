"""Any list of recordings in a CSV, TSV or JSONL file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from ...errors import RequestError
from ..segments import name_of_segment
from .base import UNKNOWN_SPEAKER, UNLABELLED, CorpusInfo, LeftOut, Recording, register_corpus
from .column_mapping import NEEDED, OPTIONAL, column_of_field
from .segment_columns import SEGMENT, find_segment_columns, read_segment
from .tables import NoText, read_json_lines, read_table

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
    segments = find_segment_columns(asked, names, table)
    found = column_of_field(segments | asked, names, str(table), needed, (*OPTIONAL, *SEGMENT))
    for number, row in rows:
        fields = {field: row.get(column, "") for field, column in found.items()}
        if wrong := next((field for field, value in fields.items() if isinstance(value, NoText)), None):
            raise RequestError(
                f"line {number} of {table}: {found[wrong]} is {fields[wrong]}", "text, a number or null", "correct it"
            )
        file = fields["file"]
        if not file:
            raise RequestError(
                f"line {number} of {table} names no file", "a file in every row", "fill it or remove the line"
            )
        shown = Path(os.path.relpath(file, base) if Path(file).is_absolute() else file).as_posix()
        start, end = read_segment(fields, f"line {number} of {table}")
        shown = name_of_segment(shown, start, end)
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
