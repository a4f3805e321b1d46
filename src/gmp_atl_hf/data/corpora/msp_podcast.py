"""MSP-Podcast: English podcast turns with the emotion most raters chose, and the corpus' own partitions.

Letters, columns and both spellings of the table's name (`labels_consensus.csv`, `labels_concensus.csv`) come from
readers of several releases; not verified against the distribution. Sizes differ between releases, so no counts are
expected.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...errors import RequestError
from .base import UNKNOWN_SPEAKER, CorpusInfo, Item, LeftOut, Recording, existing_folder, files_by_name, register_corpus
from .tables import read_table

EMOTIONS = {
    "A": "anger",
    "C": "contempt",
    "D": "disgust",
    "F": "fear",
    "H": "happiness",
    "N": "neutral",
    "O": "other",
    "S": "sadness",
    "U": "surprise",
    "X": "no agreement",
}
TABLES = ("labels_consensus.csv", "labels_concensus.csv")
PARTS = {"train": "train", "development": "dev", "validation": "dev"}
COLUMNS = ("FileName", "EmoClass", "SpkrID", "Gender", "Split_Set")


@register_corpus(
    CorpusInfo(
        name="msp-podcast",
        homepage="https://www.lab-msp.com/MSP/MSP-Podcast.html",
        licence="by signed agreement, for research",
        citation="R. Lotfian, C. Busso: Building naturalistic emotionally balanced speech corpus by retrieving "
        "emotional speech from existing podcast recordings. IEEE Transactions on Affective Computing 10(4), 2019, "
        "pp. 471-483.",
        layout="Audios/MSP-PODCAST_0001_0008.wav and so on, and Labels/labels_consensus.csv",
        protocol="given",
        language="en",
        speakers_known=False,
        caution="some speakers are not known: without unknown_speakers: drop a test speaker may have been trained on",
    )
)
def read(root: Path | None, test: str = "Test1", unknown_speakers: str = "keep") -> Iterator[Item]:
    """List the turns of the partitions Train and Development and of one test partition, by their names without ending.

    Args:
        root: The folder that holds `Audios` and `Labels` (or the table itself).
        test: The partition to test on: Test1, Test2 or Test3 where its labels are there.
        unknown_speakers: `keep`, or `drop` to leave out turns whose speaker is not known.

    Raises:
        RequestError: When the table, one of its columns or the test partition is missing.
    """
    if unknown_speakers not in ("keep", "drop"):
        raise RequestError(f"unknown_speakers is {unknown_speakers!r}", "keep or drop", "unknown_speakers: drop")
    folder = existing_folder(root)
    rows = _rows(folder)
    tests = sorted({row["Split_Set"] for row in rows} - {part for part in _parts(rows) if part.lower() in PARTS})
    if test not in tests:
        raise RequestError(f"there is no partition {test!r}", f"one of {', '.join(tests) or 'none'}", "corpus.test")
    files, copies = files_by_name(folder)
    yield from copies
    for row in rows:
        name, part, speaker = row["FileName"], row["Split_Set"], row["SpkrID"].lower()
        path = files.pop(name, None)
        unknown = speaker in ("", "unknown", "nan", "none")
        if path is None:
            yield LeftOut(name, "listed in the table, but the recording is missing")
        elif part.lower() not in PARTS and part != test:
            yield LeftOut(name, f"partition {part}; the one to test on is {test}", path)
        elif row["EmoClass"].upper() not in EMOTIONS:
            yield LeftOut(name, f"{row['EmoClass']!r} is none of the corpus' classes ({' '.join(EMOTIONS)})", path)
        elif unknown and unknown_speakers == "drop":
            yield LeftOut(name, "its speaker is not known", path)
        else:
            emotion, split = EMOTIONS[row["EmoClass"].upper()], PARTS.get(part.lower(), "test")
            who = UNKNOWN_SPEAKER if unknown else row["SpkrID"]
            yield Recording(path.stem, path, emotion, who, row["Gender"], split=split)
    for name, path in sorted(files.items()):
        yield LeftOut(name, "not listed in the table of labels", path)


def _parts(rows: list[dict[str, str]]) -> set[str]:
    return {row["Split_Set"] for row in rows}


def _rows(folder: Path) -> list[dict[str, str]]:
    """Read the table of labels, whichever way its name is spelt."""
    places = [place / name for name in TABLES for place in (folder / "Labels", folder)]
    table = next((place for place in places if place.is_file()), None)
    if table is None:
        raise RequestError(
            f"there is no table of labels in {folder} or its folder Labels", " or ".join(TABLES), "correct corpus.root"
        )
    return [row for _, row in read_table(table, COLUMNS, otherwise="cp1252")[1]]
