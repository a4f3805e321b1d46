"""Beside a model, short hashes of the recordings that it was trained or chosen on, known so under any name.

Speakers are known by name alone: the same recordings in a table of somebody's own have other names.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from transformers.utils import cached_file

from ..errors import RequestError
from ..files import json_of, read_json, write_whole
from ..modeling.configuration_gmp_atl import find_checkpoint
from .adapters import Adapter
from .loading_errors import explained

HEARD_FILE = "heard_recordings.json"

_FORMAT_VERSION = 1
_DIGITS = 16
_FIX = "copy the model again; without the file it is tested too, and recordings under other names are not noticed"


def short_hash(digest: str) -> str:
    """What the file has of the hash of a recording's samples (see `digest_audio`): 64 bits, in hexadecimal."""
    return digest[:_DIGITS]


def write_heard_recordings(folder: Path, heard: Iterable[str]) -> None:
    """Write the short hashes beside a model, sorted; nothing where none is known."""
    if hashes := sorted(set(heard)):
        write_whole(folder / HEARD_FILE, json_of({"format_version": _FORMAT_VERSION, "recordings": hashes}))


def heard_recordings(checkpoint: str | Path) -> frozenset[str]:
    """Short hashes of the recordings that a checkpoint, or those before it, was trained or chosen on.

    Args:
        checkpoint: Folder or Hub id of a model or an adapter; one without a list of its own has that of its base.

    Returns:
        The hashes; none where nobody has noted them.

    Raises:
        RequestError: The list is damaged or of a later version, or the Hub cannot be asked.
    """
    what, expected = f"{HEARD_FILE} of {checkpoint}", "the list of hashes that was written with the model"
    with explained(f"{what} cannot be read", expected, _FIX):
        place = find_checkpoint(checkpoint)
        file = cached_file(place, HEARD_FILE, _raise_exceptions_for_missing_entries=False)
        if file is None:
            adapter = Adapter.find(place)
            return frozenset() if adapter is None else heard_recordings(adapter.find_base(place))
        content = read_json(Path(file))
        version, hashes = content["format_version"], content["recordings"]
    if version != _FORMAT_VERSION:
        raise RequestError(f"{what} has the format version {version}", f"{_FORMAT_VERSION}", "update gmp-atl-hf")
    if not (isinstance(hashes, list) and all(isinstance(each, str) for each in hashes)):
        raise RequestError(f"{what} holds no list of hashes", expected, _FIX)
    return frozenset(hashes)
