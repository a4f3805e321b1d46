"""`gmp-atl pretrain`: a HuBERT of one's own from plain speech."""

from __future__ import annotations

import argparse


def add_pretrain_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `gmp-atl pretrain`."""
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file, or a packaged recipe such as pretrain-mini")
    parser.add_argument("--output-dir", metavar="DIR", help="the run's folder (default: runs/NAME)")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="change one setting, such as corpus.root=speech/metadata.csv; may be repeated",
    )


def pretrain(arguments: argparse.Namespace) -> int:
    """Pre-train as a recipe says; the same command again continues."""
    from ..pretraining.recipe import PretrainRecipe

    recipe = PretrainRecipe.from_yaml(arguments.recipe, arguments.set)
    from ..pretraining.run import run_pretraining
    from ..run.processes import leave_processes

    run_pretraining(recipe, arguments.output_dir, arguments.command)
    leave_processes()
    return 0
