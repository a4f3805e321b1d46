"""YAML as people read it: `1e-4` is a number, `no` and `03` are text, a key given twice is an error."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from typing import Any

import yaml

from ..errors import RequestError, errors_of

# YAML 1.2's core schema, which is what people expect; PyYAML's own rules (YAML 1.1) read `1e-4` as text, `no` as
# False, `03` as 3, `1_000` as 1000, `12:30` as 750 and `2024-01-01` as a date.
_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$")
_FLOAT = re.compile(
    r"^[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
)
_RESOLVERS = (
    ("tag:yaml.org,2002:null", _NULL, ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", _BOOL, list("tTfF")),
    ("tag:yaml.org,2002:int", _INT, list("-+0123456789")),
    ("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789")),
)
_MERGE = "tag:yaml.org,2002:merge"
_DEEPEST, _MOST_VALUES = 50, 100_000


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with YAML 1.2's scalars and without silent duplicates."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[Hashable, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == _MERGE:
                continue
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a plain word", key_node.start_mark)
            if key in seen:
                raise RequestError(
                    f"`{key}` is given twice, on line {seen[key]} and on line {line}",
                    "every key once",
                    f"remove one of the two lines that begin with `{key}:`",
                )
            seen[key] = line
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """Quotes all text that `_Loader`, or a reader with YAML 1.1's rules, would read as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True  # a recipe without `&id001` and `*id001`


for _tag, _pattern, _first in _RESOLVERS:
    _Loader.add_implicit_resolver(_tag, _pattern, _first)
    _Dumper.add_implicit_resolver(_tag, _pattern, _first)
_Loader.add_implicit_resolver(_MERGE, re.compile(r"^(?:<<)$"), ["<"])


def _represent_sequence(dumper: yaml.SafeDumper, value: list[Any]) -> yaml.SequenceNode:
    """Lists of plain values on one line, as people write them."""
    flat = not any(isinstance(item, list | dict) for item in value)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=flat)


_Dumper.add_representer(list, _represent_sequence)


def _refuse_endless(value: Any, known: dict[int, int], depth: int = 0) -> int:
    """Count values as they are once every reference is written out; `known` are those counted before."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        parts = value.values() if isinstance(value, dict) else value
        if depth == _DEEPEST:
            raise RecursionError
        known[id(value)] = 1 + sum(_refuse_endless(part, known, depth + 1) for part in parts)
    if known[id(value)] > _MOST_VALUES:
        raise RecursionError
    return known[id(value)]


def _whole_number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    """Python itself refuses thousands of digits; twenty are more than any setting has."""
    text = loader.construct_scalar(node)
    if len(text) > 20:
        raise yaml.constructor.ConstructorError(None, None, f"a number of {len(text)} digits", node.start_mark)
    return int(text)


_Loader.add_constructor("tag:yaml.org,2002:int", _whole_number)


def load_yaml(text: str, where: str) -> Any:
    """Read YAML text; `where` says in messages what the text is, such as the file's path.

    Raises:
        RequestError: The text is not YAML, or a key is given twice in the same mapping.

    Example:
        >>> load_yaml("{rate: 1e-4, answer: no, speaker: 03}", "an example")
        {'rate': 0.0001, 'answer': 'no', 'speaker': '03'}
    """
    try:
        with errors_of(where):
            plain = yaml.load(text, Loader=_Loader)
        _refuse_endless(plain, {})
        return plain
    except RecursionError:
        raise RequestError(
            f"{where} is nested too deep, or repeats itself without end",
            f"{_DEEPEST} levels and {_MOST_VALUES} values at most",
            "a recipe has five levels",
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error)
        raise RequestError(
            f"{where}{line} is not YAML: {problem}",
            "lines of the form `key: value`, indented with spaces; numbers of a sensible size",
            "correct that line or the one before it",
        ) from None


def dump_yaml(plain: Mapping[str, Any]) -> str:
    """Write plain values as YAML text, keys in their order; `load_yaml` reads back exactly the same values.

    Example:
        >>> print(dump_yaml({"seeds": [0, 1], "speaker": "03", "rate": 1e-4}), end="")
        seeds: [0, 1]
        speaker: '03'
        rate: 0.0001
    """
    return yaml.dump(dict(plain), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
