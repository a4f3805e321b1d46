"""What the demo corpus says and how: sentences, voices, prosody of the four emotions, rendering.

The directions (higher, faster, brighter than neutral, or the reverse) are those of the literature on vocal emotion:

- Juslin, P. N. & Laukka, P. (2003), Psychological Bulletin 129(5), 770-814: fast, high, variable and rich in
  high-frequency energy in anger; fast, high, variable, with rising contours and a middling share of high frequencies in
  happiness; slow, low, little variable, dull, with falling contours in sadness.
- Banse, R. & Scherer, K. R. (1996), Journal of Personality and Social Psychology 70(3), 614-636: high fundamental
  frequency and a spectrum shifted upwards in hot anger; low fundamental frequency and little energy above 1 kHz in
  sadness.
- Murray, I. R. & Arnott, J. L. (1993), Journal of the Acoustical Society of America 93(2), 1097-1108: smooth upward
  inflections in happiness, downward ones in sadness, abrupt changes on stressed words in anger.
- Burkhardt, F. & Sendlmeier, W. F. (2000), ISCA Workshop on Speech and Emotion, 151-156: a synthesiser's listeners
  heard joy in a raised, widened pitch and a faster rate, and sadness in a slow rate and a narrow range.

The sizes of the steps, their jitter and everything about the voices are our choice, made so that the classes overlap
and a small model trained from scratch on two processor cores has something to learn.

Loudness is deliberately no cue, although people do shout in anger: every clip has a random level, drawn without looking
at the emotion, so that nothing can be learned from what a microphone's distance changes. Nothing measured on this
corpus says anything about human speech.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import soxr
from numpy.typing import NDArray

from .espeak import Espeak

SAMPLE_RATE = 16_000
EMOTIONS = ("anger", "happiness", "sadness", "neutral")
GENDERS = ("female", "male")

SENTENCES = (
    "The cup is on the table.",
    "She will be here at seven.",
    "The train leaves in an hour.",
    "He walked along the river.",
    "They put it in the kitchen.",
    "The window is still open.",
    "My brother called this morning.",
    "I left the papers at work.",
    "We are going home on Sunday.",
    "The blue box is over there.",
    "It was raining in the evening.",
    "There is a letter for you.",
    "The bags are under the stairs.",
    "He will tell me tomorrow.",
)

ACCENTS = ("en-US", "en-US-nyc", "en", "en-GB-x-rp", "en-GB-scotland", "en-GB-x-gbclan", "en-GB-x-gbcwmd", "en-029")

# espeak-ng's voice variants that sound like a person of that gender. Whispers, robots and creaks are left out, and so
# are near copies of another variant (linda of belinda, f5 of f2, robert of rob): they would tie the splits together.
VARIANTS = {
    "female": ("f1", "f2", "f3", "f4", "Alicia", "Andrea", "Annie", "belinda", "shelby", "grandma", "steph"),
    "male": (
        *("m1", "m2", "m3", "m4", "m5", "m6", "m7", "Alex", "Andy"),
        *("Denis", "Gene", "Lee", "Mario", "Reed", "rob", "max", "travis", "victor"),
    ),
}

LEVEL_DBFS = (-32.0, -24.5)
NOISE_DB = (-45.0, -25.0)  # below the speech
PEAK = 0.9
PADDING_SECONDS = 0.04
STRENGTH = (0.85, 1.25)  # of the emotion in one utterance, times its profile


@dataclass(frozen=True)
class Prosody:
    """A way of speaking, relative to a speaker's neutral one.

    Args:
        pitch: Semitones.
        rate: Log of the factor on the speaking rate.
        range: Steps of espeak's pitch range (0 to 99, 50 is the voice's own).
        tilt: Spectral tilt, dB per octave around 1 kHz; more is brighter.
        slope: Semitones from the first to the last word, on top of espeak's own intonation.
        jumps: Standard deviation of abrupt pitch changes from word to word, semitones.
    """

    pitch: float = 0.0
    rate: float = 0.0
    range: float = 0.0
    tilt: float = 0.0
    slope: float = 0.0
    jumps: float = 0.0


# Directions: the papers above. Sizes: our choice.
PROFILES = {
    "anger": Prosody(pitch=4.2, rate=0.22, range=36, tilt=4.6, slope=0.0, jumps=3.0),
    "happiness": Prosody(pitch=7.8, rate=0.17, range=16, tilt=1.8, slope=2.0),
    "sadness": Prosody(pitch=-3.6, rate=-0.38, range=-22, tilt=-4.0, slope=-2.0),
    "neutral": Prosody(),
}

# Standard deviations around a profile, per utterance and per speaker (range and tilt of espeak's voices come on top).
UTTERANCE = Prosody(pitch=1.2, rate=0.07, range=8, tilt=0.7, slope=1.5, jumps=0.4)
SPEAKER = Prosody(pitch=1.0, rate=0.06, range=6, tilt=0.7)
TRACT = 0.03


@dataclass(frozen=True)
class Voice:
    """One synthetic speaker.

    Args:
        name: "f01" or "m01" and so on.
        gender: "female" or "male".
        split: "train", "dev" or "test".
        espeak: espeak-ng's name for accent and variant, such as "gmw/en-US+f2".
        tract: Factor on all formants (and the pitch), about 1: the length of the vocal tract.
        neutral: This speaker's neutral way of speaking.
        sentences: Indices into `SENTENCES`, the same in every emotion.
    """

    name: str
    gender: str
    split: str
    espeak: str
    tract: float
    neutral: Prosody
    sentences: tuple[int, ...]


def split_sizes(voices: int) -> dict[str, int]:
    """Number of voices of one gender in train, dev and test: about 4/7, 1/7 and 2/7, at least one each."""
    test = max(1, round(voices * 2 / 7))
    dev = max(1, round(voices / 7))
    return {"train": voices - dev - test, "dev": dev, "test": test}


def make_voices(speakers: int, sentences: int, seed: int) -> list[Voice]:
    """Draw the speakers: half of them female, numbered train first, then dev, then test.

    No espeak variant occurs in two splits: no test voice is a training voice in disguise.
    """
    voices = []
    for number, gender in enumerate(GENDERS):
        random = np.random.default_rng((seed, 0, number))
        variants = [str(variant) for variant in random.permutation(VARIANTS[gender])]
        dealt = iter(variants)
        pools = {split: [next(dealt) for _ in range(size)] for split, size in split_sizes(len(variants)).items()}
        splits = [split for split, size in split_sizes(speakers // 2).items() for _ in range(size)]
        for index, split in enumerate(splits):
            pool = pools[split]
            variant = pool[index % len(pool)]
            voices.append(
                Voice(
                    name=f"{gender[0]}{index + 1:02d}",
                    gender=gender,
                    split=split,
                    espeak=f"gmw/{random.choice(ACCENTS)}+{variant}",
                    tract=float(np.clip(random.normal(1, TRACT), 1 - 2 * TRACT, 1 + 2 * TRACT)),
                    neutral=_jitter(Prosody(), SPEAKER, random),
                    sentences=tuple(sorted(random.permutation(len(SENTENCES))[:sentences].tolist())),
                )
            )
    return voices


def render(
    engine: Espeak, voice: Voice, seed: int, emotions: tuple[str, ...] = EMOTIONS
) -> Iterator[tuple[str, int, NDArray[np.int16]]]:
    """Let one voice speak all its sentences in all emotions.

    Args:
        engine: A fresh engine; what it spoke before changes what it speaks.
        voice: The speaker.
        seed: Seed of the corpus.
        emotions: Names of profiles, in the order of speaking.

    Yields:
        Emotion, index into `SENTENCES`, and the clip, int16[samples] at 16 kHz.
    """
    random = np.random.default_rng((seed, 1, GENDERS.index(voice.gender), int(voice.name[1:])))
    for emotion in emotions:
        for sentence in voice.sentences:
            strength = random.uniform(*STRENGTH)
            prosody = _jitter(_add(voice.neutral, PROFILES[emotion], strength), UTTERANCE, random)
            speech = _speak(engine, voice, SENTENCES[sentence], prosody, random)
            yield emotion, sentence, _finish(speech, prosody.tilt, random)


def _add(one: Prosody, other: Prosody, factor: float) -> Prosody:
    return Prosody(**{name: value + factor * getattr(other, name) for name, value in vars(one).items()})


def _jitter(mean: Prosody, deviation: Prosody, random: np.random.Generator) -> Prosody:
    # Cut at two deviations: an utterance may be untypical, but not absurd.
    drawn = {
        name: value + getattr(deviation, name) * float(np.clip(random.normal(), -2, 2))
        for name, value in vars(mean).items()
    }
    return Prosody(**drawn)


def _speak(
    engine: Espeak, voice: Voice, text: str, prosody: Prosody, random: np.random.Generator
) -> NDArray[np.float64]:
    """Speak with the given prosody; float64[samples] at 16 kHz, silence trimmed."""
    words = text.split()
    position = np.linspace(-0.5, 0.5, len(words))
    contour = prosody.pitch + prosody.slope * position + abs(prosody.jumps) * random.normal(size=len(words))
    # espeak's scale: 50 steps to the octave, 50 is the voice's own pitch.
    steps = np.clip(np.round(50 + contour * 50 / 12), 0, 99).astype(int)
    samples = engine.speak(
        " ".join(f"\x01{step}P{word}" for step, word in zip(steps, words, strict=True)),
        voice=voice.espeak,
        rate=int(np.clip(round(175 * np.exp(prosody.rate)), 80, 350)),
        pitch=int(steps[0]),
        range=int(np.clip(round(50 + prosody.range), 0, 99)),
        volume=50,  # some variants clip inside espeak at 100
    )
    # Read as if it had been sampled faster or slower: all formants move by the factor `tract`.
    speech = soxr.resample(samples / 32768, round(engine.sample_rate * voice.tract), SAMPLE_RATE)
    return _trim(speech)


def _trim(speech: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cut what is 40 dB below the peak at both ends; float64[samples] in, a shorter one out."""
    loud = np.flatnonzero(np.abs(speech) > 0.01 * np.abs(speech).max())
    return speech[loud[0] : loud[-1] + 1]


def _finish(speech: NDArray[np.float64], tilt: float, random: np.random.Generator) -> NDArray[np.int16]:
    """Tilt the spectrum, draw the level, add noise; float64[samples] at 16 kHz in, int16[samples] out."""
    padding = round(PADDING_SECONDS * SAMPLE_RATE)
    speech = np.pad(speech, padding)
    frequency = np.fft.rfftfreq(len(speech), 1 / SAMPLE_RATE)
    octaves = np.log2(np.clip(frequency, 125, 6000) / 1000)
    speech = np.fft.irfft(np.fft.rfft(speech) * 10 ** (tilt * octaves / 20), len(speech))
    speech *= 10 ** (random.uniform(*LEVEL_DBFS) / 20) / np.sqrt(np.mean(speech**2))
    noise = random.normal(size=len(speech)) * np.sqrt(np.mean(speech**2))
    clip = speech + noise * 10 ** (random.uniform(*NOISE_DB) / 20)
    clip *= min(1.0, PEAK / np.abs(clip).max())
    return np.round(clip * 32767).astype(np.int16)
