"""Files that are whole or not there: written under a temporary name, then renamed."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that nobody ever sees a part of it; the folder is made if it is missing.

    Args:
        path: The file.
        content: Its content; text is encoded in UTF-8.
    """
    with whole_file(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def is_half_written(file: Path, name: str) -> bool:
    """Whether a file is what a killed process left of one that was to be called `name`."""
    return file.name.startswith(f".{name}.") and file.name.endswith(".tmp")


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write one JSON object per line, whole or not at all."""
    write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read one JSON object per line."""
    with path.open(encoding="utf-8") as lines:  # which end with a newline only; `splitlines` knows more ends
        return [json.loads(line) for line in lines]


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Write a file piece by piece; it gets its name when the block ends, and nothing stays if the block fails.

    Args:
        path: The file; its folder is made if it is missing.

    Yields:
        Where to write meanwhile.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Process and thread keep two that write the same file from renaming each other's half.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
