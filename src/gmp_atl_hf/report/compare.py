"""Two finished runs, or two variants of one, compared on the same test utterances, paired over speakers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import RequestError, counted
from ..evaluation.comparison import compare_results
from ..evaluation.summary import uar_interval
from ..evaluation.unknown import named
from ..run_folder.finished import TestedVariant, read_variant, variants_of
from .blocks import METRIC_NAMES, protocol_line


def compare_runs(first: str, other: str) -> dict[str, Any]:
    """Compare two runs or two variants.

    Args:
        first: `run` or `run:variant`.
        other: The same, or `:variant` for another variant of the first run.

    Returns:
        Both sides with their metrics, and the comparison; JSON types.

    Raises:
        RequestError: A side is not there, is the other one, or was tested on other utterances, or nobody knows who
            speaks in them.
    """
    if other.startswith(":"):
        folder = first if Path(first).is_dir() else first.rpartition(":")[0]
        other = folder + other
    elif Path(first).is_dir() and Path(other).is_dir() and Path(first).samefile(other):
        # One run twice means its first two variants.
        names = variants_of(first)
        if len(names) < 2:
            fix = f"variants: [{names[0]}, {'gmp-atl' if names[0] == 'direct' else 'direct'}]"
            raise RequestError(f"the run {first} has one variant only", "two variants, or two runs", fix)
        other = f"{other}:{names[1]}"
    sides = [read_variant(first), read_variant(other)]
    refuse_unlike(*sides)
    refuse_nameless(sides[0].name, sides[0].block.speakers.tolist())
    independent = all(side.speaker_independent for side in sides)
    result = compare_results(sides[0].results, sides[1].results, sides[0].labels, independent)
    notes = []
    kinds = [str(side.protocol.get("kind")) for side in sides]
    if kinds[0] != kinds[1]:
        notes.append(
            f"The protocols differ ({kinds[0]} and {kinds[1]}): the models were trained on different speakers."
        )
    notes += note_on_seeds(*sides) + note_on_unknown(result["unknown_utterances"])
    return {
        "first": _side(sides[0]),
        "other": _side(sides[1]),
        **result,
        "utterances": int(sides[0].block.references.size),
        "stamps": list(dict.fromkeys(stamp for side in sides for stamp in side.stamps)),
        "notes": notes,
    }


def _side(side: TestedVariant) -> dict[str, Any]:
    summary = side.summary
    return {
        "name": side.name,
        **{metric: summary[metric]["pooled"] for metric in METRIC_NAMES},
        # As today, beside the interval of the difference: that of an earlier report may have another rule.
        "uar_ci95": uar_interval(side.block, side.labels, side.speaker_independent)[0],
        "folds_done": summary["folds_done"],
        "seeds_done": summary["seeds_done"],
        "protocol": protocol_line({"protocol": side.protocol}),
    }


def note_on_seeds(first: TestedVariant, other: TestedVariant) -> list[str]:
    """Say where the sides are means over different numbers of seeds."""
    numbers = [len(side.summary["seeds"]) for side in (first, other)]
    if numbers[0] == numbers[1]:
        return []
    return [f"The numbers of seeds differ ({numbers[0]} and {numbers[1]}); each side is a mean over its own."]


def note_on_unknown(utterances: int) -> list[str]:
    """Say how many utterances the test over speakers leaves out."""
    if not utterances:
        return []
    return [f"{counted(utterances, 'utterance')} of unknown speakers: in the pooled difference alone."]


def refuse_nameless(where: str, speakers: Sequence[str]) -> None:
    """A test over speakers needs speakers."""
    if not named(speakers).any():
        raise RequestError(
            f"nobody knows who speaks in {where}",
            "test speakers with names: the comparison is over speakers",
            "compare WAR and UAR of the two reports instead",
        )


def refuse_unlike(first: TestedVariant, other: TestedVariant) -> None:
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
            f"{first.name} and {other.name} were tested on different utterances: "
            f"{counted(len(differing), 'differs', 'differ')}, for example {differing[0]} "
            f"({only[0]} are in the first only, {only[1]} in the other only)",
            "the same utterances, speakers, genders and emotions on both sides",
            "finish the same folds of both runs, with the same corpus and label map",
        )
