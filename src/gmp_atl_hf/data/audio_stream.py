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


class Resampler:
    """Resamples the mono blocks of one recording to 16 kHz: together they are what `read_audio` makes of the whole.

    At other rates the last of what has been fed (at 8 kHz 0.12 s, at 44.1 kHz 0.04 s) comes with the next block.

    Args:
        rate: Samples per second of the blocks, in Hz.
    """

    def __init__(self, rate: int) -> None:
        self._stream = None if rate == SAMPLING_RATE else soxr.ResampleStream(rate, SAMPLING_RATE, 1, quality="HQ")

    def feed(self, block: FloatArray) -> FloatArray:
        """Give what is known by now, (samples,) float32 at 16 kHz, perhaps none, after the next (samples,) float32."""
        return block if self._stream is None else self._stream.resample_chunk(block)

    def finish(self) -> FloatArray:
        """Give the rest, (samples,) float32 at 16 kHz, perhaps none."""
        rest = np.empty(0, dtype=np.float32)
        return rest if self._stream is None else self._stream.resample_chunk(rest, last=True)


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
        resampler = Resampler(int(file.samplerate))
        given = 0
        for mono in decode_mono(name, file, block_seconds):
            block = resampler.feed(mono)
            given += len(block)
            if len(block):
                yield block
        block = resampler.finish()
        given += len(block)
        if len(block):
            yield block
        if not given:
            raise too_short(name)
