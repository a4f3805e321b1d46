"""Long recordings read piece by piece: what `read_audio` gives, without ever holding the whole."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import soxr

from .audio import (
    BLOCK_SECONDS,
    SAMPLING_RATE,
    AudioSource,
    FloatArray,
    audio_file,
    decode_mono,
    open_audio,
    read_audio,
    too_short,
)


def read_blocks(source: AudioSource, block_seconds: float = BLOCK_SECONDS) -> Iterator[FloatArray]:
    """Read a recording in blocks that together are what `read_audio` gives.

    An hour of 44.1 kHz stereo takes 1.3 GB decoded at once and as much again to mix; read in blocks it takes megabytes.
    Arrays are in memory anyway and come as one block.

    Yields:
        (samples,) float32 at 16 kHz, of `block_seconds` each.

    Raises:
        RequestError: As `read_audio`, at the block where the damage is.
    """
    name, encoded = audio_file(source)
    if encoded is None:
        yield read_audio(source)
        return
    with open_audio(name, encoded) as file:
        rate = int(file.samplerate)
        stream = None if rate == SAMPLING_RATE else soxr.ResampleStream(rate, SAMPLING_RATE, 1, quality="HQ")
        given = 0
        for mono in decode_mono(name, file, block_seconds):
            block = mono if stream is None else stream.resample_chunk(mono)
            given += len(block)
            if len(block):
                yield block
        if stream is not None:
            block = stream.resample_chunk(np.empty(0, dtype=np.float32), last=True)
            given += len(block)
            if len(block):
                yield block
        if not given:
            raise too_short(name)
