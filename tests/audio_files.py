"""Small recordings for tests: tones and noise, in any format soundfile knows."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000


def tone(samples: int = 8_000, pitch: float = 220.0, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """A tone in a little noise, shape (samples,), float32."""
    time = np.arange(samples) / rate
    noise = np.random.default_rng(seed).standard_normal(samples)
    return (0.3 * np.sin(2 * np.pi * pitch * time) + 0.01 * noise).astype(np.float32)


def encoded(
    samples: int | np.ndarray = 8_000, rate: int = RATE, format: str = "WAV", subtype: str | None = None
) -> bytes:
    """The bytes of an audio file with a tone or the given samples."""
    buffer = io.BytesIO()
    wave = tone(samples, rate=rate) if isinstance(samples, int) else samples
    soundfile.write(buffer, wave, rate, format=format, subtype=subtype)
    return buffer.getvalue()


def write_audio(path: Path, samples: int | np.ndarray = 8_000, rate: int = RATE, subtype: str | None = None) -> Path:
    """Write an audio file whose ending names the format; makes the folders on the way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    format = {"opus": "OGG"}.get(path.suffix[1:], path.suffix[1:].upper())
    # Not soundfile.write to the path: it waits for the disk after every file.
    path.write_bytes(encoded(samples, rate, format, subtype))
    return path
