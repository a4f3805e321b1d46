"""The one audio reader: any usual recording in, 16 kHz mono float32 out, or a message that says what is wrong.

Training, pseudo-labels, prediction and demo all read through `read_audio`, so all of them get the same samples.
"""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from ..errors import RequestError
from .arrays import ARRAYS, REPLACE, Mixer, checked_rate, is_numbers, mono_array
from .arrays import FloatArray as FloatArray

SAMPLING_RATE = 16_000
"""Samples per second of everything behind the reader: what HuBERT was trained on."""

BLOCK_SECONDS = 30.0
"""Seconds decoded at a time: 30 s of 48 kHz stereo are 12 MB."""

MINIMUM_SAMPLES = 400
"""Samples (at 16 kHz, 25 ms) that HuBERT's convolutions need for their first frame."""

AUDIO_SUFFIXES = frozenset(
    {".wav", ".wave", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".aifc", ".au", ".w64", ".rf64"}
    | {".sph", ".m4a", ".aac", ".wma", ".webm", ".amr"}
)
"""File endings taken for recordings. The last five cannot be read: such a file is reported, not passed over."""

ACCEPTED_INPUTS = (
    "a path, the bytes of a file, a binary file object, {'path', 'bytes'} as datasets' Audio(decode=False) gives, "
    "{'array' or 'raw', 'sampling_rate'}, (sampling_rate, array) as gradio gives, or torchcodec's AudioDecoder; files "
    "as wav, flac, mp3, ogg (vorbis or opus) or aiff; arrays, tensors or lists of one recording, of shape (samples,) "
    "or with one or two channels beside the samples, floats from -1 to 1 or int16, int32 or uint8; sampling rates from "
    "1,000 to 1,000,000 Hz"
)
"""Every form `read_audio` accepts; its docstring and its error text both use this sentence."""

AudioSource: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | Mapping[str, Any] | tuple[int, npt.ArrayLike]
)

_CONVERT = "convert it to wav or flac, for example: ffmpeg -i INPUT OUTPUT.wav"
# Formats of libsndfile whose header knows the length to the sample; elsewhere it may be an estimate.
EXACT_FORMATS = frozenset({"WAV", "WAVEX", "FLAC", "AIFF", "AU", "W64", "RF64", "NIST"})

# Some recorders write the size of the whole file where the size of the sound belongs: that much is no sign of damage.
_HEADER_SLACK_BYTES = 128
# Programs that write to a pipe cannot know the size and put in a huge one; or none, for which libsndfile gives the
# largest number there is.
_UNKNOWN_SIZE_BYTES = 0x7FF00000
UNKNOWN_FRAMES = 1 << 50
# Values decoded at a time, 256 MB at most: a header may promise anything, of length and of channels.
_MOST_IN_BLOCK = 1 << 26
# A longer recording is measured by decoding it, whatever its header says.
_TRUSTED_SECONDS = 24 * 3600


def read_audio(source: AudioSource, sampling_rate: int = SAMPLING_RATE) -> FloatArray:
    """Read a recording, mix it to mono, resample it.

    Channels are averaged, then resampled by soxr at high quality (what librosa and transformers do).

    Args:
        source: The recording in any form of `ACCEPTED_INPUTS`.
        sampling_rate: Samples per second wanted, in Hz.

    Returns:
        The waveform of shape (samples,), float32, -1 to 1 for recordings that do not clip.

    Raises:
        RequestError: When there is nothing to read, it is not audio, it ends early, holds no or non-finite samples, or
            its channels cancel each other.

    Example:
        >>> read_audio((8000, np.zeros(8000, dtype=np.int16))).shape
        (16000,)
    """
    name, encoded = audio_file(source)
    if encoded is None:
        found = mono_array(name, source)
        if found is None:
            raise without_rate(source) if is_numbers(source) else _no_recording(name)
        mono, rate = found
    else:
        with open_audio(name, encoded) as file:
            mono, rate = np.concatenate(list(decode_mono(name, file))), int(file.samplerate)
    if rate != sampling_rate:
        mono = soxr.resample(mono, rate, sampling_rate, quality="HQ")
    if mono.shape[0] == 0:
        raise too_short(name, sampling_rate)
    return np.ascontiguousarray(mono, dtype=np.float32)


def read_clip(source: AudioSource) -> FloatArray:
    """Read a recording for the model: as `read_audio`, and never shorter than one frame.

    A clip below `MINIMUM_SAMPLES` gets zeros at its end. Whatever feeds a model reads through this function, so that
    the length in the table (`num_samples`), the number of frame labels and the model's input agree.

    Returns:
        The waveform of shape (max(samples, 400),), float32, at 16 kHz.
    """
    waveform = read_audio(source)
    missing = MINIMUM_SAMPLES - waveform.shape[0]
    return waveform if missing <= 0 else np.pad(waveform, (0, missing))


def audio_length(source: AudioSource) -> int:
    """Tell how many samples `read_audio` would give at 16 kHz, decoding only where a header cannot be trusted.

    Raises:
        RequestError: As `read_audio`, though damage behind an intact header goes unseen.
    """
    name, encoded = audio_file(source)
    if encoded is None:
        return int(read_audio(source).shape[0])
    with open_audio(name, encoded) as file:
        if file.format in EXACT_FORMATS and 0 < file.frames < _TRUSTED_SECONDS * file.samplerate:
            refuse_truncated(name, file)
            # soxr rounds to the nearest sample, halves up.
            return int((2 * file.frames * SAMPLING_RATE + file.samplerate) // (2 * file.samplerate))
    return int(read_audio(encoded if isinstance(encoded, Path) else {"path": name, "bytes": encoded}).shape[0])


def is_leftover(path: Path, folder: Path) -> bool:
    """Tell whether an archive program or file manager left this file of a folder behind, hidden, at any depth."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.relative_to(folder).parts)


def source_name(source: object) -> str:
    """Name a recording for a message: its path where it has one, otherwise what it is."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source) or "'' (an empty path)"
    if isinstance(source, Mapping) and source.get("path"):
        return str(source["path"])
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"an audio file of {len(source)} bytes"
    if isinstance(source, (tuple, list)) or (isinstance(source, Mapping) and not source.keys().isdisjoint(ARRAYS)):
        return "an audio array"
    if hasattr(source, "shape"):
        return f"an array of shape {tuple(source.shape)}"
    return str(getattr(source, "name", None) or f"an object of type {type(source).__name__}")


def without_rate(source: object) -> RequestError:
    """Give the error for numbers without a sampling rate."""
    what = source_name(source) if getattr(source, "shape", ()) else "a number or a list of numbers"
    return RequestError(
        f"{what} comes without a sampling rate",
        "(sampling_rate, array) or {'array', 'sampling_rate'}",
        f"give ({SAMPLING_RATE}, array) if it is one recording at {SAMPLING_RATE} Hz; several as a list of such pairs",
    )


def audio_file(source: AudioSource) -> tuple[str, Path | bytes | None]:
    """Give the name and the audio file (a path or its bytes); None in place of the file for arrays."""
    name = source_name(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return name, bytes(source)
    if isinstance(source, (str, os.PathLike)):
        if not os.fspath(source):  # Path makes it the folder that the program runs in
            raise RequestError(f"{name} names no recording", "the path of an audio file", "give its path")
        return name, Path(source)
    if isinstance(source, Mapping):
        content, path = source.get("bytes"), source.get("path")
        if isinstance(content, (bytes, bytearray, memoryview)):
            return name, bytes(content)
        in_memory = any(held is not None for held in (content, *map(source.get, ARRAYS)))
        if path and isinstance(path, (str, os.PathLike)) and not in_memory:
            return name, Path(path)
        return name, None
    if not isinstance(source, tuple) and hasattr(source, "read"):
        try:
            content = source.read()
        except UnicodeDecodeError:
            content = None
        except (OSError, ValueError) as error:  # closed, or opened for writing
            raise RequestError(f"{name} cannot be read ({error})", "an open file", 'open(path, "rb")') from error
        if not isinstance(content, bytes):
            raise RequestError(f"{name} was opened as text", "a file opened in binary mode", 'open(path, "rb")')
        return name, content
    return name, None


class _ForwardFile(soundfile.SoundFile):
    """A file that is only read forwards, never sought in: soundfile itself seeks to where it is after every block.

    Some codings (GSM 6.10) and flac of unknown length fail at that, and mp3 loses what it has decoded so far.
    """

    def seekable(self) -> bool:
        return False


def open_audio(name: str, encoded: Path | bytes) -> soundfile.SoundFile:
    """Open an audio file, or say why it cannot be one."""
    head = _head(name, encoded) if isinstance(encoded, Path) else encoded[:64]
    if not head:
        raise RequestError(f"{name} is empty (0 bytes)", "an audio file", REPLACE)
    try:
        # As bytes: soundfile itself cannot spell names that are no valid text.
        file = _ForwardFile(os.fsencode(encoded) if isinstance(encoded, Path) else io.BytesIO(encoded))
    except (soundfile.LibsndfileError, TypeError) as error:
        # soundfile answers TypeError to endings such as .raw, whose files do not say what they are.
        kind, fix = _looks_like(head)
        detail = getattr(error, "error_string", str(error)).rstrip(".")
        raise RequestError(f"{name} {kind} ({detail})", "a wav, flac, mp3, ogg or aiff file", fix) from error
    try:
        checked_rate(name, file.samplerate)
    except RequestError:
        file.close()
        raise
    return file


def _head(name: str, path: Path) -> bytes:
    """Give the first bytes of a file, or say why there are none."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            with path.open("rb") as file:
                return file.read(64)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RequestError(f"there is no file {name}", "an audio file", "correct the path") from error
    except (OSError, ValueError) as error:  # no rights, a name too long, or one that no file can have
        reason = getattr(error, "strerror", None) or error
        raise RequestError(
            f"{name} cannot be opened ({reason})", "a readable file", "check its rights and its name"
        ) from error
    if stat.S_ISDIR(mode):
        raise RequestError(f"{name} is a folder", "an audio file", "give one file, or read the folder as a corpus")
    raise RequestError(f"{name} is a pipe or device", "an audio file", "save the recording to a file first")


def decode_mono(name: str, file: soundfile.SoundFile, seconds: float = BLOCK_SECONDS) -> Iterator[FloatArray]:
    """Decode an open audio file, mixed to mono, at its own rate.

    Args:
        name: Its name for messages.
        file: As `open_audio` gives it.
        seconds: How much to decode at a time.

    Yields:
        (samples,) float32; at least one sample in all.

    Raises:
        RequestError: At the block where the damage is, or at the end when it comes too early or nothing is left of the
            channels in their mean.
    """
    refuse_truncated(name, file)
    mixer = Mixer(name)
    promised, rate, read = file.frames, int(file.samplerate), 0
    wanted = max(1, min(promised, round(seconds * rate), _MOST_IN_BLOCK // file.channels))
    while True:
        try:
            samples: FloatArray = file.read(wanted, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            after = f" after {read / rate:.1f} s" if read else ""
            raise RequestError(
                f"{name} is damaged or ends early{after} ({error.error_string.rstrip('.')})",
                "a complete audio file",
                REPLACE,
            ) from error
        read += len(samples)
        if len(samples):
            yield mixer.mix(samples)
        if len(samples) < wanted:
            break
    refuse_truncated(name, file)
    # The length in an mp3 header may be an estimate; only a gap that no estimate makes counts.
    slack = 0 if file.format in EXACT_FORMATS else max(promised // 20, 10_000)
    if promised < UNKNOWN_FRAMES and read < promised - slack:
        raise RequestError(
            f"{name} ends early: its header promises {promised} samples, {read} are there",
            "a complete audio file",
            REPLACE,
        )
    if not read:
        raise RequestError(f"{name} holds no samples", "a recording with sound", REPLACE)
    mixer.refuse_cancelled()


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


def too_short(name: str, sampling_rate: int = SAMPLING_RATE) -> RequestError:
    """Give the error for a recording of which resampling leaves nothing."""
    return RequestError(f"{name} is shorter than one sample at {sampling_rate} Hz", "a longer recording", REPLACE)


def _no_recording(name: str) -> RequestError:
    """Give the error for what is no form of audio at all."""
    return RequestError(
        f"{name} is not a form of audio that can be read",
        ACCEPTED_INPUTS,
        'cast decoded columns with table.cast_column("audio", Audio(decode=False))',
    )
