"""`gmp-atl prepare`: what is in a corpus, before anything is trained on it."""

from __future__ import annotations

import argparse
import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import RequestError, counted
from ..files import write_whole
from .arguments import add_pairs, pairs, picture_of
from .console import DONE, say

if TYPE_CHECKING:
    from ..data.corpora import LeftOut
    from ..data.table import Corpus

_QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)
_SHOWN = 10
_SPEAKERS_SHOWN = 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("name", metavar="NAME", help="a corpus reader (gmp-atl corpora lists them), or a file of yours")
    parser.add_argument("root", metavar="ROOT", nargs="?", help="the corpus folder or file")
    add_pairs(parser, "--options", "KEY=VALUE", "what a recipe gives under corpus, such as short_clips=drop")
    parser.add_argument("--picture", metavar="FILE.png", help="draw emotions by gender, lengths and speakers as well")
    parser.add_argument("--all", action="store_true", help=f"list every left-out recording, not the first {_SHOWN}")


def perform(arguments: argparse.Namespace) -> int:
    """Read a corpus and say what is in it."""
    options = pairs(arguments.options)
    picture = picture_of(arguments)
    from ..data.table import read_corpora  # loads datasets

    corpus = read_corpora([{**options, "name": arguments.name, "root": arguments.root}])
    text = format_corpus(corpus, None if arguments.all else _SHOWN)
    if picture is not None:
        from ..report.corpus_picture import corpus_png

        write_whole(picture, corpus_png(corpus))
        text += f"\n\npicture: {picture}"
    say(text)
    return DONE


def format_corpus(corpus: Corpus, shown: int | None = _SHOWN) -> str:
    """Describe a corpus that has been read, and name at most `shown` left-out recordings per reason (None: all)."""
    from ..data.audio import SAMPLING_RATE
    from ..evaluation.unknown import counted_people

    table = corpus.table
    seconds = sorted(samples / SAMPLING_RATE for samples in table["num_samples"])
    sessions = {session for session in table["session"] if session is not None}
    head = f"{corpus.info.name}: {counted(len(table), 'recording')}, {counted_people(table['speaker'])}"
    if sessions:
        head += f", {counted(len(sessions), 'session')}"
    lines = [f"{head}, {sum(seconds) / 3600:.2f} hours", ""]
    lines += _emotions_by_gender(corpus)
    splits = Counter(split for split in table["split"] if split is not None)
    if splits:
        lines += ["", "given split: " + ", ".join(f"{name} {number}" for name, number in sorted(splits.items()))]
    names = ("shortest", "5 %", "median", "95 %", "longest")
    quantiles = [seconds[round(q * (len(seconds) - 1))] for q in _QUANTILES]
    lengths = ", ".join(f"{name} {value:.2f} s" for name, value in zip(names, quantiles, strict=True))
    lines += ["", f"lengths: {lengths}", *_speakers(corpus), ""]
    lines += _protocol(corpus)
    if corpus.info.caution:
        lines += [f"caution: {corpus.info.caution}", ""]
    lines += _left_out(corpus.left_out, shown)
    if corpus.problems:
        lines += ["", "problems:", *(f"  {problem}" for problem in corpus.problems)]
    return "\n".join(lines)


def _protocol(corpus: Corpus) -> list[str]:
    """Name the protocol of the corpus, and why folds cannot be made by it where they cannot."""
    from ..protocols.protocol import Protocol

    kind = corpus.info.protocol
    if not kind:
        return []
    line = f"protocol that suits it: {kind}"
    try:
        Protocol(kind).folds(corpus.table)
    except RequestError as error:
        line += f"; but not with all its labels and speakers as they are: {error.found} ({error.fix})"
    return [line, ""]


def _speakers(corpus: Corpus) -> list[str]:
    """Count speakers by gender, and recordings by speaker; nobody can count those whom nobody has named."""
    from ..protocols.speakers import Speakers, people

    found = Speakers.of(corpus.table)
    known = people(found.names)
    if not known:
        return ["speakers: unknown"]
    counts = Counter(found.genders[name] for name in known)
    genders = [(counts["female"], "female"), (counts["male"], "male"), (counts[None], "of unknown gender")]
    who = ", ".join(f"{number} {word}" for number, word in genders if number)
    spoken = sorted(found.recordings[name] for name in known)
    lines = [f"speakers: {who}; recordings of each: {spoken[0]} to {spoken[-1]}, median {spoken[len(spoken) // 2]}"]
    if len(spoken) <= _SPEAKERS_SHOWN:
        each = ", ".join(f"{name.partition('/')[2]} {found.recordings[name]}" for name in found.names)
        lines += textwrap.wrap(each, 100, initial_indent="  ", subsequent_indent="  ")
    return lines


def _emotions_by_gender(corpus: Corpus) -> list[str]:
    """A table of counts: emotions down, genders across, sums at the end of both."""
    from ..report.markdown import aligned

    features = corpus.table.features
    emotions: list[str] = features["emotion"].names
    columns: dict[int | None, str] = dict(enumerate(features["gender"].names))
    counts = Counter(zip(corpus.table["emotion"], corpus.table["gender"], strict=True))
    if any(gender is None for _, gender in counts):
        columns[None] = "unknown"
    rows = [["", *columns.values(), "all"]]
    for index, emotion in enumerate(emotions):
        own = [counts[index, key] for key in columns]
        rows.append([emotion, *map(str, own), str(sum(own))])
    sums = [sum(counts[index, key] for index in range(len(emotions))) for key in columns]
    rows.append(["all", *map(str, sums), str(sum(sums))])
    return aligned(rows)


def _left_out(left_out: Sequence[LeftOut], shown: int | None) -> list[str]:
    if not left_out:
        return ["left out: nothing"]
    by_reason: dict[str, list[str]] = {}
    for one in left_out:
        by_reason.setdefault(one.reason, []).append(one.file)
    lines = [f"left out: {len(left_out)}"]
    for reason, files in sorted(by_reason.items(), key=lambda item: -len(item[1])):
        lines.append(f"  {len(files)}: {reason}")
        lines += [f"    {file}" for file in files[:shown]]
        if shown is not None and len(files) > shown:
            lines.append(f"    and {len(files) - shown} more (--all lists them)")
    return lines
