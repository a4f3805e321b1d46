"""What may be handed over for scoring: recordings in any form, many of them, folders; and how long each one is."""

from __future__ import annotations

import io
import os
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import soundfile

from ..data.arrays import array_and_rate, checked_rate, is_numbers, refuse_rate_last
from ..data.audio import (
    AUDIO_SUFFIXES,
    SAMPLING_RATE,
    UNKNOWN_FRAMES,
    AudioSource,
    FloatArray,
    is_leftover,
    read_audio,
    source_name,
    without_rate,
)
from ..data.segments import cut_segment
from ..data.walk import walk

Inputs: TypeAlias = AudioSource | Iterable[AudioSource]
"""One recording or folder, or many."""


@dataclass(frozen=True)
class FoundFiles:
    """What is in a folder: recordings and other files, sorted, and why folders in it cannot be listed."""

    recordings: list[Path]
    others: list[Path]
    problems: list[tuple[Path, str]]


@dataclass(frozen=True)
class Item:
    """One recording to score.

    Args:
        name: What people know it by: its path where it has one.
        source: The recording in any form that `read_audio` accepts.
        problem: Why there is nothing to read, where that is known beforehand.
        part: From when to when it is meant, in seconds, None for the end of it; None for all of it.
    """

    name: str
    source: Any
    problem: str | None = None
    part: tuple[float, float | None] | None = None

    def read(self) -> FloatArray:
        """Decode it, or its part: (samples,) float32 at 16 kHz; errors are those of `read_audio`."""
        return read_audio(self.source if self.part is None else cut_segment(self.source, *self.part))

    def estimated_samples(self) -> int:
        """As the function of this name, of its part."""
        start, end = self.part or (0.0, None)
        if end is not None:
            return round((end - start) * SAMPLING_RATE)
        return max(0, estimated_samples(self.source) - round(start * SAMPLING_RATE))


def identity_of(item: Item) -> Hashable:
    """What is the same for one recording under several paths; what has no path is a recording of its own."""
    if not isinstance(item.source, (str, os.PathLike)):
        return id(item)
    try:
        return os.path.realpath(item.source), item.part
    except ValueError:  # a path that no file system takes: reading it will say so
        return os.fspath(item.source), item.part


def list_folder(folder: str | os.PathLike[str]) -> FoundFiles:
    """List a folder and the folders in it, also those that links lead to.

    Files whose ending is in `AUDIO_SUFFIXES` are recordings, unless they are hidden, as the `._x.wav` that a Mac leaves
    beside every `x.wav` on other people's disks.
    """
    problems: list[tuple[Path, str]] = []

    def note(error: OSError) -> None:
        problems.append((Path(os.fsdecode(error.filename)), str(error.strerror)))

    files = sorted(walk(folder, note))
    recordings = [f for f in files if f.suffix.lower() in AUDIO_SUFFIXES and not is_leftover(f, Path(folder))]
    others = sorted(set(files).difference(recordings))
    return FoundFiles(recordings, others, problems)


def expand_inputs(inputs: Inputs) -> tuple[list[Item], bool]:
    """Turn one or many of everything `read_audio` accepts, and folders, into a list of recordings.

    Returns:
        The recordings, and whether it was a single recording, no list or folder.

    Raises:
        RequestError: It is an array, a tensor or a list of numbers, which says no sampling rate, or says it last.
    """
    refuse_rate_last(inputs)
    if is_numbers(inputs):
        raise without_rate(inputs)
    if is_one(inputs):
        items = _expand_one(inputs)
        return items, not _is_folder(inputs)
    several: list[Item] = []
    for one in cast(Iterable[Any], inputs):
        # A sample or a row of samples; a whole array in a list stands for one recording, and its error beside others.
        if is_numbers(one) and getattr(one, "shape", ()) == ():
            raise without_rate(one)
        several.extend(_expand_one(one))
    return several, False


def is_one(inputs: object) -> bool:
    """Whether this is one recording or folder, as opposed to many of them."""
    if isinstance(inputs, tuple):
        # gradio's (rate, array) begins with a number, a tuple of recordings does not.
        return len(inputs) == 2 and isinstance(inputs[0], (int, float, np.number))
    if isinstance(inputs, (str, os.PathLike, bytes, bytearray, memoryview, Mapping)):
        return True
    if hasattr(inputs, "read") or hasattr(inputs, "get_all_samples"):
        return True
    return not isinstance(inputs, Iterable)


def estimated_samples(source: Any) -> int:
    """Estimate a recording's samples at 16 kHz from its header; 0 when it cannot be told, and reading it will say why.

    Batches are ordered by it, so an estimate is enough. (`audio_length` is exact and decodes mp3 and ogg for that.)
    """
    try:
        if (found := array_and_rate(source)) is not None:
            array, rate = found
            return int(max(np.shape(array)) * SAMPLING_RATE / checked_rate("", rate))
        if isinstance(source, Mapping):
            source = source["bytes"] if source.get("bytes") is not None else source["path"]
        if hasattr(source, "read"):
            return _header_samples_of_open_file(source)
        if isinstance(source, (bytes, bytearray, memoryview)):
            return _header_samples(io.BytesIO(source))
        return _header_samples(os.fsencode(source)) if Path(source).is_file() else 0  # a pipe would be waited for
    except (soundfile.SoundFileError, OSError, ValueError, TypeError, LookupError, ArithmeticError):
        return 0


def _header_samples(file: Any) -> int:
    header = soundfile.info(file)
    rate = checked_rate("", header.samplerate)
    return int(header.frames * SAMPLING_RATE / rate) if header.frames < UNKNOWN_FRAMES else 0


def _header_samples_of_open_file(file: Any) -> int:
    if isinstance(file, io.IOBase) and (isinstance(file, io.TextIOBase) or not file.readable()):
        return 0
    position = file.tell()
    try:
        return _header_samples(file)
    finally:
        file.seek(position)


def _is_folder(source: object) -> bool:
    try:
        return isinstance(source, (str, os.PathLike)) and source != "" and Path(source).is_dir()
    except (OSError, ValueError):  # a path that no file system takes: reading it will say so
        return False


def _expand_one(source: Any) -> list[Item]:
    if not _is_folder(source):
        return [Item(source_name(source), source)]
    found = list_folder(source)
    items = [Item(str(file), file) for file in found.recordings]
    items += [
        Item(str(folder), folder, f"the folder {folder} cannot be listed: {why}") for folder, why in found.problems
    ]
    if not items:
        endings = ", ".join(sorted(AUDIO_SUFFIXES))
        items = [Item(source_name(source), source, f"the folder {source_name(source)} holds no recordings ({endings})")]
    return items
