"""`gmp-atl evaluate`: test a finished model on a corpus, and refuse speakers that it was trained on."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .arguments import add_corpus, add_model, corpus_of, pairs
from .console import DONE, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    add_model(parser)
    add_corpus(
        parser,
        labels_help="emotion in the corpus = emotion of the model; null drops it (needed where the words differ)",
    )
    parser.add_argument(
        *("--unseen-only", "--unheard-only"),  # the second is its former name
        action="store_true",
        help="leave out the speakers that the model was trained on, and list them",
    )
    parser.add_argument("--split", choices=("train", "dev", "test"), help="only this part of the corpus' own split")
    parser.add_argument(
        "--batch-size", metavar="N", type=int, default=8, help="clips per batch; the scores stay the same"
    )
    parser.add_argument("--output-dir", metavar="DIR", help="write report and predictions there (default: nowhere)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON instead of as a table")


def perform(arguments: argparse.Namespace) -> int:
    """Test a model on a corpus; the numbers are those of a run's report, of one fold and one model."""
    labels, corpus = pairs(arguments.labels), corpus_of(arguments)
    from ..report.markdown import render_console
    from ..run.evaluate import evaluate_model

    report = evaluate_model(
        arguments.model,
        corpus,
        labels=labels or None,
        unseen_only=arguments.unseen_only,
        split=arguments.split,
        batch_size=arguments.batch_size,
        output_dir=arguments.output_dir,
        command=arguments.command,
    )
    say(json.dumps(report, indent=2, ensure_ascii=False) if arguments.json else render_console(report))
    if arguments.output_dir and not arguments.json:
        say(f"Report: {Path(arguments.output_dir) / 'report.html'}")
    return DONE
