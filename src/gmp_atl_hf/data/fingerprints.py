"""What identifies the rows of a table, so that a step knows when its data have changed."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import datasets

from ..errors import RequestError

EDGE_BYTES = 1 << 16
# Path, size and time of last change → hash: folds and stages ask for the same recordings again and again.
_known_hashes: dict[tuple[str, int, int], str] = {}


class Recordings:
    """The recordings of a table, as they were when the run began.

    Args:
        table: The table.
    """

    def __init__(self, table: datasets.Dataset) -> None:
        self.table = table
        audios = enumerate(table["audio"])
        self._files = {row: Path(audio["path"]) for row, audio in audios if audio["bytes"] is None}
        self._states = {row: _state(path) for row, path in self._files.items()}
        self.fingerprints = row_fingerprints(table)

    @contextmanager
    def unchanged(self, folder: Path | None = None) -> Iterator[None]:
        """Refuse what was made in a block during which a recording was replaced or removed.

        Args:
            folder: What the block has made; it goes, since a part of it may be of the other recording.

        Raises:
            RequestError: Names a recording; also in place of any error that it has led to.
        """
        try:
            yield
        except Exception as error:
            self._refuse_changed(folder, error)
            raise
        self._refuse_changed(folder)

    def _refuse_changed(self, folder: Path | None, cause: Exception | None = None) -> None:
        for row, path in self._files.items():
            state = _state(path)
            if state == self._states[row]:
                continue
            one = self.table.select([row])
            if state is not None and row_fingerprints(one).items() <= self.fingerprints.items():
                continue  # only touched
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
            what = "replaced" if state else "removed"
            raise RequestError(
                f"the recording {one[0]['file']} ({path}) was {what} while the run went on",
                "recordings that stay as they are until the run has ended",
                "put it back and run the same command again; if it is to stay so, choose another --output-dir",
            ) from cause


def _state(path: Path) -> tuple[int, int] | None:
    """Size and time of last change of a file; None if it is not there."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_size, state.st_mtime_ns


def row_fingerprints(table: datasets.Dataset) -> dict[str, str]:
    """Hash each row: who, what, how long, and the audio file.

    Of the audio file its size and its first and last 64 KiB count: reading 27 GB at every start would take minutes.

    Args:
        table: The table.

    Returns:
        id → SHA-256 of the row in hexadecimal.
    """
    names = table.features["emotion"].names
    columns = ["id", "audio", "emotion", "gender", "speaker", "num_samples"]
    fingerprints = {}
    for row in table.select_columns(columns):
        facts = [row["id"], names[row["emotion"]], row["gender"], row["speaker"], row["num_samples"]]
        facts += _audio_facts(row["audio"])
        fingerprints[row["id"]] = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    return fingerprints


def recording_hashes(table: datasets.Dataset) -> list[str]:
    """Hash what is heard in each row, and nothing else: the same recording in another corpus has the same hash.

    All of the file counts, read once in a process: one recording must never be given what was computed of another.

    Args:
        table: The table.

    Returns:
        SHA-256 in hexadecimal for each row.
    """
    return [_recording_hash(row["audio"]) for row in table.select_columns(["audio"])]


def combine(fingerprints: Mapping[str, str], ids: Sequence[str]) -> str:
    """Hash of some rows in their order."""
    return hashlib.sha256("".join(fingerprints[name] for name in ids).encode()).hexdigest()


def _audio_facts(audio: Mapping[str, Any]) -> list[int]:
    if audio["bytes"] is not None:
        return [len(audio["bytes"]), zlib.crc32(audio["bytes"])]
    path = Path(audio["path"])
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(EDGE_BYTES)
        file.seek(max(size - EDGE_BYTES, 0))
        return [size, zlib.crc32(file.read(EDGE_BYTES), zlib.crc32(head))]


def _recording_hash(audio: Mapping[str, Any]) -> str:
    if audio["bytes"] is not None:
        return _hash_all(io.BytesIO(audio["bytes"]))
    path = Path(audio["path"])
    state = path.stat()
    identity = (str(path), state.st_size, state.st_mtime_ns)
    if identity not in _known_hashes:
        with path.open("rb") as file:
            _known_hashes[identity] = _hash_all(file)
    return _known_hashes[identity]


def _hash_all(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
