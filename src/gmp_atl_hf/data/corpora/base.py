"""What a corpus file has to say: some facts about the corpus, and one function that lists its recordings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import RequestError
from ..audio import AUDIO_SUFFIXES, is_leftover
from ..protocol_kinds import PROTOCOLS
from ..walk import walk

UNKNOWN_SPEAKER = "unknown"
"""What a reader gives as the speaker of a recording whose speaker is not known; may be many people."""

UNLABELLED = "unlabelled"
"""The one label of recordings that have none."""

ANOTHER_COPY = "another copy of a recording that is read"
"""Why the second of two recordings of the same name is left out."""

_FOREIGN_SOUND = frozenset(
    {".3g2", ".3gp", ".ac3", ".ape", ".avi", ".caf", ".dts", ".flv", ".gsm", ".m4b", ".m4v", ".mka", ".mkv", ".mov"}
    | {".mp2", ".mp4", ".mpeg", ".mpg", ".pcm", ".ra", ".raw", ".rm", ".snd", ".spx", ".voc", ".vox", ".wv", ".wmv"}
)
_DOCUMENTS = frozenset(
    {".csv", ".doc", ".docx", ".json", ".jsonl", ".md", ".ods", ".odt", ".pdf", ".rtf", ".tsv", ".txt", ".xls", ".xlsx"}
)


@dataclass(frozen=True)
class Recording:
    """One recording as the corpus describes it, nothing decoded yet.

    Args:
        file: The name people know the recording by, unique in its corpus; the row's id is `<corpus>/<file>`.
        path: Where the audio is; None when `audio_bytes` holds the encoded file.
        emotion: The corpus' own word for the emotion; the label map of `load_corpus` turns it into ours.
        speaker: The speaker within the corpus, as text ("03" stays "03"); the table adds the corpus as prefix.
        gender: Any usual word or letter for female or male; None when unknown.
        session: The recording session, for leave-one-session-out; None when the corpus has none.
        split: `train`, `dev` or `test` where the corpus prescribes it; None otherwise.
        audio_bytes: The encoded audio file itself, for corpora that are not files on disk.
        start: Where the recording begins in its file, in seconds, where only a segment of the file is meant.
        end: Where it ends, in seconds; None for the end of the file.
        line: The line of the table that lists the recording, for messages; None where there is no such table.
        people_of: The corpus that the speaker belongs to, where another reader reads a part of it or its folds: it is
            the prefix then, so that the same person has one name everywhere. None for what `CorpusInfo` says.
    """

    file: str
    path: Path | None
    emotion: str
    speaker: str
    gender: str | None = None
    session: str | None = None
    split: str | None = None
    audio_bytes: bytes | None = None
    people_of: str | None = None
    start: float | None = None
    end: float | None = None
    line: int | None = None


@dataclass(frozen=True)
class LeftOut:
    """One recording that is not in the table.

    Args:
        file: The name people know the recording by.
        reason: Why it was left out, as a sentence part a newcomer understands.
        path: The file on disk, where there is one: two of the same name are then named with their folders.
    """

    file: str
    reason: str
    path: Path | None = None


@dataclass(frozen=True)
class Remark:
    """Something odd about this copy of a corpus, listed among its problems; nothing that stops the work.

    Args:
        text: One sentence without a full stop.
    """

    text: str


@dataclass(frozen=True)
class CorpusInfo:
    """Facts about a corpus that do not depend on the copy at hand.

    Args:
        name: The name recipes use, also the prefix of ids and, see `own_speakers`, of speakers.
        homepage: Where to get the corpus; None for readers of people's own data.
        licence: Its licence; None when it depends on the data.
        citation: How to cite it, in one line; None when there is nothing to cite.
        layout: What the corpus folder looks like, as a sentence part; shown when nothing is found there.
        expected: Number of recordings per emotion (as the reader names them) in the complete corpus.
        expected_files: Gives the `Recording.file` of every recording of the complete corpus, so that a count that
            differs can be explained by names. A function, so that a long list is only read when it is needed.
        speakers: Number of speakers in the complete corpus.
        genders: Number of speakers of each gender in the complete corpus: `{"female": 5, "male": 5}`.
        hours: Length of all recordings of the complete corpus, in hours.
        protocol: The `Protocol` kind that suits the corpus: advice, a recipe's own `protocol` decides.
        language: ISO 639 code of the language spoken; several with `+` between them.
        needs_root: Whether the reader needs a folder or file to read from.
        speakers_known: Whether the speaker of every recording is known. Where not, such recordings have the speaker
            `UNKNOWN_SPEAKER`, and a split by speaker cannot be proven.
        own_speakers: Whether the speakers are this corpus' people, who have the same names under any `corpus_name`.
            False for readers of anybody's data, whose speaker 1 may be somebody else each time.
        caution: What somebody who reads a figure for this corpus has to know, as a sentence without a full stop.
        copies: Whether the corpus is handed around with recordings in it twice (an archive inside its own folder). Then
            the first of several recordings of the same name is read and the others are listed; otherwise they are
            refused, unless the reader lists them itself (`files_by_name`).
    """

    name: str
    homepage: str | None = None
    licence: str | None = None
    citation: str | None = None
    layout: str = "a folder of recordings"
    expected: Mapping[str, int] = field(default_factory=dict)
    expected_files: Callable[[], Iterable[str]] | None = None
    speakers: int | None = None
    genders: Mapping[str, int] = field(default_factory=dict)
    hours: float | None = None
    protocol: str = "leave-one-speaker-out"
    language: str | None = None
    needs_root: bool = True
    speakers_known: bool = True
    own_speakers: bool = True
    caution: str | None = None
    copies: bool = False

    def __getstate__(self) -> dict[str, Any]:
        """For another process all but `expected_files`, a function of the reader: it has done its work by then."""
        return {**vars(self), "expected_files": None}

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise RequestError(
                f"the corpus {self.name} has the protocol {self.protocol!r}", f"one of {', '.join(PROTOCOLS)}"
            )

    @property
    def reported(self) -> dict[str, str | None]:
        """What a report says of the corpus."""
        return {name: getattr(self, name) for name in ("name", "homepage", "licence", "citation", "language")}

    @classmethod
    def joint(cls, infos: Sequence[CorpusInfo]) -> CorpusInfo:
        """Give what is known about several corpora in one table."""
        return cls(
            name="+".join(info.name for info in infos),
            homepage="; ".join(dict.fromkeys(info.homepage for info in infos if info.homepage)) or None,
            licence="; ".join(f"{info.name}: {info.licence}" for info in infos if info.licence) or None,
            citation="\n".join(info.citation for info in infos if info.citation) or None,
            protocol=infos[0].protocol,
            language="+".join(sorted({info.language for info in infos if info.language})) or None,
        )


Item = Recording | LeftOut | Remark
ReadFunction = Callable[..., Iterator[Item]]
"""`read(root: Path | None, **options)`: gives every recording, what is left out and why, and remarks on this copy."""


@dataclass(frozen=True)
class CorpusReader:
    """A corpus that can be read: its facts and its reading function."""

    info: CorpusInfo
    read: ReadFunction


REGISTERED: dict[str, CorpusReader] = {}
"""Every corpus whose module has been imported; `corpora.corpus_reader` imports on demand."""


def register_corpus(info: CorpusInfo) -> Callable[[ReadFunction], ReadFunction]:
    """Make a reading function known under `info.name`.

    The function takes the corpus' root (a Path, or None) and its own options by keyword, and yields `Recording`,
    `LeftOut` and `Remark`. Its keyword parameters are the options a recipe may give; unknown ones are refused before
    it is called. It need not decode audio, normalise genders, add prefixes, sort, or check counts: the table does.

    Args:
        info: The facts about the corpus.

    Returns:
        A decorator that registers the function and gives it back unchanged.

    Example:
        >>> @register_corpus(CorpusInfo(name="mine", layout="<speaker>_<emotion>_<number>.wav"))
        ... def read(root):
        ...     for path in audio_files(root):
        ...         speaker, emotion, _ = path.stem.split("_")
        ...         yield Recording(path.stem, path, emotion, speaker)
    """

    def register(read: ReadFunction) -> ReadFunction:
        REGISTERED[info.name] = CorpusReader(info, read)
        return read

    return register


def audio_files(root: Path | None) -> list[Path]:
    """Find every audio file below a folder, what archive programs leave behind set aside (see `leftovers`).

    Args:
        root: The folder to look in, at any depth.

    Returns:
        The files in a stable order (by relative path with `/`), whatever the file system's own order.

    Raises:
        RequestError: When there is no such folder.
    """
    folder = existing_folder(root)
    found = [p for p in walk(folder) if p.suffix.lower() in AUDIO_SUFFIXES and p.is_file()]
    return sorted((p for p in found if not is_leftover(p, folder)), key=lambda p: p.relative_to(folder).as_posix())


def files_by_name(root: Path | None) -> tuple[dict[str, Path], list[LeftOut]]:
    """Find every audio file below a folder by its name alone, for corpora that list their recordings by it.

    Returns:
        File name → the first file of this name; the others, by their path below the folder.

    Raises:
        RequestError: When there is no such folder.
    """
    folder = existing_folder(root)
    first: dict[str, Path] = {}
    copies = [path for path in audio_files(folder) if first.setdefault(path.name, path) is not path]
    return first, [LeftOut(path.relative_to(folder).as_posix(), ANOTHER_COPY, path) for path in copies]


def leftovers(folder: Path, known: Iterable[Path] = ()) -> list[LeftOut]:
    """List every file of a folder that nothing is known of and that is no table, text or document.

    Args:
        folder: The folder to look in, at any depth.
        known: The files that are read, or whose absence is already explained.

    Returns:
        Recordings that no table names, sound and video under endings that are not read, links to nothing, folders that
        cannot be opened, and what archive programs leave behind (`._x.wav`, `.DS_Store`, all below `__MACOSX`), by
        their path below the folder.
    """
    known = list(known)
    # Without following links: a link to a recording that is read may be one that is not.
    names, closed = {os.path.abspath(path) for path in known}, list[Path]()  # noqa: PTH100
    below = walk(folder, lambda error: closed.append(Path(error.filename)))
    unknown = [path for path in below if os.path.abspath(path) not in names]  # noqa: PTH100
    found = [(path, _why_unread(path, folder)) for path in unknown]
    odd = [(path, reason) for path, reason in found if reason]
    # The same file may be reached over a link; asked only where it matters, since it takes long.
    real = {os.path.realpath(path) for path in known} if odd else set()
    odd = [(path, reason) for path, reason in odd if os.path.realpath(path) not in real]
    odd += [(path, "a folder that cannot be opened") for path in closed]
    named = [LeftOut(path.relative_to(folder).as_posix(), reason, path) for path, reason in odd]
    return sorted(named, key=lambda one: one.file)


def may_be_speech(path: Path, folder: Path) -> bool:
    """Whether what lies below a folder is to be missed where it is not read: sound, video, or a closed folder."""
    sound = path.suffix.lower() in AUDIO_SUFFIXES | _FOREIGN_SOUND and not is_leftover(path, folder)
    return sound or path.is_dir()


def _why_unread(path: Path, folder: Path) -> str | None:
    """Say why nobody reads a file; None where it is no recording."""
    suffix = path.suffix.lower()
    sound = suffix in AUDIO_SUFFIXES or suffix in _FOREIGN_SOUND
    if is_leftover(path, folder):
        shown = sound or path.name.startswith("._") or path.name == ".DS_Store"
        return "a hidden file that an archive program or file manager left behind" if shown else None
    if not path.exists():
        return "a link to nothing: fetch what it stands for (git annex get, datalad get), or mend the link"
    if suffix in AUDIO_SUFFIXES:
        return "no table or annotation of the corpus names it"
    if not sound and (suffix in _DOCUMENTS or _is_text(path)):
        return None
    return f"{f'files ending in {suffix}' if suffix else 'files without an ending'} are not read as sound"


def _is_text(path: Path) -> bool:
    """Whether a file begins like text; an empty one does not."""
    if not path.is_file():  # a pipe or device, which would never end
        return False
    try:
        with path.open("rb") as file:
            head = file.read(1024)
    except OSError:  # then nobody can say that it is no recording
        return False
    binary = bytes({*range(32)} - {*b"\t\n\r\f\x1a\x1b"})
    return head.startswith((b"\xff\xfe", b"\xfe\xff")) or (bool(head) and head == head.translate(None, binary))


def existing_folder(root: Path | None) -> Path:
    """Give the folder back, or say that it is not there.

    Raises:
        RequestError: When `root` is None, missing, or a file.
    """
    if root is None:
        raise RequestError("no corpus folder was given", "the folder of recordings", "give its path as corpus.root")
    if root.is_dir():
        return root
    what = f"{root} is a file" if root.exists() else f"there is no folder {root}"
    raise RequestError(what, "the folder of recordings", "correct corpus.root (relative paths start where you are)")
