"""`gmp-atl recipes`: the packaged recipes, with what their first line says."""

from __future__ import annotations

import argparse

from .console import DONE, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare nothing: the verb takes no arguments."""


def perform(arguments: argparse.Namespace) -> int:
    """List the recipes."""
    from ..recipe.packaged import packaged_recipes

    found = packaged_recipes()
    width = max(map(len, found), default=0)
    for name, file in found.items():
        first = file.read_text(encoding="utf-8").partition("\n")[0]
        say(f"{name:{width}}  {first.removeprefix('#').strip()}\n{'':{width}}  {file}")
    return DONE
