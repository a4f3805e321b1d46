"""The registry: which corpus is read by which module.

A new corpus is one file with one function under `@register_corpus(CorpusInfo(...))`: anywhere, named by its path in a
recipe (`corpus: {name: path/to/mine.py}`), or in this folder with one line here.
"""

from __future__ import annotations

from importlib import import_module

from ...errors import RequestError, did_you_mean
from .base import (
    REGISTERED,
    UNKNOWN_SPEAKER,
    CorpusInfo,
    CorpusReader,
    Item,
    LeftOut,
    Recording,
    Remark,
    audio_files,
    leftovers,
    register_corpus,
)
from .filenames import named_files
from .from_file import is_corpus_file, reader_from_file
from .tables import read_table

MODULES: dict[str, str] = {
    "cafe": "cafe",
    "cremad": "cremad",
    "csv": "csv_table",
    "demo": "demo.corpus",
    "emobox": "emobox",
    "emodb": "emodb",
    "emovo": "emovo",
    "esd": "esd",
    "esd-en": "esd",
    "esd-zh": "esd",
    "folder": "folder",
    "hub": "hub",
    "iemocap": "iemocap",
    "meld": "meld",
    "msp-podcast": "msp_podcast",
    "nemo": "nemo",
    "ravdess": "ravdess",
    "ravdess-song": "ravdess",
    "savee": "savee",
    "tess": "tess",
}
"""Corpus name to module in this folder; imported only when the corpus is asked for."""

__all__ = [
    "MODULES",
    "UNKNOWN_SPEAKER",
    "CorpusInfo",
    "CorpusReader",
    "Item",
    "LeftOut",
    "Recording",
    "Remark",
    "audio_files",
    "corpus_names",
    "corpus_reader",
    "leftovers",
    "named_files",
    "read_table",
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
        name: The corpus' name, as in a recipe's `corpus.name`, or the path of a Python file that registers one.

    Returns:
        Its facts and its reading function.

    Raises:
        RequestError: When no corpus has that name, or the file cannot be used.
    """
    if is_corpus_file(name):
        return reader_from_file(name, frozenset(MODULES))
    if name not in REGISTERED and name in MODULES:
        import_module(f".{MODULES[name]}", __name__)
    if name not in REGISTERED:
        own = "use folder, csv, hub or a Python file (name: path/to/mine.py) to read recordings of your own"
        raise RequestError(
            f"no corpus is called {name!r}",
            f"one of {', '.join(corpus_names())}",
            did_you_mean(name, corpus_names(), own),
        )
    return REGISTERED[name]
