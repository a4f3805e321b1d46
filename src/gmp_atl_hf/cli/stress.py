"""`gmp-atl stress`: what a model loses on recordings that are not as clean as those of a corpus."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .arguments import add_test, corpus_of, test_of
from .console import DONE, PROGRAM, complain, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    add_test(parser)
    parser.add_argument(
        "--conditions",
        metavar="A,B,…",
        help="only these, such as white-10,telephone (default: all); clean is always one",
    )
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="seed of noise and rooms (0)")
    parser.add_argument("--output-dir", metavar="DIR", help="write stress.json and stress.md there (default: nowhere)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON instead of as a table")


def perform(arguments: argparse.Namespace) -> int:
    """Test a model on clean recordings of a corpus and on worse ones."""
    test, wanted = test_of(arguments), arguments.conditions
    from ..stress.pages import format_stress
    from ..stress.stress import STRESS_PAGE, stress_model

    report = stress_model(
        arguments.model,
        corpus_of(arguments),
        conditions=None if wanted is None else [name.strip() for name in wanted.split(",")],
        seed=arguments.seed,
        **test,
        output_dir=arguments.output_dir,
        command=arguments.command,
    )
    for one in report["left_out"]:
        complain(f"{PROGRAM}: left out: {one['file']}: {one['reason']}")
    say(json.dumps(report, indent=2, ensure_ascii=False) if arguments.json else format_stress(report))
    if arguments.output_dir and not arguments.json:
        say(f"Report: {Path(arguments.output_dir) / STRESS_PAGE}")
    return DONE
