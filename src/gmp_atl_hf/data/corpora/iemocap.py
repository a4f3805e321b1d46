"""IEMOCAP: five sessions of acted English dialogues, two speakers each, as distributed (`Session1` to `Session5`)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from .base import CorpusInfo, Item, LeftOut, Recording, existing_folder, register_corpus

EMOTIONS = {
    "ang": "anger",
    "dis": "disgust",
    "exc": "excited",
    "fea": "fear",
    "fru": "frustration",
    "hap": "happiness",
    "neu": "neutral",
    "oth": "other",
    "sad": "sadness",
    "sur": "surprise",
    "xxx": "no agreement",
}
LINE = re.compile(r"\[[\d. ]+-[\d. ]+\]\t(?P<turn>\S+)\t(?P<label>\w+)\t\[")
TURN = re.compile(r"Ses(?P<session>\d\d)[FM]_\w+_(?P<speaker>[FM])\d+")


@register_corpus(
    CorpusInfo(
        name="iemocap",
        homepage="https://sail.usc.edu/iemocap/",
        licence="by signed request, for research",
        citation="C. Busso et al.: IEMOCAP: Interactive emotional dyadic motion capture database. Language Resources "
        "and Evaluation 42(4), 2008, pp. 335-359.",
        layout="Session1 to Session5, each with dialog/EmoEvaluation/*.txt and sentences/wav/<dialog>/<turn>.wav",
        expected={
            "anger": 1103,
            "disgust": 2,
            "excited": 1041,
            "fear": 40,
            "frustration": 1849,
            "happiness": 595,
            "neutral": 1708,
            "other": 3,
            "sadness": 1084,
            "surprise": 107,
            "no agreement": 2507,
        },
        speakers=10,
        genders={"female": 5, "male": 5},
        hours=12,
        protocol="leave-one-session-out",
        language="en",
    )
)
def read(root: Path | None) -> Iterator[Item]:
    """List every annotated turn; which of the eleven labels are learnt is up to the recipe's `labels`.

    The speaker is the letter of the *turn* (…_M003). The letter behind the session number says who wore the markers
    and differs from it in half of the turns.

    Args:
        root: The folder that holds `Session1` to `Session5`, or the one above it.

    Yields:
        One recording per turn of the evaluation files.
    """
    folder = existing_folder(root)
    inside = "Session*/dialog/EmoEvaluation/*.txt"
    for evaluation in sorted(folder.glob(inside)) or sorted(folder.glob(f"*/{inside}")):
        if evaluation.name.startswith("."):
            continue
        wavs = evaluation.parents[2] / "sentences" / "wav" / evaluation.stem
        for line in LINE.finditer(evaluation.read_text(encoding="utf-8", errors="replace")):
            turn, label = line["turn"], line["label"]
            parts = TURN.fullmatch(turn)
            if parts is None or label not in EMOTIONS:
                yield LeftOut(turn, f"turn {turn} with label {label} is not built like those of IEMOCAP")
            elif not (wavs / f"{turn}.wav").is_file():
                yield LeftOut(turn, "annotated, but its wav file is missing")
            else:
                speaker = f"Ses{parts['session']}{parts['speaker']}"
                session = f"Ses{parts['session']}"
                path = wavs / f"{turn}.wav"
                yield Recording(turn, path, EMOTIONS[label], speaker, parts["speaker"], session)
