"""ESD: ten Mandarin (0001 to 0010) and ten English speakers (0011 to 0020), 350 sentences each in five emotions.

The copies handed around differ: `0011/Angry/0011_000351.wav`, or with `train`, `test` and `evaluation` below the
emotion (a split by sentence, with all speakers in each part, so it is not given as a split). The transcripts have
mixed encodings and are not read. `esd` reads all, `esd-en` and `esd-zh` one language. Genders are those of the corpus'
own ReadMe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from .base import CorpusInfo, Item, LeftOut, Recording, audio_files, register_corpus
from .filenames import named_files

EMOTIONS = {"angry": "anger", "happy": "happiness", "neutral": "neutral", "sad": "sadness", "surprise": "surprise"}
PARTS = ("train", "test", "evaluation")
FEMALE = {"0001", "0002", "0003", "0007", "0009", "0015", "0016", "0017", "0018", "0019"}
MANDARIN = [f"{number:04}" for number in range(1, 11)]
ENGLISH = [f"{number:04}" for number in range(11, 21)]
CORPORA = {"esd": [*MANDARIN, *ENGLISH], "esd-en": ENGLISH, "esd-zh": MANDARIN}


def _reader(corpus: str, speakers: Sequence[str]) -> Callable[[Path | None], Iterator[Item]]:
    def read(root: Path | None) -> Iterator[Item]:
        codes = {"speaker": CORPORA["esd"]}
        for one in named_files(audio_files(root), r"(?P<speaker>\d{4})_(?P<number>\d{6})", "0011_000351", codes):
            if isinstance(one, LeftOut):
                yield one
                continue
            path, name = one
            folder = path.parent.parent if path.parent.name.lower() in PARTS else path.parent
            emotion, speaker = EMOTIONS.get(folder.name.lower()), name["speaker"]
            if emotion is None:
                yield LeftOut(
                    path.name, f"its folder {folder.name} is none of ESD's emotions ({', '.join(EMOTIONS)})", path
                )
            elif speaker not in speakers:
                yield LeftOut(path.name, f"its speaker speaks the other language: {corpus} is one half of ESD", path)
            else:
                gender = "female" if speaker in FEMALE else "male"
                yield Recording(path.stem, path, emotion, speaker, gender, people_of="esd")

    return read


def _info(corpus: str, speakers: Sequence[str]) -> CorpusInfo:
    women = len(FEMALE.intersection(speakers))
    return CorpusInfo(
        name=corpus,
        homepage="https://hltsingapore.github.io/ESD/",
        licence="by signed agreement, for research",
        citation="K. Zhou, B. Sisman, R. Liu, H. Li: Emotional voice conversion: Theory, databases and ESD. Speech "
        "Communication 137, 2022, pp. 1-18.",
        layout="0001/Angry/0001_000351.wav and so on, with or without train, test and evaluation below the emotion",
        expected=dict.fromkeys(EMOTIONS.values(), 350 * len(speakers)),
        expected_files=lambda: (f"{speaker}_{number:06}" for speaker in speakers for number in range(1, 1751)),
        speakers=len(speakers),
        genders={"female": women, "male": len(speakers) - women},
        hours=29.1 if corpus == "esd" else None,
        protocol="group-k-fold",
        language={"esd": "zh+en", "esd-en": "en", "esd-zh": "zh"}[corpus],
        caution="all speakers say the same sentences, so sentences are shared by training and test",
        copies=True,
    )


for _corpus, _speakers in CORPORA.items():
    register_corpus(_info(_corpus, _speakers))(_reader(_corpus, _speakers))
