"""From a corpus to the table: every recording is labelled, decoded once, and either in the table or accounted for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from datasets import ClassLabel, Dataset, concatenate_datasets
from tqdm.auto import tqdm

from ..errors import RequestError
from .audio import MINIMUM_SAMPLES, SAMPLING_RATE, audio_length, read_audio
from .columns import COLUMNS, make_table, validate_table
from .corpora import CorpusInfo, LeftOut, Recording, corpus_names
from .duplicates import Sound, hear, odd_sounds, sounds_in_both
from .labels import LabelMap, alike, apply_label_map, check_label_map, replace_column
from .listing import Listed, list_recordings, refuse_duplicates, some, with_prefix
from .segments import cut_segment
from .spelling import tidy_text

__all__ = [
    "COLUMNS",
    "Corpus",
    "concatenate",
    "load_corpus",
    "make_table",
    "read_corpora",
    "read_corpus",
    "validate_table",
]

_SHOWN = 5


@dataclass(frozen=True)
class Corpus:
    """A corpus that has been read.

    Args:
        table: One row per recording, sorted by file; columns as in `COLUMNS`.
        left_out: Every recording that is not in the table, by id, with the reason.
        info: What is known about the corpus, whatever copy of it was read.
        problems: What is odd about this copy, one sentence each; nothing that stops the work.
        sounds: What tells the sound of each recording from others, by id; those that were decoded and are not silent.
    """

    table: Dataset
    left_out: list[LeftOut]
    info: CorpusInfo
    problems: list[str] = field(default_factory=list)
    sounds: Mapping[str, bytes] = field(default_factory=dict, repr=False)


def load_corpus(
    name: str,
    root: str | os.PathLike[str] | None = None,
    *,
    labels: LabelMap | None = None,
    short_clips: str = "error",
    unreadable: str = "error",
    check_audio: bool = True,
    corpus_name: str | None = None,
    **options: Any,
) -> Dataset:
    """Read a corpus into the table.

    Args:
        name: Which corpus: emodb, demo, folder, csv, hub, … (`gmp_atl_hf.data.corpora.corpus_names()` lists them).
        root: Its folder (for csv: the file).
        labels: The corpus' words for emotions to the ones wanted; two words may share one, None drops. By default all
            of the corpus' own, and always sorted by name.
        short_clips: What to do with recordings below one frame (400 samples at 16 kHz): `error`, `pad` with zeros (when
            they are read for the model), or `drop`.
        unreadable: What to do with recordings that cannot be read: `error` or `drop`.
        check_audio: Whether to decode every recording once. Without it only headers are read where they can be trusted,
            and damage shows up in training.
        corpus_name: Prefix of ids in place of `name`, to tell two folders of recordings apart; of speakers too where
            the reader reads anybody's data (csv, folder, hub, demo): people of a known corpus stay who they are.
        **options: The reader's own options.

    Returns:
        The table. `read_corpus` gives what was left out as well.

    Raises:
        RequestError: When the corpus cannot be read as asked.

    Example:
        >>> table = load_corpus("emodb", "data/emodb", labels={"happiness": "happy", "boredom": None, …})
    """
    return read_corpus(
        name,
        root,
        labels=labels,
        short_clips=short_clips,
        unreadable=unreadable,
        check_audio=check_audio,
        corpus_name=corpus_name,
        **options,
    ).table


def read_corpus(
    name: str,
    root: str | os.PathLike[str] | None = None,
    *,
    labels: LabelMap | None = None,
    short_clips: str = "error",
    unreadable: str = "error",
    check_audio: bool = True,
    corpus_name: str | None = None,
    **options: Any,
) -> Corpus:
    """Read a corpus into the table, with an account of what is not in it.

    Args:
        name: As in `load_corpus`.
        root: As in `load_corpus`.
        labels: As in `load_corpus`.
        short_clips: As in `load_corpus`.
        unreadable: As in `load_corpus`.
        check_audio: As in `load_corpus`.
        corpus_name: As in `load_corpus`.
        **options: The reader's own options.

    Returns:
        The table, what was left out and why, and what is odd.

    Raises:
        RequestError: When the corpus cannot be read as asked.
    """
    entry = {"short_clips": short_clips, "unreadable": unreadable, "check_audio": check_audio}
    return read_corpora([{"name": name, "root": root, "corpus_name": corpus_name, **entry, **options}], labels=labels)


def read_corpora(entries: Sequence[Mapping[str, Any]], *, labels: LabelMap | None = None) -> Corpus:
    """Read one or several corpora into one table.

    Args:
        entries: One mapping per corpus with the arguments of `read_corpus`. An entry's own `labels` take the place of
            the common ones.
        labels: One map for all corpora without their own; each word has to occur in at least one of them.

    Returns:
        The table of all, what was left out and why, and what is odd.

    Raises:
        RequestError: When a corpus cannot be read as asked.
    """
    if not entries:
        raise RequestError("no corpus was given", "at least one", "give corpus: {name: …, root: …}")
    if any(not entry.get("name") for entry in entries):
        raise RequestError(
            "a corpus without a name", f"name: one of {', '.join(corpus_names())}", "corpus: {name: emodb}"
        )
    labels = _tidy_keys(labels)
    rest = [dict(entry) for entry in entries]
    handling = [_Handling.take(entry) for entry in rest]
    maps: list[LabelMap | None] = [
        labels if (own := entry.pop("labels", None)) is None else _tidy_keys(own) for entry in rest
    ]
    listed = [list_recordings(**entry) for entry in rest]
    for one in {id(one): one for one in maps if one is not None}.values():
        check_label_map(
            (r for corpus, own in zip(listed, maps, strict=True) if own is one for r in corpus.recordings), one
        )
    corpora = []
    for corpus, own, handle in zip(listed, maps, handling, strict=True):
        if own is not None:
            kept, dropped = apply_label_map(corpus.recordings, own)
            corpus = replace(corpus, recordings=kept, left_out=corpus.left_out + with_prefix(corpus.name, dropped))
        corpora.append(_to_table(corpus, handle))
    joint = concatenate(corpora)
    return replace(joint, problems=joint.problems + alike(joint.table.features["emotion"].names))


def _tidy_keys(labels: LabelMap | None) -> LabelMap | None:
    """Spell the corpus' words in a label map as the corpus' own are spelt."""
    if not isinstance(labels, Mapping):
        return labels
    return {tidy_text(word) if isinstance(word, str) else word: label for word, label in labels.items()}


def concatenate(corpora: Sequence[Corpus]) -> Corpus:
    """Join corpora that have been read.

    The joint table has every label of any of them; a label that some corpus lacks is noted in `problems`, because it is
    often the same emotion under another name.

    Args:
        corpora: What to join, in the order of the rows wanted.

    Returns:
        One corpus.

    Raises:
        RequestError: When two of them share ids.
    """
    if len(corpora) == 1:
        return corpora[0]
    names = [corpus.table.features["emotion"].names for corpus in corpora]
    labels = sorted({label for own in names for label in own})
    refuse_duplicates(one for corpus in corpora for one in corpus.table["id"])
    tables, problems = [], [problem for corpus in corpora for problem in corpus.problems]
    for corpus, own in zip(corpora, names, strict=True):
        lacking = [label for label in labels if label not in own]
        if lacking:
            problems.append(f"{corpus.info.name} has no {', '.join(lacking)}, which another corpus of this table has")
        numbers = [labels.index(own[number]) for number in corpus.table["emotion"]]
        tables.append(replace_column(corpus.table, "emotion", numbers, feature=ClassLabel(names=labels)))
    sounds = {one: digest for corpus in corpora for one, digest in corpus.sounds.items()}
    problems += sounds_in_both(corpus.sounds for corpus in corpora)
    infos = [corpus.info for corpus in corpora]
    joint = CorpusInfo(
        name="+".join(info.name for info in infos),
        homepage="; ".join(dict.fromkeys(info.homepage for info in infos if info.homepage)) or None,
        licence="; ".join(f"{info.name}: {info.licence}" for info in infos if info.licence) or None,
        citation="\n".join(info.citation for info in infos if info.citation) or None,
        protocol=infos[0].protocol,
        language="+".join(sorted({info.language for info in infos if info.language})) or None,
    )
    left_out = [one for corpus in corpora for one in corpus.left_out]
    return Corpus(concatenate_datasets(tables), left_out, joint, problems, sounds)


@dataclass(frozen=True)
class _Handling:
    """How recordings that are not fit to use are handled."""

    short_clips: str = "error"
    unreadable: str = "error"
    check_audio: bool = True

    @classmethod
    def take(cls, entry: dict[str, Any]) -> _Handling:
        """Take the fields of this class out of an entry, and refuse values that mean nothing."""
        taken = cls(**{name: entry.pop(name) for name in cls.__dataclass_fields__ if name in entry})
        for name, choices in (("short_clips", ("error", "pad", "drop")), ("unreadable", ("error", "drop"))):
            if getattr(taken, name) not in choices:
                raise RequestError(
                    f"{name} is {getattr(taken, name)!r}", f"one of {', '.join(choices)}", f"{name}: drop"
                )
        return taken


def _source(recording: Recording) -> dict[str, Any]:
    """Give the audio cell of a recording, which is also a form `read_audio` takes."""
    if recording.audio_bytes is not None:
        source: dict[str, Any] = {"bytes": recording.audio_bytes, "path": recording.file}
    elif recording.path is not None:
        source = {"bytes": None, "path": str(recording.path.absolute())}
    else:
        raise TypeError(f"the reader gave neither a path nor bytes for {recording.file}")
    if recording.start is None and recording.end is None:
        return source
    return {"bytes": cut_segment(source, recording.start or 0.0, recording.end), "path": recording.file}


def _to_table(corpus: Listed, handle: _Handling) -> Corpus:
    """Measure every recording and build the table from those that are fit to use."""
    recordings = sorted(corpus.recordings, key=lambda recording: recording.file)
    sounds = _sounds(corpus.name, recordings, handle.check_audio)
    left_out = list(corpus.left_out)
    broken = [(r.file, error) for r, error in zip(recordings, sounds, strict=True) if isinstance(error, RequestError)]
    if broken and handle.unreadable == "error":
        raise RequestError(
            f"{len(broken)} of {len(recordings)} recordings of {corpus.name} cannot be read:"
            + "".join(f"\n    {corpus.name}/{file}: {error.found}" for file, error in broken[:_SHOWN])
            + (f"\n    and {len(broken) - _SHOWN} more" if len(broken) > _SHOWN else ""),
            broken[0][1].expected,
            f"{broken[0][1].fix}; or leave out all such files (they are listed): unreadable: drop",
        )
    left_out += with_prefix(corpus.name, [LeftOut(file, error.found) for file, error in broken])
    sound = [(r, *one) for r, one in zip(recordings, sounds, strict=True) if not isinstance(one, RequestError)]
    heard = [(r, one) for r, _, one in sound]
    rows = [(r, source, one.num_samples) for r, source, one in sound]
    short = [(r.file, length) for r, _, length in rows if length < MINIMUM_SAMPLES]
    if short and handle.short_clips == "error":
        named = [f"{corpus.name}/{file} has {n} samples ({1000 * n / SAMPLING_RATE:.1f} ms)" for file, n in short]
        raise RequestError(
            f"{len(short)} of {len(recordings)} recordings are shorter than one frame: {some(named)}",
            f"at least {MINIMUM_SAMPLES} samples at 16 kHz (25 ms)",
            "short_clips: pad (zeros at the end) or short_clips: drop (they are listed)",
        )
    if handle.short_clips == "drop":
        reason = f"shorter than one frame ({MINIMUM_SAMPLES} samples at 16 kHz)"
        left_out += with_prefix(corpus.name, [LeftOut(file, f"{n} samples: {reason}") for file, n in short])
        rows = [row for row in rows if row[-1] >= MINIMUM_SAMPLES]
    if not rows:
        raise RequestError(
            f"no recording of {corpus.name} is left; {len(left_out)} were left out, for example "
            f"{left_out[0].file}: {left_out[0].reason}",
            "at least one recording",
            "loosen labels, short_clips or unreadable",
        )
    left_out.sort(key=lambda one: one.file)
    problems = corpus.problems + odd_sounds(corpus.name, heard)
    digests = {f"{corpus.name}/{r.file}": s.digest for r, s in heard if s.digest is not None}
    return Corpus(_build(corpus.name, rows), left_out, corpus.info, problems, digests)


def _sounds(
    name: str, recordings: Sequence[Recording], decode: bool
) -> list[tuple[dict[str, Any], Sound] | RequestError]:
    """Give the audio cell of each recording, its length and what tells it from others, or what is wrong with it."""

    def sound(recording: Recording) -> tuple[dict[str, Any], Sound] | RequestError:
        try:
            source = _source(recording)
            return source, hear(read_audio(source)) if decode else Sound(audio_length(source))
        except RequestError as error:
            return error

    # Decoding and resampling leave the interpreter lock, so threads are enough and nothing has to be copied.
    with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool:
        work = pool.map(sound, recordings)
        return list(tqdm(work, total=len(recordings), desc=f"checking recordings of {name}", unit="clip", disable=None))


def _build(corpus: str, rows: Sequence[tuple[Recording, dict[str, Any], int]]) -> Dataset:
    """Build the table from recordings that are fit to use, each with its audio and number of samples at 16 kHz."""
    recordings = [recording for recording, _, _ in rows]
    return make_table(
        {
            "id": [f"{corpus}/{r.file}" for r in recordings],
            "file": [r.file for r in recordings],
            "audio": [source for _, source, _ in rows],
            "emotion": [r.emotion for r in recordings],
            "gender": [r.gender for r in recordings],
            "speaker": [f"{r.people_of}/{r.speaker}" for r in recordings],
            "session": [r.session for r in recordings],
            "split": [r.split for r in recordings],
            "corpus": [corpus] * len(recordings),
            # Clips below one frame are padded where they are read for the model: see `read_clip`.
            "num_samples": [max(length, MINIMUM_SAMPLES) for _, _, length in rows],
        },
        sorted({r.emotion for r in recordings}),
    )
