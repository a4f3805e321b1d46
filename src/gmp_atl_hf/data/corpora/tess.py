"""TESS: two Canadian women, OAF (64) and YAF (26), say "Say the word …" with 200 words in seven emotions.

Archives that are handed around hold the corpus twice (a copy inside its own folder), name folders unevenly
(`OAF_Pleasant_surprise`, `YAF_pleasant_surprised`) and have the file `OA_bite_neutral.wav`, which is OAF's; so
everything is read from the file names. Its 200 words are not listed here: what is missing follows from the words that
are there.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

from .base import CorpusInfo, Item, LeftOut, Recording, Remark, audio_files, register_corpus
from .filenames import named_files

EMOTIONS = {
    "angry": "anger",
    "disgust": "disgust",
    "fear": "fear",
    "happy": "happiness",
    "neutral": "neutral",
    "ps": "surprise",
    "sad": "sadness",
}
SPEAKERS = {"OAF": "OAF", "OA": "OAF", "YAF": "YAF"}


@register_corpus(
    CorpusInfo(
        name="tess",
        homepage="https://doi.org/10.5683/SP2/E8H2MF",
        licence="CC BY-NC-ND 4.0 (not verified)",
        citation="M. K. Pichora-Fuller, K. Dupuis: Toronto emotional speech set (TESS). Borealis, 2020, "
        "doi:10.5683/SP2/E8H2MF.",
        layout="OAF_angry/OAF_back_angry.wav and so on, or all in one folder",
        expected=dict.fromkeys(EMOTIONS.values(), 400),
        speakers=2,
        genders={"female": 2, "male": 0},
        hours=1.6,
        protocol="leave-one-speaker-out",
        language="en",
        caution="two women: train on one, test on the other; nobody is left to choose an epoch on",
        copies=True,
    )
)
def read(root: Path | None) -> Iterator[Item]:
    """List the recordings of TESS below `root` by their names without ending; `OA_bite_neutral` as `OAF_bite_neutral`.

    Its pleasant surprise is surprise here.
    """
    pattern = r"(?P<speaker>[A-Z]+)_(?P<word>[a-z'-]+)_(?P<emotion>[a-z]+)"
    codes = {"speaker": SPEAKERS, "emotion": EMOTIONS}
    there: set[tuple[str, str, str]] = set()
    for one in named_files(audio_files(root), pattern, "OAF_back_angry", codes):
        if isinstance(one, LeftOut):
            yield one
            continue
        path, name = one
        speaker, word, emotion = SPEAKERS[name["speaker"]], name["word"].lower(), name["emotion"]
        there.add((speaker, word, emotion))
        yield Recording(f"{speaker}_{word}_{emotion}", path, EMOTIONS[emotion], speaker, "female")
    words = sorted({word for _, word, _ in there})
    gone = [f"{who}_{word}_{how}" for who, word, how in product(("OAF", "YAF"), words, EMOTIONS)]
    gone = [name for name in gone if tuple(name.split("_")) not in there]
    if gone:
        yield Remark(f"tess lacks recordings of words that it has otherwise ({len(gone)}), such as {gone[0]}")
