"""One file per recording that is whole or not there, read through the page cache."""

from __future__ import annotations

import errno
import io
import os
import shutil
import tempfile
import zlib
from pathlib import Path
from threading import Lock

import numpy as np
from tqdm.auto import tqdm

from ..errors import RequestError
from ..files import write_whole
from .conv_features import PRECISION, ConvFeatures

CHECKSUM_BYTES = 4
_DTYPES = (np.dtype(PRECISION), np.dtype("float32"))
_OUT_OF_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# Files that this process has read whole: path, size, time of last change. What a training maps was checked once.
_sound: set[tuple[str, int, int]] = set()
# numpy reads the header with `ast`, which fails now and then in threads of Python 3.11 (cpython#106905).
_one_header_at_a_time = Lock()


class FeatureStore:
    """Features of recordings under one folder, as `<first two digits>/<name>.npy`.

    A file is a plain `.npy` with a checksum behind it; one with another number of `channels` is damaged. Two processes
    may write the same one: both write the same content, and the last rename wins.
    """

    def __init__(self, folder: Path, channels: int) -> None:
        self.folder, self.channels = folder, channels

    def path(self, name: str) -> Path:
        """File of a recording, there or not."""
        return self.folder / name[:2] / f"{name}.npy"

    def read(self, name: str) -> ConvFeatures | None:
        """Map a recording's (frames, channels) into memory; None when they are missing, or damaged (with a message)."""
        path = self.path(name)
        try:
            with _one_header_at_a_time:
                features: ConvFeatures = np.load(path, mmap_mode="r", allow_pickle=False)
            state = path.stat()
            identity = (str(path), state.st_size, state.st_mtime_ns)
            if identity not in _sound:
                self._check(features, path, state.st_size)
                _sound.add(identity)
        except FileNotFoundError:
            return None
        except (ValueError, EOFError, OSError) as error:  # what numpy says of a file that is no array, or a short one
            tqdm.write(f"{path} is damaged ({error}): it is computed again")
            return None
        return features

    def write(self, name: str, features: ConvFeatures) -> None:
        """Write a recording's features, (frames, channels) float16 or float32; a full disk is a `RequestError`."""
        content = io.BytesIO()
        np.save(content, features, allow_pickle=False)
        content.write(_checksum(features))
        try:
            write_whole(self.path(name), content.getvalue(), durable=False)
        except OSError as error:
            if error.errno in _OUT_OF_SPACE:
                raise out_of_space(self.folder, self.channels, None) from error
            raise

    def _check(self, features: ConvFeatures, path: Path, size: int) -> None:
        if features.dtype not in _DTYPES or features.ndim != 2 or features.shape[1] != self.channels:
            raise ValueError(f"it holds {features.dtype} of shape {features.shape}")
        with path.open("rb") as file:
            file.seek(size - CHECKSUM_BYTES)
            checksum = file.read()
        header = getattr(features, "offset", 0)
        if size != header + features.nbytes + CHECKSUM_BYTES or checksum != _checksum(features):
            raise ValueError("its checksum is wrong")


def _checksum(features: ConvFeatures) -> bytes:
    start = zlib.crc32(f"{features.dtype.str}{features.shape}".encode())
    return zlib.crc32(np.ascontiguousarray(features).data, start).to_bytes(CHECKSUM_BYTES, "little")


def refuse_no_folder(folder: Path, setting: str, fix: str) -> None:
    """Refuse, before any work, a setting's place for a cache that is a file, a device, or cannot be written to."""
    try:
        there = next(parent for parent in (folder, *folder.absolute().parents) if os.path.lexists(parent))
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"0")
    except (OSError, ValueError) as error:
        raise RequestError(
            f"`{setting}` is {os.fspath(folder)!r}, where nothing can be kept: {error}",
            "a folder to write to, or one that can be made",
            fix,
        ) from error


def refuse_without_room(folder: Path, channels: int, needed: int) -> None:
    """Refuse, by a `RequestError`, to begin what the disk has no room for, in bytes."""
    there = next(parent for parent in (folder, *folder.resolve().parents) if parent.is_dir())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise out_of_space(folder, channels, needed, free)


def out_of_space(folder: Path, channels: int, needed: int | None, free: int | None = None) -> RequestError:
    """Say that the disk is too small, with the bytes that are needed and free where they are known."""
    wanted = "more room than there is" if needed is None else f"{needed / 1e9:.1f} GB"
    left = "" if free is None else f"; {free / 1e9:.1f} GB are free"
    per_hour = 3600 * 50 * channels * 2 / 1e6
    return RequestError(
        f"the cache needs {wanted} in {os.fspath(folder)}{left}",
        f"about {per_hour:.0f} MB for each hour of audio ({channels} channels, 50 frames a second, 2 bytes)",
        "make room, or name a folder on another disk: data.front_end_cache of a run (false computes the front end in "
        "every epoch), teacher_states of a pre-training, the output folder for states below trained_layers",
    )
