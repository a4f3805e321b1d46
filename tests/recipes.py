"""Small recipes for the tests of recipes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.recipe.recipe import Recipe

SMALL: dict[str, Any] = {"name": "mine", "corpus": {"name": "demo"}}


def recipe(**changes: Any) -> Recipe:
    return Recipe.from_dict({**SMALL, **changes})


def at(dotted: str, value: Any) -> dict[str, Any]:
    """A small recipe with one value at a dotted path."""
    plain: dict[str, Any] = {**SMALL, "corpus": dict(SMALL["corpus"])}
    place, keys = plain, dotted.split(".")
    for key in keys[:-1]:
        place = place.setdefault(key, {})
    place[keys[-1]] = value
    return plain


def refused(plain: Mapping[str, Any]) -> RequestError:
    with pytest.raises(RequestError) as caught:
        Recipe.from_dict(plain)
    return caught.value
