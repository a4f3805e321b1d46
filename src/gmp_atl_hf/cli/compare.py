"""`gmp-atl compare`: two runs, or two variants of one, on the same test utterances, paired over speakers."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RequestError

if TYPE_CHECKING:
    from ..run_folder.finished import TestedVariant

_SHOWN = 30


def add_compare_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `gmp-atl compare`."""
    parser.add_argument("first", metavar="RUN_A[:VARIANT]", help="folder of a run (default: its first variant)")
    parser.add_argument(
        "other",
        metavar="RUN_B[:VARIANT]",
        help="what to compare it with; :VARIANT alone is another variant of RUN_A",
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON, each speaker included")


def compare(arguments: argparse.Namespace) -> int:
    """Compare two finished runs or variants; the unit is the speaker, after a mean over seeds."""
    comparison = compare_runs(arguments.first, arguments.other)
    comparison["command"] = arguments.command
    print(json.dumps(comparison, indent=2, ensure_ascii=False) if arguments.json else format_comparison(comparison))
    return 0


def compare_runs(first: str, other: str) -> dict[str, Any]:
    """Compare two runs or two variants.

    Args:
        first: `run` or `run:variant`.
        other: The same, or `:variant` for another variant of the first run.

    Returns:
        Both sides with their metrics, and the comparison; JSON types.

    Raises:
        RequestError: A side is not there, is the other one, or was tested on other utterances.
    """
    from ..evaluation.comparison import compare_results
    from ..run_folder.finished import read_variant, variants_of

    if other.startswith(":"):
        folder = first if Path(first).is_dir() else first.rpartition(":")[0]
        other = folder + other
    elif Path(first).is_dir() and Path(other).is_dir() and Path(first).samefile(other):
        # One run twice means its first two variants.
        names = variants_of(first)
        if len(names) < 2:
            raise RequestError(
                f"the run {first} has one variant only", "two variants, or two runs", f"variants: [{names[0]}, direct]"
            )
        other = f"{other}:{names[1]}"
    sides = [read_variant(first), read_variant(other)]
    _refuse_unlike(*sides)
    independent = all(side.speaker_independent for side in sides)
    result = compare_results(sides[0].results, sides[1].results, sides[0].labels, independent)
    notes = []
    kinds = [str(side.protocol.get("kind")) for side in sides]
    if kinds[0] != kinds[1]:
        notes.append(
            f"The protocols differ ({kinds[0]} and {kinds[1]}): the models were trained on different speakers."
        )
    numbers = [len(side.summary["seeds"]) for side in sides]
    if numbers[0] != numbers[1]:
        notes.append(f"The numbers of seeds differ ({numbers[0]} and {numbers[1]}); each side is a mean over its own.")
    return {
        "first": _side(sides[0]),
        "other": _side(sides[1]),
        **result,
        "utterances": int(sides[0].block.references.size),
        "stamps": list(dict.fromkeys(stamp for side in sides for stamp in side.stamps)),
        "notes": notes,
    }


def format_comparison(comparison: dict[str, Any]) -> str:
    """Write a comparison for the screen.

    Args:
        comparison: What `compare_runs` returned, with the `command`.

    Returns:
        Lines for people, without a newline at the end.
    """
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
    for side, name in ((first, "First"), (other, "Other")):
        lines.append(f"{name}: {side['protocol']}")
    lines.append(f"Command: {comparison['command']}")
    return "\n".join(lines)


def _side(side: TestedVariant) -> dict[str, Any]:
    from ..report.blocks import METRIC_NAMES, protocol_line

    summary = side.summary
    return {
        "name": side.name,
        **{metric: summary[metric]["pooled"] for metric in METRIC_NAMES},
        "uar_ci95": summary["uar_ci95"],
        "folds_done": summary["folds_done"],
        "seeds_done": summary["seeds_done"],
        "protocol": protocol_line({"protocol": side.protocol}),
    }


def _refuse_unlike(first: TestedVariant, other: TestedVariant) -> None:
    """Only predictions of the same utterances, with the same truth, can be compared."""
    if first.name == other.name:
        raise RequestError(f"{first.name} on both sides", "two runs or two variants", f"{first.name} OTHER_RUN")
    if sorted(first.labels) != sorted(other.labels):
        raise RequestError(
            f"{first.name} tells {', '.join(first.labels)}; {other.name} tells {', '.join(other.labels)}",
            "the same labels on both sides",
            "compare runs with the same label map",
        )
    mine, theirs = first.block.rows(first.labels), other.block.rows(other.labels)
    differing = sorted(i for i in mine.keys() | theirs.keys() if mine.get(i) != theirs.get(i))
    if differing:
        only = [len(mine.keys() - theirs.keys()), len(theirs.keys() - mine.keys())]
        raise RequestError(
            f"{first.name} and {other.name} were tested on different utterances: {len(differing)} differ, for example "
            f"{differing[0]} ({only[0]} are in the first only, {only[1]} in the other only)",
            "the same utterances, speakers, genders and emotions on both sides",
            "finish the same folds of both runs, with the same corpus and label map",
        )
