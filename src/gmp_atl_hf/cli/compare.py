"""`gmp-atl compare`: two runs, or two variants of one or several, on the same test utterances, paired over speakers."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import RequestError, counted
from ..files import write_whole
from .arguments import picture_of
from .console import DONE, say

_SHOWN = 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "runs",
        metavar="RUN[:VARIANT]",
        nargs="+",
        help="two runs (default: their first variants; :VARIANT alone is another variant of the first run), or, with "
        "--variants, any number of folders",
    )
    parser.add_argument(
        "--variants",
        metavar=("A", "B"),
        nargs=2,
        help="compare these two variants in every run: one verdict over all corpora",
    )
    parser.add_argument("--picture", metavar="FILE.png", help="draw the verdict of --variants as a forest plot")
    parser.add_argument("--json", action="store_true", help="print everything as JSON, each speaker included")


def perform(arguments: argparse.Namespace) -> int:
    """Compare finished runs or variants; the unit is the speaker, after a mean over seeds."""
    if arguments.variants is not None:
        return _perform_verdict(arguments)
    if len(arguments.runs) != 2:
        raise RequestError(
            f"{counted(len(arguments.runs), 'run')} to compare",
            "two of RUN[:VARIANT], or any number of folders with two variants that all of them have",
            _two_sides(arguments.runs),
        )
    if arguments.picture is not None:
        sides = _two_sides(arguments.runs, verdict=True)
        raise RequestError("a picture of two runs", "--variants: the picture is that of its verdict", sides)
    from ..report.compare import compare_runs

    comparison = compare_runs(*arguments.runs)
    comparison["command"] = arguments.command
    say(json.dumps(comparison, indent=2, ensure_ascii=False) if arguments.json else format_comparison(comparison))
    return DONE


def _two_sides(runs: Sequence[str], verdict: bool = False) -> str:
    """What to type in place of some runs: two sides, or a verdict on two variants, that are there."""
    from ..report.verdict import common_variants

    named = [run for run in runs if not run.startswith(":")]
    folders = list(dict.fromkeys(run if Path(run).is_dir() else run.rpartition(":")[0] or run for run in named))
    common = common_variants(folders)
    if len(common) < 2:
        return "leave out --picture" if verdict else " ".join(["gmp-atl compare", *[*folders, "OTHER_RUN"][:2]])
    if len(folders) == 1 and not verdict:
        return f"gmp-atl compare {folders[0]} :{common[1]}"
    return f"gmp-atl compare {' '.join(folders)} --variants {common[0]} {common[1]}"


def _perform_verdict(arguments: argparse.Namespace) -> int:
    picture = picture_of(arguments)
    from ..report.verdict import compare_over_corpora

    verdict = compare_over_corpora(arguments.runs, *arguments.variants)
    verdict["command"] = arguments.command
    if picture is not None:
        from ..report.forest import forest_png

        write_whole(picture, forest_png(verdict))
    say(json.dumps(verdict, indent=2, ensure_ascii=False) if arguments.json else format_verdict(verdict))
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
    of_named = comparison["utterances"] - comparison["unknown_utterances"]
    tested = f"{counted(of_named, 'utterance')} of {counted(comparison['n'], 'speaker')}"
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


def format_verdict(verdict: dict[str, Any]) -> str:
    """Write what `compare_over_corpora` returned, with the `command`, for the screen."""
    from ..report.blocks import (
        SMALLEST_VISIBLE_REMARK,
        TIES_REMARK,
        holm_remark,
        insert_corrected_p,
        percent,
        tested_cells,
    )
    from ..report.markdown import aligned

    corpora = verdict["corpora"]
    header = ["", verdict["first"], verdict["other"], "difference", "95 % interval", "p", "smallest possible p",
              "smallest visible", "speakers", "seeds"]  # fmt: skip
    rows = [header]
    for name, one in corpora.items():
        numbers = list(dict.fromkeys(len(seeds) for seeds in one["seeds"].values()))
        rows.append(
            [name, percent(one["first"]), percent(one["other"]), *tested_cells(one), " and ".join(map(str, numbers))]
        )
    means = [percent(sum(one[side] for one in corpora.values()) / len(corpora)) for side in ("first", "other")]
    rows.append(["mean over corpora", *means, *tested_cells(verdict["verdict"]), ""])
    for gender, one in verdict["per_gender"].items():
        where = "" if len(one["corpora"]) == len(corpora) else f" ({', '.join(one['corpora'])})"
        rows.append([f"{gender}{where}", "", "", *tested_cells(one), ""])
    tests = [*corpora.values(), verdict["verdict"], *verdict["per_gender"].values()]
    corrected = insert_corrected_p(header, rows[1:], tests)
    lines = [f"UAR of {verdict['first']} minus UAR of {verdict['other']} (percent and points, means over speakers)"]
    lines += [f"*** {stamp} ***" for stamp in verdict["stamps"]]
    lines += ["", *aligned(rows), "", f"Verdict: {verdict['how']['difference']}."]
    lines += [f"p: {verdict['how']['p']}.", f"Interval: {verdict['how']['ci95']}.", SMALLEST_VISIBLE_REMARK]
    if corrected:
        lines.append(f"{holm_remark(corrected, 'lines beside the verdict')} The verdict is one test.")
    if verdict["verdict"]["ties"]:
        tied = ", ".join(f"{name} {one['ties']}" for name, one in corpora.items() if one["ties"])
        lines.append(f"Ties: {tied}. {TIES_REMARK}")
    lines += [verdict["remark"], *(f"Note: {note}" for note in verdict["notes"])]
    lines += [f"{name}: {one['protocol'].rstrip('.')}; runs: {', '.join(one['runs'])}" for name, one in corpora.items()]
    lines.append(f"Command: {verdict['command']}")
    return "\n".join(lines)
