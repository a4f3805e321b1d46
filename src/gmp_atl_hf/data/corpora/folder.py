"""Any folder of recordings with one sub-folder per emotion."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...errors import RequestError
from .base import CorpusInfo, Item, LeftOut, Recording, Remark, audio_files, register_corpus

_GROUPS = ("speaker", "emotion", "gender", "session", "split")


@register_corpus(
    CorpusInfo(
        name="folder",
        layout="<emotion>/… with recordings at any depth, and `speaker` telling where the speaker's name is",
        protocol="group-k-fold",
        own_speakers=False,
    )
)
def read(root: Path | None, speaker: str | None = None) -> Iterator[Item]:
    r"""List the recordings of a folder.

    Args:
        root: The folder. The first folder below it names the emotion, unless the expression has a group `emotion`.
        speaker: `parent` where the folder a recording lies in names its speaker (`<emotion>/<speaker>/x.wav`);
            otherwise a regular expression that is searched in the path below `root`, with the group `speaker` and,
            where wanted, `emotion`, `gender`, `session` and `split`. For `happy/anna_07.wav` that would be
            `(?P<speaker>[^/_]+)_\d+\.wav$`.

    Yields:
        Recordings by their path below `root`.

    Raises:
        RequestError: When nothing says who speaks.
    """
    if not speaker:
        raise RequestError(
            "the corpus 'folder' was not told where to find the speakers",
            "the speaker of every recording: folds are made of speakers, so that no voice is trained and tested on",
            r"speaker: parent (in the shell: --options speaker=parent) for <emotion>/<speaker>/x.wav, or a regular "
            r"expression over the path such as "
            r"speaker: '(?P<speaker>[^/_]+)_\d+\.wav$' for happy/anna_07.wav; or use a list of recordings (name: csv)",
        )
    pattern = None if speaker == "parent" else _compiled(speaker)
    by_parent: list[str] = []
    for path in audio_files(root):
        inside = path.relative_to(root or path.anchor)
        file = inside.as_posix()
        fields: dict[str, str | None] = {}
        if pattern is not None:
            match = pattern.search(file)
            if match is None:
                yield LeftOut(file, f"its path does not match {pattern.pattern}", path)
                continue
            fields = match.groupdict()
        elif len(inside.parts) == 2:
            raise RequestError(
                f"{file} lies directly in the folder of its emotion, so no folder names its speaker",
                "<emotion>/<speaker>/x.wav, as speaker: parent says",
                "put each speaker's recordings into a folder, or give speaker a regular expression over the path",
            )
        else:
            fields["speaker"] = path.parent.name
        emotion = fields.get("emotion") or (inside.parts[0] if len(inside.parts) > 1 else None)
        if emotion is None:
            yield LeftOut(file, "it lies in no folder that names its emotion", path)
            continue
        if pattern is None:
            by_parent.append(file)
        yield Recording(
            file,
            path,
            emotion,
            fields.get("speaker") or "",
            fields.get("gender"),
            fields.get("session"),
            fields.get("split"),
        )
    yield from _doubts_of_parents(by_parent)


def _doubts_of_parents(files: Sequence[str]) -> Iterator[Remark]:
    """Tell of `<emotion>/<speaker>/<take>/x.wav`, where a folder of takes passes for a speaker.

    Yields:
        That files lie at different depths.

    Raises:
        RequestError: Folders of one name lie in folders of different names: then it is no speaker's, or nobody knows.
    """
    of_depth: dict[int, str] = {}
    places: dict[str, dict[tuple[str, ...], str]] = {}
    for file in files:
        between, speaker = file.split("/")[1:-2], file.split("/")[-2]
        of_depth.setdefault(len(between), file)
        places.setdefault(speaker, {}).setdefault(tuple(between), file)
    if doubtful := next((list(found.values()) for found in places.values() if len(found) > 1), None):
        raise RequestError(
            f"{doubtful[0]} and {doubtful[1]} leave open which of their folders names the speaker",
            "<emotion>/<speaker>/x.wav, as speaker: parent says",
            "give speaker a regular expression over the path: '^[^/]+/(?P<speaker>[^/]+)/' for the first folder in "
            "that of the emotion, '(?P<speaker>[^/]+)/[^/]+$' for the last one",
        )
    if len(of_depth) > 1:
        first, second = list(of_depth.values())[:2]
        yield Remark(f"{first} and {second} lie at different depths: is the last folder of both that of the speaker?")


def _compiled(expression: str) -> re.Pattern[str]:
    """Compile the expression for the speaker, or say what is wrong with it."""
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise RequestError(
            f"speaker: {expression!r} is no regular expression ({error})",
            "parent, or a regular expression",
            "correct it",
        ) from error
    unknown = [group for group in pattern.groupindex if group not in _GROUPS]
    if "speaker" not in pattern.groupindex or unknown:
        what = f"has the group {unknown[0]!r}" if unknown else "has no group called speaker"
        raise RequestError(
            f"speaker: {expression!r} {what}",
            f"parent, or a regular expression with (?P<speaker>…) and no other groups than {', '.join(_GROUPS[1:])}",
            r"for happy/anna_07.wav: (?P<speaker>[^/_]+)_\d+\.wav$",
        )
    return pattern
