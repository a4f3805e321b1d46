"""`gmp-atl corpora`: what can be read by name, and what is known about it before anybody has a copy."""

from __future__ import annotations

import argparse
import textwrap

_WIDTH = 100


def add_corpora_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `gmp-atl corpora`."""
    parser.add_argument(
        "names",
        metavar="NAME",
        nargs="*",
        help="tell all about these; also a Python file with a reader of yours",
    )


def corpora(arguments: argparse.Namespace) -> str:
    """List the corpora, or tell all about some of them.

    Args:
        arguments: As `add_corpora_arguments` declares them.

    Returns:
        The text to print.

    Raises:
        RequestError: When no corpus has one of the names.
    """
    if arguments.names:
        return "\n\n".join(describe_corpus(name) for name in arguments.names)
    return list_corpora()


def list_corpora() -> str:
    """Give one line per corpus, those with recordings of their own first.

    Returns:
        Lines for people, without a newline at the end.
    """
    from ..data.corpora import corpus_names, corpus_reader

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
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    sides = "<<>>><<<"  # numbers to the right
    lines = [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)).rstrip()
        for row in rows
    ]
    hint = "gmp-atl corpora NAME tells all about one; gmp-atl prepare NAME ROOT reads a copy of it."
    return "\n".join([*lines, "", hint])


def describe_corpus(name: str) -> str:
    """Tell all that is known about a corpus.

    Args:
        name: Its name, or a Python file that registers one.

    Returns:
        Lines for people, without a newline at the end.

    Raises:
        RequestError: When no corpus has that name.
    """
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
