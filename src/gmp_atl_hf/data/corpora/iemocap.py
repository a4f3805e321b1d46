"""IEMOCAP: five sessions of acted English dialogues, two speakers each, as distributed (`Session1` to `Session5`)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from .base import CorpusInfo, Item, LeftOut, Recording, existing_folder, register_corpus
from .tables import lines_of, text_of

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
LINE = re.compile(r"\[[\d., ]+-[\d., ]+\]\s+\S+\s+(?P<label>[^\s\[]+)\s+\[")
TURN = re.compile(r"(?P<dialogue>Ses(?P<session>\d\d)[FM]_\w+)_(?P<speaker>[FM])\d+\b")


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
    and differs from it in half of the turns. `root` holds `Session1` to `Session5`, or the folder that holds them.
    Every line of the evaluation files that begins with a bracket is read or listed.
    """
    folder = existing_folder(root)
    inside = "Session*/dialog/EmoEvaluation/*.txt"
    labels: dict[str, str] = {}
    # Copies of a file, under other names, after the file itself.
    files = sorted(folder.glob(inside)) or sorted(folder.glob(f"*/{inside}"))
    for file in sorted(files, key=lambda path: not path.name.startswith("Ses")):
        if file.name.startswith("."):
            continue
        for number, line in enumerate(lines_of(text_of(file, otherwise="cp1252")), start=1):
            if not (line := line.strip()).startswith("["):
                continue
            match, place = LINE.match(line), f"{file.name}, line {number}"
            turn = TURN.search(line)
            if turn is None:
                yield LeftOut(place, f"it names no turn: {line}")
                continue
            name, label = turn[0], match["label"].lower() if match else ""
            path = file.parents[2] / "sentences" / "wav" / turn["dialogue"] / f"{name}.wav"
            if label not in EMOTIONS:
                shown = place if name in labels else name
                yield LeftOut(shown, f"its label in {place} is none of {', '.join(EMOTIONS)}: {line}", path)
            elif labels.get(name, label) != label:
                yield LeftOut(place, f"turn {name} is {label} here and {labels[name]} elsewhere, which is read")
            elif name not in labels:
                labels[name] = label
                if path.is_file():
                    session = f"Ses{turn['session']}"
                    speaker = session + turn["speaker"]
                    yield Recording(name, path, EMOTIONS[label], speaker, turn["speaker"], session)
                else:
                    yield LeftOut(name, "annotated, but its wav file is missing", path)
