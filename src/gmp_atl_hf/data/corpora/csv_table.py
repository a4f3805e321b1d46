"""Any list of recordings in a CSV, TSV or JSONL file."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from ...errors import RequestError
from .base import CorpusInfo, LeftOut, Recording, register_corpus
from .fields import column_of_field
from .naming import lines_of

UNLABELLED = "unlabelled"
"""The one label of recordings that have none."""

_JSON_LINES = {".jsonl", ".ndjson", ".json"}


@register_corpus(
    CorpusInfo(
        name="csv",
        layout="a CSV, TSV or JSONL file with a row per recording: file, emotion, speaker and, where known, gender, "
        "session and split (other column names through `columns`)",
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
            their own names. `emotion: null` reads plain speech, all of it under the one label "unlabelled".
        manifest: The file's name, when `root` is a folder.
        audio_root: The folder that relative paths start at; the file's own folder by default.

    Yields:
        Recordings by their path as the file has it.

    Raises:
        RequestError: When the file or a needed column is missing.
    """
    table = _manifest(root, manifest)
    base = table.parent if audio_root is None else Path(audio_root).expanduser()
    names, rows = _rows(table)
    # Plain speech for pre-training has no emotions, and says so.
    labelled = not (columns is not None and "emotion" in columns and columns["emotion"] is None)
    needed = ("file", "emotion", "speaker") if labelled else ("file", "speaker")
    asked = columns if labelled else {name: column for name, column in (columns or {}).items() if name != "emotion"}
    found = column_of_field(asked, names, str(table), needed=needed)
    for number, row in rows:
        fields = {field: row.get(column, "") for field, column in found.items()}
        file = fields["file"]
        if not file:
            raise RequestError(
                f"line {number} of {table} names no file", "a file in every row", "fill it or remove the line"
            )
        shown = os.path.relpath(file, base) if Path(file).is_absolute() else file
        yield Recording(
            Path(shown).as_posix(),
            base / file,
            fields.get("emotion", UNLABELLED),
            # Nobody tests on plain speech, so there a speaker may be unknown.
            fields["speaker"] if labelled else fields["speaker"] or "unknown",
            gender=fields.get("gender"),
            session=fields.get("session"),
            split=fields.get("split"),
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


def _rows(table: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Give the column names, and the rows as text with their line numbers."""
    try:
        # utf-8-sig: spreadsheet programs put a byte order mark in front, which would become part of the first name.
        text = table.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestError(f"{table} is not UTF-8 text ({error.reason})", "UTF-8", "save it as UTF-8") from error
    if table.suffix.lower() in _JSON_LINES:
        lines = enumerate(lines_of(text), start=1)
        rows = [(number, _json_row(table, number, line)) for number, line in lines if line.strip()]
        return list(dict.fromkeys(name for _, row in rows for name in row)), rows
    header = text.partition("\n")[0]
    delimiter = max(",\t;|", key=header.count)
    reader = csv.DictReader(lines_of(text), delimiter=delimiter, restval="", strict=True)
    names = [name.strip() for name in reader.fieldnames or []]
    reader.fieldnames = names
    rows = []
    for row in reader:
        if None in row:
            raise RequestError(
                f"line {reader.line_num} of {table} has more values than there are columns",
                f"{len(names)} values ({', '.join(names)})",
                f"put quotes round values that contain {delimiter!r}",
            )
        rows.append((reader.line_num, {name: value.strip() for name, value in row.items()}))
    return names, rows


def _json_row(table: Path, number: int, line: str) -> dict[str, str]:
    """Read one line of JSON with every value as the text it is written as."""
    try:
        row = json.loads(line, parse_int=str, parse_float=str)
    except json.JSONDecodeError as error:
        raise RequestError(
            f"line {number} of {table} is not JSON ({error.msg})", "one JSON object per line", "write it as JSON lines"
        ) from error
    if not isinstance(row, dict):
        raise RequestError(
            f"line {number} of {table} is not a JSON object", "one JSON object per line", "write {…} per line"
        )
    return {name: "" if value is None else str(value).strip() for name, value in row.items()}
