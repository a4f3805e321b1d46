"""A run: seeds, variants and folds over the steps of the method, resumed and reported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .run import run_recipe

__all__ = ["run_recipe"]


def __getattr__(name: str) -> Any:
    if name != "run_recipe":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .run import run_recipe  # loads torch and datasets, which the command line does without until work begins

    return run_recipe
