"""Recordings that are suspiciously alike or empty: the same sound under two names, or nothing but silence."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import counted
from .arrays import SILENCE, FloatArray
from .corpora import Recording
from .doubtful import differing
from .spelling import first_few


@dataclass(frozen=True)
class AudioDigest:
    """What is kept of a recording after it was decoded once.

    Args:
        num_samples: Number of samples at 16 kHz.
        digest: Hash of the samples; None when they were not decoded, or are silent and so say nothing.
        silent: Whether the peak is below `SILENCE`.
    """

    num_samples: int
    digest: str | None = None
    silent: bool = False

    @property
    def is_decoded(self) -> bool:
        """Whether the samples were looked at, and not the header alone."""
        return self.silent or self.digest is not None


def digest_audio(waveform: FloatArray) -> AudioDigest:
    """Give length and digest of a waveform of shape (samples,), float32, at 16 kHz."""
    if float(np.abs(waveform).max(initial=0.0)) < SILENCE:
        return AudioDigest(len(waveform), silent=True)
    return AudioDigest(len(waveform), hashlib.blake2b(waveform.tobytes(), digest_size=16).hexdigest())


def describe_duplicates(corpus: str, digests: Sequence[tuple[Recording, AudioDigest]]) -> list[str]:
    """Name recordings of a corpus with the same samples, and silent ones: one sentence for each kind, or none.

    The same samples twice are a test on training data as soon as the two fall into different parts, and a contradiction
    where they have different labels.
    """
    groups: dict[str, list[Recording]] = defaultdict(list)
    for recording, audio in digests:
        if audio.digest is not None:
            groups[audio.digest].append(recording)
    same = [_describe_group(group) for group in groups.values() if len(group) > 1]
    silent = [recording.file for recording, audio in digests if audio.silent]
    problems = []
    if same:
        problems.append(f"{corpus} has the same sound under several names: {first_few(same, separator='; ')}")
    if silent:
        problems.append(f"{corpus} has silent recordings ({len(silent)}): {first_few(silent)}")
    return problems


def shared_recordings(corpora: Iterable[Mapping[str, str]]) -> list[str]:
    """Name recordings with the same samples in several corpora (id → digest): one sentence, or none."""
    groups: dict[str, dict[int, str]] = defaultdict(dict)
    for number, digests in enumerate(corpora):
        for name, digest in digests.items():
            groups[digest].setdefault(number, name)
    same = [" = ".join(group.values()) for group in groups.values() if len(group) > 1]
    count = counted(len(same), "recording is", "recordings are")
    return [f"{count} in several corpora: {first_few(same, separator='; ')}"] if same else []


def _describe_group(group: Sequence[Recording]) -> str:
    """Name recordings with the same samples, and what differs between them."""
    differ = differing(*group)
    under = f" (under different {' and '.join(differ)})" if differ else ""
    return first_few([one.file for one in group], separator=" = ") + under
