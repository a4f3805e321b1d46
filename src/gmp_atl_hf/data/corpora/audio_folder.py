"""What `datasets` passes over where it reads a folder of recordings with its `metadata.csv`: text, and other files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ...errors import RequestError
from .base import LeftOut, leftovers, may_be_speech
from .tables import read_table

METADATA = "metadata.csv"
_FILE = "file_name"


def texts_of_metadata(folder: Path) -> dict[str, Mapping[str, str]]:
    """Read what stands in the tables, by the path of the recording: to `datasets` the speakers 01 and 1 are one number.

    A table that `datasets` reads and this package does not, such as one with short rows, is left to `datasets`.
    """
    found: dict[str, Mapping[str, str]] = {}
    for table in sorted(folder.rglob(METADATA)):
        try:
            names, rows = read_table(table)
        except RequestError:
            continue
        for column in [name for name in names if name == _FILE or name.endswith(f"_{_FILE}")][:1]:
            found |= {os.path.realpath(table.parent / row[column]): row for _, row in rows}
    return found


def unnamed_recordings(folder: Path, known: Iterable[Path]) -> Iterator[LeftOut]:
    """List the recordings in a folder that its tables do not name."""
    for item in leftovers(folder, known):
        if item.path is not None and may_be_speech(item.path, folder):
            yield item
