"""Lossy coding at low bit rates, in memory, by what the installed libsndfile can write."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import soundfile

from ..data.audio import SAMPLING_RATE, FloatArray, read_audio
from ..errors import RequestError
from .changes import fit


@dataclass(frozen=True)
class Coding:
    """A format of libsndfile and how much of a recording it keeps.

    Args:
        format: libsndfile's name of the format.
        subtype: libsndfile's name of the coding.
        level: Its compression level, from 0 (best quality) to 1.
        mode: Its mode of bit rates; None for the coding's own.
    """

    format: str
    subtype: str
    level: float
    mode: str | None = None

    def __call__(self, waveform: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Write a recording and read it again; as long as before, and cut at full scale."""
        return fit(read_audio(self.encode(waveform)), len(waveform))

    def encode(self, waveform: FloatArray) -> bytes:
        """The bytes of the file."""
        file, limited = io.BytesIO(), np.clip(waveform, -1.0, 1.0)
        how = {"format": self.format, "subtype": self.subtype, "compression_level": self.level}
        soundfile.write(file, limited, SAMPLING_RATE, **how, bitrate_mode=self.mode)
        return file.getvalue()

    def missing(self) -> str | None:
        """Why it cannot be done here; None where it can."""
        try:
            self(np.zeros(SAMPLING_RATE, dtype=np.float32), np.random.default_rng(0))
        except (soundfile.SoundFileError, ValueError) as error:  # of which RequestError is one: it cannot be read back
            reason = error.found if isinstance(error, RequestError) else str(error).rstrip(".")
            return f"the installed libsndfile ({soundfile.__libsndfile_version__}) cannot write it: {reason}"
        return None


MP3 = Coding("MP3", "MPEG_LAYER_III", 0.95, "AVERAGE")
"""16 kbit/s on average: with a constant rate libsndfile's files come back 70 ms late."""

OPUS = Coding("OGG", "OPUS", 0.97)
"""10 to 18 kbit/s, more where there is more to keep."""
