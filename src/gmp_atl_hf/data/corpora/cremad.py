"""CREMA-D: 91 actors say twelve English sentences in six emotions; `1001_DFA_ANG_XX.wav` says who, what and how.

Known oddities of the distribution, none of which changes the counts: `1040_ITH_SAD_X.wav` has one X, and
`1076_MTI_SAD_XX.wav` is said to hold no speech. Files of some hundred bytes are Git LFS pointers: run `git lfs pull`.
Names, genders and layout were checked against the public repository, the number per emotion was not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ...errors import RequestError
from .base import CorpusInfo, Item, LeftOut, Recording, Remark, audio_files, register_corpus
from .filenames import named_files
from .tables import read_table

EMOTIONS = {
    "ANG": "anger",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "happiness",
    "NEU": "neutral",
    "SAD": "sadness",
}
SENTENCES = ("IEO", "TIE", "IOM", "IWW", "TAI", "MTI", "IWL", "ITH", "DFA", "ITS", "TSI", "WSI")
FEMALE = frozenset(
    re.findall(
        r"\d+",
        """1002 1003 1004 1006 1007 1008 1009 1010 1012 1013 1018 1020 1021 1024 1025 1028 1029 1030 1037 1043 1046 1047
        1049 1052 1053 1054 1055 1056 1058 1060 1061 1063 1072 1073 1074 1075 1076 1078 1079 1082 1084 1089 1091""",
    )
)
SPEAKERS = {str(number): "female" if str(number) in FEMALE else "male" for number in range(1001, 1092)}


@register_corpus(
    CorpusInfo(
        name="cremad",
        homepage="https://github.com/CheyneyComputerScience/CREMA-D",
        licence="ODbL 1.0, content DbCL 1.0",
        citation="H. Cao, D. G. Cooper, M. K. Keutmann, R. C. Gur, A. Nenkova, R. Verma: CREMA-D: Crowd-sourced "
        "Emotional Multimodal Actors Dataset. IEEE Transactions on Affective Computing 5(4), 2014, pp. 377-390.",
        layout="AudioWAV/ with recordings such as 1001_DFA_ANG_XX.wav, and VideoDemographics.csv for the genders",
        expected=dict.fromkeys(EMOTIONS.values(), 1271) | {"neutral": 1087},
        speakers=91,
        genders={"female": 43, "male": 48},
        hours=5.3,
        protocol="group-k-fold",
        language="en",
        copies=True,
    )
)
def read(root: Path | None) -> Iterator[Item]:
    """List the recordings of CREMA-D with the emotion the actor was asked for, by their names without ending.

    `root` is the repository's folder, or `AudioWAV` itself. The same recordings in `AudioMP3` are listed as copies.
    """
    # wav before mp3, so that the copy that is read does not depend on the names of their folders.
    files = sorted(audio_files(root), key=lambda path: path.suffix.lower() != ".wav")
    genders = dict(SPEAKERS)
    try:
        genders |= _demographics(root) if root is not None else {}
    except RequestError as error:
        yield Remark(f"{error.found}; the genders are those of the public repository")
    pattern = r"(?P<speaker>\d{4})_(?P<sentence>[A-Z]{3})_(?P<emotion>[A-Z]{3})_(?P<level>XX?|LO|MD|HI)"
    codes = {"speaker": SPEAKERS, "sentence": SENTENCES, "emotion": EMOTIONS}
    for one in named_files(files, pattern, "1001_DFA_ANG_XX", codes):
        if isinstance(one, LeftOut):
            yield one
            continue
        path, name = one
        yield Recording(path.stem, path, EMOTIONS[name["emotion"]], name["speaker"], genders[name["speaker"]])


def _demographics(root: Path) -> dict[str, str]:
    """Give actor to gender as the table beside the recordings says, where it is there."""
    tables = [folder / "VideoDemographics.csv" for folder in (root, root.parent)]
    for table in filter(Path.is_file, tables):
        return {row["ActorID"]: row["Sex"] for _, row in read_table(table, ("ActorID", "Sex"), otherwise="cp1252")[1]}
    return {}
