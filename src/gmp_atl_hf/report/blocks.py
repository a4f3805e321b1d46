"""What the report says, as blocks that Markdown and HTML both render: paragraphs, tables, pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import counted
from ..evaluation.power import ALPHA, POWER

DASH = "–"
SMALLEST_VISIBLE_REMARK = (
    "The smallest visible difference is the true one that such a test would have found with a chance of "
    f"{100 * POWER:.0f} % (p below {ALPHA}), as far as these speakers tell; a smaller one can be there and not be seen."
)
TIES_REMARK = (
    "Ties are speakers without a difference, who count neither for p nor for the smallest possible p: with n others, "
    "that of an exact test is 2 / 2ⁿ."
)
P_HOLM = "p (Holm)"
METRIC_NAMES = {"war": "WAR", "uar": "UAR", "macro_f1": "macro F1"}


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the title."""

    text: str
    level: int


@dataclass(frozen=True)
class Stamp:
    """A warning that must stand beside every number."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """A paragraph, with an optional first word or two that stand out."""

    text: str
    lead: str = ""


@dataclass(frozen=True)
class Bullets:
    """A list."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table: the first column left, the others right, or all left if they hold words."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: bool = False


@dataclass(frozen=True)
class Code:
    """Something to copy."""

    text: str


@dataclass(frozen=True)
class FigureSlot:
    """Where a picture belongs, if it was drawn."""

    kind: str
    variant: str | None = None


Element = Heading | Stamp | Paragraph | Bullets | Table | Code | FigureSlot


def percent(value: float | None, digits: int = 1) -> str:
    """Write a fraction as a percentage without the sign, or a dash when it is not known.

    Example:
        >>> percent(0.75), percent(None)
        ('75.0', '–')
    """
    if value is None or math.isnan(value):
        return DASH
    return f"{100 * value:.{digits}f}"


def points(value: float) -> str:
    """Write a difference of fractions as percentage points with its sign."""
    # A difference that rounds to zero has no sign to show.
    text = f"{100 * value:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "−")


def p_value(value: float) -> str:
    """Write a p value."""
    return f"{value:.2g}" if value < 0.001 else f"{value:.3f}"


def interval(bounds: Sequence[float] | None, *, signed: bool = False) -> str:
    """Write an interval of fractions as percentages, or a dash."""
    if bounds is None:
        return DASH
    return (
        f"{points(bounds[0])} to {points(bounds[1])}" if signed else f"{percent(bounds[0])}{DASH}{percent(bounds[1])}"
    )


def protocol_line(report: Mapping[str, Any]) -> str:
    """Return the sentence that says how the folds were made: the protocol's own, else its kind and settings."""
    protocol = report["protocol"]
    if protocol.get("sentence"):
        return str(protocol["sentence"])
    settings = [
        f"{key.replace('_', ' ')} {in_words(value)}"
        for key, value in protocol.items()
        if key not in ("kind", "sentence") and value is not None
    ]
    kind = str(protocol.get("kind") or "protocol not stated")
    return f"{kind} ({'; '.join(settings)})" if settings else kind


def report_blocks(report: Mapping[str, Any]) -> Iterator[Element]:
    """Give the whole report, as `build_report` made it, in the order of reading."""
    yield Heading(report["name"], 1)
    yield from map(Stamp, report["stamps"])
    yield _headline(report)
    yield FigureSlot("variants")
    yield Paragraph(protocol_line(report), "Protocol:")
    yield Paragraph(", ".join(report["labels"]), "Labels:")
    yield Paragraph(", ".join(map(str, report["seeds"])), "Seeds:")
    yield Paragraph(
        "Each number is computed over all test utterances of all folds at once and averaged over seeds. WAR is "
        "accuracy; UAR is the mean recall over the labels that occur in the references; macro F1 is the mean over the "
        "same labels. Intervals resample test speakers.",
        "How to read it:",
    )
    if report["notes"]:
        yield Bullets(report["notes"])
    yield from _comparisons(report)
    for variant, summary in report["variants"].items():
        yield from _variant(report, variant, summary)
    environment = dict(report["environment"] or {})
    earlier = environment.pop("earlier", ())
    for title, mapping, header in (
        ("Left out", report["left_out"], ("reason", "recordings")),
        ("Corpus", report["corpus"], ("", "")),
        ("Environment" + (" of the last part" if earlier else ""), environment, ("", "")),
        *(("Environment of an earlier part", one, ("", "")) for one in earlier),
    ):
        if mapping:
            yield Heading(title, 2)
            yield Table(header, [[key, in_words(value)] for key, value in mapping.items()], words=True)
    yield Heading("Command", 2)
    yield Code(report["command"])


def headline_cells(summary: Mapping[str, Any]) -> list[str]:
    """Give the numbers of a variant that everybody looks at first."""
    return [
        percent(summary["war"]["pooled"]),
        percent(summary["uar"]["pooled"]),
        interval(summary["uar_ci95"]),
        percent(summary["macro_f1"]["pooled"]),
        _without_noun(summary["folds_done"]),
        _without_noun(summary["seeds_done"]),
    ]


def speakers_of(summary: Mapping[str, Any], noun: str) -> str:
    """Count the speakers of a variant; nobody knows how many the unknown ones are."""
    if not summary.get("unknown_utterances"):  # not in reports of earlier versions
        return counted(summary["speakers"], noun)
    return f"{counted(summary['speakers'], noun)} and of unknown ones" if summary["speakers"] else f"unknown {noun}s"


def name_of_test(comparison: Mapping[str, Any]) -> str:
    """Name the paired test that was made."""
    return "exact sign-flip test" if comparison["exact"] else "sign-flip test, random draws"


def tested_speakers(comparison: Mapping[str, Any]) -> str:
    """Write how many speakers a paired test had, and how many of them count for no p value since they tie."""
    ties = f", {comparison['ties']:,} without a difference" if comparison["ties"] else ""
    return counted(comparison["n"], "speaker") + ties


def smallest_visible(comparison: Mapping[str, Any]) -> str:
    """Write the smallest difference that a comparison could have seen, in points, or a dash."""
    # Reports of earlier versions do not have it.
    return percent(comparison.get("smallest_visible_difference"))


def tested_cells(tested: Mapping[str, Any]) -> list[str]:
    """Give what a test over speakers found: difference, interval, p values, smallest visible difference, speakers."""
    return [
        points(tested["mean_difference"]),
        interval(tested["ci95"], signed=True),
        p_value(tested["p"]),
        p_value(tested["smallest_attainable_p"]),
        smallest_visible(tested),
        str(tested["n"]),
    ]


def corrected_p(tested: Mapping[str, Any]) -> str:
    """Write p as corrected for several tests, or a dash: a single test, or a report of an earlier version."""
    return p_value(tested["p_holm"]) if "p_holm" in tested else DASH


def insert_corrected_p(header: list[str], rows: Sequence[list[str]], tests: Sequence[Mapping[str, Any]]) -> int:
    """Put the corrected p of each row's test beside its p, if there are any; how many tests have one."""
    corrected = sum("p_holm" in test for test in tests)
    if corrected:
        place = header.index("p") + 1
        header.insert(place, P_HOLM)
        for row, test in zip(rows, tests, strict=True):
            row.insert(place, corrected_p(test))
    return corrected


def holm_remark(tests: int, which: str) -> str:
    """Say what the corrected p values are corrected for."""
    return (
        f"{P_HOLM} is p corrected by Holm's method for the {tests} {which}: if nothing differed, any of them would be "
        f"below {ALPHA} with a chance of {100 * ALPHA:.0f} % at most."
    )


def comparison_cells(comparison: Mapping[str, Any]) -> list[str]:
    """Give what is known of a difference, beside whose it is."""
    return [
        *tested_cells(comparison),
        str(comparison["ties"]),
        name_of_test(comparison),
        points(comparison["pooled_difference"]),
        interval(comparison["pooled_ci95"], signed=True),
    ]


COMPARISON_HEADER = (
    "mean over speakers",
    "95 % interval",
    "p",
    "smallest possible p",
    "smallest visible difference",
    "speakers",
    "ties",
    "test",
    "pooled",
    "interval of pooled",
)


def _headline(report: Mapping[str, Any]) -> Table:
    header = ["variant", "WAR %", "UAR %", "95 % interval", "macro F1 %", "folds", "seeds", "speakers", "utterances"]
    rows = [
        [variant, *headline_cells(summary), str(summary["speakers"]), str(summary["utterances"])]
        for variant, summary in report["variants"].items()
    ]
    return Table(header, rows)


def _comparisons(report: Mapping[str, Any]) -> Iterator[Element]:
    comparisons = report["comparisons"]
    if comparisons:
        header = ["difference in UAR", *COMPARISON_HEADER]
        rows = [[f"{c['first']} − {c['other']}", *comparison_cells(c)] for c in comparisons]
        corrected = insert_corrected_p(header, rows, comparisons)
        yield Heading("Comparisons", 2)
        yield Table(header, rows)
        yield Paragraph(
            comparisons[0]["remark"] + " Differences are in points. The test is that of the mean over speakers; the "
            "pooled difference, in which speakers with more utterances count more, may be another. "
            + SMALLEST_VISIBLE_REMARK
            + (f" {holm_remark(corrected, 'comparisons of this table')}" if corrected else "")
            + (f" {TIES_REMARK}" if any(c["ties"] for c in comparisons) else "")
        )


def _variant(report: Mapping[str, Any], variant: str, summary: Mapping[str, Any]) -> Iterator[Element]:
    yield Heading(variant, 2)
    if not summary["utterances"]:
        yield Paragraph(f"{summary['folds_done']}, {summary['seeds_done']}: nothing to show yet.")
        return
    yield Paragraph(
        f"{summary['folds_done']}, {summary['seeds_done']}; {counted(summary['utterances'], 'utterance')} of "
        f"{speakers_of(summary, 'test speaker')}. UAR by chance: {percent(summary['chance_uar'])} %. "
        f"UAR: {summary['uar_ci95_note']}. {protocol_line(report)}"
    )
    parts = ("pooled", "folds_mean", "folds_std", "seeds_mean", "seeds_std")
    rows = [[name, *(percent(summary[metric][part]) for part in parts)] for metric, name in METRIC_NAMES.items()]
    yield Table(["%", "pooled", "mean of folds", "sd of folds", "mean of seeds", "sd of seeds"], rows)
    yield Heading("Confusion and recall", 3)
    yield FigureSlot("confusion", variant)
    yield Table(
        ["reference \\ predicted", *report["labels"], "recall %"],
        [
            [label, *(f"{round(count, 1):g}" for count in row), percent(summary["per_class_recall"][label])]
            for label, row in zip(report["labels"], summary["confusion"], strict=True)
        ],
    )
    yield Heading("Per gender", 3)
    yield from _genders(report, summary)
    if summary["per_corpus"]:
        yield Heading("Per corpus", 3)
        yield _groups("corpus", summary["per_corpus"])
    yield from _calibration(variant, summary)
    yield from _adaptation(summary)
    yield Heading("Per speaker", 3)
    yield FigureSlot("speakers", variant)
    yield _groups("speaker", summary["per_speaker"], with_speakers=False)
    yield Heading("Per fold", 3)
    yield _groups("fold", {str(entry["fold"]): entry for entry in summary["per_fold"]})
    if len(summary["per_seed"]) > 1:
        yield Heading("Per seed", 3)
        rows = [[str(s["seed"]), *(percent(s[metric]) for metric in METRIC_NAMES)] for s in summary["per_seed"]]
        yield Table(["seed", "WAR %", "UAR %", "macro F1 %"], rows)
    yield FigureSlot("learning", variant)
    yield FigureSlot("clusters", variant)


def _genders(report: Mapping[str, Any], summary: Mapping[str, Any]) -> Iterator[Element]:
    groups = summary["per_gender"]
    yield _groups("gender", groups)
    recalls = [
        [gender, *(percent(group["per_class_recall"][label]) for label in report["labels"]), percent(group["ece"])]
        for gender, group in groups.items()
    ]
    yield Table(["recall %", *report["labels"], "calibration error %"], recalls)
    gap = summary["gender_gap"]
    if gap is not None:
        bounds = "" if gap["ci95"] is None else f" ({interval(gap['ci95'], signed=True)})"
        labels = f" over {', '.join(gap['labels'])}" if len(gap["labels"]) < len(report["labels"]) else ""
        people = f"{gap['speakers']['female']} and {counted(gap['speakers']['male'], 'speaker')}"
        yield Paragraph(
            f"{points(gap['uar_difference'])} points of UAR{bounds}{labels}, from {people}; {gap['note']}.",
            "Female minus male:",
        )


def _calibration(variant: str, summary: Mapping[str, Any]) -> Iterator[Element]:
    calibration = summary["calibration"]
    if calibration is None:
        return
    yield Heading("Calibration", 3)
    yield FigureSlot("reliability", variant)
    after = calibration["ece_calibrated"]
    text = f"{percent(calibration['ece'])} % with {calibration['bins']} bins, scores as the model gives them"
    if after is not None:
        text += (
            f"; {percent(after)} % once each fold's logits are divided by the temperature that its own development "
            "speakers ask for"
        )
    yield Paragraph(f"{text}.", "Expected calibration error:")


def _adaptation(summary: Mapping[str, Any]) -> Iterator[Element]:
    adaptation = summary.get("adaptation")  # not of earlier versions, nor of models that cannot be adapted
    if adaptation is None:
        return
    yield Heading("Knowing the speaker", 3)
    yield Stamp(f"The UARs of this table are {adaptation['stamp']}; all others in this report are not.")
    yield Table(*adaptation_table(summary))
    yield Paragraph(adaptation_remark(adaptation))


def adaptation_table(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Give heading and rows of UAR against the number of unlabelled clips, the plain one first."""
    adaptation, plain = summary["adaptation"], summary["uar"]["pooled"]
    few = adaptation["emotions_of_uneven_draws"]
    header = ["clips of the speaker", "UAR %, drawn evenly", "difference", f"UAR %, of {few} emotions", "difference"]
    rows = [["0", percent(plain), DASH, percent(plain), DASH]]
    for clips, kinds in adaptation["uar"].items():
        cells = [[percent(kinds[kind]), points(kinds[kind] - plain)] for kind in ("even", "uneven")]
        rows.append([clips, *cells[0], *cells[1]])
    return header, rows


def adaptation_remark(adaptation: Mapping[str, Any]) -> str:
    """Say how the clips of that table were drawn."""
    most, few = adaptation.get("drawn_from"), adaptation["emotions_of_uneven_draws"]
    from_all = "all others of the speaker" + (f" ({most:,} of them where there are more)" if most else "")
    return (
        "Each utterance is scored with statistics of other clips of its speaker, in place of those of the training "
        "clips; one whose speaker is not known or has no other clip is scored as ever. No label enters the statistics. "
        f"Clips are drawn {adaptation['draws']} times for each utterance, evenly from {from_all}, or from those of "
        f"{few} emotions that are drawn for each speaker, by their labels; a speaker who has fewer gives all. "
        "Differences are in points of UAR. One constant of the adaptation was chosen on EMO-DB, so figures on EMO-DB "
        "itself are a little too good."
    )


def _groups(what: str, groups: Mapping[str, Mapping[str, Any]], *, with_speakers: bool = True) -> Table:
    rows = [
        [
            group,
            *(percent(values[metric]) for metric in METRIC_NAMES),
            *([] if with_speakers else [interval(values["uar_ci95"])]),
            str(values["utterances"]),
            *([str(values["speakers"])] if with_speakers else []),
            ", ".join(values["absent_labels"]) or DASH,
        ]
        for group, values in groups.items()
    ]
    own = [] if with_speakers else ["interval of UAR"]
    speakers = ["speakers"] if with_speakers else []
    return Table([what, "WAR %", "UAR %", "macro F1 %", *own, "utterances", *speakers, "absent labels"], rows)


def in_words(value: Any) -> str:
    """Write a setting so that nothing of Python or JSON shows through where a word will do."""
    if value is None or value in ({}, [], ""):
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {in_words(item)}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(in_words(item) for item in value)
    return value if isinstance(value, str) else json.dumps(value)


def _without_noun(done: str) -> str:
    """Shorten "2 of 10 folds" for a column that is headed "folds"."""
    return done.rsplit(" ", 1)[0]
