"""`gmp-atl push` and `gmp-atl card`: a run's model on the Hub, and the card alone."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..hub.commit import HubFile


def add_push_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `gmp-atl push`."""
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
    parser.add_argument("--space", metavar="SPACE_ID", help="push the page to listen to as a Space, too")
    parser.add_argument("--dry-run", action="store_true", help="list what would go, and send nothing")


def push(arguments: argparse.Namespace) -> int:
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
    files = files_of_run(run, arguments.repo_id, arguments.license, benchmark)
    pushed: list[tuple[str, Sequence[HubFile], bool]] = [(arguments.repo_id, files, False)]
    if arguments.space is not None:
        pushed.append((arguments.space, files_of_space(arguments.space, arguments.repo_id), True))
    for repo_id, listed, is_space in pushed:
        if arguments.dry_run:
            print(list_files(listed, ("Space " if is_space else "") + repo_id))
            continue
        commit = push_files(
            listed,
            repo_id,
            message=arguments.message or f"Push {run.resolve().name} with gmp-atl",
            private=True if arguments.private else None,
            revision=arguments.revision if not is_space else None,
            space=is_space,
        )
        print(commit.commit_url)
    if arguments.dry_run:
        print("Nothing was sent (--dry-run).")
    if not any(file.path.startswith(".eval_results/") for file in files):
        print(
            "No evaluation-results file: the Hub takes it for benchmark datasets of its own only (--benchmark names "
            "one). The figures are in the card's model-index."
        )
    return 0


def parse_benchmark(text: str) -> tuple[str, str]:
    """Read `DATASET[:TASK]`.

    Args:
        text: Such as `owner/corpus:emotion`.

    Returns:
        The dataset's id and the task, `default` when none is named.

    Raises:
        RequestError: There is no owner or no name.

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
    """Write a list of files with their sizes.

    Args:
        files: What would go.
        where: Where it would go.

    Returns:
        Lines, the sum last.
    """
    lines = [f"{where}:", *(f"{file.size:>14,}  {file.path}" for file in files)]
    total = f"{sum(file.size for file in files):>14,}"
    return "\n".join([*lines, f"{total}  bytes in {len(files)} files"])


def add_card_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `gmp-atl card`."""
    parser.add_argument("run", metavar="RUN", help="folder of a finished run, such as runs/demo")
    parser.add_argument("--output", metavar="FILE", help="write it there, its picture beside it (default: print it)")
    parser.add_argument("--model-id", metavar="ID", help="what its example loads (default: a place to fill in)")
    parser.add_argument("--license", metavar="ID", help="licence of the weights, as the Hub names it")


def card(arguments: argparse.Namespace) -> int:
    """Write the card of a run's model anew from the run's folder."""
    run = Path(arguments.run)
    from ..card.card import draw_figure, render_card
    from ..card.facts import read_run
    from ..card.repository import folders_of, hide_paths
    from ..files import write_whole

    facts = read_run(run)
    output = None if arguments.output is None else Path(arguments.output)
    figure = None if output is None else draw_figure(facts)
    picture = None if output is None or figure is None else output.with_name(f"{output.stem}-confusion.png")
    text = render_card(facts, arguments.model_id, None if picture is None else picture.name, arguments.license)
    text = hide_paths(text, folders_of(facts))
    if output is None:
        print(text, end="")
        return 0
    write_whole(output, text)
    if picture is not None and figure is not None:
        write_whole(picture, figure)
    print(output)
    return 0
