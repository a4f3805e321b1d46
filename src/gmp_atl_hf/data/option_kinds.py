"""Whether what somebody has given for an option is of the kind that its reader says, by the hints of its parameters."""

from __future__ import annotations

import inspect
import os
import types
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ..errors import RequestError

_WORDS: Mapping[Any, str] = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    type(None): "nothing",
    Path: "a path",
}


def kinds_of(function: Callable[..., Any]) -> Mapping[str, Any]:
    """The hints of a function's parameters; none where they name what cannot be found: readers are other people's."""
    try:
        hints = get_type_hints(function)
    except (NameError, TypeError, AttributeError, SyntaxError):
        return {}
    # `limit: int = None` takes None as well.
    defaults = {name: each.default for name, each in inspect.signature(function).parameters.items()}
    return {name: hint | None if defaults.get(name, 0) is None else hint for name, hint in hints.items()}


def refuse_other_kind(option: str, value: Any, kind: Any, example: str | None = None) -> None:
    """Refuse a value that is not of the kind of its option.

    Args:
        option: Its name.
        value: What was given.
        kind: Its type hint; what this module does not know of hints, it takes.
        example: What to write, for the fix.

    Raises:
        RequestError: Says what was given, and what may be.
    """
    if _fits(value, kind):
        return
    if example is None and _fits("", kind) and isinstance(value, (int, float)):
        word = str(value).lower() if isinstance(value, bool) else str(value)
        example = f"""{option}: "{word}" in a recipe, {option}='"{word}"' in the shell"""
    raise RequestError(f"{option} is {value!r}", _described(kind), example or f"correct it, or leave {option} out")


def _fits(value: Any, kind: Any) -> bool:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is Literal:
        return value in inner
    if kind is None or kind is type(None):
        return value is None
    if kind in (int, float):
        return isinstance(value, (Integral, kind)) and not isinstance(value, bool)
    if kind in (str, bool):
        return isinstance(value, kind)
    family = origin or kind
    if not isinstance(family, type) or issubclass(family, (str, bytes)):
        return True
    if issubclass(family, os.PathLike):
        return isinstance(value, (str, os.PathLike))
    if issubclass(family, Mapping):
        of_key, of_value = inner if len(inner) == 2 else (Any, Any)
        return isinstance(value, Mapping) and all(_fits(k, of_key) and _fits(v, of_value) for k, v in value.items())
    if issubclass(family, Sequence):
        return isinstance(value, (list, tuple)) and (len(inner) != 1 or all(_fits(v, inner[0]) for v in value))
    return True


def _described(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_described, (one for one in inner if one is not type(None)))))
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    family = origin or kind
    if kind not in _WORDS and isinstance(family, type):
        if issubclass(family, Mapping):
            return "a mapping"
        if issubclass(family, Sequence):
            return "a list"
    return _WORDS.get(kind, str(getattr(kind, "__name__", kind)))
