"""`gmp-atl card`: the card of a run's model."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..files import write_whole
from .console import DONE, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("run", metavar="RUN", help="folder of a finished run, such as runs/demo")
    parser.add_argument("--output", metavar="FILE", help="write it there, its picture beside it (default: print it)")
    parser.add_argument("--model-id", metavar="ID", help="what its example loads (default: a place to fill in)")
    parser.add_argument("--license", metavar="ID", help="licence of the weights, as the Hub names it")


def perform(arguments: argparse.Namespace) -> int:
    """Write the card of a run's model anew from the run's folder."""
    from ..card.card import draw_figure, render_card
    from ..card.facts import read_run
    from ..card.repository import folders_of, hide_paths

    facts = read_run(Path(arguments.run))
    output = None if arguments.output is None else Path(arguments.output)
    figure = None if output is None else draw_figure(facts)
    picture = None if output is None or figure is None else output.with_name(f"{output.stem}-confusion.png")
    text = render_card(facts, arguments.model_id, None if picture is None else picture.name, arguments.license)
    text = hide_paths(text, folders_of(facts))
    if output is None:
        say(text.removesuffix("\n"))
        return DONE
    write_whole(output, text)
    if picture is not None and figure is not None:
        write_whole(picture, figure)
    say(str(output))
    return DONE
