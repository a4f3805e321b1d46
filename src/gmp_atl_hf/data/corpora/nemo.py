"""nEMO: nine Polish actors, 4,481 recordings in six emotions, all listed in `data.tsv` beside the folder `samples`.

Layout, columns and speakers were checked against the public repository; its speaker ids have blanks in front, which are
taken off. The counts per emotion are those of the paper.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...errors import RequestError
from .base import CorpusInfo, Item, LeftOut, Recording, existing_folder, files_by_name, register_corpus
from .tables import read_table

EMOTIONS = {
    "anger": "anger",
    "fear": "fear",
    "happiness": "happiness",
    "neutral": "neutral",
    "sadness": "sadness",
    "surprised": "surprise",
}


@register_corpus(
    CorpusInfo(
        name="nemo",
        homepage="https://github.com/amu-cai/nEMO",
        licence="CC BY-NC-SA 4.0",
        citation="I. Christop: nEMO: Dataset of Emotional Speech in Polish. LREC-COLING 2024, pp. 12111-12116.",
        layout="data.tsv and samples/EB0_anger_1.wav and so on",
        expected={"anger": 749, "fear": 736, "happiness": 749, "neutral": 809, "sadness": 769, "surprise": 669},
        speakers=9,
        genders={"female": 4, "male": 5},
        hours=3.1,
        protocol="leave-one-speaker-out",
        language="pl",
    )
)
def read(root: Path | None) -> Iterator[Item]:
    """List the recordings of nEMO, whose folder holds `data.tsv`, by their names without ending."""
    table = existing_folder(root) / "data.tsv"
    if not table.is_file():
        raise RequestError(f"there is no {table}", "nEMO's folder with data.tsv", "give that folder as corpus.root")
    files, copies = files_by_name(root)
    yield from copies
    columns = ("file_id", "emotion", "speaker_id", "gender")
    # Polish quotation marks in the sentences are text.
    for _, row in read_table(table, columns, otherwise="cp1250", plain_tabs=True)[1]:
        name = row["file_id"]
        path, emotion = files.pop(name, None), EMOTIONS.get(row["emotion"].lower())
        if path is None:
            yield LeftOut(name, "listed in data.tsv, but the recording is missing")
        elif emotion is None:
            yield LeftOut(name, f"{row['emotion']!r} is none of nEMO's emotions ({', '.join(EMOTIONS)})", path)
        else:
            yield Recording(path.stem, path, emotion, row["speaker_id"], row["gender"])
    for name, path in files.items():
        yield LeftOut(name, "not listed in data.tsv", path)
