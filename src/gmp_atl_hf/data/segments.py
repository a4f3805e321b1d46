"""Recordings that are a part of a longer file: cut out once, so that the rest of the file is not in the table."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy.typing as npt
import soundfile

from ..errors import RequestError
from .audio import (
    EXACT_FORMATS,
    SAMPLING_RATE,
    UNKNOWN_FRAMES,
    AudioSource,
    FloatArray,
    audio_file,
    open_audio,
    read_audio,
    refuse_truncated,
)

WHOLE_FILES = "give the column another name, or in a recipe columns: {start: null, end: null}"
"""How a table with times is read without cutting segments out of its files."""

_SLACK_SECONDS = 0.1
"""How far behind the end of the file a segment may end: lists are written with rounded times."""
_SEEKABLE = ("PCM", "FLOAT", "DOUBLE", "ULAW", "ALAW")


def name_of_segment(file: str, start: float | None, end: float | None) -> str:
    """Name a part of a file as in `x.wav#t=1.5,3`; the file's own name where all of it is meant."""
    if start is None and end is None:
        return file
    return f"{file}#t={start or 0:.9g}" + ("" if end is None else f",{end:.9g}")


def cut_segment(source: AudioSource, start: float, end: float | None) -> bytes:
    """Cut a segment out of a recording, from `start` to `end` in seconds; None for the end of the recording.

    Returns:
        A wav file of the segment: the samples of the recording where its format lets them be found, else 16 kHz mono.

    Raises:
        RequestError: When the segment is not inside the recording; and as `read_audio`.
    """
    name, encoded = audio_file(source)
    if encoded is not None:
        with open_audio(name, encoded) as file:
            if file.format in EXACT_FORMATS and file.subtype.startswith(_SEEKABLE) and 0 < file.frames < UNKNOWN_FRAMES:
                refuse_truncated(name, file)
                first, last = _place(name, start, end, file.frames, file.samplerate)
                file.seek(first)
                exact = file.subtype == "PCM_16"
                return _wav(file.read(last - first, dtype="int16" if exact else "float32"), file.samplerate, exact)
    waveform = _decoded(encoded, _state(encoded)) if isinstance(encoded, Path) else read_audio(source)
    first, last = _place(name, start, end, len(waveform), SAMPLING_RATE)
    return _wav(waveform[first:last], SAMPLING_RATE, exact=False)


@lru_cache(maxsize=1)
def _decoded(path: Path, state: tuple[int, int]) -> FloatArray:
    """Decode a file of which one segment after the other is wanted: mp3 and ogg are not to be decoded for each.

    An hour of it takes 230 MB, until another file is wanted or `forget_decoded` is called.
    """
    return read_audio(path)


def forget_decoded() -> None:
    """Let go of the last file that was decoded."""
    _decoded.cache_clear()


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size


def _place(name: str, start: float, end: float | None, samples: int, rate: int) -> tuple[int, int]:
    """Give the first sample of a segment and the one behind its last."""
    last = samples if end is None else round(end * rate)
    if round(start * rate) >= min(last, samples) or last > samples + _SLACK_SECONDS * rate:
        upto = "" if end is None else f" to {end:g} s"
        raise RequestError(
            f"{name} is {samples / rate:g} s long, its segment is from {start:g} s{upto}",
            "a segment inside the recording, in seconds",
            f"correct start and end; where they mean something else: {WHOLE_FILES}",
        )
    return round(start * rate), min(last, samples)


def _wav(samples: npt.NDArray[Any], rate: int, exact: bool) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype="PCM_16" if exact else "FLOAT")
    return buffer.getvalue()
