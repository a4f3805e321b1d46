"""The registry: which corpus is read by which module.

A new corpus is one file in this folder with one function under `@register_corpus(CorpusInfo(...))`, and one line here.
"""

from __future__ import annotations

import difflib
from importlib import import_module

from ...errors import RequestError
from .base import REGISTERED, CorpusInfo, CorpusReader, LeftOut, Recording, audio_files, register_corpus

MODULES: dict[str, str] = {
    "csv": "csv_table",
    "demo": "demo",
    "emodb": "emodb",
    "folder": "folder",
    "hub": "hub",
    "iemocap": "iemocap",
}
"""Corpus name to module in this folder; imported only when the corpus is asked for."""

__all__ = [
    "MODULES",
    "CorpusInfo",
    "CorpusReader",
    "LeftOut",
    "Recording",
    "audio_files",
    "corpus_names",
    "corpus_reader",
    "register_corpus",
]


def corpus_names() -> list[str]:
    """List the corpora that can be read by name.

    Returns:
        The names, sorted: those of this package and those registered from outside.
    """
    return sorted({*MODULES, *REGISTERED})


def corpus_reader(name: str) -> CorpusReader:
    """Find the reader of a corpus.

    Args:
        name: The corpus' name, as in a recipe's `corpus.name`.

    Returns:
        Its facts and its reading function.

    Raises:
        RequestError: When no corpus has that name.
    """
    if name not in REGISTERED and name in MODULES:
        import_module(f".{MODULES[name]}", __name__)
    if name not in REGISTERED:
        near = difflib.get_close_matches(name, corpus_names(), n=1)
        raise RequestError(
            f"no corpus is called {name!r}",
            f"one of {', '.join(corpus_names())}",
            f"did you mean {near[0]!r}?" if near else "use folder, csv or hub to read recordings of your own",
        )
    return REGISTERED[name]
