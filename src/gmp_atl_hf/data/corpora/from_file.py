"""Corpora of people's own: a Python file anywhere that registers a reader, named in a recipe by its path."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from ...errors import RequestError
from .base import REGISTERED, CorpusReader, Item, ReadFunction

_LOADED: dict[Path, list[str]] = {}


def is_corpus_file(name: str) -> bool:
    """Whether a corpus' name is the path of a Python file, with `:name` behind it where it registers several."""
    return _split(name)[0].endswith(".py")


def reader_from_file(name: str, taken: frozenset[str]) -> CorpusReader:
    """Run a Python file, once, and find the reader that it registers.

    Args:
        name: Path of the file, relative to where the command is run; `path/to/mine.py:name` where it registers several.
        taken: Names that the file may not register, those of this package.

    Raises:
        RequestError: When there is no such file, it fails, registers nothing, several or a name that is taken.
    """
    place, wanted = _split(name)
    file = Path(place).expanduser()
    if not file.is_file():
        raise RequestError(
            f"there is no file {file}", "a Python file with a corpus reader", "a relative path starts where you are"
        )
    names = _LOADED.get(file.resolve()) or _load(file.resolve(), taken)
    if wanted is None and len(names) > 1:
        raise RequestError(f"{file} registers {', '.join(names)}", "one of them", f"name: {place}:{names[0]}")
    if wanted is not None and wanted not in names:
        raise RequestError(f"{file} registers no {wanted!r}", f"one of {', '.join(names)}", f"name: {place}:{names[0]}")
    return REGISTERED[wanted or names[0]]


def guarded(read: ReadFunction, name: str) -> ReadFunction:
    """Let a reader's own mistakes end as a request that is wrong, with the line to mend, not in a traceback."""

    def reading(*arguments: Any, **options: Any) -> Iterator[Item]:
        try:
            yield from read(*arguments, **options)
        except RequestError:
            raise
        except Exception as error:
            file = Path(_split(name)[0]).expanduser().resolve()
            own = [one.lineno for one in traceback.extract_tb(error.__traceback__) if Path(one.filename) == file]
            where = f", line {own[-1]}" if own else ""
            raise RequestError(
                f"the reader in {file.name}{where} fails: {type(error).__name__}: {error}",
                "a function `read(root, …)` that yields Recording and LeftOut",
                "pass every LeftOut of `named_files` on, and give it the codes of each group that a table is asked for",
            ) from error

    return reading


def _split(name: str) -> tuple[str, str | None]:
    place, mark, wanted = name.rpartition(".py:")
    return (f"{place}.py", wanted) if mark else (name, None)


def _load(file: Path, taken: frozenset[str]) -> list[str]:
    """Run the file and give the names that it registered."""
    before = dict(REGISTERED)
    module_name = f"gmp_atl_hf_corpus_{file.stem}"
    spec = spec_from_file_location(module_name, file)
    if spec is None or spec.loader is None:
        raise RequestError(f"{file} cannot be run as Python", "a Python file", "give it the ending .py")
    module = module_from_spec(spec)
    # Dataclasses and the like look their module up by name.
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except RequestError:
        raise
    except Exception as error:
        raise RequestError(
            f"{file} cannot be run: {type(error).__name__}: {error}",
            "a Python file with a function under @register_corpus(CorpusInfo(name=…))",
            f"see what python {file} says",
        ) from error
    names = [name for name, reader in REGISTERED.items() if before.get(name) is not reader]
    clash = [name for name in names if name in taken or name in before]
    if clash:
        for one in names:
            REGISTERED.pop(one)
        REGISTERED.update(before)
        raise RequestError(f"{file} registers {clash[0]!r}, which is taken", "a name of its own", "rename it")
    if not names:
        raise RequestError(
            f"{file} registers no corpus",
            "a function under @register_corpus(CorpusInfo(name=…))",
            "from gmp_atl_hf.data.corpora import CorpusInfo, Recording, register_corpus",
        )
    _LOADED[file] = names
    return names
