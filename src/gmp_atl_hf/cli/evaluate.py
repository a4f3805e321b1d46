"""`gmp-atl evaluate`: test a finished model, ours or anybody's, and refuse what it was trained on."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .arguments import add_corpus, add_model, corpus_of, label_map, read_map
from .console import DONE, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    add_model(parser)
    add_corpus(
        parser,
        labels_help="emotion in the corpus = emotion of the model; null drops it (needed where the words differ). For "
        "a model that is not of this package, label of the model = emotion of the corpus, or null if it means none",
    )
    parser.add_argument(
        "--dimensions",
        metavar="FILE",
        help="for a model of values on scales: YAML or JSON with a centre for each emotion, such as "
        "anger: {arousal: 0.8, valence: 0.2}; a recording has the emotion whose centre is nearest",
    )
    parser.add_argument(
        *("--unseen-only", "--unheard-only"),  # the second is its former name
        action="store_true",
        help="leave out the speakers that the model was trained on, known by name or by a recording, and list them",
    )
    parser.add_argument("--split", choices=("train", "dev", "test"), help="only this part of the corpus' own split")
    parser.add_argument(
        "--batch-size", metavar="N", type=int, default=8, help="clips per batch; the scores stay the same"
    )
    parser.add_argument(
        "--output-dir",
        metavar="DIR",
        help="write report and predictions there, a folder for each test (default: nowhere)",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON instead of as a table")


def perform(arguments: argparse.Namespace) -> int:
    """Test a model on a corpus; the numbers are those of a run's report, of one fold and one model."""
    labels, corpus = label_map(arguments.labels), corpus_of(arguments)
    dimensions = None
    if arguments.dimensions is not None:
        dimensions = read_map(Path(arguments.dimensions), "--dimensions", "anger: {arousal: 0.8, valence: 0.2}")
    from ..report.markdown import render_console
    from ..run.evaluate import evaluate_model

    report = evaluate_model(
        arguments.model,
        corpus,
        labels=labels or None,
        dimensions=dimensions,
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
