"""`gmp-atl evaluate`: test a finished model, ours or anybody's, and refuse what it was trained on."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .arguments import add_test, corpus_of, test_of
from .console import DONE, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    add_test(parser)
    parser.add_argument(
        "--output-dir",
        metavar="DIR",
        help="write report and predictions there, a folder for each test (default: nowhere)",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON instead of as a table")


def perform(arguments: argparse.Namespace) -> int:
    """Test a model on a corpus; the numbers are those of a run's report, of one fold and one model."""
    test = test_of(arguments)
    from ..report.markdown import render_console
    from ..run.evaluate import evaluate_model

    report = evaluate_model(
        arguments.model, corpus_of(arguments), **test, output_dir=arguments.output_dir, command=arguments.command
    )
    say(json.dumps(report, indent=2, ensure_ascii=False) if arguments.json else render_console(report))
    if arguments.output_dir and not arguments.json:
        say(f"Report: {Path(arguments.output_dir) / 'report.html'}")
    return DONE
