"""From the predictions of a run to `report.json`: every number with its protocol, folds, seeds and command.

`blocks` makes the tables that people read, `plots` the pictures; both start from the report's dictionary.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..evaluation.comparison import COMPARISON_REMARK, compare_variants
from ..evaluation.results import FoldResult, check_results, is_speaker_independent
from ..evaluation.summary import NOT_SPEAKER_INDEPENDENT, RESAMPLES, variant_notes, variant_summary
from ..files import is_whole, write_known
from .details import TrainingDiagnostics
from .figures import NO_MATPLOTLIB, can_draw, draw_pictures
from .html import render_html
from .markdown import render_markdown

__all__ = [
    "COMPARISON_REMARK",
    "FORMAT_VERSION",
    "NOT_SPEAKER_INDEPENDENT",
    "RESAMPLES",
    "FoldResult",
    "build_report",
    "write_report",
]

FORMAT_VERSION = 1


def build_report(
    *,
    name: str,
    variants: Mapping[str, Sequence[FoldResult]],
    labels: Sequence[str],
    protocol: Mapping[str, Any],
    folds_total: int,
    seeds: Sequence[int],
    command: str,
    stamps: Sequence[str] = (),
    notes: Sequence[str] = (),
    left_out: Mapping[str, int] | None = None,
    corpus: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Turn test predictions into the contents of `report.json`: JSON types only, without NaN.

    A variant's numbers cover one seeds × folds block, so that every seed has the same test utterances: the folds of
    the fullest seed, and every seed that has all of those folds. Results outside are listed under `not_counted`.

    Args:
        name: Name of the run.
        variants: The results of each variant, in the order of the report; the first is compared with each other one.
            An empty sequence stands for a variant that has not finished a fold.
        labels: Names of the emotions, in index order.
        protocol: How the folds were made; `sentence` is printed beside the numbers, `speaker_independent: False`
            stamps them and removes the intervals.
        folds_total: Number of folds of the whole protocol.
        seeds: The seeds that were asked for.
        command: The command that makes these numbers.
        stamps: Warnings that must stand beside every number, such as "labels were shuffled".
        notes: What else a reader should know, one sentence each.
        left_out: Number of recordings left out, per reason.
        corpus: What is known of the corpus.
        environment: Versions and hardware.

    Raises:
        ValueError: If predictions contradict each other: an unknown label, seed or fold, an id twice, a fold twice, or
            different utterances of one fold.
        TypeError: If something is no JSON type and has no plain equivalent.
    """
    label_names = [str(label) for label in labels]
    if not label_names or len(set(label_names)) != len(label_names):
        raise ValueError(f"labels must be distinct names, got {label_names}")
    independent = is_speaker_independent(protocol)
    all_stamps = list(dict.fromkeys([*stamps, *([] if independent else [NOT_SPEAKER_INDEPENDENT])]))
    for variant, results in variants.items():
        check_results(variant, results, label_names, folds_total, seeds)

    summaries = {
        variant: variant_summary(results, label_names, folds_total, seeds, independent)
        for variant, results in variants.items()
    }
    comparisons, comparison_notes = compare_variants(variants, label_names, seeds, independent)
    found = [note for variant, summary in summaries.items() for note in variant_notes(variant, summary)]
    report = {
        "format_version": FORMAT_VERSION,
        "name": name,
        "protocol": dict(protocol),
        "folds_total": folds_total,
        "labels": label_names,
        "seeds": list(seeds),
        "command": command,
        "stamps": all_stamps,
        "notes": [*notes, *found, *comparison_notes],
        "variants": summaries,
        "comparisons": comparisons,
        "left_out": dict(left_out or {}),
        "corpus": None if corpus is None else dict(corpus),
        "environment": None if environment is None else dict(environment),
    }
    plain: dict[str, Any] = _plain(report, "report")
    return plain


def write_report(
    report: Mapping[str, Any], folder: str | os.PathLike[str], details: TrainingDiagnostics | None = None
) -> list[Path]:
    """Write `report.json`, `.md`, `.html` and, with matplotlib, the pictures below `figures/`; give their paths.

    Everything is rendered before the first file is written, and each file appears whole or not at all. Pictures of an
    earlier report go, unless this one has them too: they are numbered by variant, and one that stayed would bear a
    wrong number or show older figures. Without matplotlib they stay, shown by no report.
    """
    drawable = can_draw()
    pictures = draw_pictures(report, details or TrainingDiagnostics()) if drawable else []
    paths_of = {picture.place: (picture.title, f"figures/{picture.name}.png") for picture in pictures}
    contents = {
        "report.json": _json(report),
        "report.md": render_markdown(report, paths_of).encode(),
        "report.html": render_html(report, pictures, None if drawable else NO_MATPLOTLIB).encode(),
    }
    for picture in pictures:
        contents[f"figures/{picture.name}.png"] = picture.png
        contents[f"figures/{picture.name}.svg"] = picture.svg
    outdated = pictures_of(Path(folder)) - contents.keys() if drawable else set()
    write_known(Path(folder), contents, sorted(outdated))
    return [Path(folder) / relative for relative in contents]


def is_written(report: Mapping[str, Any], folder: Path) -> bool:
    """Whether a folder has this very report, whole and with its pictures, so that nothing need be drawn again."""
    place = folder / "report.json"
    shown = bool(pictures_of(folder)) or not can_draw()
    return shown and is_whole(folder) and place.is_file() and place.read_bytes() == _json(report)


def _json(report: Mapping[str, Any]) -> bytes:
    return (json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def pictures_of(folder: Path) -> set[str]:
    """Paths, relative to a run's folder, of the pictures that its report shows, PNG and SVG; none without a report."""
    report = folder / "report.md"
    if not report.is_file():
        return set()
    names = re.findall(r"\]\((figures/[A-Za-z0-9._-]+)\.png\)", report.read_text(encoding="utf-8"))
    return {f"{name}.{kind}" for name in names for kind in ("png", "svg")}


def _plain(value: Any, where: str) -> Any:
    """Turn numpy values, paths and tuples into JSON types, and refuse what has no plain equivalent."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        # JSON has no NaN; an unknown number is null.
        return value if math.isfinite(value) else None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist(), where)
    if isinstance(value, Sequence):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    raise TypeError(f"{where} is a {type(value).__name__}, which JSON does not know")
