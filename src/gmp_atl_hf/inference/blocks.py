"""Long recordings read piece by piece: what `read_audio` gives, without ever holding the whole."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import soundfile
import soxr

from ..data.audio import (
    EXACT_FORMATS,
    REPLACE,
    SAMPLING_RATE,
    AudioSource,
    FloatArray,
    audio_file,
    mix_to_mono,
    open_audio,
    read_audio,
    refuse_truncated,
)
from ..errors import RequestError

BLOCK_SECONDS = 30.0
"""Seconds decoded at a time: 30 s of 48 kHz stereo are 12 MB."""


def read_blocks(source: AudioSource, block_seconds: float = BLOCK_SECONDS) -> Iterator[FloatArray]:
    """Read a recording in blocks that together are what `read_audio` gives.

    An hour of 44.1 kHz stereo takes 1.3 GB decoded at once and as much again to mix; read in blocks it takes megabytes.
    Arrays are in memory anyway and come as one block.

    Args:
        source: The recording in any form that `read_audio` accepts.
        block_seconds: Seconds to decode at a time.

    Yields:
        (samples,) float32 at 16 kHz.

    Raises:
        RequestError: As `read_audio`, at the block where the damage is.
    """
    name, encoded = audio_file(source)
    if encoded is None:
        yield read_audio(source)
        return
    with open_audio(name, encoded) as file:
        refuse_truncated(name, file)
        rate = int(file.samplerate)
        stream = None if rate == SAMPLING_RATE else soxr.ResampleStream(rate, SAMPLING_RATE, 1, quality="HQ")
        read = given = 0
        while True:
            try:
                samples: FloatArray = file.read(round(block_seconds * rate), dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                raise RequestError(
                    f"{name} is damaged after {read / rate:.1f} s ({error.error_string.rstrip('.')})",
                    "a complete audio file",
                    REPLACE,
                ) from error
            if not len(samples):
                break
            read += len(samples)
            mono = mix_to_mono(name, samples, rate, rate)  # checks and mixes; resampling has to know what came before
            block = mono if stream is None else stream.resample_chunk(mono)
            given += len(block)
            if len(block):
                yield block
        refuse_truncated(name, file)
        _refuse_early_end(name, file, read)
        if stream is not None:
            block = stream.resample_chunk(np.empty(0, dtype=np.float32), last=True)
            given += len(block)
            if len(block):
                yield block
        if not given:
            raise RequestError(f"{name} holds no samples", "a recording with sound", REPLACE)


def _refuse_early_end(name: str, file: soundfile.SoundFile, read: int) -> None:
    # The length in an mp3 header may be an estimate; only a gap that no estimate makes counts.
    slack = 0 if file.format in EXACT_FORMATS else max(file.frames // 20, 10_000)
    if read < file.frames - slack:
        raise RequestError(
            f"{name} ends early: its header promises {file.frames} samples, {read} are there",
            "a complete audio file",
            REPLACE,
        )
