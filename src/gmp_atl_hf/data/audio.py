"""The one audio reader: any usual recording in, 16 kHz mono float32 out, or a message that says what is wrong.

Training, pseudo-labels, prediction and demo all read through `read_audio`, so none of them can hear a clip differently.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from ..errors import RequestError

SAMPLING_RATE = 16_000
"""Samples per second of everything behind the reader: what HuBERT was trained on."""

MINIMUM_SAMPLES = 400
"""Samples (at 16 kHz, 25 ms) that HuBERT's convolutions need for their first frame."""

AUDIO_SUFFIXES = frozenset(
    {".wav", ".wave", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".aifc", ".au", ".w64", ".rf64"}
    | {".sph", ".m4a", ".aac", ".wma", ".webm", ".amr"}
)
"""File endings taken for recordings. The last five cannot be read: such a file is reported, not passed over."""

ACCEPTED_INPUTS = (
    "a path, the bytes of a file, a binary file object, {'path', 'bytes'} as datasets' Audio(decode=False) gives, "
    "{'array', 'sampling_rate'}, or (sampling_rate, array) as gradio gives; files as wav, flac, mp3, ogg (vorbis or "
    "opus) or aiff; arrays of shape (samples,) or (samples, channels), floats from -1 to 1 or int16, int32 or uint8"
)
"""Every form `read_audio` accepts; its docstring and its error text both use this sentence."""

FloatArray: TypeAlias = npt.NDArray[np.float32]
AudioSource: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | IO[bytes] | Mapping[str, Any] | tuple[int, npt.ArrayLike]
)

_CONVERT = "convert it to wav or flac, for example: ffmpeg -i INPUT OUTPUT.wav"
REPLACE = "copy the file again from its source, or leave it out"
EXACT_FORMATS = frozenset({"WAV", "WAVEX", "FLAC", "AIFF", "AU", "W64", "RF64", "NIST"})
"""Formats of libsndfile whose header knows the length to the sample; elsewhere it may be an estimate."""

# Some recorders write the size of the whole file where the size of the sound belongs: that much is no sign of damage.
_HEADER_SLACK_BYTES = 128
# Programs that write to a pipe cannot know the size and put in a huge one.
_UNKNOWN_SIZE_BYTES = 0x7FF00000
# A clip with more channels than this is an array the wrong way round.
_MOST_CHANNELS = 32


def read_audio(source: AudioSource, sampling_rate: int = SAMPLING_RATE) -> FloatArray:
    """Read a recording, mix it to mono, resample it.

    Channels are averaged, then resampled by soxr at high quality (what librosa and transformers do).

    Args:
        source: The recording in any form of `ACCEPTED_INPUTS`.
        sampling_rate: Samples per second wanted, in Hz.

    Returns:
        The waveform of shape (samples,), float32, -1 to 1 for recordings that do not clip.

    Raises:
        RequestError: When there is nothing to read, it is not audio, it ends early, or holds no or non-finite samples.

    Example:
        >>> read_audio((8000, np.zeros(8000, dtype=np.int16))).shape
        (16000,)
    """
    name, samples, rate = _samples_and_rate(source)
    return mix_to_mono(name, samples, rate, sampling_rate)


def read_clip(source: AudioSource) -> FloatArray:
    """Read a recording for the model: as `read_audio`, and never shorter than one frame.

    A clip below `MINIMUM_SAMPLES` gets zeros at its end. Whatever feeds a model reads through this function, so that
    the length in the table (`num_samples`), the number of frame labels and the model's input agree.

    Args:
        source: The recording in any form of `ACCEPTED_INPUTS`.

    Returns:
        The waveform of shape (max(samples, 400),), float32, at 16 kHz.

    Raises:
        RequestError: As `read_audio`.
    """
    waveform = read_audio(source)
    missing = MINIMUM_SAMPLES - waveform.shape[0]
    return waveform if missing <= 0 else np.pad(waveform, (0, missing))


def audio_length(source: AudioSource) -> int:
    """Tell how many samples `read_audio` would give at 16 kHz, decoding only where a header cannot be trusted.

    Args:
        source: The recording in any form of `ACCEPTED_INPUTS`.

    Returns:
        Number of samples at 16 kHz.

    Raises:
        RequestError: As `read_audio`, though damage behind an intact header goes unseen.
    """
    name, encoded = audio_file(source)
    if encoded is None:
        return int(read_audio(source).shape[0])
    with open_audio(name, encoded) as file:
        if file.format in EXACT_FORMATS and file.frames > 0:
            refuse_truncated(name, file)
            # soxr rounds to the nearest sample, halves up.
            return int((2 * file.frames * SAMPLING_RATE + file.samplerate) // (2 * file.samplerate))
    return int(mix_to_mono(name, *_decode(name, encoded), SAMPLING_RATE).shape[0])


def source_name(source: object) -> str:
    """Name a recording for a message, whatever form it is in.

    Args:
        source: The recording.

    Returns:
        Its path where it has one, otherwise what it is.
    """
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    if isinstance(source, Mapping) and source.get("path"):
        return str(source["path"])
    if isinstance(source, (bytes, bytearray)):
        return f"an audio file of {len(source)} bytes"
    if isinstance(source, tuple) or (isinstance(source, Mapping) and "array" in source):
        return "an audio array"
    return str(getattr(source, "name", None) or f"an object of type {type(source).__name__}")


def mix_to_mono(name: str, samples: FloatArray, rate: int, sampling_rate: int) -> FloatArray:
    """Check samples of shape (samples, channels), mix and resample them to shape (samples,)."""
    if samples.shape[0] == 0:
        raise RequestError(f"{name} holds no samples", "a recording with sound", REPLACE)
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float64).astype(np.float32)
    if not np.isfinite(mono).all():
        count = int((~np.isfinite(samples)).sum())
        raise RequestError(
            f"{name} holds {count} samples that are not finite numbers (NaN or infinity)",
            "finite samples",
            REPLACE,
        )
    if rate != sampling_rate:
        mono = soxr.resample(mono, rate, sampling_rate, quality="HQ")
    if mono.shape[0] == 0:
        raise RequestError(f"{name} is shorter than one sample at {sampling_rate} Hz", "a longer recording", REPLACE)
    return np.ascontiguousarray(mono, dtype=np.float32)


def _samples_and_rate(source: AudioSource) -> tuple[str, FloatArray, int]:
    """Give name, samples of shape (samples, channels) and their rate in Hz."""
    name, encoded = audio_file(source)
    if encoded is not None:
        return (name, *_decode(name, encoded))
    if isinstance(source, tuple) and len(source) == 2:
        rate, array = source
    elif isinstance(source, Mapping) and source.get("array") is not None and "sampling_rate" in source:
        rate, array = source["sampling_rate"], source["array"]
    else:
        raise RequestError(
            f"{name} is not a form of audio that can be read",
            ACCEPTED_INPUTS,
            'cast decoded columns with table.cast_column("audio", Audio(decode=False))',
        )
    if isinstance(rate, bool) or not isinstance(rate, (int, float, np.number)) or not float(rate) > 0:
        raise RequestError(
            f"{name} comes with the sampling rate {rate!r}", "a positive number in Hz", "give the rate first"
        )
    return name, _as_float(name, np.asarray(array)), int(rate)


def audio_file(source: AudioSource) -> tuple[str, Path | bytes | None]:
    """Give the name and the audio file (a path or its bytes); None in place of the file for arrays."""
    name = source_name(source)
    if isinstance(source, (bytes, bytearray)):
        return name, bytes(source)
    if isinstance(source, (str, os.PathLike)):
        return name, Path(source)
    if isinstance(source, Mapping):
        if source.get("bytes") is not None:
            return name, bytes(source["bytes"])
        if source.get("array") is None and source.get("path"):
            return name, Path(source["path"])
        return name, None
    if not isinstance(source, tuple) and hasattr(source, "read"):
        content = source.read()
        if not isinstance(content, bytes):
            raise RequestError(f"{name} was opened as text", "a file opened in binary mode", 'open(path, "rb")')
        return name, content
    return name, None


def open_audio(name: str, encoded: Path | bytes) -> soundfile.SoundFile:
    """Open an audio file, or say why it cannot be one."""
    if isinstance(encoded, Path):
        if not encoded.exists():
            raise RequestError(f"there is no file {name}", "an audio file", "correct the path")
        if encoded.is_dir():
            raise RequestError(f"{name} is a folder", "an audio file", "give one file, or read the folder as a corpus")
        try:
            with encoded.open("rb") as file:
                head = file.read(64)
        except OSError as error:
            raise RequestError(
                f"{name} cannot be opened ({error.strerror})", "a readable file", "check its rights"
            ) from error
    else:
        head = encoded[:64]
    if not head:
        raise RequestError(f"{name} is empty (0 bytes)", "an audio file", REPLACE)
    try:
        # As bytes: soundfile itself cannot spell names that are no valid text.
        return soundfile.SoundFile(os.fsencode(encoded) if isinstance(encoded, Path) else io.BytesIO(encoded))
    except (soundfile.LibsndfileError, TypeError) as error:
        # soundfile answers TypeError to endings such as .raw, whose files do not say what they are.
        kind, fix = _looks_like(head)
        detail = getattr(error, "error_string", str(error)).rstrip(".")
        raise RequestError(f"{name} {kind} ({detail})", "a wav, flac, mp3, ogg or aiff file", fix) from error


def _decode(name: str, encoded: Path | bytes) -> tuple[FloatArray, int]:
    """Decode an audio file to samples of shape (samples, channels), float32, and their rate in Hz."""
    with open_audio(name, encoded) as file:
        promised = file.frames
        try:
            samples: FloatArray = file.read(dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise RequestError(
                f"{name} is damaged or ends early ({error.error_string.rstrip('.')})",
                "a complete audio file",
                REPLACE,
            ) from error
        refuse_truncated(name, file)
        # The length in an mp3 header may be an estimate; only a gap that no estimate makes counts.
        slack = 0 if file.format in EXACT_FORMATS else max(promised // 20, 10_000)
        if samples.shape[0] < promised - slack:
            raise RequestError(
                f"{name} ends early: its header promises {promised} samples, {samples.shape[0]} are there",
                "a complete audio file",
                REPLACE,
            )
        return samples, int(file.samplerate)


def refuse_truncated(name: str, file: soundfile.SoundFile) -> None:
    """Refuse a file that is shorter than it says; libsndfile itself only notes it in its log."""
    log = file.extra_info
    sizes = re.search(r"^\s*(?:data|SSND)\s*:\s*(\d+) \(should be (\d+)\)", log, flags=re.MULTILINE)
    if sizes:
        promised, there = int(sizes[1]), int(sizes[2])
        if promised - there > _HEADER_SLACK_BYTES and promised < _UNKNOWN_SIZE_BYTES:
            raise RequestError(
                f"{name} ends early: its header promises {promised} bytes of sound, {there} are there",
                "a complete audio file",
                REPLACE,
            )
    if "ended unexpectedly" in log or "Junk after the last page" in log:
        raise RequestError(f"{name} ends early: its last ogg page is cut off", "a complete audio file", REPLACE)


def _looks_like(head: bytes) -> tuple[str, str]:
    """Say what a file that is no readable audio seems to be, and what to do about it."""
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the recording itself", "fetch the recordings: git lfs pull"
    if head.lstrip()[:1] == b"<":
        return "is a web page or XML, not audio", "download it again; such a page is often a refused download"
    if head.startswith(b"PK\x03\x04"):
        return "is a zip archive, not audio", "unpack it first"
    if head[4:8] == b"ftyp" or head.startswith(b"\x1a\x45\xdf\xa3"):
        return "is an mp4, m4a or webm file, which cannot be read", _CONVERT
    if head.startswith((b"RIFF", b"fLaC", b"OggS", b"ID3", b"FORM")):
        return "starts like audio but is damaged or ends early", REPLACE
    return "is not audio that can be read", _CONVERT


def _as_float(name: str, array: npt.NDArray[Any]) -> FloatArray:
    """Turn an array of any accepted type into shape (samples, channels), float32."""
    if array.ndim not in (1, 2):
        raise RequestError(
            f"{name} has the shape {array.shape}", "(samples,) or (samples, channels)", "drop other axes"
        )
    if array.ndim == 1:
        array = array[:, np.newaxis]
    elif array.shape[1] == 0 or array.shape[1] > _MOST_CHANNELS:
        raise RequestError(f"{name} has the shape {array.shape}", "(samples, channels)", "transpose it: array.T")
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    if array.dtype == np.uint8:
        return (array.astype(np.float32) - 128.0) / 128.0
    if array.dtype in (np.int16, np.int32):
        return (array.astype(np.float64) / -float(np.iinfo(array.dtype).min)).astype(np.float32)
    raise RequestError(
        f"{name} has the type {array.dtype}",
        "floats from -1 to 1, or int16, int32 or uint8 samples",
        "cast it to the type its values mean, for example array.astype('int16')",
    )
