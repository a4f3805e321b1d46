"""`gmp-atl pretrain`: a new HuBERT from plain speech."""

from __future__ import annotations

import argparse

from .arguments import add_recipe
from .console import DONE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    add_recipe(parser, packaged="pretrain-mini", setting="corpus.root=speech/metadata.csv")


def perform(arguments: argparse.Namespace) -> int:
    """Pre-train as a recipe says; the same command again continues."""
    from ..pretraining.recipe import PretrainRecipe

    recipe = PretrainRecipe.from_yaml(arguments.recipe, arguments.set)
    from ..pretraining.run import run_pretraining

    run_pretraining(recipe, arguments.output_dir, arguments.command)
    return DONE
