"""From a corpus to the table: every recording is labelled, decoded once, and either in the table or accounted for."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, concatenate_datasets
from tqdm.auto import tqdm

from ..errors import RequestError, counted
from .audio import MINIMUM_SAMPLES, SAMPLING_RATE
from .columns import COLUMNS, make_table, replace_column, validate_table
from .corpora import CorpusInfo, LeftOut, Recording, corpus_names
from .corpus_index import CorpusIndex
from .duplicates import AudioDigest, describe_duplicates, shared_recordings
from .labels import LabelMap, alike, apply_label_map, check_label_map, no_emotions, tidy_label_map
from .listing import Listed, list_plain_speech, list_recordings, refuse_duplicates, with_prefix
from .option_kinds import refuse_other_kind
from .segments import cut_segment, forget_decoded
from .spelling import first_few

__all__ = ["COLUMNS", "Corpus", "concatenate", "load_corpus", "make_table", "read_corpora", "validate_table"]

_SHOWN = 5


@dataclass(frozen=True)
class Corpus:
    """A corpus that has been read.

    Args:
        table: One row per recording, sorted by file; columns as in `COLUMNS`.
        left_out: Every recording that is not in the table, by id, with the reason.
        info: What is known about the corpus, whatever copy of it was read.
        problems: What is odd about this copy, one sentence each; nothing that stops the work.
        digests: Hash of the samples of each recording, by id; of those that were decoded and are not silent.
        dropped: The same of recordings that the label map drops, where they were asked for.
        index: What was measured; a run saves it once it writes anything.
    """

    table: Dataset
    left_out: list[LeftOut]
    info: CorpusInfo
    problems: list[str] = field(default_factory=list)
    digests: Mapping[str, str] = field(default_factory=dict, repr=False)
    dropped: Mapping[str, str] = field(default_factory=dict, repr=False)
    index: CorpusIndex = field(default_factory=CorpusIndex, repr=False)


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
        The table. `gmp_atl_hf.data.table.read_corpora` gives what was left out as well.

    Raises:
        RequestError: When the corpus cannot be read as asked.

    Example:
        >>> table = load_corpus(  # doctest: +SKIP
        ...     "emodb", "data/emodb", labels={"anger": "angry", "happiness": "happy", "boredom": None}
        ... )
    """
    handling = {"short_clips": short_clips, "unreadable": unreadable, "check_audio": check_audio}
    entry = {"name": name, "root": root, "corpus_name": corpus_name, **handling, **options}
    return read_corpora([entry], labels=labels).table


def read_corpora(
    entries: Sequence[Mapping[str, Any]],
    *,
    labels: LabelMap | None = None,
    index: Path | None = None,
    digest_dropped: bool = False,
) -> Corpus:
    """Read one or several corpora into one table.

    Args:
        entries: One mapping per corpus with the arguments of `load_corpus`. An entry's own `labels` take the place of
            the common ones.
        labels: One map for all corpora without their own; each word has to occur in at least one of them.
        index: Folder of a run that has kept, or is to keep, what is measured of the recordings: see `CorpusIndex`.
        digest_dropped: Whether to decode the recordings that a label map drops too, to know them elsewhere.

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
    labels = tidy_label_map(labels)
    rest = [dict(entry) for entry in entries]
    handling = [_Handling.take(entry) for entry in rest]
    maps: list[LabelMap | None] = [
        labels if (own := entry.pop("labels", None)) is None else tidy_label_map(own) for entry in rest
    ]
    listed = [list_recordings(**entry) for entry in rest]
    for each in {id(each): each for each in maps if each is not None}.values():
        check_label_map(
            (r for corpus, own in zip(listed, maps, strict=True) if own is each for r in corpus.recordings), each
        )
    measured, corpora, digests = CorpusIndex(index), [], dict[str, str]()
    for corpus, own, handle in zip(listed, maps, handling, strict=True):
        if own is not None:
            kept, dropped = apply_label_map(corpus.recordings, own)
            if digest_dropped:
                staying = {recording.file for recording in kept}
                others = [recording for recording in corpus.recordings if recording.file not in staying]
                # One that cannot be read has no samples that could be found elsewhere.
                digests |= _digests(corpus.name, _measure(replace(corpus, recordings=others), True, measured)[0])
            corpus = replace(corpus, recordings=kept, left_out=corpus.left_out + with_prefix(corpus.name, dropped))
        corpora.append(_to_table(corpus, handle, measured))
    joint = concatenate(corpora)
    names, named = joint.table.features["emotion"].names, {label for own in maps if own for label in own.values()}
    counts = Counter(names[number] for number in joint.table["emotion"])
    problems = joint.problems + alike(names) + no_emotions(counts, named)
    return replace(joint, problems=problems, dropped=digests, index=measured)


def draw_plain_speech(
    name: str, folder: Path, seconds: float, seed: int, short_clips: str, index: CorpusIndex
) -> tuple[Corpus, int]:
    """Draw whole recordings from a folder of plain speech until there are so many seconds, or no more recordings.

    Only what is drawn is decoded, so that a large folder costs little more than a small one; of the others the headers
    are read. Fewer seconds give the first of the same recordings. One that cannot be read is left out and listed, and
    the next is drawn in its place.

    Args:
        name: The prefix of its ids and of its one speaker, `<name>/unknown`.
        folder: The folder, in any layout.
        seconds: How much is wanted.
        seed: Of the draw.
        short_clips: What to do with recordings below one frame: `error`, `pad` or `drop`.
        index: What is known of recordings, and is to keep what is measured.

    Returns:
        What was drawn, in that order, under one label that means nothing, and how many recordings the folder has, as
        far as it is known that they can be read.

    Raises:
        RequestError: There are no recordings, or one of them is too short.
    """
    listed = list_plain_speech(name, folder)
    handle = _Handling(short_clips, "drop", if_none_is_left=f"correct {folder} or what is in it")
    every = _to_table(listed, replace(handle, check_audio=False), index)
    of_file = {recording.file: recording for recording in listed.recordings}
    order = every.table.select(np.random.default_rng(seed).permutation(len(every.table)))
    place = {file: number for number, file in enumerate(order["file"])}
    readable, broken, wanted, tried = list[_Row](), list[tuple[str, RequestError]](), seconds, 0
    # A header says how long a recording is, and not that its sound can be decoded: then there is more to draw.
    while wanted > 0 and tried < len(order):
        rest = order.select(range(tried, len(order)))
        files = rest.select(range(enough_rows(rest, wanted)))["file"]
        found, damaged = _measure(replace(listed, recordings=[of_file[file] for file in files]), True, index)
        readable, broken, tried = readable + found, broken + damaged, tried + len(files)
        wanted = seconds - sum(row.num_samples for row in readable if handle.keeps(row)) / SAMPLING_RATE
    drawn = _from_measured(replace(listed, left_out=every.left_out), handle, readable, broken)
    rows = np.argsort([place[file] for file in drawn.table["file"]])
    return replace(drawn, table=drawn.table.select(rows)), len(every.table) - len(broken)


def enough_rows(table: Dataset, seconds: float) -> int:
    """How many of the first rows of a table have so many seconds together; all of them if there are fewer seconds."""
    together = np.cumsum(np.asarray(table["num_samples"]))
    return min(int(np.searchsorted(together, seconds * SAMPLING_RATE)) + 1, len(table))


def concatenate(corpora: Sequence[Corpus]) -> Corpus:
    """Join corpora that have been read, in their order; the joint table has every label of any of them.

    A label that some corpus lacks is noted in `problems`: it is often the same emotion under another name.

    Raises:
        RequestError: When two of them share ids.
    """
    if len(corpora) == 1:
        return corpora[0]
    names = [corpus.table.features["emotion"].names for corpus in corpora]
    labels = sorted({label for own in names for label in own})
    refuse_duplicates(name for corpus in corpora for name in corpus.table["id"])
    tables, problems = [], [problem for corpus in corpora for problem in corpus.problems]
    for corpus, own in zip(corpora, names, strict=True):
        lacking = [label for label in labels if label not in own]
        if lacking:
            problems.append(f"{corpus.info.name} has no {', '.join(lacking)}, which another corpus of this table has")
        numbers = [labels.index(own[number]) for number in corpus.table["emotion"]]
        tables.append(replace_column(corpus.table, "emotion", numbers, feature=ClassLabel(names=labels)))
    return Corpus(
        concatenate_datasets(tables),
        [left_out for corpus in corpora for left_out in corpus.left_out],
        CorpusInfo.joint([corpus.info for corpus in corpora]),
        problems + shared_recordings(corpus.digests for corpus in corpora),
        {name: digest for corpus in corpora for name, digest in corpus.digests.items()},
    )


@dataclass(frozen=True)
class _Handling:
    """How recordings that are not fit to use are handled, and what helps where none is."""

    short_clips: str = "error"
    unreadable: str = "error"
    check_audio: bool = True
    if_none_is_left: str = "loosen labels, short_clips or unreadable"

    @classmethod
    def take(cls, entry: dict[str, Any]) -> _Handling:
        """Take the options of a corpus out of an entry, and refuse values that mean nothing."""
        options = ("short_clips", "unreadable", "check_audio")
        taken = cls(**{name: entry.pop(name) for name in options if name in entry})
        refuse_other_kind("check_audio", taken.check_audio, bool, "check_audio: false")
        for name, choices in (("short_clips", ("error", "pad", "drop")), ("unreadable", ("error", "drop"))):
            if getattr(taken, name) not in choices:
                raise RequestError(
                    f"{name} is {getattr(taken, name)!r}", f"one of {', '.join(choices)}", f"{name}: drop"
                )
        return taken

    def keeps(self, row: _Row) -> bool:
        """Whether a recording is long enough, or may be short."""
        return self.short_clips != "drop" or row.num_samples >= MINIMUM_SAMPLES


@dataclass(frozen=True)
class _Row:
    """A recording that could be read, with its audio cell."""

    recording: Recording
    audio: dict[str, Any]
    digest: AudioDigest

    @property
    def num_samples(self) -> int:
        return self.digest.num_samples


def _to_table(corpus: Listed, handle: _Handling, index: CorpusIndex) -> Corpus:
    """Measure every recording and build the table from those that are fit to use."""
    return _from_measured(corpus, handle, *_measure(corpus, handle.check_audio, index))


def _from_measured(
    corpus: Listed, handle: _Handling, readable: Sequence[_Row], broken: Sequence[tuple[str, RequestError]]
) -> Corpus:
    """Build the table from what was measured of recordings and is fit to use."""
    if broken and handle.unreadable == "error":
        raise _unreadable(corpus, broken)
    short = [row for row in readable if row.num_samples < MINIMUM_SAMPLES]
    of_file = {recording.file: recording for recording in corpus.recordings}
    dropped = [LeftOut(file, _reason(of_file[file], error)) for file, error in broken]
    if short and handle.short_clips == "error":
        raise _too_short(corpus, short)
    if handle.short_clips == "drop":
        reason = f"samples: shorter than one frame ({MINIMUM_SAMPLES} samples at 16 kHz)"
        dropped += [LeftOut(row.recording.file, f"{row.num_samples} {reason}") for row in short]
    rows = [row for row in readable if handle.keeps(row)]
    left_out = corpus.left_out + with_prefix(corpus.name, dropped)
    if not rows:
        raise RequestError(
            f"no recording of {corpus.name} is left; {counted(len(left_out), 'was', 'were')} left out, for example "
            f"{left_out[0].file}: {left_out[0].reason}",
            "at least one recording",
            handle.if_none_is_left,
        )
    return Corpus(
        _build(corpus.name, rows),
        sorted(left_out, key=lambda each: each.file),
        corpus.info,
        corpus.problems + describe_duplicates(corpus.name, [(row.recording, row.digest) for row in readable]),
        _digests(corpus.name, readable),
    )


def _reason(recording: Recording, error: RequestError) -> str:
    """Why a recording is left out; it is named as its corpus does, since lists and cards are read elsewhere."""
    path = recording.path
    return error.found if path is None else error.found.replace(str(path.absolute()), recording.file)


def _digests(corpus: str, rows: Iterable[_Row]) -> dict[str, str]:
    """Hash of the samples of recordings, by id; of those that were decoded and are not silent."""
    return {f"{corpus}/{row.recording.file}": row.digest.digest for row in rows if row.digest.digest is not None}


def _measure(corpus: Listed, decode: bool, index: CorpusIndex) -> tuple[list[_Row], list[tuple[str, RequestError]]]:
    """Give the recordings that can be read, sorted by file, and the others with what is wrong with them."""

    def measure(recording: Recording) -> _Row | tuple[str, RequestError]:
        try:
            audio = _audio_cell(recording)
            return _Row(recording, audio, index.measure(audio, decode))
        except RequestError as error:
            return recording.file, error

    recordings = sorted(corpus.recordings, key=lambda recording: recording.file)
    text = f"checking recordings of {corpus.name}"
    # Decoding and resampling leave the interpreter lock, so threads are enough and nothing has to be copied.
    with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool:
        found = list(tqdm(pool.map(measure, recordings), total=len(recordings), desc=text, unit="clip", disable=None))
    forget_decoded()
    return [one for one in found if isinstance(one, _Row)], [one for one in found if not isinstance(one, _Row)]


def _audio_cell(recording: Recording) -> dict[str, Any]:
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


def _unreadable(corpus: Listed, broken: Sequence[tuple[str, RequestError]]) -> RequestError:
    first = broken[0][1]
    there = counted(len(corpus.recordings), f"recording of {corpus.name}", f"recordings of {corpus.name}")
    return RequestError(
        f"{len(broken)} of {there} cannot be read:"
        + "".join(f"\n    {corpus.name}/{file}: {error.found}" for file, error in broken[:_SHOWN])
        + (f"\n    and {len(broken) - _SHOWN} more" if len(broken) > _SHOWN else "")
        + (_before(corpus.left_out) if corpus.left_out else ""),
        first.expected,
        f"{first.fix}; or leave out all such files (they are listed): unreadable: drop",
    )


def _before(left_out: Sequence[LeftOut]) -> str:
    """Say what is not among the recordings any more: they are fewer than a corpus or a table lists."""
    first = f"{left_out[0].file}: {left_out[0].reason}"
    if len(left_out) == 1:
        return f"\n    1 other was left out before: {first}"
    return f"\n    {len(left_out):,} others were left out before, the first is {first}"


def _too_short(corpus: Listed, short: Sequence[_Row]) -> RequestError:
    named = [
        f"{corpus.name}/{row.recording.file} has {row.num_samples} samples "
        f"({1000 * row.num_samples / SAMPLING_RATE:.1f} ms)"
        for row in short
    ]
    verb = "is" if len(short) == 1 else "are"
    return RequestError(
        f"{len(short)} of {counted(len(corpus.recordings), 'recording')} {verb} shorter than one frame: "
        + first_few(named),
        f"at least {MINIMUM_SAMPLES} samples at 16 kHz (25 ms)",
        "short_clips: pad (zeros at the end) or short_clips: drop (they are listed)",
    )


def _build(corpus: str, rows: Sequence[_Row]) -> Dataset:
    """Build the table from recordings that are fit to use."""
    recordings = [row.recording for row in rows]
    return make_table(
        {
            "id": [f"{corpus}/{r.file}" for r in recordings],
            "file": [r.file for r in recordings],
            "audio": [row.audio for row in rows],
            "emotion": [r.emotion for r in recordings],
            "gender": [r.gender for r in recordings],
            "speaker": [f"{r.people_of}/{r.speaker}" for r in recordings],
            "session": [r.session for r in recordings],
            "split": [r.split for r in recordings],
            "corpus": [corpus] * len(recordings),
            # Clips below one frame are padded where they are read for the model: see `read_clip`.
            "num_samples": [max(row.num_samples, MINIMUM_SAMPLES) for row in rows],
        },
        sorted({r.emotion for r in recordings}),
    )
