"""The conditions of a stress test, in the order of its table. A new one is a function, and a line here."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..data.audio import FloatArray
from ..errors import RequestError, did_you_mean, known_names
from .changes import (
    clipped,
    louder,
    reverberant,
    samples_at_speed,
    samples_with_silence,
    shaped_noise,
    silence_around,
    speed,
    telephone,
    white_noise,
)
from .coding import MP3, OPUS

Change = Callable[[FloatArray, np.random.Generator], FloatArray]
"""From (samples,) float32 at 16 kHz and a generator of random numbers to another such waveform."""


def _as_long(samples: int) -> int:
    return samples


def _never() -> None:
    return None


@dataclass(frozen=True)
class Condition:
    """One way in which recordings may be worse than those of a corpus.

    Args:
        name: One word, as in `--conditions`.
        what: What it does, in words.
        change: What becomes of a waveform. The generator is seeded by the recording, so that it always gets the same.
        samples: How many samples become of so many; as many by default.
        missing: Why it cannot be made on this machine; None where it can.
    """

    name: str
    what: str
    change: Change
    samples: Callable[[int], int] = _as_long
    missing: Callable[[], str | None] = _never

    def apply(self, waveform: FloatArray, recording: str, seed: int = 0) -> FloatArray:
        """Change a recording, (samples,) float32 at 16 kHz.

        Args:
            waveform: The recording, which stays as it is.
            recording: Its id, by which the same one always gets the same change.
            seed: For other random numbers.

        Raises:
            ValueError: The change gives something else than so many finite float32 numbers.
        """
        rng = np.random.default_rng([seed, zlib.crc32(recording.encode())])
        changed = self.change(waveform.copy(), rng)
        shape = (self.samples(len(waveform)),)
        if changed.shape != shape or changed.dtype != np.float32 or not np.isfinite(changed).all():
            raise ValueError(
                f"the condition {self.name} gives {changed.dtype} of shape {changed.shape} for {recording}, of shape "
                f"{waveform.shape}; expected finite float32 of shape {shape}"
            )
        return changed


CLEAN = Condition("clean", "as they were recorded", lambda waveform, rng: waveform)

CONDITIONS: tuple[Condition, ...] = (
    CLEAN,
    *(Condition(f"white-{snr}", f"white noise, {snr} dB below", partial(white_noise, snr=snr)) for snr in (20, 10, 0)),
    *(
        Condition(
            f"shaped-{snr}", f"noise of the recording's own spectrum, {snr} dB below", partial(shaped_noise, snr=snr)
        )
        for snr in (20, 10, 0)
    ),
    Condition("telephone", "300 to 3400 Hz, at 8 kHz", telephone),
    Condition("quiet", "20 dB quieter", partial(louder, decibels=-20)),
    Condition("clipped", "peak 12 dB above full scale, cut there", partial(clipped, decibels=12)),
    *(
        Condition(f"reverb-{rt60}", f"a room with a reverberation of {rt60} s", partial(reverberant, rt60=rt60))
        for rt60 in (0.3, 0.8)
    ),
    Condition("mp3", "MP3, 16 kbit/s", MP3, missing=MP3.missing),
    Condition("opus", "Opus, 10 to 18 kbit/s", OPUS, missing=OPUS.missing),
    *(
        Condition(
            name,
            f"{factor} times the speed, by resampling",
            partial(speed, factor=factor),
            partial(samples_at_speed, factor=factor),
        )
        for name, factor in (("slower", 0.9), ("faster", 1.1))
    ),
    Condition("silence", "a second of silence before and behind", silence_around, samples_with_silence),
)


def choose_conditions(wanted: Sequence[str | Condition] | None) -> list[Condition]:
    """Find conditions by name, in the order given, `clean` first of all; all of them for None.

    Raises:
        RequestError: There is none of such a name, nothing but `clean` is asked for, or a name is given to two.
    """
    known = {condition.name: condition for condition in CONDITIONS}
    found = {CLEAN.name: CLEAN}
    for each in CONDITIONS if wanted is None else wanted:
        if isinstance(each, str) and each not in known:
            raise RequestError(f"there is no condition {each!r}", known_names(known), did_you_mean(each, known))
        condition = known[each] if isinstance(each, str) else each
        if found.setdefault(condition.name, condition) != condition:
            raise RequestError(
                f"two conditions are called {condition.name}", "a name for each", "give one another name"
            )
    if len(found) == 1:
        raise RequestError("no condition is to be tested but clean", known_names(known), "leave --conditions out")
    return list(found.values())
