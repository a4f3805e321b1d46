"""`gmp-atl run`: train and test as a recipe says."""

from __future__ import annotations

import argparse

from ..errors import RequestError
from .arguments import add_recipe
from .console import DONE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    add_recipe(parser, packaged="demo", setting="pseudo_labels.clusters=[50]")
    parser.add_argument("--folds", metavar="1,2", help="these folds only (default: all)")
    parser.add_argument("--jobs", metavar="N", default="1", help="do N folds, seeds or variants at a time (default: 1)")


def perform(arguments: argparse.Namespace) -> int:
    """Run the recipe; the same command again continues."""
    from ..recipe.recipe import Recipe

    # Before the import below, which takes seconds: a typo is answered at once.
    jobs = parse_jobs(arguments.jobs)
    recipe = Recipe.from_yaml(arguments.recipe, arguments.set)
    folds = None if arguments.folds is None else parse_folds(arguments.folds)
    from ..run.run import run_recipe

    run_recipe(recipe, output_dir=arguments.output_dir, folds=folds, command=arguments.command, jobs=jobs)
    return DONE


def parse_folds(text: str) -> tuple[int, ...]:
    """Read fold numbers from 1, each once, in their order; a `RequestError` for anything else.

    Example:
        >>> parse_folds("1,3")
        (1, 3)
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise RequestError(f"--folds is {text!r}", "whole numbers from 1, with commas between them", "--folds 1,2")
    return tuple(dict.fromkeys(map(int, parts)))


def parse_jobs(text: str) -> int:
    """Read a number of jobs, from 1; a `RequestError` for anything else."""
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise RequestError(f"--jobs is {text!r}", "a whole number from 1", "--jobs 2, or leave it out")
    return int(text)
