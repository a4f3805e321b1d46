"""EMO-DB, the Berlin Database of Emotional Speech: 535 acted German utterances of ten speakers in seven emotions.

Everything is in the file names: `03a01Fa.wav` is speaker 03, text a01, emotion letter F (Freude), version a.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .base import CorpusInfo, Item, LeftOut, Recording, audio_files, register_corpus
from .filenames import named_files

EMOTIONS = {
    "W": "anger",  # Wut
    "L": "boredom",  # Langeweile
    "E": "disgust",  # Ekel
    "A": "fear",  # Angst
    "F": "happiness",  # Freude
    "T": "sadness",  # Trauer
    "N": "neutral",
}
SPEAKERS = {
    **dict.fromkeys(["03", "10", "11", "12", "15"], "male"),
    **dict.fromkeys(["08", "09", "13", "14", "16"], "female"),
}


def complete_corpus() -> list[str]:
    """List the names of all 535 recordings, such as `03a01Fa`."""
    lines = Path(__file__).with_name("emodb_files.txt").read_text(encoding="utf-8").splitlines()
    rows = [line.split() for line in lines if not line.startswith("#")]
    return [speaker + rest for speaker, *recordings in rows for rest in recordings]


@register_corpus(
    CorpusInfo(
        name="emodb",
        homepage="http://emodb.bilderbar.info",
        licence="CC0-1.0",
        citation="F. Burkhardt, A. Paeschke, M. Rolfes, W. F. Sendlmeier, B. Weiss: A Database of German Emotional "
        "Speech. Interspeech 2005, pp. 1517-1520.",
        layout="a folder with recordings named as in the original, such as 03a01Fa.wav, at any depth (wav/, audio/)",
        expected={
            "anger": 127,
            "boredom": 81,
            "disgust": 46,
            "fear": 69,
            "happiness": 71,
            "sadness": 62,
            "neutral": 79,
        },
        expected_files=complete_corpus,
        speakers=10,
        genders={"female": 5, "male": 5},
        hours=0.4,
        protocol="leave-one-speaker-out",
        language="de",
    )
)
def read(root: Path | None) -> Iterator[Item]:
    """List the recordings of EMO-DB below `root` by their names without ending, whatever audio format a copy is in."""
    pattern = r"(?P<speaker>\d\d)(?P<text>[a-z]\d\d)(?P<emotion>[A-Z])(?P<version>[a-z]?)"
    for one in named_files(audio_files(root), pattern, "03a01Fa", {"speaker": SPEAKERS, "emotion": EMOTIONS}):
        if isinstance(one, LeftOut):
            yield one
            continue
        path, name = one
        yield Recording(path.stem, path, EMOTIONS[name["emotion"]], name["speaker"], SPEAKERS[name["speaker"]])
