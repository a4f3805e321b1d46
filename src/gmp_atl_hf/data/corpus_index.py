"""What was measured of each recording, kept with a run: its next start asks the file system and decodes nothing."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import soundfile
import soxr
from datasets import Dataset

from ..errors import RequestError
from ..files import read_json, write_known
from ..version import __version__
from .audio import audio_length, read_audio
from .duplicates import AudioDigest, digest_audio
from .fingerprints import file_state, is_hashed_whole

INDEX_FILE = "corpus-index.json"

# Raised whenever the same file would be decoded, measured or digested otherwise.
_FORMAT = 2
# Others may decode the same file to other samples.
_LIBRARIES = f"libsndfile {soundfile.__libsndfile_version__}, soxr {soxr.__version__}"
_DECODER = f"format {_FORMAT}, gmp_atl_hf {__version__}, {_LIBRARIES}"
# Path, size, time of last change of the content and of anything; for recordings in memory: SHA-256, size, 0, 0.
_Key = tuple[str, int, int, int]


@dataclass(frozen=True)
class Changes:
    """What has become of recordings on disk since an index of them was saved, by id.

    Args:
        changed: Those with other samples than then.
        new: Those that were not there then, by path or samples; one whose row was has moved and changed.
        unclear: Those of which nobody can tell, since they were touched or moved, or nothing was kept of them: a change
            in the middle of the file would leave their fingerprints as they are.
    """

    changed: frozenset[str] = frozenset()
    new: frozenset[str] = frozenset()
    unclear: frozenset[str] = frozenset()


class CorpusIndex:
    """Length and digest of recordings, measured once and, by `save`, kept in `corpus-index.json`.

    A recording is decoded again when its path, its size or either time of its last change differs, that of its content
    or that of anything about it, which no program can set back. So a copy that keeps its date is noticed; a change that
    leaves all of them as they are, such as a failing disk's, is not. Recordings in memory are told by their SHA-256. An
    index that is damaged, removed, or of another version of the decoder spares no decoding.

    Args:
        folder: Where the index is kept; None keeps nothing.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._before, decoder = ({}, "") if folder is None else _read(folder / INDEX_FILE)
        self._kept = self._before if decoder == _DECODER else {}
        self._comparable = _samples_of(decoder) == _samples_of(_DECODER)
        self._measured: dict[_Key, AudioDigest] = {}

    def measure(self, audio: Mapping[str, Any], decode: bool = True) -> AudioDigest:
        """Give length and digest of a recording, decoded only if the index does not have it.

        Args:
            audio: An audio cell of the table.
            decode: Whether the digest is wanted; otherwise only the length is, from the header where it can be trusted.

        Raises:
            RequestError: The recording cannot be read.
        """
        key = _key(audio)
        known = None if key is None else self._measured.get(key, self._kept.get(key))
        found = known
        if found is None or found.is_decoded != decode:
            found = digest_audio(read_audio(audio)) if decode else AudioDigest(audio_length(audio))
        if key is not None:
            # What a header says never takes the place of what was decoded, which another reader of the file needs.
            self._measured[key] = known if known is not None and known.is_decoded else found
        return found

    def changes(self, *tables: Dataset) -> Changes:
        """Compare recordings with what was kept of them when the folder was last used.

        Those that have moved are looked for by their samples alone: their rows say whether they are the same ones. Of
        recordings in memory the rows know everything.

        Args:
            tables: Rows that were measured by this index.
        """
        before = {key[0]: audio for key, audio in self._before.items()}
        decoded = {audio for audio in before.values() if audio.is_decoded}
        changed, new, unclear = set[str](), set[str](), set[str]()
        for row in chain.from_iterable(table.select_columns(["id", "audio"]) for table in tables):
            audio = row["audio"]
            key = _key(audio) if audio["bytes"] is None else None
            if key is None or key in self._before:
                continue
            possible = {before[key[0]]} & decoded if key[0] in before else decoded
            if self._comparable and possible:
                others = changed if key[0] in before else new
                others.update([] if self._decoded(key, audio) in possible else [row["id"]])
            elif not is_hashed_whole(key[1]):
                unclear.add(row["id"])
        return Changes(frozenset(changed), frozenset(new), frozenset(unclear))

    def _decoded(self, key: _Key, audio: Mapping[str, Any]) -> AudioDigest:
        """The digest of a recording, also of one of which only the length was asked for."""
        measured = self._measured.get(key)
        return measured if measured is not None and measured.is_decoded else digest_audio(read_audio(audio))

    def save(self) -> None:
        """Write what was measured since, if that is anything new."""
        if self.folder is None or self._measured == self._kept:
            return
        rows = [[*key, one.num_samples, one.digest, one.silent] for key, one in sorted(self._measured.items())]
        write_known(self.folder, {INDEX_FILE: json.dumps({"decoder": _DECODER, "recordings": rows})})


def _read(file: Path) -> tuple[dict[_Key, AudioDigest], str]:
    """What an index holds, and by which decoder; nothing where it is not there or damaged."""
    try:
        content = read_json(file)
        recordings = {
            (path, size, content_changed, changed): AudioDigest(*measured)
            for path, size, content_changed, changed, *measured in content["recordings"]
        }
        return recordings, str(content["decoder"])
    except (RequestError, OSError, LookupError, TypeError, ValueError):
        return {}, ""


def _samples_of(decoder: str) -> str:
    """What of a decoder the samples depend on: all but the version of this package, whose own part is the format."""
    return re.sub(r"gmp_atl_hf [^,]*, ", "", decoder)


def _key(audio: Mapping[str, Any]) -> _Key | None:
    """What tells a recording from others and from itself before a change; None for a file that is not there."""
    content = audio["bytes"]
    if content is not None:
        return hashlib.sha256(content).hexdigest(), len(content), 0, 0
    state = file_state(Path(audio["path"]))
    return None if state is None else (audio["path"], *state)
