"""Pictures of test results, drawn with matplotlib but without its global state; needs the extra `plots`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import counted
from .blocks import METRIC_NAMES, percent
from .drawing import BLUE, GENDER_LOOK, GREEN, GREY, INK, VERMILLION, footnote, new_figure, save, styled

MOST_NAMED = 45
"""Up to this many speakers have their names beside them; more would be a black column."""


def confusion_png(report: Mapping[str, Any], variant: str) -> bytes:
    """Draw the confusion matrix of a variant as PNG; the same report gives the same bytes.

    Raises:
        ValueError: If the variant has no confusion matrix.
    """
    with styled():
        return save(confusion_figure(report, variant), "png")


def confusion_figure(report: Mapping[str, Any], variant: str) -> Any:
    """Draw the confusion matrix of a variant.

    Colours show the share of each row, which is comparable between frequent and rare emotions; the numbers are that
    share in percent with the count of utterances below.

    Raises:
        ValueError: If the variant has no confusion matrix.
    """
    summary = report["variants"][variant]
    if summary["confusion"] is None:
        raise ValueError(f"{variant} has no finished fold, so there is no confusion matrix to draw")
    labels = report["labels"]
    counts = np.asarray(summary["confusion"], dtype=np.float64)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)

    side = 2.6 + 0.66 * len(labels)
    figure = new_figure(side, side)
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(labels)), labels, rotation=40, ha="right", rotation_mode="anchor")
    # The count tells a row without a reference from one that was never right.
    rows = [f"{label}\n({total:g})" for label, total in zip(labels, np.round(totals[:, 0], 1), strict=True)]
    axes.set_yticks(range(len(labels)), rows)
    axes.set_xlabel("predicted")
    axes.set_ylabel("reference (utterances)")
    axes.set_title(_title(summary, variant))
    axes.tick_params(which="both", length=0)
    axes.set_xticks(np.arange(len(labels) - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(len(labels) - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for row, column in np.ndindex(*counts.shape):
        if totals[row, 0] == 0:
            continue
        colour = "white" if shares[row, column] > 0.55 else INK
        axes.text(column, row - 0.08, f"{100 * shares[row, column]:.0f}", ha="center", va="center", color=colour)
        count = f"{round(float(counts[row, column]), 1):g}"
        axes.text(column, row + 0.27, count, ha="center", va="center", color=colour, fontsize=6.5, alpha=0.85)
    seeds = " (mean over seeds)" if len(summary["seeds"]) > 1 else ""
    footnote(figure, report, [f"share of the row in %, below it utterances{seeds}"])
    return figure


def variants_figure(report: Mapping[str, Any]) -> Any:
    """Draw WAR, UAR and macro F1 of all variants under each other, with the interval of the UAR and every seed."""
    done = {name: summary for name, summary in report["variants"].items() if summary["utterances"]}
    figure = new_figure(7.2, 1.75 + 0.46 * len(done))
    axes = figure.add_subplot()
    look = {"uar": (BLUE, "o", 0.0, 7.0), "war": (VERMILLION, "^", -0.2, 5.5), "macro_f1": (GREEN, "s", 0.2, 4.8)}
    for place, summary in enumerate(done.values()):
        for metric, (colour, marker, offset, size) in look.items():
            value = 100 * summary[metric]["pooled"]
            if metric == "uar":
                if summary["uar_ci95"]:
                    low, high = (100 * bound for bound in summary["uar_ci95"])
                    axes.plot([low, high], [place, place], color=BLUE, linewidth=2.6, alpha=0.35, solid_capstyle="butt")
                if len(summary["per_seed"]) > 1:
                    seeds = [100 * own["uar"] for own in summary["per_seed"]]
                    axes.plot(seeds, [place] * len(seeds), "|", color=INK, markersize=9, markeredgewidth=1.0)
                # At the edge, where no mark can be in the way.
                axes.text(1.015, place, f"{value:.1f}", transform=axes.get_yaxis_transform(), va="center")
            axes.plot(value, place + offset, marker, color=colour, markersize=size, markeredgecolor="white")
    chance = {round(100 * summary["chance_uar"], 6) for summary in done.values()}
    if len(chance) == 1:
        axes.axvline(min(chance), color=GREY, linestyle=(0, (2, 3)), linewidth=1.0)
    for metric, (colour, marker, _, size) in look.items():
        axes.plot([], [], marker, color=colour, markersize=size, label=METRIC_NAMES[metric])
    axes.plot([], [], color=BLUE, alpha=0.35, linewidth=2.6, label="95 % interval of UAR")
    if any(len(summary["per_seed"]) > 1 for summary in done.values()):
        axes.plot([], [], "|", color=INK, markersize=9, label="UAR of each seed")
    if len(chance) == 1:
        axes.plot([], [], color=GREY, linestyle=(0, (2, 3)), linewidth=1.0, label="chance")
    axes.text(1.015, -0.75, "UAR", transform=axes.get_yaxis_transform(), va="center", fontweight="bold", fontsize=8.5)
    axes.set_yticks(range(len(done)), list(done))
    axes.set_ylim(len(done) - 0.45, -0.6)
    axes.set_xlabel("percent")
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper left", ncols=6, handletextpad=0.3, columnspacing=1.1, fontsize=8)
    footnote(figure, report)
    return figure


def speakers_figure(report: Mapping[str, Any], variant: str) -> Any:
    """Draw the UAR of each test speaker, the best on top, with intervals from the speaker's own utterances."""
    summary = report["variants"][variant]
    speakers = sorted(summary["per_speaker"].items(), key=lambda item: (item[1]["uar"], item[0]))
    named = len(speakers) <= MOST_NAMED
    figure = new_figure(6.4, 1.9 + (0.235 * len(speakers) if named else 6.0))
    axes = figure.add_subplot()
    for place, (_, values) in enumerate(speakers):
        colour, marker = GENDER_LOOK[values["gender"]]
        if values["uar_ci95"]:
            low, high = (100 * bound for bound in values["uar_ci95"])
            axes.plot([low, high], [place, place], color=colour, linewidth=2.0 if named else 0.6, alpha=0.45)
        edge = {"markersize": 5.5, "markeredgecolor": "white"} if named else {"markersize": 3, "markeredgewidth": 0}
        axes.plot(100 * values["uar"], place, marker, color=colour, **edge)
    axes.axvline(100 * summary["uar"]["pooled"], color=INK, linewidth=1.0, label=f"all: {_uar(summary)} %")
    axes.axvline(100 * summary["chance_uar"], color=GREY, linestyle=(0, (2, 3)), linewidth=1.0, label="chance")
    for gender, group in summary["per_gender"].items():
        colour, marker = GENDER_LOOK[gender]
        word = gender if gender != "unknown" else "gender unknown"
        label = f"{word}: {percent(group['uar'])} %"
        axes.plot([], [], marker, color=colour, markersize=5.5, label=label)
    if named:
        axes.set_yticks(range(len(speakers)), [name for name, _ in speakers])
    else:
        axes.set_yticks([])
        axes.set_ylabel(counted(len(speakers), "test speaker"))
    axes.set_ylim(-0.8, len(speakers) - 0.2)
    axes.set_xlim(-2, 102)
    axes.set_xlabel("UAR in %")
    axes.set_title(f"{variant}: UAR of each test speaker")
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper left", ncols=4, handletextpad=0.4, columnspacing=1.2)
    lines = (
        ["bars: 95 % from resampling the speaker's own utterances"]
        if any(values["uar_ci95"] for _, values in speakers)
        else []
    )
    footnote(figure, report, lines)
    return figure


def reliability_figure(report: Mapping[str, Any], variant: str) -> Any:
    """Draw accuracy against confidence, before and after calibration, and how often each confidence occurs."""
    calibration = report["variants"][variant]["calibration"]
    figure = new_figure(4.6, 5.2)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
    upper.plot([0, 1], [0, 1], color=GREY, linestyle=(0, (2, 3)), linewidth=1.0, label="perfect")
    width = 1 / calibration["bins"]
    starts = width * np.arange(calibration["bins"])
    series = [("as given", calibration["reliability"], calibration["ece"], VERMILLION, "o")]
    if calibration["reliability_calibrated"] is not None:
        after = calibration["reliability_calibrated"]
        series.append(("calibrated", after, calibration["ece_calibrated"], BLUE, "s"))
    for place, (name, bins, error, colour, marker) in enumerate(series):
        counts = np.asarray(bins["utterances"])
        known = counts > 0
        confidence, accuracy = (np.array(bins[key], dtype=np.float64)[known] for key in ("confidence", "accuracy"))
        upper.plot(confidence, accuracy, color=colour, linewidth=1.4, zorder=2)
        sizes = 12 + 110 * counts[known] / counts.max()
        label = f"{name}: error {percent(error)} %"
        upper.scatter(
            confidence, accuracy, s=sizes, color=colour, marker=marker, edgecolor="white", zorder=3, label=label
        )
        half = width / (len(series) + 0.6)
        shares = 100 * counts / counts.sum()
        lower.bar(starts + half * (place + 0.3), shares, half, align="edge", color=colour)
    upper.set_ylabel("accuracy")
    upper.set_ylim(-0.02, 1.02)
    upper.set_aspect("auto")
    upper.set_title(f"{variant}: are scores what they say?")
    upper.grid()
    figure.legend(loc="outside upper left", ncols=1, markerscale=0.75)
    lower.set_xlim(0, 1)
    lower.set_xlabel("confidence: score of the predicted emotion")
    lower.set_ylabel("utterances, %")
    lower.grid(axis="y")
    footnote(figure, report, ["error: expected calibration error; larger marks stand for more utterances"])
    return figure


def _title(summary: Mapping[str, Any], variant: str) -> str:
    return f"{variant}: UAR {_uar(summary)} %\n{summary['folds_done']}, {summary['seeds_done']}"


def _uar(summary: Mapping[str, Any]) -> str:
    return f"{100 * summary['uar']['pooled']:.1f}"
