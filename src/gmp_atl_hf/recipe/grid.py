"""What a recipe searches: dotted paths under `stages.finetune`, each with the values to try."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import RequestError

_MOST_COMBINATIONS = 1_000
_SEARCHED = "stages.finetune."
_NOT_SEARCHED = ("skip", "start", "same_updates_as_all")


def dotted_paths(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Write nested mappings as one of dotted paths.

    Example:
        >>> dotted_paths({"stages": {"finetune": {"learning_rate": [1, 2]}}})
        {'stages.finetune.learning_rate': [1, 2]}
    """
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": each for inner, each in dotted_paths(value).items()}
        else:
            flat[key] = value
    return flat


def overlap(one: str, other: str) -> bool:
    """Whether two dotted paths are the same, or one leads into the other."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def check_search(search: Mapping[str, Sequence[Any]], variants: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a search of what is no setting of the fine-tuning, of a single value, or of what a variant sets.

    Args:
        search: Dotted path to the values to try.
        variants: Name of each variant to its overrides.

    Raises:
        RequestError: With the path, and what can be searched.
    """
    for dotted, values in search.items():
        if not dotted.startswith(_SEARCHED) or dotted.removeprefix(_SEARCHED) in (*_NOT_SEARCHED, ""):
            raise RequestError(
                f"`search` has `{dotted}`",
                f"settings of the fine-tuning, as `{_SEARCHED}learning_rate`",
                "what the stages before it do is compared by `variants`",
            )
        if len(values) < 2:
            raise RequestError(
                f"`search.{dotted}` has {len(values)} values", "two or more", f"set `{dotted}` itself, outside `search`"
            )
        for index, value in enumerate(values):
            if value in values[:index]:
                raise RequestError(f"`search.{dotted}` has {value} twice", "each value once", "remove one of them")

    if (combinations := math.prod(map(len, search.values()))) > _MOST_COMBINATIONS:
        raise RequestError(
            f"`search` has {combinations} combinations", f"at most {_MOST_COMBINATIONS}", "search fewer settings"
        )
    for one, other in itertools.combinations(search, 2):
        if overlap(one, other):
            raise RequestError(f"`search` has `{one}` and `{other}`", "paths of which none leads into another")
    for variant, overrides in variants.items():
        for dotted, searched in itertools.product(overrides, search):
            if overlap(dotted, searched):
                raise RequestError(
                    f"`search` has `{searched}`, and the variant {variant} sets `{dotted}`",
                    "settings that are either searched or compared",
                    "remove one of them",
                )
