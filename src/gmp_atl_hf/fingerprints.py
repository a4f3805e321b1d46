"""What identifies the rows of a table, so that a step knows when its data have changed."""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import datasets

EDGE_BYTES = 1 << 16
# Path, size and time of last change → hash: folds and stages ask for the same recordings again and again.
_known_hashes: dict[tuple[str, int, int], str] = {}


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
