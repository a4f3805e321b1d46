"""RAVDESS: 24 actors say (`ravdess`) and sing (`ravdess-song`) two English sentences.

`03-01-06-01-02-01-12.wav` is modality, channel (01 speech, 02 song), emotion, intensity, sentence, repetition, actor.
Odd actors are male, even ones female; actor 18 did not sing. Who sings in `ravdess-song` is `ravdess/01` too: it is the
same person. Two recordings of the distribution are said to be the same; which, could not be verified here, so every
pair of recordings with the same sound is named when they are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import product
from pathlib import Path

from .base import CorpusInfo, Item, LeftOut, Recording, audio_files, register_corpus
from .filenames import named_files

EMOTIONS = {
    "01": "neutral",
    "02": "calm",
    "03": "happiness",
    "04": "sadness",
    "05": "anger",
    "06": "fear",
    "07": "disgust",
    "08": "surprise",
}
ACTORS = [f"{number:02}" for number in range(1, 25)]
CHANNELS = {"01": ("ravdess", "said", ACTORS, EMOTIONS), "02": ("ravdess-song", "sung", [*ACTORS], [*EMOTIONS][:6])}
CHANNELS["02"][2].remove("18")


def complete_corpus(channel: str) -> Iterator[str]:
    """List the names of all recordings of one channel; only normal intensity exists for neutral."""
    _, _, actors, emotions = CHANNELS[channel]
    for emotion, strength, sentence, take, actor in product(emotions, ("01", "02"), ("01", "02"), ("01", "02"), actors):
        if (emotion, strength) != ("01", "02"):
            yield f"03-{channel}-{emotion}-{strength}-{sentence}-{take}-{actor}"


def _reader(channel: str) -> Callable[[Path | None], Iterator[Item]]:
    def read(root: Path | None) -> Iterator[Item]:
        parts = ["modality", "channel", "emotion", "intensity", "sentence", "repetition", "actor"]
        pattern = "-".join(rf"(?P<{part}>\d\d)" for part in parts)
        codes: dict[str, Iterable[str]] = {"channel": CHANNELS, "emotion": EMOTIONS, "actor": ACTORS}
        for one in named_files(audio_files(root), pattern, "03-01-06-01-02-01-12", codes):
            if isinstance(one, LeftOut):
                yield one
                continue
            path, name = one
            if name["modality"] != "03":
                yield LeftOut(path.name, "the sound of a video, the same performance as the audio-only recording", path)
            elif name["channel"] != channel:
                corpus, how, _, _ = CHANNELS[name["channel"]]
                yield LeftOut(path.name, f"it is {how}: the corpus {corpus} reads it", path)
            else:
                gender = "male" if int(name["actor"]) % 2 else "female"
                emotion = EMOTIONS[name["emotion"]]
                yield Recording(path.stem, path, emotion, name["actor"], gender, people_of="ravdess")

    return read


def _info(channel: str) -> CorpusInfo:
    name, _, actors, emotions = CHANNELS[channel]
    folder = "Audio_Speech_Actors_01-24" if channel == "01" else "Audio_Song_Actors_01-24"
    return CorpusInfo(
        name=name,
        homepage="https://zenodo.org/records/1188976",
        licence="CC BY-NC-SA 4.0",
        citation="S. R. Livingstone, F. A. Russo: The Ryerson Audio-Visual Database of Emotional Speech and Song "
        "(RAVDESS). PLoS ONE 13(5), 2018, e0196391.",
        layout=f"{folder}/ or what is in it: Actor_01/03-{channel}-01-01-01-01-01.wav",
        expected={EMOTIONS[one]: len(actors) * (4 if one == "01" else 8) for one in emotions},
        expected_files=lambda: complete_corpus(channel),
        speakers=len(actors),
        genders={"female": sum(int(a) % 2 == 0 for a in actors), "male": sum(int(a) % 2 for a in actors)},
        hours=1.5 if channel == "01" else None,
        protocol="group-k-fold",
        language="en",
        copies=True,
    )


for _channel in CHANNELS:
    register_corpus(_info(_channel))(_reader(_channel))
