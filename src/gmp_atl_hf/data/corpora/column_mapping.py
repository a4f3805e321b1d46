"""Which column of somebody's own data holds what: the column mapping of the readers `csv` and `hub`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...errors import RequestError, did_you_mean, nearest
from .tables import heading

NEEDED = ("emotion", "speaker")
OPTIONAL = ("gender", "session", "split")

_USUAL: Mapping[str, tuple[str, ...]] = {
    "file": ("path", "filename", "file_path", "wav", "audio", "audio_path", "recording", "clip", "name"),
    "audio": ("speech", "sound", "wav", "file"),
    "emotion": ("label", "class", "category", "target", "emo"),
    "speaker": ("spk", "actor", "subject", "person", "client_id", "voice"),
    "gender": ("sex",),
    "split": ("part", "subset", "partition", "set"),
}
"""What columns are called in other people's tables, to suggest one."""

_WHY_SPEAKER = " (folds are made of speakers, so that no voice is both trained and tested on)"
_WHY_SPEAKER_OF_SPEECH = " (some speakers are held out, and none gives more than its share)"
_NOBODY_KNOWS = "; where nobody knows the speakers: columns: {emotion: null, speaker: null}"


def column_of_field(
    columns: Mapping[str, str | None] | None,
    available: Sequence[str],
    where: str,
    needed: Sequence[str] = NEEDED,
    optional: Sequence[str] = OPTIONAL,
) -> dict[str, str]:
    """Find the column of every field; one that the mapping does not name is looked for under its own name.

    Args:
        columns: Field to column, as in `{emotion: label, speaker: spk}`; None for a field that shall not be read.
        available: The columns there are.
        where: What the columns belong to, for messages.
        needed: Fields that have to be found.
        optional: Fields that may be absent, unless the mapping names a column for them.

    Raises:
        RequestError: When the mapping names an unknown field, or a needed or named column is not there.
    """
    mapping = dict(columns or {})
    known = [*needed, *optional]
    for field in mapping:
        if field not in known:
            raise RequestError(
                f"columns names the field {field!r}",
                f"fields to the left ({', '.join(known)}), columns of the data to the right",
                did_you_mean(field, known, f"take {field!r} out of columns"),
            )
    found = {}
    for field in known:
        column = mapping.get(field, field)
        there = None if column is None else heading(column, available)
        if there is not None:
            found[field] = there
        elif field in needed or mapping.get(field) is not None:
            usual = (heading(name, available) for name in _USUAL.get(field, ()))
            near = nearest(column, available) or next(filter(None, usual), None)
            mapped = f"{{{field}: {near or '<one of its columns>'}}}"
            speech = "emotion" not in known
            why = "" if field != "speaker" else _WHY_SPEAKER_OF_SPEECH if speech else _WHY_SPEAKER
            nobody = _NOBODY_KNOWS if speech and field == "speaker" else ""
            raise RequestError(
                f"{where} has no column {column!r} to read the {field} from; its columns are {', '.join(available)}",
                f"a column for each of {', '.join(needed)}{why}",
                f"columns: {mapped} (in the shell: --options 'columns={mapped}'){nobody}",
            )
    return found
