"""What identifies the rows of a table, so that a step knows when its data have changed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets

from ..errors import RequestError
from .audio import read_audio
from .duplicates import digest_audio

EDGE_BYTES = 1 << 16
FileState = tuple[int, int, int]
# Path, size and times of last change → hash: folds and stages ask for the same recordings again and again.
_known_hashes: dict[tuple[str, int, int, int], str] = {}


class Recordings:
    """The recordings of a table, as they were when the run began.

    Args:
        table: The table.
        digests: id → hash of the samples, of those that were decoded and are not silent.
    """

    def __init__(self, table: datasets.Dataset, digests: Mapping[str, str] | None = None) -> None:
        self.table, self._digests = table, digests or {}
        audios = enumerate(table["audio"])
        self._files = {row: Path(audio["path"]) for row, audio in audios if audio["bytes"] is None}
        self._states = {row: file_state(path) for row, path in self._files.items()}
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
            state = file_state(path)
            if state == self._states[row]:
                continue
            one = self.table.select([row])
            if state is not None and self._is_only_touched(one, self._states[row], state):
                continue
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
            what = "replaced" if state else "removed"
            raise RequestError(
                f"the recording {one[0]['file']} ({path}) was {what} while the run went on",
                "recordings that stay as they are until the run has ended",
                "put it back and run the same command again; if it is to stay so, choose another --output-dir",
            ) from cause

    def _is_only_touched(self, one: datasets.Dataset, before: FileState | None, now: FileState) -> bool:
        """Whether a recording, whose file is another or was written again, sounds as it did."""
        if not row_fingerprints(one).items() <= self.fingerprints.items():
            return False
        if is_hashed_whole(now[0]):
            return True
        digest = self._digests.get(one[0]["id"])
        if digest is None:  # it was never decoded, or is silent: unless its content was written, it is the same
            return before is not None and before[:2] == now[:2]
        try:
            return digest_audio(read_audio(one[0]["audio"])).digest == digest
        except RequestError:  # it cannot be read any more
            return False


def file_state(path: Path) -> FileState | None:
    """Size and times of the last change of a file, of its content and of anything; None if it is not there."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns


def row_fingerprints(table: datasets.Dataset) -> dict[str, str]:
    """Hash each row: who, what, how long, and the audio file. Returns id → SHA-256 in hexadecimal.

    Of the audio file its size and its first and last 64 KiB count: reading 27 GB at every start would take minutes. A
    change between them is found by `CorpusIndex.changes`, which knows the samples.
    """
    names = table.features["emotion"].names
    columns = ["id", "audio", "emotion", "gender", "speaker", "num_samples"]
    fingerprints = {}
    for row in table.select_columns(columns):
        facts = [row["id"], names[row["emotion"]], row["gender"], row["speaker"], row["num_samples"]]
        facts += _audio_facts(row["audio"])
        fingerprints[row["id"]] = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    return fingerprints


def is_hashed_whole(size: int) -> bool:
    """Whether the fingerprint of a recording on disk knows all of its file, by the size of that in bytes."""
    return size <= 2 * EDGE_BYTES


def recording_hashes(table: datasets.Dataset) -> list[str]:
    """SHA-256 in hexadecimal of the audio of each row, and of nothing else: the same in any corpus.

    All of the file counts, read once in a process: one recording must never be given what was computed of another.
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
        return hashlib.sha256(audio["bytes"]).hexdigest()
    with Path(audio["path"]).open("rb") as file:
        state = os.fstat(file.fileno())
        identity = (audio["path"], state.st_size, state.st_mtime_ns, state.st_ctime_ns)
        if identity not in _known_hashes:
            _known_hashes[identity] = hashlib.file_digest(file, "sha256").hexdigest()
    return _known_hashes[identity]
