"""Small trees of corpora, and what a reader says about them."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import pytest

from audio_files import tone, write_audio
from gmp_atl_hf.data.listing import Listed, list_recordings
from gmp_atl_hf.data.table import Corpus, read_corpora
from gmp_atl_hf.errors import RequestError

LEFTOVER = "a hidden file that an archive program or file manager left behind"


def clip(path: Path, rate: int = 16_000) -> Path:
    """A short recording; another path has another sound."""
    return write_audio(path, tone(2_000, seed=zlib.crc32(path.name.encode()), rate=rate), rate)


def touch(root: Path, *names: str) -> None:
    """Empty files: enough to list them."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def read_corpus(
    name: str, root: Path | None = None, labels: dict[str, str | None] | None = None, **more: Any
) -> Corpus:
    """One corpus, with what was left out and what is odd."""
    return read_corpora([{"name": name, "root": root, **more}], labels=labels)


def people(listed: Listed) -> dict[str, tuple[str, str, str | None]]:
    return {one.file: (one.emotion, one.speaker, one.gender) for one in listed.recordings}


def reasons(listed: Listed) -> dict[str, str]:
    return {one.file.partition("/")[2]: one.reason for one in listed.left_out}


def refused(*args: object, **kwargs: object) -> RequestError:
    with pytest.raises(RequestError) as raised:
        list_recordings(*args, **kwargs)  # type: ignore[arg-type]
    assert raised.value.expected
    return raised.value
