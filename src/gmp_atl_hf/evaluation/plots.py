"""Pictures for the report, drawn with matplotlib but without its global state; needs the extra `plots`."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np

from gmp_atl_hf.evaluation.report_markdown import protocol_line


def confusion_png(report: Mapping[str, Any], variant: str) -> bytes:
    """Draw the confusion matrix of a variant.

    Colours show the share of each row, which is comparable between frequent and rare emotions; the numbers are that
    share in percent with the count of utterances below.

    Args:
        report: What `build_report` returned.
        variant: Name of the variant; it must have finished a fold.

    Returns:
        A PNG file; the same report gives the same bytes.

    Raises:
        ValueError: If the variant has no confusion matrix.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    summary = report["variants"][variant]
    if summary["confusion"] is None:
        raise ValueError(f"{variant} has no finished fold, so there is no confusion matrix to draw")
    labels = report["labels"]
    counts = np.asarray(summary["confusion"], dtype=np.float64)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)

    side = 2.4 + 0.72 * len(labels)
    figure = Figure(figsize=(side, side), dpi=150, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(labels)), labels, rotation=40, ha="right", rotation_mode="anchor", parse_math=False)
    # The count tells a row without a reference from one that was never right.
    rows = [f"{label}\n({total:g})" for label, total in zip(labels, np.round(totals[:, 0], 1), strict=True)]
    axes.set_yticks(range(len(labels)), rows, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("reference (utterances)")
    axes.set_title(_title(summary, variant), fontsize=10, loc="left", parse_math=False)
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(len(labels) - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(len(labels) - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for row, column in np.ndindex(*counts.shape):
        if totals[row, 0] == 0:
            continue
        colour = "white" if shares[row, column] > 0.55 else "#1a2a44"
        axes.text(column, row - 0.08, f"{100 * shares[row, column]:.0f}", ha="center", va="center", color=colour)
        count = f"{round(float(counts[row, column]), 1):g}"
        axes.text(column, row + 0.26, count, ha="center", va="center", color=colour, fontsize=6.5, alpha=0.8)
    notes = ["share of the row in %, below it utterances" + (" (mean over seeds)" if len(summary["seeds"]) > 1 else "")]
    # A picture travels without its page, so it says itself how the folds were made.
    notes += textwrap.wrap(protocol_line(report), width=round(14 * side)) + report["stamps"]
    figure.supxlabel("\n".join(notes), fontsize=7.5, color="#555555", parse_math=False)

    buffer = io.BytesIO()
    # Without the software entry the bytes would change with matplotlib's version.
    canvas.print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def _title(summary: Mapping[str, Any], variant: str) -> str:
    value = 100 * summary["uar"]["pooled"]
    return f"{variant}: UAR {value:.1f} %\n{summary['folds_done']}, {summary['seeds_done']}"
