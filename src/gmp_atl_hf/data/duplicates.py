"""Recordings that are suspiciously alike or empty: the same sound under two names, or nothing but silence."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .audio import FloatArray
from .corpora import Recording

SILENCE = 10 ** (-80 / 20)
"""Peak below which a recording holds no speech: -80 dB of full scale, where 16 bits end."""

_SHOWN = 5


@dataclass(frozen=True)
class Sound:
    """What is kept of a recording after it was decoded once.

    Args:
        num_samples: Number of samples at 16 kHz.
        digest: The same for the same sound only; None when it was not decoded, or is silent and so says nothing.
        silent: Whether its peak is below `SILENCE`.
    """

    num_samples: int
    digest: bytes | None = None
    silent: bool = False


def hear(waveform: FloatArray) -> Sound:
    """Take down what tells a recording from others.

    Args:
        waveform: Shape (samples,), float32, at 16 kHz.

    Returns:
        Its length, a digest of its samples and whether it is silent.
    """
    if float(np.abs(waveform).max(initial=0.0)) < SILENCE:
        return Sound(len(waveform), silent=True)
    return Sound(len(waveform), hashlib.blake2b(waveform.tobytes(), digest_size=16).digest())


def odd_sounds(corpus: str, heard: Sequence[tuple[Recording, Sound]]) -> list[str]:
    """Name recordings with the same sound, and those that are silent.

    The same sound twice is a test on training data as soon as the two fall into different parts, and a contradiction
    where they have different labels.

    Args:
        corpus: The corpus' name.
        heard: The recordings with their sounds.

    Returns:
        One sentence for each kind of oddity, empty where there is none.
    """
    groups: dict[bytes, list[Recording]] = defaultdict(list)
    for recording, sound in heard:
        if sound.digest is not None:
            groups[sound.digest].append(recording)
    same = [group for group in groups.values() if len(group) > 1]
    silent = [recording.file for recording, sound in heard if sound.silent]
    problems = []
    if same:
        words = [_alike(group) for group in same[:_SHOWN]]
        rest = f"; and {len(same) - _SHOWN} more" if len(same) > _SHOWN else ""
        problems.append(f"{corpus} has the same sound under several names: {'; '.join(words)}{rest}")
    if silent:
        rest = f" and {len(silent) - _SHOWN} more" if len(silent) > _SHOWN else ""
        problems.append(f"{corpus} has silent recordings ({len(silent)}): {', '.join(silent[:_SHOWN])}{rest}")
    return problems


def sounds_in_both(corpora: Iterable[Mapping[str, bytes]]) -> list[str]:
    """Name recordings that are in more than one corpus, to the byte: a copy is a test on training data.

    Args:
        corpora: Of each corpus, its recordings' ids with what tells their sounds from others.

    Returns:
        One sentence, or none.
    """
    groups: dict[bytes, dict[int, str]] = defaultdict(dict)
    for number, sounds in enumerate(corpora):
        for one, digest in sounds.items():
            groups[digest].setdefault(number, one)
    same = [" = ".join(group.values()) for group in groups.values() if len(group) > 1]
    rest = f"; and {len(same) - _SHOWN} more" if len(same) > _SHOWN else ""
    return [f"{len(same)} recordings are in several corpora: {'; '.join(same[:_SHOWN])}{rest}"] if same else []


def _alike(group: Sequence[Recording]) -> str:
    """Name recordings with the same sound, and what differs between them."""
    fields = {"emotions": "emotion", "speakers": "speaker", "parts of the given split": "split"}
    differ = [word for word, name in fields.items() if len({getattr(one, name) for one in group}) > 1]
    names = " = ".join(one.file for one in group[:_SHOWN])
    rest = f" and {len(group) - _SHOWN} more" if len(group) > _SHOWN else ""
    return names + rest + (f" (under different {' and '.join(differ)})" if differ else "")
