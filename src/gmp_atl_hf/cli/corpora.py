"""`gmp-atl corpora`: what can be read by name, and what is known about it before anybody has a copy."""

from __future__ import annotations

import argparse
import textwrap

from .console import DONE, say

_WIDTH = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "names",
        metavar="NAME",
        nargs="*",
        help="tell all about these; also a Python file with a reader of yours",
    )


def perform(arguments: argparse.Namespace) -> int:
    """List the corpora, or tell all about some of them."""
    say("\n\n".join(map(describe_corpus, arguments.names)) if arguments.names else list_corpora())
    return DONE


def list_corpora() -> str:
    """Give one line per corpus, those with recordings of their own first."""
    from ..data.corpora import corpus_names, corpus_reader
    from ..report.markdown import aligned

    infos = [corpus_reader(name).info for name in corpus_names()]
    rows = [("corpus", "language", "emotions", "recordings", "hours", "speakers", "protocol", "licence")]
    for info in sorted(infos, key=lambda one: (one.homepage is None, one.name)):
        speakers = "" if info.speakers is None else str(info.speakers)
        if info.genders:
            speakers += f" ({info.genders['female']} f, {info.genders['male']} m)"
        rows.append(
            (
                info.name,
                info.language or "",
                str(len(info.expected) or ""),
                f"{sum(info.expected.values()):,}" if info.expected else "",
                "" if info.hours is None else f"{info.hours:g}",
                speakers,
                info.protocol,
                info.licence or "",
            )
        )
    hint = "gmp-atl corpora NAME tells all about one; gmp-atl prepare NAME ROOT reads a copy of it."
    return "\n".join([*aligned(rows, words=(0, 1, 6, 7)), "", hint])


def describe_corpus(name: str) -> str:
    """Tell all that is known about a corpus, given by its name or a Python file that registers one."""
    import inspect

    from ..data.corpora import corpus_reader

    reader = corpus_reader(name)
    info = reader.info
    facts = {
        "homepage": info.homepage,
        "licence": info.licence,
        "citation": info.citation,
        "language": info.language,
        "layout": info.layout,
        "emotions": ", ".join(f"{emotion} {count}" for emotion, count in sorted(info.expected.items())),
        "speakers": None if info.speakers is None else str(info.speakers),
        "genders": ", ".join(f"{count} {gender}" for gender, count in info.genders.items()),
        "hours": None if info.hours is None else f"{info.hours:g}",
        "protocol": info.protocol,
        "options": ", ".join(list(inspect.signature(reader.read).parameters)[1:]),
        "caution": info.caution,
    }
    lines = [info.name]
    for word, text in facts.items():
        if text:
            wrapped = textwrap.wrap(text, _WIDTH - 12, break_long_words=False, break_on_hyphens=False)
            lines += [f"  {word:<10}{wrapped[0]}", *(" " * 12 + line for line in wrapped[1:])]
    return "\n".join(lines)
