"""From a corpus' name to the list of its recordings: everything that can be checked before any audio is decoded."""

from __future__ import annotations

import inspect
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import RequestError, counted, did_you_mean, errors_of
from ..evaluation.genders import genders_of_speakers
from .columns import gender_word, split_word
from .corpora import (
    UNKNOWN_SPEAKER,
    CorpusInfo,
    CorpusReader,
    Item,
    LeftOut,
    Recording,
    Remark,
    corpus_reader,
    leftovers,
)
from .corpora.base import ANOTHER_COPY, UNLABELLED, audio_files, may_be_speech
from .corpora.from_file import guarded, is_corpus_file
from .doubtful import doubtful_sessions, doubtful_speakers, overlapping_segments
from .option_kinds import kinds_of, refuse_other_kind
from .spelling import first_few, is_missing, printable, spelling, tidy_text

_GIVE_ROOT = "give the corpus' folder (in a recipe: corpus.root)"


@dataclass(frozen=True)
class Listed:
    """A corpus whose recordings are known but not yet decoded; `name` is the prefix of its ids."""

    name: str
    info: CorpusInfo
    recordings: list[Recording]
    left_out: list[LeftOut]
    problems: list[str]


def list_recordings(
    name: str, root: str | os.PathLike[str] | None = None, corpus_name: str | None = None, **options: Any
) -> Listed:
    """Ask a corpus' reader for its recordings; arguments as in `load_corpus`.

    Raises:
        RequestError: When the corpus, its folder, an option, a speaker or a gender is not as it should be.
    """
    refuse_other_kind("corpus_name", corpus_name, str | None)
    refuse_other_kind("root", root, Path | None, "root: the corpus' folder")
    reader = corpus_reader(name)
    called = corpus_name or reader.info.name
    people = reader.info.name if reader.info.own_speakers else called
    _check_options(reader, options)
    folder = _existing_root(reader.info, root)
    if reader.info.needs_root and folder is not None and _is_empty(folder):
        raise RequestError(f"the folder {folder} is empty", reader.info.layout, _GIVE_ROOT)
    read = guarded(reader.read, name) if is_corpus_file(name) else reader.read
    recordings, left_out, remarks = _sort(reader.info.name, read(folder, **options))
    recordings = [_tidy(called, people, recording) for recording in recordings]
    gives_nothing = not (left_out or remarks)
    if reader.info.needs_root and folder is not None and folder.is_dir():
        left_out += _unnamed_files(folder, recordings, left_out)
    if not recordings:
        first = left_out[0] if left_out else None
        count = counted(len(left_out), "was", "were")
        why = f"; {count} left out, the first ({first.file}): {first.reason}" if first else ""
        where = f" in {folder}" if folder is not None else ""
        is_file = folder is not None and folder.is_file()
        fix = "correct the rows that were left out" if is_file and left_out else _GIVE_ROOT
        if is_corpus_file(name):
            what = "yields nothing at all" if gives_nothing else "fits none of the names"
            fix += f"; or correct the reader, which {what}"
        raise RequestError(f"{reader.info.name} found no recordings{where}{why}", reader.info.layout, fix)
    if reader.info.copies:
        recordings, copies = _first_of_each(recordings, folder)
        left_out += copies
    _refuse_rows_of_one_recording(called, recordings)
    refuse_duplicates(f"{called}/{recording.file}" for recording in recordings)
    recordings, respelt = _one_name_each(recordings)
    problems = (
        respelt
        + doubtful_speakers(recordings)
        + doubtful_sessions(recordings)
        + overlapping_segments(called, recordings)
        + _differences(reader.info, recordings)
        + _unknown_speakers(recordings)
        + remarks
    )
    info = replace(reader.info, name=called)
    return Listed(called, info, recordings, with_prefix(called, _with_folders(left_out, recordings, folder)), problems)


def list_plain_speech(name: str, folder: Path) -> Listed:
    """List every recording below a folder, in any layout, as speech without emotions of people nobody has named.

    Other files beside them, such as transcripts, are of no interest; sound that is not read is left out and named.

    Args:
        name: The prefix of its ids and of its one speaker, `<name>/unknown`.
        folder: The folder, which is there.

    Raises:
        RequestError: There is no recording in it.
    """
    found = [
        Recording(path.relative_to(folder).as_posix(), path, UNLABELLED, UNKNOWN_SPEAKER, people_of=name)
        for path in audio_files(folder)
    ]
    recordings, left_out, _ = _sort(name, found)
    unread = _unnamed_files(folder, recordings, left_out)
    left_out += [item for item in unread if item.path is not None and may_be_speech(item.path, folder)]
    if not recordings:
        raise RequestError(f"there are no recordings in {folder}", "recordings of speech, at any depth", "correct it")
    return Listed(name, CorpusInfo(name), recordings, with_prefix(name, left_out), [])


def _sort(corpus: str, items: Iterable[Item]) -> tuple[list[Recording], list[LeftOut], list[str]]:
    """Divide what a reader gives into recordings with a label, what is left out, and remarks."""
    recordings, left_out, remarks = [], list[LeftOut](), []
    for item in items:
        _check_item(corpus, item)
        if isinstance(item, LeftOut):
            left_out.append(item)
        elif isinstance(item, Remark):
            remarks.append(item.text)
        elif odd := _no_text(item):
            left_out.append(LeftOut(printable(item.file), f"its {odd} is no valid text", item.path))
        elif is_missing(item.emotion):
            left_out.append(LeftOut(item.file, "it has no emotion label", item.path))
        else:
            recordings.append(item)
    return recordings, left_out, remarks


def _unnamed_files(folder: Path, recordings: Sequence[Recording], left_out: Sequence[LeftOut]) -> list[LeftOut]:
    """List the files of a corpus' folder of which its reader says nothing."""
    listed: list[Recording | LeftOut] = [*recordings, *left_out]
    known = [item.path for item in listed if item.path is not None]
    # Readers of people's own name files in their own way.
    named = {item.file for item in left_out if item.path is None}
    return [
        item
        for item in leftovers(folder, known)
        if item.path and named.isdisjoint({item.file, item.path.name, item.path.stem})
    ]


def _check_options(reader: CorpusReader, options: Mapping[str, Any]) -> None:
    """Refuse an option the reader does not have, and a missing one that it needs."""
    parameters = list(inspect.signature(reader.read).parameters.values())[1:]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = {parameter.name: parameter for parameter in parameters}
    for option in options:
        if option not in known:
            general = ["labels", "short_clips", "unreadable", "check_audio", "corpus_name"]
            raise RequestError(
                f"the corpus {reader.info.name!r} has no option {option!r}",
                f"one of {', '.join(known)}" if known else "no options",
                did_you_mean(option, [*known, *general], f"take {option!r} out"),
            )
    kinds = kinds_of(reader.read)
    for option, value in options.items():
        refuse_other_kind(option, value, kinds.get(option, Any))
    for option, parameter in known.items():
        if parameter.default is parameter.empty and option not in options:
            raise RequestError(
                f"the corpus {reader.info.name!r} needs {option}",
                reader.info.layout,
                f"give {option} (in a recipe: corpus.{option})",
            )


def _existing_root(info: CorpusInfo, root: str | os.PathLike[str] | None) -> Path | None:
    """Give the corpus' folder as a Path, or say what should be there."""
    folder = None if root is None else Path(root).expanduser()
    if not info.needs_root or (folder is not None and folder.exists()):
        return folder
    where = f" (to be had from {info.homepage})" if info.homepage else ""
    raise RequestError(
        f"no folder was given for the corpus {info.name!r}" if folder is None else f"there is nothing at {folder}",
        f"{info.name}{where}: {info.layout}",
        "give its path (in a recipe: corpus.root); a relative path starts where the command is run",
    )


def _is_empty(folder: Path) -> bool:
    """Whether this is a folder that can be opened and has nothing in it."""
    there = next(os.walk(folder), None)
    return there is not None and not (there[1] or there[2])


def _check_item(corpus: str, item: object) -> None:
    """Refuse what a reader of somebody's own may give by mistake."""
    if isinstance(item, LeftOut | Remark):
        return
    if not isinstance(item, Recording):
        raise RequestError(
            f"the reader of {corpus} gave {item!r}", "a Recording, a LeftOut or a Remark", "yield Recording(…)"
        )
    if not (isinstance(item.path, Path) or (item.path is None and isinstance(item.audio_bytes, bytes))):
        raise RequestError(
            f"{corpus}/{item.file}: its path is {item.path!r}", "a pathlib.Path, or audio_bytes", "Path(…)"
        )
    for field in ("file", "emotion", "speaker", "gender", "session", "split"):
        value = getattr(item, field)
        optional = value is None and field in ("gender", "session", "split")
        if not (isinstance(value, str) or optional):
            raise RequestError(
                f"{corpus}/{item.file}: its {field} is {value!r}",
                "text",
                "yield LeftOut(file, reason) where it is not known" if value is None else f"{field} {str(value)!r}",
            )


def _no_text(recording: Recording) -> str | None:
    """Name a field that no file can hold: half of a pair of surrogates, or a file name in an unknown encoding."""
    for field in ("file", "path", "emotion", "speaker", "gender", "session", "split"):
        text = str(getattr(recording, field))
        if not text.isascii() and text != printable(text):
            return field
    return None


def _tidy(corpus: str, people: str, recording: Recording) -> Recording:
    """Bring genders and splits to our words, or say which recording has one that is not known; say whose people."""
    if is_missing(recording.speaker):
        raise RequestError(
            f"{corpus}/{recording.file} has no speaker",
            "a speaker for every recording: folds are made of speakers, so that no voice is trained and tested on",
            f"give each recording its speaker ({UNKNOWN_SPEAKER} where nobody knows), or take it out of the corpus",
        )
    with errors_of(f"{corpus}/{recording.file}"):
        gender, split = gender_word(recording.gender), split_word(recording.split)
    return replace(
        recording,
        gender=gender,
        split=split,
        session=tidy_text(recording.session or "") or None,
        emotion=tidy_text(recording.emotion),
        speaker=tidy_text(recording.speaker),
        people_of=recording.people_of or people,
    )


def _refuse_rows_of_one_recording(corpus: str, recordings: Iterable[Recording]) -> None:
    """Refuse a table that lists a recording twice, with the lines and whether they say the same."""
    rows: dict[str, list[Recording]] = defaultdict(list)
    for recording in recordings:
        if recording.line is not None:
            rows[recording.file].append(recording)
    again = []
    for file, own in rows.items():
        if len(own) > 1:
            lines = " and ".join(str(one.line) for one in own)
            fields = ("emotion", "speaker", "gender", "session", "split")
            differ = [field for field in fields if len({getattr(one, field) for one in own}) > 1]
            how = f"which differ in {' and '.join(differ)}" if differ else "which say the same"
            again.append(f"{corpus}/{file} (lines {lines}, {how})")
    if again:
        raise RequestError(
            f"{counted(len(again), 'id occurs', 'ids occur')} more than once: {first_few(again)}",
            "every recording in one line",
            "keep one of the lines, where they differ the right one; parts of one file are told apart by columns start "
            "and end (seconds)",
        )


def refuse_duplicates(ids: Iterable[str]) -> None:
    """Refuse recordings with the same id: rows, labels and predictions are found by it.

    Raises:
        RequestError: Names the first few ids that occur more than once.
    """
    again = [name for name, count in Counter(ids).items() if count > 1]
    if again:
        raise RequestError(
            f"{counted(len(again), 'id occurs', 'ids occur')} more than once: {first_few(again)}",
            "every recording once",
            "remove the copies; two corpora of the same reader need a corpus_name each (people stay who they are); "
            "a reader of your own gives each recording a name of its own, such as f'{speaker}/{path.stem}' where "
            "speakers have folders",
        )


def _differences(info: CorpusInfo, recordings: Sequence[Recording]) -> list[str]:
    """Tell by label and by file how this copy differs from the complete corpus."""
    counts = Counter(recording.emotion for recording in recordings)
    labels = sorted({*info.expected, *counts}) if info.expected else []
    wrong = [
        f"{label} {counts[label]} instead of {info.expected.get(label, 0)}"
        for label in labels
        if counts[label] != info.expected.get(label, 0)
    ]
    problems = []
    if wrong:
        problems.append(f"{info.name} differs from the complete corpus: {', '.join(wrong)} recordings")
    if info.expected_files is not None:
        wanted, there = set(info.expected_files()), {recording.file for recording in recordings}
        for word, files in (("missing", wanted - there), ("not part of the complete corpus", there - wanted)):
            if files:
                count = counted(len(files), f"file of {info.name} is", f"files of {info.name} are")
                problems.append(f"{count} {word}: {first_few(sorted(files), 20)}")
    speakers = genders_of_speakers((recording.speaker, recording.gender) for recording in recordings)
    if info.speakers is not None and len(speakers) != info.speakers:
        problems.append(f"{info.name} has {counted(len(speakers), 'speaker')} instead of {info.speakers}")
    for gender, number in info.genders.items():
        having = sum(one == gender for one in speakers.values())
        if having != number:
            problems.append(f"{info.name} has {counted(having, f'{gender} speaker')} instead of {number}")
    return problems


def _first_of_each(recordings: Sequence[Recording], folder: Path | None) -> tuple[list[Recording], list[LeftOut]]:
    """Keep the first of several recordings of the same name; name the others by their place below the folder."""
    first: dict[str, Recording] = {}
    copies = []
    for recording in recordings:
        if first.setdefault(recording.file, recording) is not recording:
            copies.append(LeftOut(_inside(recording.path, folder, recording.file), ANOTHER_COPY, recording.path))
    return list(first.values()), copies


def _with_folders(left_out: list[LeftOut], recordings: Sequence[Recording], folder: Path | None) -> list[LeftOut]:
    """Name files that share a name with another by their place below the folder, and say where that one is read."""
    read = {recording.file for recording in recordings}
    names = Counter(item.file for item in left_out)
    named = []
    for item in left_out:
        if item.file in read or names[item.file] > 1:
            item = replace(item, file=_inside(item.path, folder, item.file))
        if item.file in read:
            item = replace(item, reason=item.reason + "; another entry of this name is read")
        named.append(item)
    return named


def _inside(path: Path | None, folder: Path | None, otherwise: str) -> str:
    """Name a file by its place below the folder."""
    if path is None or folder is None or not path.is_relative_to(folder):
        return otherwise
    return path.relative_to(folder).as_posix()


def _unknown_speakers(recordings: Sequence[Recording]) -> list[str]:
    """Say that a split by speaker proves nothing for recordings whose speaker is not known."""
    count = sum(recording.speaker.lower() == UNKNOWN_SPEAKER for recording in recordings)
    who = "nobody knows whether they are also in another part of a split"
    return [f"the speaker of {count} of {counted(len(recordings), 'recording')} is not known: {who}"] if count else []


def _one_name_each(recordings: Sequence[Recording]) -> tuple[list[Recording], list[str]]:
    """Give a person under several spellings the most frequent one, and say so: nobody may be trained and tested on."""
    counts = Counter(recording.speaker for recording in recordings)
    spelt: dict[str, list[str]] = defaultdict(list)
    for speaker in sorted(counts, key=lambda name: (-counts[name], name)):
        spelt[spelling(speaker)].append(speaker)
    remarks = [
        f"speakers {' and '.join(sorted(names))} differ in case, blanks or the form of their letters only: they are "
        f"taken for one person, {names[0]}"
        for names in spelt.values()
        if len(names) > 1
    ]
    called = {speaker: names[0] for names in spelt.values() for speaker in names}
    return [replace(one, speaker=called[one.speaker]) for one in recordings] if remarks else list(recordings), remarks


def with_prefix(corpus: str, left_out: Iterable[LeftOut]) -> list[LeftOut]:
    """Name what was left out by id, `<corpus>/<file>`."""
    return [LeftOut(printable(f"{corpus}/{one.file}"), printable(one.reason[:500])) for one in left_out]
