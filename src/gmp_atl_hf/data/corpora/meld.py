"""MELD: scenes of the television series Friends with an emotion per utterance, and given train, dev and test.

The corpus has videos (`dia0_utt0.mp4`) and three tables. The sound has to be extracted first, beside the videos or in
folders of its own whose names tell the part: anything with train, dev or test in it. Dialogue numbers start again in
each part. Known oddities: train dia125_utt3 is said to be damaged, dev dia110_utt7 has no video, and the test folder
has second cuts called `final_videos_testdia…`, which are not in the table and are listed. Only the genders of the six
main characters are given here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ...errors import RequestError
from .base import UNKNOWN_SPEAKER, CorpusInfo, Item, LeftOut, Recording, audio_files, existing_folder, register_corpus
from .tables import read_table

EMOTIONS = {
    "anger": "anger",
    "disgust": "disgust",
    "fear": "fear",
    "joy": "happiness",
    "neutral": "neutral",
    "sadness": "sadness",
    "surprise": "surprise",
}
GENDERS = dict.fromkeys(["Monica", "Phoebe", "Rachel"], "female") | dict.fromkeys(["Chandler", "Joey", "Ross"], "male")
PARTS = ("train", "dev", "test")
COLUMNS = ("Dialogue_ID", "Utterance_ID", "Emotion", "Speaker")
SEVERAL = re.compile(r"\b(all|both|and|everyone|others)\b|[&/,]", re.IGNORECASE)


@register_corpus(
    CorpusInfo(
        name="meld",
        homepage="https://affective-meld.github.io",
        licence="GPL-3.0 (the annotations; the sound is that of a television series)",
        citation="S. Poria, D. Hazarika, N. Majumder, G. Naik, E. Cambria, R. Mihalcea: MELD: A Multimodal Multi-Party "
        "Dataset for Emotion Recognition in Conversations. ACL 2019, pp. 527-536.",
        layout="train_sent_emo.csv, dev_sent_emo.csv and test_sent_emo.csv, and the extracted sound of each part in a "
        "folder with train, dev or test in its name, such as train_splits/dia0_utt0.wav",
        expected={
            "anger": 1607,
            "disgust": 361,
            "fear": 358,
            "happiness": 2308,
            "neutral": 6436,
            "sadness": 1002,
            "surprise": 1636,
        },
        hours=12.1,
        protocol="given",
        language="en",
        speakers_known=False,
        caution="the main characters are in training, development and test: no figure is speaker-independent",
    )
)
def read(root: Path | None) -> Iterator[Item]:
    """List the utterances of MELD's three tables, as `train/dia0_utt0`; tables and sound may lie at any depth.

    The speaker is unknown where several speak at once.

    Raises:
        RequestError: When a table is missing, or there are only videos.
    """
    folder = existing_folder(root)
    sounds = {part: dict[str, Path]() for part in PARTS}
    for path in audio_files(folder):
        part = _part(path, folder)
        if part is None:
            yield LeftOut(path.name, "no folder on its path has train, dev or test in its name", path)
        elif path.stem in sounds[part]:
            yield LeftOut(path.name, "another copy of a sound that is read", path)
        else:
            sounds[part][path.stem] = path
    if not any(sounds.values()):
        _refuse_videos(folder)
    for part in PARTS:
        for row in _rows(folder, part):
            name = f"dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}"
            file, word, who = sounds[part].pop(name, None), row["Emotion"].lower(), row["Speaker"]
            if file is None:
                yield LeftOut(f"{part}/{name}", "in the table, but its sound is missing (extract it from its video)")
            elif word not in EMOTIONS:
                yield LeftOut(f"{part}/{name}", f"{word!r} is none of MELD's emotions ({', '.join(EMOTIONS)})", file)
            else:
                speaker = UNKNOWN_SPEAKER if not who or SEVERAL.search(who) else who
                yield Recording(f"{part}/{name}", file, EMOTIONS[word], speaker, GENDERS.get(who), split=part)
        for name, file in sounds[part].items():
            yield LeftOut(f"{part}/{name}", f"not in {part}_sent_emo.csv", file)


def _part(path: Path, folder: Path) -> str | None:
    """Tell from the folders on its path which part a sound belongs to."""
    above = " ".join(path.relative_to(folder).parts[:-1]).lower()
    found = [part for part in PARTS if part in above]
    return found[0] if found else None


def _rows(folder: Path, part: str) -> list[dict[str, str]]:
    """Read the table of a part, in whatever folder it lies."""
    name = f"{part}_sent_emo.csv"
    tables = sorted(path for path in folder.rglob(name) if "__MACOSX" not in path.parts)
    if not tables:
        raise RequestError(f"there is no {name} in {folder}", "MELD's three tables", "copy them into corpus.root")
    # cp1252: copies that a spreadsheet program has saved
    return [row for _, row in read_table(tables[0], COLUMNS, otherwise="cp1252")[1]]


def _refuse_videos(folder: Path) -> None:
    """Say what to do where there are videos only."""
    videos = sorted(path for path in folder.rglob("dia*.mp4") if not path.name.startswith("."))
    if videos:
        raise RequestError(
            f"{folder} has {len(videos)} videos (such as {videos[0].name}), but no sound that can be read",
            "the sound of each video beside it, as wav, flac or mp3",
            "extract it, for example: find . -name '*.mp4' -exec sh -c "
            '\'ffmpeg -i "$1" -vn -ac 1 -ar 16000 "${1%.mp4}.wav"\' sh {} \\;',
        )
