"""What was measured of each recording, kept with a run: its next start asks the file system and decodes nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import soundfile
import soxr

from ..errors import RequestError
from ..files import read_json, write_known
from ..version import __version__
from .audio import audio_length, read_audio
from .duplicates import AudioDigest, digest_audio
from .fingerprints import file_state

INDEX_FILE = "corpus-index.json"

# Raised whenever the same file would be decoded, measured or digested otherwise.
_FORMAT = 2
# Others may decode the same file to other samples.
_LIBRARIES = f"libsndfile {soundfile.__libsndfile_version__}, soxr {soxr.__version__}"
_DECODER = f"format {_FORMAT}, gmp_atl_hf {__version__}, {_LIBRARIES}"
# Path, size, time of last change of the content and of anything; for recordings in memory: SHA-256, size, 0, 0.
_Key = tuple[str, int, int, int]


class CorpusIndex:
    """Length and digest of recordings, measured once and, by `save`, kept in `corpus-index.json`.

    A recording is decoded again when its path, its size or either time of its last change differs, that of its content
    or that of anything about it, which no program can set back. So a copy that keeps its date is noticed; a change that
    leaves all of them as they are, such as a failing disk's, is not. Recordings in memory are told by their SHA-256. An
    index that is damaged, removed, or of another version of the decoder counts for nothing.

    Args:
        folder: Where the index is kept; None keeps nothing.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._kept = {} if folder is None else _read(folder / INDEX_FILE)
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

    def save(self) -> None:
        """Write what was measured since, if that is anything new."""
        if self.folder is None or self._measured == self._kept:
            return
        rows = [[*key, one.num_samples, one.digest, one.silent] for key, one in sorted(self._measured.items())]
        write_known(self.folder, {INDEX_FILE: json.dumps({"decoder": _DECODER, "recordings": rows})})


def _read(file: Path) -> dict[_Key, AudioDigest]:
    try:
        content = read_json(file)
        if content["decoder"] != _DECODER:
            return {}
        return {
            (path, size, content_changed, changed): AudioDigest(*measured)
            for path, size, content_changed, changed, *measured in content["recordings"]
        }
    except (RequestError, OSError, LookupError, TypeError, ValueError):
        return {}


def _key(audio: Mapping[str, Any]) -> _Key | None:
    """What tells a recording from others and from itself before a change; None for a file that is not there."""
    content = audio["bytes"]
    if content is not None:
        return hashlib.sha256(content).hexdigest(), len(content), 0, 0
    state = file_state(Path(audio["path"]))
    return None if state is None else (audio["path"], *state)
