"""A corpus that needs no download: four acted emotions, spoken by espeak-ng.

For trying the whole recipe on a laptop, for tests and for teaching. It is synthetic: loudness is deliberately no cue,
and no figure obtained on it says anything about human speech. `speech.py` names the sources of the prosody.

`corpus: {name: demo}` synthesises it at the first use, in about half a minute. Layout:

    demo.json       settings it was made with
    metadata.csv    file, emotion, gender, speaker, split, text
    wav/f01_anger_s03.wav    16 kHz, mono, 16 bit
"""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import soundfile
from tqdm import tqdm

from ....errors import RequestError
from ..base import CorpusInfo, Recording, register_corpus
from ..tables import json_object, read_table, text_of
from .espeak import Espeak
from .speech import EMOTIONS, SAMPLE_RATE, SENTENCES, make_voices, render

# Raised whenever the same settings would give other audio.
FORMAT = 1
COLUMNS = ("file", "emotion", "gender", "speaker", "split", "text")
SPEAKERS = (6, 198)


@dataclass(frozen=True)
class DemoCorpus:
    """Settings of the demo corpus; the same settings and espeak-ng version give the same bytes.

    Args:
        speakers: Voices, half of them female; an even number, 6 to 198. About 4/7 of them are for training, 1/7 for
            development, 2/7 for the test.
        sentences: Sentences per voice and emotion, 1 to 14; the same ones in every emotion.
        seed: Seed of everything that is drawn, 0 or more.

    Raises:
        RequestError: A setting is out of range.
    """

    speakers: int = 56
    sentences: int = 7
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not isinstance(value, int) or isinstance(value, bool):
                raise RequestError(f"demo corpus: {name} is {value!r}", "a whole number", f"set corpus.{name} to one")
        low, high = SPEAKERS
        if self.speakers % 2 or not low <= self.speakers <= high:
            raise RequestError(
                f"demo corpus: speakers is {self.speakers}",
                f"an even number from {low} to {high}: train, dev and test each need a voice of both genders",
                "set corpus.speakers to 56, or to another such number",
            )
        if not 1 <= self.sentences <= len(SENTENCES):
            raise RequestError(
                f"demo corpus: sentences is {self.sentences}",
                f"1 to {len(SENTENCES)}: there are no more sentences",
                "set corpus.sentences to 7, or to another such number",
            )
        if self.seed < 0:
            raise RequestError(f"demo corpus: seed is {self.seed}", "0 or more", "set corpus.seed to 0")


def synthesise(root: Path, settings: DemoCorpus, progress: bool = True) -> None:
    """Synthesise the corpus into a folder that does not exist yet, or is empty.

    The folder appears whole or not at all. Two processes may do this at once: the first one to finish wins, and the
    other checks that it would have made the same.

    Raises:
        RequestError: espeak-ng is not installed, or the folder holds something else.
    """
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as temporary:
        made = Path(temporary) / "corpus"  # inside, because a temporary folder itself is closed to other users
        (made / "wav").mkdir(parents=True)
        _write(made, settings, progress)
        try:
            made.replace(root)
        except OSError:
            if not (root / "demo.json").is_file():
                raise
            _check(root, settings)


def _write(folder: Path, settings: DemoCorpus, progress: bool) -> None:
    rows = []
    version = ""
    voices = make_voices(settings.speakers, settings.sentences, settings.seed)
    for voice in tqdm(voices, desc="speaking the demo corpus", unit="voice", disable=not progress):
        with Espeak(seed=settings.seed) as engine:  # fresh for every voice: espeak remembers what it spoke
            version = engine.version
            for emotion, sentence, clip in render(engine, voice, settings.seed):
                file = f"wav/{voice.name}_{emotion}_s{sentence + 1:02d}.wav"
                soundfile.write(folder / file, clip, SAMPLE_RATE, subtype="PCM_16")
                rows.append((file, emotion, voice.gender, voice.name, voice.split, SENTENCES[sentence]))
    with (folder / "metadata.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    description = {"format": FORMAT, **asdict(settings), "espeak_ng": version, "emotions": list(EMOTIONS)}
    (folder / "demo.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def _check(root: Path, settings: DemoCorpus) -> None:
    """Refuse a folder that was made with other settings, and name the one that differs."""
    description = json_object(text_of(root / "demo.json"), str(root / "demo.json"))
    for name, wanted in {"format": FORMAT, **asdict(settings)}.items():
        if description.get(name) != str(wanted):
            raise RequestError(
                f"{root} holds a demo corpus made with {name} = {description.get(name)}",
                f"{name} = {wanted!r}",
                f"set corpus.root to another folder, or remove {root} to have it made again",
            )


@register_corpus(
    CorpusInfo(
        name="demo",
        homepage="https://github.com/espeak-ng/espeak-ng",
        licence="none: it is synthesised on your machine; espeak-ng itself is GPL-3.0",
        layout="a folder that is made at the first use: demo.json, metadata.csv, wav/",
        protocol="given",
        own_speakers=False,  # other options, other voices
        language="en",
        needs_root=False,
    )
)
def read(
    root: Path | None, speakers: int = 56, sentences: int = 7, seed: int = 0, progress: bool = True
) -> Iterator[Recording]:
    """Read the demo corpus, after synthesising it if the folder is not there; settings as in `DemoCorpus`.

    A run passes `<output-dir>/corpus` as `root` when the recipe names none.

    Raises:
        RequestError: No folder is given, it holds something else or other settings, or clips are missing.
    """
    settings = DemoCorpus(speakers=speakers, sentences=sentences, seed=seed)
    if root is None:
        raise RequestError(
            "the demo corpus has no folder",
            "a folder to synthesise it into",
            "set corpus.root to one, such as data/demo",
        )
    root = Path(root)
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        synthesise(root, settings, progress)
    elif not (root / "demo.json").is_file():
        raise RequestError(
            f"{root} exists and is not a demo corpus: it has no demo.json",
            "a folder that is not there yet, is empty, or holds the demo corpus",
            "set corpus.root to another folder",
        )
    _check(root, settings)
    rows = [row for _, row in read_table(root / "metadata.csv", COLUMNS)[1]]
    listed, there = {row["file"] for row in rows}, {f"wav/{path.name}" for path in root.glob("wav/*.wav")}
    if odd := sorted(listed ^ there):
        lacking = (
            f"{len(odd)} of the {len(rows)} clips in metadata.csv" if odd[0] in listed else "lines in metadata.csv"
        )
        raise RequestError(
            f"{root} lacks {lacking}, the first is {odd[0]}",
            "a line and a clip for every sentence",
            f"remove {root} to have it made again",
        )
    return iter(
        Recording(
            file=Path(row["file"]).stem,
            path=root / row["file"],
            emotion=row["emotion"],
            speaker=row["speaker"],
            gender=row["gender"],
            split=row["split"],
        )
        for row in rows
    )
