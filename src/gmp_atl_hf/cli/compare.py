"""`gmp-atl compare`: two runs, or two variants of one, on the same test utterances, paired over speakers."""

from __future__ import annotations

import argparse
import json
from typing import Any

from .console import DONE, say

_SHOWN = 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("first", metavar="RUN_A[:VARIANT]", help="folder of a run (default: its first variant)")
    parser.add_argument(
        "other",
        metavar="RUN_B[:VARIANT]",
        help="what to compare it with; :VARIANT alone is another variant of RUN_A",
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON, each speaker included")


def perform(arguments: argparse.Namespace) -> int:
    """Compare two finished runs or variants; the unit is the speaker, after a mean over seeds."""
    from ..report.compare import compare_runs

    comparison = compare_runs(arguments.first, arguments.other)
    comparison["command"] = arguments.command
    say(json.dumps(comparison, indent=2, ensure_ascii=False) if arguments.json else format_comparison(comparison))
    return DONE


def format_comparison(comparison: dict[str, Any]) -> str:
    """Write what `compare_runs` returned, with the `command`, for the screen."""
    from ..report.blocks import COMPARISON_HEADER, METRIC_NAMES, comparison_cells, interval, percent, points
    from ..report.markdown import aligned

    first, other = comparison["first"], comparison["other"]
    rows = [["", *METRIC_NAMES.values(), "95 % interval of UAR", "folds", "seeds"]]
    for side in (first, other):
        rows.append(
            [
                side["name"],
                *(percent(side[metric]) for metric in METRIC_NAMES),
                interval(side["uar_ci95"]),
                side["folds_done"].rsplit(" ", 1)[0],
                side["seeds_done"].rsplit(" ", 1)[0],
            ]
        )
    rows.append(["difference", *(points(first[metric] - other[metric]) for metric in METRIC_NAMES), "", "", ""])
    tested = f"{comparison['utterances']} utterances of {comparison['n']} speakers"
    lines = [f"*** {stamp} ***" for stamp in comparison["stamps"]]
    lines += [*aligned(rows), "", f"Difference in UAR, paired over the same {tested}:"]
    lines += [f"  {name}: {cell}" for name, cell in zip(COMPARISON_HEADER, comparison_cells(comparison), strict=True)]
    people = comparison["per_speaker"]
    table = [["speaker", "first", "other", "difference"]]
    table += [
        [name, percent(own["first"]), percent(own["other"]), points(own["difference"])] for name, own in people.items()
    ]
    lines += ["", *aligned(table[: _SHOWN + 1])]
    if len(people) > _SHOWN:
        lines.append(f"and {len(people) - _SHOWN} more (--json has all of them)")
    lines += ["", comparison["remark"], *(f"Note: {note}" for note in comparison["notes"])]
    if first["protocol"] == other["protocol"]:
        lines.append(f"Protocol: {first['protocol']}")
    else:
        lines += [f"First: {first['protocol']}", f"Other: {other['protocol']}"]
    lines.append(f"Command: {comparison['command']}")
    return "\n".join(lines)
