"""Beside a model, short hashes of the recordings that it was trained or chosen on, known so under any name.

Speakers are known by name alone: the same recordings in a table of somebody's own have other names.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from ..errors import RequestError
from ..files import json_of, read_json, write_whole
from ..modeling.configuration_gmp_atl import GMPATLConfig, find_checkpoint
from .adapters import Adapter
from .checkpoint import read_config
from .loading_errors import explained

HEARD_FILE = "heard_recordings.json"

_FORMAT_VERSION = 1
_DIGITS = 16
_FIX = "copy the model again; without the file it is tested too, and recordings under other names are not noticed"
_UNKNOWN_FIX = "connect to the Hub, or log in, once; or give the folder of a whole copy"


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
        RequestError: The list is damaged or of a later version, or the Hub cannot be asked whether there is one.
    """
    what, expected = f"{HEARD_FILE} of {checkpoint}", "the list of hashes that was written with the model"
    with explained(f"{what} cannot be read", expected, _FIX):
        place = find_checkpoint(checkpoint)
    if Path(place).is_dir():
        file = Path(place, HEARD_FILE) if Path(place, HEARD_FILE).is_file() else None
    elif read_config(place).model_type != GMPATLConfig.model_type:
        return frozenset()  # an encoder of somebody else has no such list: the Hub is not asked
    else:
        with explained(f"nobody knows whether {checkpoint} has a list of what it has heard", expected, _UNKNOWN_FIX):
            file = _on_the_hub(place)
    with explained(f"{what} cannot be read", expected, _FIX):
        if file is None:
            adapter = Adapter.find(place)
            return frozenset() if adapter is None else heard_recordings(adapter.find_base(place))
        content = read_json(file)
        version, hashes = content["format_version"], content["recordings"]
    if version != _FORMAT_VERSION:
        raise RequestError(f"{what} has the format version {version}", f"{_FORMAT_VERSION}", "update gmp-atl-hf")
    if not (isinstance(hashes, list) and all(isinstance(each, str) for each in hashes)):
        raise RequestError(f"{what} holds no list of hashes", expected, _FIX)
    return frozenset(hashes)


def _on_the_hub(name: str) -> Path | None:
    """The list of a model on the Hub, kept in the cache; None where it is known that there is none.

    Raises:
        LocalEntryNotFoundError: The Hub cannot be reached, and nothing is known from before.
    """
    try:
        return Path(hf_hub_download(name, HEARD_FILE))
    except LocalEntryNotFoundError:
        if try_to_load_from_cache(name, HEARD_FILE) is None:
            raise
    except EntryNotFoundError:
        pass
    return None
