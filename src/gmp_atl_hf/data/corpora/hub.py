"""Any dataset of the Hugging Face Hub, or one saved by `datasets` on disk, with an audio column."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import RequestError
from .audio_folder import texts_of_metadata, unnamed_recordings
from .base import CorpusInfo, Item, Recording, Remark, register_corpus
from .column_mapping import column_of_field
from .segment_columns import TimeColumns

_KNOWN_SPLITS = {"train": "train", "validation": "dev", "valid": "dev", "dev": "dev", "test": "test"}


@register_corpus(
    CorpusInfo(
        name="hub",
        layout="a dataset with an audio column, the emotion and the speaker (other column names through `columns`)",
        protocol="group-k-fold",
        own_speakers=False,
        needs_root=False,
    )
)
def read(
    root: Path | None,
    path: str | None = None,
    config: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    columns: Mapping[str, str | None] | None = None,
) -> Iterator[Item]:
    """List the recordings of a dataset.

    Audio that the dataset stores inside itself is held in memory.

    Args:
        root: A local folder, in place of `path`.
        path: `owner/name` on the Hub, or a local folder (saved by `save_to_disk`, or one that `load_dataset` reads).
        config: The dataset's configuration, where it has several.
        split: The split to read, in `datasets`' notation (`train+test`). By default all, each recording with the split
            it comes from, so that a protocol of kind `given` can follow the dataset's own split.
        revision: A version of the dataset on the Hub.
        columns: Field to column: `{audio: speech, emotion: label, speaker: speaker_id}`; fields not named are looked
            for under their own names. `file` is optional: by default the audio's own file name.

    Yields:
        Recordings by split and file name.

    Raises:
        RequestError: When the dataset, a split or a needed column is missing.
    """
    place = path or (str(root) if root is not None else None)
    if place is None:
        raise RequestError(
            "no dataset was named for the corpus hub", "its name on the Hub", "give corpus.path: owner/name"
        )
    local = Path(place).expanduser()
    parts, of_recordings = _parts(place, local, config, split, revision)
    texts = texts_of_metadata(local) if of_recordings else {}
    known: list[Path] = []
    for name, part in parts.items():
        for item in _recordings(place, name, part, columns, texts):
            if isinstance(item, Recording) and item.path is not None:
                known.append(item.path)
            yield item
    if of_recordings and split is None and config is None:
        yield from unnamed_recordings(local, known)


def _parts(
    place: str, local: Path, config: str | None, split: str | None, revision: str | None
) -> tuple[dict[str, Any], bool]:
    """Load the dataset; give its splits by name, "" for one that was chosen, and whether it is a local AudioFolder."""
    import datasets

    of_recordings = False
    saved = local.is_dir() and any((local / mark).is_file() for mark in ("state.json", "dataset_dict.json"))
    try:
        if saved:
            loaded = datasets.load_from_disk(str(local))
            if split is not None and isinstance(loaded, datasets.DatasetDict):
                loaded = datasets.concatenate_datasets([loaded[one.strip()] for one in split.split("+")])
        else:
            where = str(local) if local.is_dir() else place
            builder = datasets.load_dataset_builder(where, config, revision=revision)
            if getattr(builder, "BASE_FEATURE", None) is datasets.Audio:  # a folder of recordings with metadata.csv
                builder.BASE_FEATURE = _stored_audio()
                of_recordings = local.is_dir()
            builder.download_and_prepare()
            loaded = builder.as_dataset(split=split)
    except (OSError, ValueError, KeyError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:  # `datasets` wraps what went wrong in "An error occurred"
            cause = cause.__cause__
        raise RequestError(
            f"the dataset {place} cannot be loaded: {error}" + (f" ({cause})" if cause is not error else ""),
            "a dataset on the Hub (owner/name) or a local folder, with this configuration and split",
            "check path, config, split and revision; for a private dataset log in first: hf auth login",
        ) from error
    return dict(loaded) if isinstance(loaded, datasets.DatasetDict) else {"": loaded}, of_recordings


def _stored_audio() -> Any:
    """Give an audio feature that takes down where a recording is; `datasets`' own wants torchcodec even for that."""
    from datasets import Audio

    class StoredAudio(Audio):
        def encode_example(self, value: Any) -> dict[str, Any]:
            """Take down the path of a recording."""
            return {"bytes": None, "path": str(value)} if isinstance(value, str | Path) else dict(value)

    return StoredAudio


def _recordings(
    place: str,
    split: str,
    part: Any,
    columns: Mapping[str, str | None] | None,
    texts: Mapping[str, Mapping[str, str]],
) -> Iterator[Item]:
    """List the recordings of one split; `texts` are the rows of tables beside them, by the path of the recording."""
    from datasets import Audio, ClassLabel

    found = column_of_field(
        columns,
        part.column_names,
        place,
        needed=("audio", "emotion", "speaker"),
        optional=("file", "gender", "session", "split"),
    )
    audio = found.pop("audio")
    times = TimeColumns.of(name for name in part.column_names if name not in found.values()).seconds
    if begin := times["start"]:
        rest = [*begin[:1], *(times["end"] or times["duration"])[:1]]
        yield Remark(f"of {place} {' and '.join(rest)} {'are' if rest[1:] else 'is'} not read: every row is read whole")
    if not isinstance(part.features[audio], Audio):
        raise RequestError(
            f"the column {audio!r} of {place} holds {part.features[audio]}, not audio",
            "a column of type Audio",
            "name it: columns: {audio: <column>}",
        )
    # Undecoded, so that the one reader decodes it, as everywhere, and torchcodec is not needed.
    part = part.cast_column(audio, Audio(decode=False))
    names = {field: part.features[column] for field, column in found.items()}
    files = _file_names(part, audio, found.pop("file", None))
    for number, row in enumerate(part):
        written = texts.get(os.path.realpath((row[audio] or {}).get("path") or ""), {})
        fields = {field: _text(row[column], names[field], ClassLabel) for field, column in found.items()}
        # Where there is no value to `datasets`, there is none in the table, whatever stands for it.
        fields |= {field: written[found[field]] for field in fields if fields[field] and found[field] in written}
        file = f"{split}/{files[number]}" if split else files[number]
        cell = row[audio] or {"bytes": None, "path": f"row {number} of {place}, which has no audio"}
        yield Recording(
            file,
            Path(cell["path"]) if cell["bytes"] is None else None,
            fields["emotion"],
            fields["speaker"],
            gender=fields.get("gender"),
            session=fields.get("session"),
            split=fields.get("split", _KNOWN_SPLITS.get(split)),
            audio_bytes=cell["bytes"],
        )


def _file_names(part: Any, audio: str, column: str | None) -> list[str]:
    """Give every row a name: that of a column, else the audio's file name if these are unique, else the row number."""
    if column is not None:
        return [str(name) for name in part[column]]
    import pyarrow.compute as pc  # type: ignore[import-untyped]

    # Through Arrow, so that the sound itself is not read to get at its name.
    paths = pc.struct_field(part.flatten_indices().data.column(audio), "path").to_pylist()
    names = [Path(path).name if path else "" for path in paths]
    if "" not in names and len(set(names)) == len(names):
        return names
    return [f"{number:06d}" for number in range(len(names))]


def _text(value: Any, feature: Any, class_label: Any) -> str:
    """Give a cell as text, class numbers as their names."""
    if value is None or (isinstance(feature, class_label) and value < 0):
        return ""
    return str(feature.int2str(value)) if isinstance(feature, class_label) else str(value)
