"""Corpora of people's own: a Python file anywhere that registers a reader, named in a recipe by its path."""

from __future__ import annotations

import inspect
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from ...errors import RequestError
from .base import REGISTERED, CorpusReader, Item, LeftOut, ReadFunction

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
    file = Path(_split(name)[0]).expanduser().resolve()

    def reading(*arguments: Any, **options: Any) -> Iterator[Item]:
        _refuse_wrong_signature(read, file, arguments, options)
        try:
            given = read(*arguments, **options)
            if not isinstance(given, Iterable):
                raise RequestError(
                    f"the reader in {file.name} gives {given!r} in place of recordings",
                    "Recording, LeftOut and Remark, one after the other",
                    "yield Recording(...) for each of them, or return a list of them",
                )
            yield from given
        except RequestError:
            raise
        except Exception as error:
            raise _explained(error, file) from error

    return reading


def _refuse_wrong_signature(read: ReadFunction, file: Path, given: tuple[Any, ...], options: Mapping[str, Any]) -> None:
    """Refuse a function that cannot be called as readers are called: the root first, then options by keyword."""
    signature = inspect.signature(read)
    try:
        signature.bind(*given, **options)
    except TypeError as error:
        raise RequestError(
            f"the reader in {file.name} does not take the corpus' root: def {read.__name__}{signature}",
            "a function with the root first and, behind it, options by keyword",
            "def read(root): …",
        ) from error


def _explained(error: Exception, file: Path) -> RequestError:
    """Say what went wrong in a reader, in which of its lines, and what to correct there."""
    own = [one for one in traceback.extract_tb(error.__traceback__) if Path(one.filename) == file]
    line = own[-1].lineno if own else None
    where = "" if line is None else f", line {line}"
    found = f"the reader in {file.name}{where} fails: {type(error).__name__}: {error}"
    here = "the reader" if line is None else f"line {line}: {own[-1].line}"
    if isinstance(error, re.error):
        pattern = error.pattern.decode() if isinstance(error.pattern, bytes) else error.pattern
        return RequestError(found, "a regular expression", f"correct the pattern {pattern}")
    if LeftOut.__name__ in str(error):
        passed_on = "pass every LeftOut of `named_files` on: if isinstance(one, LeftOut): yield one"
        return RequestError(found, "a LeftOut that is passed on as it is", passed_on)
    if isinstance(error, KeyError):
        return RequestError(
            found,
            "a table with every word that it is asked for",
            f"correct {here} (unknown words are listed where it yields LeftOut(file, reason) for them, which "
            "`named_files` does where it is given the codes)",
        )
    return RequestError(found, "a reader that runs through", f"correct {here}")


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
