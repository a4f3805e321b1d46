"""Single settings changed by their dotted path, as `--set` and variants do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import RequestError
from .convert import describe
from .yaml12 import load_yaml


def apply_override(recipe: dict[str, Any], dotted: str, value: Any) -> None:
    """Set one value in a recipe that is still plain dicts and lists; unknown names are refused later, when it is read.

    Args:
        recipe: The plain recipe, changed in place.
        dotted: The path, such as `pseudo_labels.clusters`, or `corpus.0.root` inside a list.
        value: The new value; a mapping replaces the old one whole.

    Raises:
        RequestError: When the path leads through something that has no keys.
    """
    keys = dotted.split(".")
    place: Any = recipe
    for depth, key in enumerate(keys):
        where = ".".join(keys[:depth])
        index: str | int = key
        if isinstance(place, list):
            if key not in map(str, range(len(place))):
                raise RequestError(
                    f"`{dotted}`: `{where}` is a list of {len(place)}",
                    f"a number from 0 to {len(place) - 1} after `{where}`",
                    ".".join([where, "0", *keys[depth + key.isdigit() :]]),
                )
            index = int(key)
        elif not isinstance(place, dict):
            raise RequestError(f"`{dotted}`: `{where}` is {describe(place)}", "a mapping", f"set `{where}` as a whole")
        if depth == len(keys) - 1:
            place[index] = value
        else:
            if isinstance(place, dict) and place.get(key) is None:
                place[key] = {}  # a section that is left out or empty
            if isinstance(place[index], dict | list):
                # Anchors in YAML make one mapping of several places, of which this one alone is meant.
                place[index] = place[index].copy()
            place = place[index]


def parse_override(text: str, example: str = "pseudo_labels.clusters=[50]") -> tuple[str, Any]:
    """Read `key.path=value`, the value as YAML; `example` is one that fits, for a message.

    Raises:
        RequestError: When there is no `=`, an empty key, or the value is no YAML.

    Example:
        >>> parse_override("data.shuffle_labels=true")
        ('data.shuffle_labels', True)
    """
    dotted, equals, value = text.partition("=")
    dotted = dotted.strip()
    if not equals or not all(dotted.split(".")):
        wrong, fix = "names no setting" if equals else "has no =", f"for example {example}"
        raise RequestError(f"the override {text!r} {wrong}", "key.path=value", fix)
    return dotted, load_yaml(value, f"the override {text!r}")


def with_overrides(recipe: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Apply `key.path=value` texts to a plain recipe, in order and in place."""
    for text in overrides:
        apply_override(recipe, *parse_override(text))
    return recipe
