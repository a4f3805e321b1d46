"""Turn plain values into a recipe's dataclasses and back, and say what is wrong with them in plain words."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ..errors import RequestError, did_you_mean, known_names
from ..ranges import LARGEST

_VARIABLE = re.compile(r"\$\{([^}]*)\}")
IN_WORDS: Mapping[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    dict: "a mapping",
    NoneType: "null",
}
"""The kinds of plain values, as messages call them."""

_TRUTH = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


def describe(value: object) -> str:
    """Say what a plain value is, for people who do not program: `"'03', text"`."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return f"{str(value).lower()}, which is true or false"
    if isinstance(value, int):
        return f"{value}, a whole number" if abs(value) <= LARGEST else "a huge whole number"
    if isinstance(value, float):
        return f"{value}, a number"
    if isinstance(value, str):
        return f"{value!r}, text" if len(value) <= 200 else f"a text of {len(value)} characters"
    if isinstance(value, Mapping):
        return f"a mapping with {', '.join(f'`{key}`' for key in value)}" if value else "a mapping without keys"
    if isinstance(value, list | tuple):
        shown = ", ".join(map(str, value))
        return f"[{shown}], a list" if len(shown) <= 60 else f"a list of {len(value)}"
    return f"of the Python type {type(value).__name__}"


def to_plain(value: Any) -> Any:
    """Give the dicts, lists and scalars that `convert` makes the same value of."""
    if is_dataclass(value) and not isinstance(value, type):
        plain: dict[str, Any] = {}
        for item in fields(value):
            inner = getattr(value, item.name)
            if item.metadata.get("rest"):
                plain.update(to_plain(inner))
            elif not (item.metadata.get("quiet") and inner == _default(item)):
                plain[_key(item)] = to_plain(inner)
        return plain
    if isinstance(value, Mapping):
        return {key: to_plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(inner) for inner in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def split_rest(cls: type, mapping: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Sort the keys of a plain mapping by the fields of a dataclass; its `rest` field takes every further key.

    Args:
        cls: The dataclass.
        mapping: The plain mapping.
        path: Where it is in the recipe; empty at the top.

    Raises:
        RequestError: It is no mapping, or has an unknown key and the class no `rest` field.
    """
    where = f"`{path}`" if path else "the recipe"
    if not isinstance(mapping, Mapping):
        raise RequestError(f"{where} is {describe(mapping)}", _expected(cls))
    rest = _rest_of(cls)
    known = {_key(item): item.name for item in fields(cls) if item.name != rest}
    values: dict[str, Any] = {}
    further: dict[str, Any] = {}
    for key, value in mapping.items():
        _check_key(key, where)
        if key in known:
            values[known[key]] = value
        elif rest is None:
            raise RequestError(f"unknown key `{key}` in {where}", known_names(known), did_you_mean(key, known))
        elif key == rest:
            raise RequestError(
                f"unknown key `{key}` in {where}", f"its keys directly in {where}", f"remove the line `{key}:`"
            )
        else:
            further[key] = value
    if rest is not None:
        values[rest] = further
    return values


def _check_key(key: object, where: str) -> None:
    if not isinstance(key, str):
        raise RequestError(f"{where} has the key {describe(key)}", "keys that are text", f'"{key}": …, in quotes')


def convert(type_hint: Any, value: Any, path: str, metadata: Mapping[str, Any]) -> Any:
    """Turn a plain value into the type of a dataclass field, all of its parts converted and copied.

    Args:
        type_hint: The resolved hint: a scalar, `Literal`, `tuple[X, ...]`, `Mapping`, dataclass or union of them.
        value: The plain value, or one that is converted already.
        path: Where it is in the recipe, for messages.
        metadata: Of the field. `expand`: replace `${NAME}` and `~`; `choices`: of a text; `above`, `at_least`,
            `at_most`, `not_zero`: range of a number or of each in a list; `non_empty`; `unique`. (`key`, the field's
            name in a recipe, `quiet` and `rest` concern the mapping that the field is in.)

    Raises:
        RequestError: The value is of another kind or out of range.
    """
    origin = get_origin(type_hint)
    if type_hint is Any:
        return to_plain(value)
    if origin in (Union, UnionType):
        return _convert_union(type_hint, value, path, metadata)
    if is_dataclass(type_hint):
        return _convert_dataclass(type_hint, value, path)  # type: ignore[arg-type]
    if known := get_args(type_hint) if origin is Literal else metadata.get("choices"):
        if isinstance(value, str) and value in known:
            return value
        raise RequestError(f"`{path}` is {describe(value)}", known_names(known), did_you_mean(value, known))
    if origin is tuple:
        converted: Any = _convert_list(type_hint, value, path, metadata)
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        converted = _convert_mapping(type_hint, value, path)
    else:
        converted = _convert_scalar(type_hint, value, path, metadata)
        _check_range(converted, path, metadata)
    if metadata.get("non_empty") and not converted:
        raise RequestError(f"`{path}` is empty", _expected(type_hint), "give at least one entry, or remove the line")
    return converted


def _convert_union(type_hint: Any, value: Any, path: str, metadata: Mapping[str, Any]) -> Any:
    members = get_args(type_hint)
    if value is None and NoneType in members:
        return None
    optional = len(members) == 2 and NoneType in members
    for member in members:
        if member is NoneType or not (optional or _fits(member, value)):
            continue
        try:
            return convert(member, value, path, metadata)
        except RequestError as error:
            if error.expected != _expected(member):
                raise
            raise RequestError(error.found, _expected(type_hint), error.fix) from None
    raise RequestError(f"`{path}` is {describe(value)}", _expected(type_hint))


def _fits(type_hint: Any, value: Any) -> bool:
    """Whether a value is of this kind, its parts aside; chooses among the members of a union."""
    origin = get_origin(type_hint) or type_hint
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, Mapping)
    return isinstance(value, str | os.PathLike) if origin is str else isinstance(value, origin)


def _convert_dataclass(cls: type, value: Any, path: str) -> Any:
    hints = get_type_hints(cls)
    rest = _rest_of(cls)
    if value is None:
        value = {}  # a section whose keys are all left out or commented out
    if isinstance(value, cls):
        values = {item.name: getattr(value, item.name) for item in fields(cls)}
        if rest is not None:
            for key in values[rest]:
                if key in _keys(cls) or key == rest:
                    raise RequestError(f"`{path}.{rest}` has the key `{key}`", f"`{key}` in {cls.__name__} itself")
    else:
        values = split_rest(cls, value, path)
    converted: dict[str, Any] = {}
    for item in fields(cls):
        if item.name in values:
            inner = path if item.name == rest else f"{path}.{_key(item)}"
            converted[item.name] = convert(hints[item.name], values[item.name], inner, item.metadata)
        elif item.default is MISSING and item.default_factory is MISSING:
            raise RequestError(f"`{path}` has no `{_key(item)}`", f"`{path}.{_key(item)}`")
    return cls(**converted)


def _convert_list(type_hint: Any, value: Any, path: str, metadata: Mapping[str, Any]) -> tuple[Any, ...]:
    item_hint = get_args(type_hint)[0]
    if not isinstance(value, list | tuple):
        single = value is not None and not isinstance(value, Mapping)
        fix = f"{path}: [{value}]" if single else None
        if isinstance(value, str) and path == "corpus":
            fix = f"{path}: {{name: {value}}}"
        raise RequestError(f"`{path}` is {describe(value)}", _expected(type_hint), fix)
    inner = {key: metadata[key] for key in ("expand", "above", "at_least", "at_most", "not_zero") if key in metadata}
    converted = tuple(convert(item_hint, item, f"{path}.{index}", inner) for index, item in enumerate(value))
    if metadata.get("unique"):
        for index, item in enumerate(converted):
            if item in converted[:index]:
                shown = item if isinstance(item, int | float | str) else "the same entry"
                raise RequestError(f"`{path}` has {shown} twice", "each entry once", "remove one of them")
    return converted


def _convert_mapping(type_hint: Any, value: Any, path: str) -> dict[str, Any]:
    if value is None:
        return {}  # a section whose keys are all left out or commented out
    if not isinstance(value, Mapping):
        raise RequestError(f"`{path}` is {describe(value)}", _expected(type_hint))
    for key in value:
        _check_key(key, f"`{path}`")
    item_hint = get_args(type_hint)[1]
    return {key: convert(item_hint, item, f"{path}.{key}", {}) for key, item in value.items()}


def _convert_scalar(type_hint: Any, value: Any, path: str, metadata: Mapping[str, Any]) -> Any:
    if type_hint is str and isinstance(value, str | os.PathLike):
        text = os.fspath(value)
        return _expand(text, path) if metadata.get("expand") else text
    if type_hint is bool and isinstance(value, bool):
        return value
    if type_hint is int and isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST:
        return value
    if type_hint is float and isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e308:
        return float(value)
    raise RequestError(f"`{path}` is {describe(value)}", _expected(type_hint), _scalar_fix(type_hint, value, path))


def _scalar_fix(type_hint: Any, value: Any, path: str) -> str | None:
    name = path.rsplit(".", 1)[-1]
    if type_hint is int and type(value) is int:
        return f"{LARGEST} at most"
    label = "" if name.isdigit() else f"{name}: "
    if type_hint is str and isinstance(value, bool | int | float):
        return f'{label}"{str(value).lower()}", in quotes'
    if type_hint is bool and isinstance(value, str) and value.lower() in _TRUTH:
        return f"{label}{_TRUTH[value.lower()]}"
    if type_hint is int and isinstance(value, float) and value.is_integer():
        return f"{label}{int(value)}"
    if type_hint in (int, float) and isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return None
        return f"{label}{value}, without quotes" if number.is_integer() or type_hint is float else None
    return None


def _check_range(value: Any, path: str, metadata: Mapping[str, Any]) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if "above" in metadata and not value > metadata["above"]:
        raise RequestError(f"`{path}` is {value}", f"a number above {metadata['above']}")
    if "at_most" in metadata and value > metadata["at_most"]:
        raise RequestError(f"`{path}` is {value}", f"at most {metadata['at_most']:,.0f}")
    if "at_least" in metadata and value < metadata["at_least"]:
        raise RequestError(f"`{path}` is {value}", f"at least {metadata['at_least']}")
    if metadata.get("not_zero") and value == 0:
        raise RequestError(f"`{path}` is 0", "1 for the first or -1 for the last, and so on; there is no 0")


def _expand(text: str, path: str) -> str:
    def variable(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise RequestError(
                f"`{path}` is {text!r}, and the environment variable {name} is not set",
                f"a value for {name}",
                f"export {name}=…, or --set {path}=…",
            )
        return os.environ[name]

    expanded = _VARIABLE.sub(variable, text)
    # Not `Path`, which would change "./x" and a Hub id's slashes.
    return os.path.expanduser(expanded) if expanded.startswith("~") else expanded  # noqa: PTH111


def _expected(type_hint: Any) -> str:
    """What a field takes, in plain words."""
    origin = get_origin(type_hint)
    if origin in (Union, UnionType):
        return " or ".join(_expected(member) for member in get_args(type_hint))
    if is_dataclass(type_hint):
        keys = ", ".join(f"`{key}`" for key in _keys(type_hint))  # type: ignore[arg-type]
        return f"a mapping with {keys}"
    if origin is Literal:
        return known_names(get_args(type_hint))
    if origin is tuple:
        plural = {int: "whole numbers", float: "numbers", str: "texts", Any: "values"}.get(
            get_args(type_hint)[0], "mappings"
        )
        return f"a list of {plural}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "a mapping (`key: value`)"
    return IN_WORDS[type_hint]


def _keys(cls: type) -> tuple[str, ...]:
    return tuple(_key(item) for item in fields(cls) if not item.metadata.get("rest"))


def _key(item: Field[Any]) -> str:
    """What a field is called in a recipe."""
    return item.metadata.get("key", item.name)


def _rest_of(cls: type) -> str | None:
    return next((item.name for item in fields(cls) if item.metadata.get("rest")), None)


def _default(item: Field[Any]) -> Any:
    return item.default_factory() if item.default_factory is not MISSING else item.default
