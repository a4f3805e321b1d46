"""CaFE: twelve actors from Québec say six French sentences in seven emotions.

`01-C-1-1.wav` is actor, emotion, intensity (1 faible, 2 fort) and sentence. Everything is read from the names: the
accents in the folders (`Colère`, `Dégoût`) do not survive every archive program. The names, the genders (odd numbers
are men) and the licence are those of the corpus' own Readme.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

from .base import CorpusInfo, Item, LeftOut, Recording, audio_files, register_corpus
from .filenames import named_files

EMOTIONS = {
    "C": "anger",  # colère
    "D": "disgust",  # dégoût
    "J": "happiness",  # joie
    "N": "neutral",  # neutre
    "P": "fear",  # peur
    "S": "surprise",  # surprise
    "T": "sadness",  # tristesse
}
ACTORS = [f"{number:02}" for number in range(1, 13)]


def complete_corpus() -> Iterator[str]:
    """List the names of all recordings; neutral has one intensity."""
    for actor, emotion, intensity, sentence in product(ACTORS, EMOTIONS, "12", "123456"):
        if (emotion, intensity) != ("N", "2"):
            yield f"{actor}-{emotion}-{intensity}-{sentence}"


@register_corpus(
    CorpusInfo(
        name="cafe",
        homepage="https://zenodo.org/records/1478765",
        licence="CC BY-NC-SA 4.0",
        citation="P. Gournay, O. Lahaie, R. Lefebvre: A Canadian French Emotional Speech Dataset. ACM MMSys 2018, "
        "pp. 399-402.",
        layout="CaFE_48k/Colère/Faible/01-C-1-1.wav and so on (or the 192 kHz version)",
        expected=dict.fromkeys(EMOTIONS.values(), 144) | {"neutral": 72},
        expected_files=complete_corpus,
        speakers=12,
        genders={"female": 6, "male": 6},
        hours=1.2,
        protocol="leave-one-speaker-out",
        language="fr",
        copies=True,
    )
)
def read(root: Path | None) -> Iterator[Item]:
    """List the recordings of CaFE below `root` by their names without ending."""
    # 48 kHz before 192 kHz where both are there: 16 kHz are made of either, and it is a quarter of the reading.
    files = sorted(audio_files(root), key=lambda path: any("192" in part for part in path.parts))
    pattern = r"(?P<actor>\d\d)-(?P<emotion>[A-Z])-(?P<intensity>[12])-(?P<sentence>[1-6])"
    for one in named_files(files, pattern, "01-C-1-1", {"actor": ACTORS, "emotion": EMOTIONS}):
        if isinstance(one, LeftOut):
            yield one
            continue
        path, name = one
        gender = "male" if int(name["actor"]) % 2 else "female"
        yield Recording(path.stem, path, EMOTIONS[name["emotion"]], name["actor"], gender)
