"""EmoBox' folds: `fold_1/<set>_train_fold_1.jsonl` and its like, one object per recording, without speaker or gender.

Speakers and genders are those that the data set's own reader finds for the same file, under that data set's name, so
that a model which has seen them there is known to have seen them here. Where there is no such reader, or it does not
know the file, the speaker is unknown: such folds need `protocol.allow_shared_speakers: true`, as do those that share
speakers (EmoBox' EMO-DB, CREMA-D and TESS).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ...errors import RequestError
from .base import (
    REGISTERED,
    UNKNOWN_SPEAKER,
    CorpusInfo,
    Item,
    LeftOut,
    Recording,
    Remark,
    existing_folder,
    register_corpus,
)
from .tables import json_object, read_json_lines, text_of

READERS = {"msppodcast": "msp-podcast"}
"""EmoBox' name of a data set to ours, where they differ."""
PARTS = {"train": "train", "valid": "dev", "test": "test"}


@register_corpus(
    CorpusInfo(
        name="emobox",
        homepage="https://github.com/emo-box/EmoBox",
        citation="Z. Ma et al.: EmoBox: Multilingual Multi-corpus Speech Emotion Recognition Toolkit and Benchmark. "
        "Interspeech 2024.",
        layout="EmoBox' folder of one data set, such as data/savee, with fold_1/savee_train_fold_1.jsonl and its like, "
        "and label_map.json",
        protocol="given",
        speakers_known=False,
        caution="most of these folds share speakers between training and test; IEMOCAP, RAVDESS and SAVEE do not",
    )
)
def read(root: Path | None, fold: int = 1, audio_root: str | None = None) -> Iterator[Item]:
    """List the recordings of one fold.

    Args:
        root: EmoBox' folder of one data set (`data/savee`).
        fold: Number of the fold.
        audio_root: The folder that the paths in the lists (`downloads/savee/…`) start at; by default the nearest folder
            above `root` that has a folder `downloads`.

    Yields:
        Recordings by their key; the emotion is that of `label_map.json` where it names it.

    Raises:
        RequestError: When the fold, a list or the folder of the recordings is missing, or a line cannot be read.
    """
    folder = existing_folder(root)
    lists = {part: folder / f"fold_{fold}" / f"{folder.name}_{part}_fold_{fold}.jsonl" for part in PARTS}
    if not lists["train"].is_file() or not lists["test"].is_file():
        there = ", ".join(sorted(path.name for path in folder.glob("fold_*"))) or "no folds"
        raise RequestError(
            f"there is no {lists['train']} with its test list; {folder} has {there}",
            "<set>_train_fold_N.jsonl and <set>_test_fold_N.jsonl",
            "correct corpus.fold or corpus.root",
        )
    base = _audio_root(folder, audio_root)
    rows = [
        (part, _row(path, *line)) for part, path in lists.items() if path.is_file() for line in read_json_lines(path)
    ]
    reader = READERS.get(folder.name, folder.name)
    known = _known_speakers(folder.name, reader, base)
    words = json_object(text_of(mapping), str(mapping)) if (mapping := folder / "label_map.json").is_file() else {}
    unmapped: Counter[str] = Counter()
    for part, row in rows:
        path, key, emotion = base / row["wav"], row["key"], row["emo"]
        # A name that is too long for the file system is one that is not there, which `Path.is_file` does not say.
        if not os.path.isfile(path):  # noqa: PTH113
            yield LeftOut(key, "in the list, but the recording is missing")
            continue
        own = known.get(path.resolve())
        if words and emotion not in words:
            unmapped[emotion] += 1
        speaker, gender = (own.speaker, own.gender) if own else (UNKNOWN_SPEAKER, None)
        session = own.session if own else None
        emotion = words.get(emotion, emotion)
        people = (own.people_of if own else None) or reader
        yield Recording(key, path, emotion, speaker, gender, session, PARTS[part], people_of=people)
    for word, count in sorted(unmapped.items()):
        yield Remark(f"label_map.json does not name the label {word!r} (recordings: {count}), so it stays as it is")


def _audio_root(folder: Path, wanted: str | None) -> Path:
    if wanted is not None:
        return existing_folder(Path(wanted).expanduser())
    found = next((above for above in (folder, *folder.resolve().parents) if (above / "downloads").is_dir()), None)
    if found is None:
        raise RequestError(
            f"no folder above {folder} has a folder downloads", "the folder that the paths start at", "audio_root: …"
        )
    return found


def _row(path: Path, number: int, row: dict[str, str]) -> dict[str, str]:
    """Check a line of a list for the fields that are needed."""
    missing = [name for name in ("key", "wav", "emo") if not row.get(name)]
    if missing:
        raise RequestError(f"line {number} of {path} has no {', '.join(missing)}", "key, wav and emo in every line")
    return row


def _known_speakers(name: str, reader: str, base: Path) -> dict[Path, Recording]:
    """Ask the data set's own reader who speaks in which file."""
    from . import MODULES, corpus_reader

    own = base / "downloads" / name
    if reader == "emobox" or (reader not in MODULES and reader not in REGISTERED) or not own.is_dir():
        return {}
    found = corpus_reader(reader).read(own)
    return {one.path.resolve(): one for one in found if isinstance(one, Recording) and one.path is not None}
