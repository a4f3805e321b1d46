"""The report as people read it: `report.md`, and the short table on the screen."""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

DASH = "–"


def percent(value: float | None, digits: int = 1) -> str:
    """Write a fraction as a percentage without the sign, or a dash when it is not known.

    Example:
        >>> percent(0.75), percent(None)
        ('75.0', '–')
    """
    if value is None or math.isnan(value):
        return DASH
    return f"{100 * value:.{digits}f}"


def protocol_line(report: Mapping[str, Any]) -> str:
    """Return the sentence that says how the folds were made: the protocol's own, else its kind and settings."""
    protocol = report["protocol"]
    if protocol.get("sentence"):
        return str(protocol["sentence"])
    settings = [
        f"{key.replace('_', ' ')} {_words(value)}"
        for key, value in protocol.items()
        if key not in ("kind", "sentence") and value is not None
    ]
    kind = str(protocol.get("kind") or "protocol not stated")
    return f"{kind} ({'; '.join(settings)})" if settings else kind


def render_markdown(report: Mapping[str, Any], figures: Mapping[str, str] | None = None) -> str:
    """Write the whole report as Markdown.

    Args:
        report: What `build_report` returned.
        figures: Path of the confusion matrix of each variant that has one, relative to the Markdown file.
    """
    parts = [f"# {_cell(report['name'])}"]
    parts += [f"> **{_cell(stamp)}**" for stamp in report["stamps"]]
    parts += [_headline(report), _definitions(report)]
    parts += [_bullets(report["notes"])] if report["notes"] else []
    parts += _comparison_section(report)
    for variant, summary in report["variants"].items():
        parts += _variant_section(report, variant, summary, (figures or {}).get(variant))
    parts += _mapping_section("Left out", report["left_out"], ("reason", "recordings"))
    parts += _mapping_section("Corpus", report["corpus"], ("", ""))
    parts += _mapping_section("Environment", report["environment"], ("", ""))
    parts += ["## Command", f"```\n{report['command']}\n```"]
    return "\n\n".join(parts) + "\n"


def render_console(report: Mapping[str, Any]) -> str:
    """Write the short table for the screen, with the protocol and everything that qualifies the numbers."""
    header = ["variant", "WAR", "UAR", "95 % interval", "macro F1", "folds", "seeds"]
    rows = [header] + [[variant, *_headline_cells(summary)] for variant, summary in report["variants"].items()]
    widths = [max(_width(row[column]) for row in rows) for column in range(len(header))]
    lines = [f"{report['name']} (percent)"]
    lines += [f"*** {stamp} ***" for stamp in report["stamps"]]
    lines.append("")
    for row in rows:
        cells = [_pad(cell, width, left=i == 0) for i, (cell, width) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    lines += ["", f"Protocol: {protocol_line(report)}", f"Tested:   {_tested(report)}"]
    lines += [_comparison_sentence(comparison) for comparison in report["comparisons"]]
    if report["comparisons"]:
        lines.append(report["comparisons"][0]["remark"])
    lines += [f"Note: {note}" for note in report["notes"]]
    lines += [f"Left out: {count} ({reason})" for reason, count in report["left_out"].items()]
    lines.append(f"Command:  {report['command']}")
    return "\n".join(lines)


def _headline(report: Mapping[str, Any]) -> str:
    header = ["variant", "WAR %", "UAR %", "95 % interval", "macro F1 %", "folds", "seeds", "speakers", "utterances"]
    rows = [
        [variant, *_headline_cells(summary), str(summary["speakers"]), str(summary["utterances"])]
        for variant, summary in report["variants"].items()
    ]
    return _table(header, rows)


def _headline_cells(summary: Mapping[str, Any]) -> list[str]:
    return [
        percent(summary["war"]["pooled"]),
        percent(summary["uar"]["pooled"]),
        _interval(summary["uar_ci95"]),
        percent(summary["macro_f1"]["pooled"]),
        _without_noun(summary["folds_done"]),
        _without_noun(summary["seeds_done"]),
    ]


def _definitions(report: Mapping[str, Any]) -> str:
    lines = [
        f"**Protocol:** {_cell(protocol_line(report))}",
        f"**Labels:** {', '.join(_cell(label) for label in report['labels'])}",
        f"**Seeds:** {', '.join(str(seed) for seed in report['seeds'])}",
        "**How to read it:** Each number is computed over all test utterances of all folds at once and averaged over "
        "seeds. WAR is accuracy; UAR is the mean recall over the labels that occur in the references; macro F1 is the "
        "mean over the same labels. Intervals resample test speakers.",
    ]
    return "\n\n".join(lines)


def _comparison_section(report: Mapping[str, Any]) -> list[str]:
    comparisons = report["comparisons"]
    if not comparisons:
        return []
    header = ["difference in UAR", "points", "p", "smallest possible p", "speakers", "ties", "test"]
    rows = [
        [
            f"{c['first']} − {c['other']}",
            _points(c["mean_difference"]),
            _p(c["p"]),
            _p(c["smallest_attainable_p"]),
            str(c["n"]),
            str(c["ties"]),
            _test_name(c),
        ]
        for c in comparisons
    ]
    return ["## Comparisons", _table(header, rows), _cell(comparisons[0]["remark"])]


def _variant_section(
    report: Mapping[str, Any], variant: str, summary: Mapping[str, Any], figure: str | None
) -> list[str]:
    parts = [f"## {_cell(variant)}"]
    if not summary["utterances"]:
        return [*parts, f"{summary['folds_done']}, {summary['seeds_done']}: nothing to show yet."]
    parts.append(
        f"{summary['folds_done']}, {summary['seeds_done']}; {_count(summary['utterances'], 'utterance')} of "
        f"{_count(summary['speakers'], 'test speaker')}. UAR by chance: {percent(summary['chance_uar'])} %. "
        f"UAR: {_cell(summary['uar_ci95_note'])}. {_cell(protocol_line(report))}"
    )
    names = {"war": "WAR", "uar": "UAR", "macro_f1": "macro F1"}
    rows = [
        [
            names[metric],
            percent(summary[metric]["pooled"]),
            percent(summary[metric]["folds_mean"]),
            percent(summary[metric]["folds_std"]),
            percent(summary[metric]["seeds_mean"]),
            percent(summary[metric]["seeds_std"]),
        ]
        for metric in names
    ]
    parts.append(_table(["%", "pooled", "mean of folds", "sd of folds", "mean of seeds", "sd of seeds"], rows))
    if figure:
        parts.append(f"![Confusion matrix of {_cell(variant)}]({figure})")
    parts += ["### Confusion and recall", _confusion_table(report["labels"], summary)]
    parts += ["### Per gender", _group_table("gender", summary["per_gender"])]
    parts += ["### Per speaker", _group_table("speaker", summary["per_speaker"], with_speakers=False)]
    folds = {str(entry["fold"]): entry for entry in summary["per_fold"]}
    parts += ["### Per fold", _group_table("fold", folds)]
    if len(summary["per_seed"]) > 1:
        rows = [[str(s["seed"]), *(percent(s[metric]) for metric in names)] for s in summary["per_seed"]]
        parts += ["### Per seed", _table(["seed", "WAR %", "UAR %", "macro F1 %"], rows)]
    return parts


def _confusion_table(labels: Sequence[str], summary: Mapping[str, Any]) -> str:
    rows = [
        [label, *(f"{round(count, 1):g}" for count in row), percent(summary["per_class_recall"][label])]
        for label, row in zip(labels, summary["confusion"], strict=True)
    ]
    return _table(["reference \\ predicted", *labels, "recall %"], rows)


def _group_table(what: str, groups: Mapping[str, Mapping[str, Any]], *, with_speakers: bool = True) -> str:
    rows = [
        [
            group,
            *(percent(values[metric]) for metric in ("war", "uar", "macro_f1")),
            str(values["utterances"]),
            *([str(values["speakers"])] if with_speakers else []),
            ", ".join(values["absent_labels"]) or DASH,
        ]
        for group, values in groups.items()
    ]
    speakers = ["speakers"] if with_speakers else []
    return _table([what, "WAR %", "UAR %", "macro F1 %", "utterances", *speakers, "absent labels"], rows)


def _mapping_section(title: str, mapping: Mapping[str, Any] | None, header: tuple[str, str]) -> list[str]:
    if not mapping:
        return []
    rows = [[key, _words(value)] for key, value in mapping.items()]
    return [f"## {title}", _table(header, rows, words=True)]


def _tested(report: Mapping[str, Any]) -> str:
    """Say on whom the variants were tested, in one phrase where they agree."""
    labels = f"{_count(len(report['labels']), 'label')}: {', '.join(report['labels'])}"
    sizes = {
        variant: f"{_count(s['speakers'], 'speaker')}, {_count(s['utterances'], 'utterance')}"
        for variant, s in report["variants"].items()
        if s["utterances"]
    }
    distinct = list(dict.fromkeys(sizes.values()))
    if len(distinct) <= 1:
        return "; ".join([*distinct, labels])
    return "; ".join([*(f"{variant} on {size}" for variant, size in sizes.items()), labels])


def _comparison_sentence(comparison: Mapping[str, Any]) -> str:
    return (
        f"{comparison['first']} − {comparison['other']}: {_points(comparison['mean_difference'])} points of UAR, "
        f"p = {_p(comparison['p'])} (smallest possible {_p(comparison['smallest_attainable_p'])}, "
        f"{_count(comparison['n'], 'speaker')}, {_test_name(comparison)})"
    )


def _test_name(comparison: Mapping[str, Any]) -> str:
    return "exact sign-flip test" if comparison["exact"] else "sign-flip test, random draws"


def _points(value: float) -> str:
    # A difference that rounds to zero has no sign to show.
    text = f"{100 * value:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "−")


def _p(value: float) -> str:
    return f"{value:.2g}" if value < 0.001 else f"{value:.3f}"


def _interval(interval: Sequence[float] | None) -> str:
    return DASH if interval is None else f"{percent(interval[0])}{DASH}{percent(interval[1])}"


def _without_noun(done: str) -> str:
    """Shorten "2 of 10 folds" for a column that is headed "folds"."""
    return done.rsplit(" ", 1)[0]


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _words(value: Any) -> str:
    """Write a setting so that nothing of Python or JSON shows through where a word will do."""
    if value is None or value in ({}, [], ""):
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_words(item)}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_words(item) for item in value)
    return value if isinstance(value, str) else json.dumps(value)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, words: bool = False) -> str:
    """Write a Markdown table: the first column left, the others right, or all left if they hold words."""
    alignment = [":--"] + [":--" if words else "--:"] * (len(header) - 1)
    lines = [header, alignment, *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    """Keep names with a bar, a star or a line break from tearing a table apart."""
    return " ".join(str(text).split()).replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {_cell(line)}" for line in lines)


def _width(text: str) -> int:
    """Columns on a screen: wide East Asian characters take two, combining marks none."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def _pad(text: str, width: int, *, left: bool) -> str:
    space = " " * (width - _width(text))
    return text + space if left else space + text
