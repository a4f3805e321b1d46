"""EMOVO: six Italian actors say fourteen sentences in seven emotions; `dis-f1-b1.wav` is emotion, actor, sentence.

Not verified against the distribution: names, actors and sentences come from descriptions of the corpus.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

from .base import CorpusInfo, Item, LeftOut, Recording, audio_files, register_corpus
from .filenames import named_files

EMOTIONS = {
    "dis": "disgust",  # disgusto
    "gio": "happiness",  # gioia
    "neu": "neutral",  # neutrale
    "pau": "fear",  # paura
    "rab": "anger",  # rabbia
    "sor": "surprise",  # sorpresa
    "tri": "sadness",  # tristezza
}
SPEAKERS = ("f1", "f2", "f3", "m1", "m2", "m3")
SENTENCES = ["b1", "b2", "b3", "l1", "l2", "l3", "l4", "n1", "n2", "n3", "n4", "n5", "d1", "d2"]


@register_corpus(
    CorpusInfo(
        name="emovo",
        homepage="http://voice.fub.it/activities/corpora/emovo/index.html",
        licence="free for research (not verified)",
        citation="G. Costantini, I. Iaderola, A. Paoloni, M. Todisco: EMOVO Corpus: an Italian Emotional Speech "
        "Database. LREC 2014, pp. 3501-3504.",
        layout="f1, f2, f3, m1, m2, m3, each with recordings such as dis-f1-b1.wav",
        expected=dict.fromkeys(EMOTIONS.values(), 84),
        expected_files=lambda: map("-".join, product(EMOTIONS, SPEAKERS, SENTENCES)),
        speakers=6,
        genders={"female": 3, "male": 3},
        hours=0.5,
        protocol="leave-one-speaker-out",
        language="it",
        copies=True,
    )
)
def read(root: Path | None) -> Iterator[Item]:
    """List the recordings of EMOVO below `root` by their names without ending, in lower case."""
    pattern = r"(?P<emotion>[a-z]{3})-(?P<actor>[fm]\d)-(?P<sentence>[a-z]\d)"
    codes = {"emotion": EMOTIONS, "actor": SPEAKERS}
    for one in named_files(audio_files(root), pattern, "dis-f1-b1", codes):
        if isinstance(one, LeftOut):
            yield one
            continue
        path, name = one
        actor = name["actor"]
        yield Recording(path.stem.lower(), path, EMOTIONS[name["emotion"]], actor, actor[0])
