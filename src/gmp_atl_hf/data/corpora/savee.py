"""SAVEE: four Englishmen (DC, JE, JK, KL), 480 recordings in seven emotions.

Two layouts are handed around: `AudioData/DC/a01.wav` (the original) and a flat `ALL/DC_a01.wav`. Not verified against
the distribution itself: the rule for the genders (all four are male) and the counts come from its description.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .base import CorpusInfo, Item, LeftOut, Recording, audio_files, register_corpus
from .filenames import named_files

EMOTIONS = {
    "a": "anger",
    "d": "disgust",
    "f": "fear",
    "h": "happiness",
    "n": "neutral",
    "sa": "sadness",
    "su": "surprise",
}
SPEAKERS = ("DC", "JE", "JK", "KL")
COUNTS = dict.fromkeys(EMOTIONS, 15) | {"n": 30}


def complete_corpus() -> Iterator[str]:
    """List the names of all recordings, as in the flat layout."""
    for speaker in SPEAKERS:
        for code, count in COUNTS.items():
            yield from (f"{speaker}_{code}{number:02}" for number in range(1, count + 1))


@register_corpus(
    CorpusInfo(
        name="savee",
        homepage="http://kahlan.eps.surrey.ac.uk/savee/",
        licence="free for research, after registration",
        citation="S. Haq, P. J. B. Jackson: Speaker-dependent audio-visual emotion recognition. AVSP 2009, pp. 53-58.",
        layout="AudioData/<DC, JE, JK, KL>/a01.wav, or ALL/DC_a01.wav",
        expected={EMOTIONS[code]: 4 * count for code, count in COUNTS.items()},
        expected_files=complete_corpus,
        speakers=4,
        genders={"female": 0, "male": 4},
        hours=0.5,
        protocol="leave-one-speaker-out",
        language="en",
        caution="four men: nothing can be learnt or said about gender",
        copies=True,
    )
)
def read(root: Path | None) -> Iterator[Item]:
    """List the recordings of SAVEE below `root`, in either layout, as `DC_a01`."""
    pattern = r"(?:(?P<speaker>[A-Z]{2})_)?(?P<emotion>[a-z]+)(?P<sentence>\d\d)"
    for one in named_files(audio_files(root), pattern, "DC/a01 or DC_a01", {"emotion": EMOTIONS}):
        if isinstance(one, LeftOut):
            yield one
            continue
        path, name = one
        speaker, code = (name["speaker"] or path.parent.name).upper(), name["emotion"]
        if speaker in SPEAKERS:
            yield Recording(f"{speaker}_{code}{name['sentence']}", path, EMOTIONS[code], speaker, "male")
        else:
            yield LeftOut(path.name, f"neither its name nor its folder is one of {', '.join(SPEAKERS)}", path)
