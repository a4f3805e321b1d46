"""`gmp-atl push`: a run's model on the Hub."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import RequestError, counted
from .console import DONE, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..hub.commit import HubFile


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("run", metavar="RUN", help="folder of a finished run, such as runs/demo")
    parser.add_argument("repo_id", metavar="REPO_ID", help="where to push to: owner/name")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to push to, made if missing (default: main)")
    parser.add_argument("--message", metavar="TEXT", help="message of the commit")
    parser.add_argument("--license", metavar="ID", help="licence of the weights, as the Hub names it (cc-by-4.0, …)")
    parser.add_argument(
        "--benchmark",
        metavar="DATASET[:TASK]",
        help="a benchmark dataset on the Hub that this corpus is: adds the Hub's file of evaluation results",
    )
    parser.add_argument("--adapter", action="store_true", help="push the LoRA adapter alone, not the merged model")
    page = "push the web page that records or takes an upload as a Space, too"
    parser.add_argument("--space", metavar="SPACE_ID", help=page)
    parser.add_argument("--dry-run", action="store_true", help="list what would go, and send nothing")


def perform(arguments: argparse.Namespace) -> int:
    """Push a run's model, card, figures, recipe and report."""
    run = Path(arguments.run)
    from ..card.facts import refuse_without_model
    from ..card.repository import files_of_run
    from ..hub.commit import check_repo_id, push_files
    from ..ui.space import files_of_space

    check_repo_id(arguments.repo_id)
    if arguments.space is not None:
        check_repo_id(arguments.space)
    refuse_without_model(run)
    benchmark = None if arguments.benchmark is None else parse_benchmark(arguments.benchmark)
    files = files_of_run(run, arguments.repo_id, arguments.license, benchmark, arguments.adapter)
    pushed: list[tuple[str, Sequence[HubFile], bool]] = [(arguments.repo_id, files, False)]
    if arguments.space is not None:
        pushed.append((arguments.space, files_of_space(arguments.space, arguments.repo_id), True))
    for repo_id, listed, is_space in pushed:
        if arguments.dry_run:
            say(list_files(listed, ("Space " if is_space else "") + repo_id))
            continue
        commit = push_files(
            listed,
            repo_id,
            message=arguments.message or f"Push {run.resolve().name} with gmp-atl",
            private=True if arguments.private else None,
            revision=arguments.revision if not is_space else None,
            space=is_space,
        )
        say(commit.commit_url)
    if arguments.dry_run:
        say("Nothing was sent (--dry-run).")
    if not any(file.path.startswith(".eval_results/") for file in files):
        say(
            "No evaluation-results file: the Hub takes it for benchmark datasets of its own only (--benchmark names "
            "one). The figures are in the card's model-index."
        )
    return DONE


def parse_benchmark(text: str) -> tuple[str, str]:
    """Read `DATASET[:TASK]`; a `RequestError` where there is no owner or no name.

    Example:
        >>> parse_benchmark("owner/corpus")
        ('owner/corpus', 'default')
    """
    dataset, _, task = text.partition(":")
    owner, _, name = dataset.partition("/")
    if not owner or not name or "/" in name:
        raise RequestError(f"--benchmark is {text!r}", "owner/dataset or owner/dataset:task", None)
    return dataset, task or "default"


def list_files(files: Sequence[HubFile], where: str) -> str:
    """Write a list of files with their sizes, the sum last."""
    lines = [f"{where}:", *(f"{file.size:>14,}  {file.path}" for file in files)]
    total = f"{sum(file.size for file in files):>14,}"
    return "\n".join([*lines, f"{total}  bytes in {counted(len(files), 'file')}"])
