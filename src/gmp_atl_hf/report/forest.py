"""The forest plot of a verdict over several corpora; needs the extra `plots`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import counted
from .blocks import interval, points
from .drawing import BLUE, FAINT, GENDER_LOOK, GREY, INK, footnote, new_figure, save, styled


def forest_png(verdict: Mapping[str, Any]) -> bytes:
    """Draw what `compare_over_corpora` returned as PNG; the same verdict gives the same bytes."""
    with styled():
        return save(forest_figure(verdict), "png")


def forest_figure(verdict: Mapping[str, Any]) -> Any:
    """Draw the difference in each corpus, over all of them and for each gender, with intervals and speakers.

    The grey band around zero holds the differences that the mean over corpora is too uncertain to show.
    """
    rows = _rows(verdict)
    figure = new_figure(7.2, 2.0 + 0.4 * len(rows))
    axes = figure.add_subplot()
    visible = verdict["verdict"]["smallest_visible_difference"]
    if visible is not None:
        axes.axvspan(
            -100 * visible, 100 * visible, color=FAINT, alpha=0.5, linewidth=0, label="too small to be seen in the mean"
        )
    axes.axvline(0, color=INK, linewidth=1.0)
    for place, (_, numbers, colour, marker, people) in enumerate(rows):
        axes.plot([100 * person for person in people], [place] * len(people), "|", color=GREY, markersize=7, alpha=0.7)
        if numbers["ci95"] is not None:
            low, high = (100 * bound for bound in numbers["ci95"])
            axes.plot([low, high], [place, place], color=colour, linewidth=2.6, alpha=0.5, solid_capstyle="butt")
        size = 9.0 if marker == "D" else 7.0
        axes.plot(
            100 * numbers["mean_difference"], place, marker, color=colour, markersize=size, markeredgecolor="white"
        )
        bounds = "" if numbers["ci95"] is None else f" ({interval(numbers['ci95'], signed=True)})"
        axes.text(
            1.015, place, points(numbers["mean_difference"]) + bounds,
            transform=axes.get_yaxis_transform(), va="center", fontsize=8.5,
            fontweight="bold" if marker == "D" else "normal",
        )  # fmt: skip
    axes.plot([], [], "|", color=GREY, markersize=7, label="a speaker")
    axes.plot([], [], color=GREY, linewidth=2.6, alpha=0.5, label="95 % interval")
    # A line between the corpora, their mean, and the genders.
    for border in (len(verdict["corpora"]), len(verdict["corpora"]) + 1):
        if border < len(rows):
            axes.axhline(border - 0.5, color=FAINT, linewidth=0.8)
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(f"UAR of {verdict['first']} minus UAR of {verdict['other']}, points")
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper left", ncols=3, handletextpad=0.5, columnspacing=1.4)
    sentence = "; ".join(f"{name}: {one['protocol'].rstrip('.')}" for name, one in verdict["corpora"].items())
    footnote(figure, {"stamps": verdict["stamps"], "protocol": {"sentence": sentence}}, [verdict["how"]["difference"]])
    return figure


def _rows(verdict: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any], str, str, list[float]]]:
    """Name, numbers, colour, mark and speakers of each line, from top to bottom."""
    rows: list[tuple[str, Mapping[str, Any], str, str, list[float]]] = []
    for name, one in verdict["corpora"].items():
        people = [person["difference"] for person in one["per_speaker"].values()]
        rows.append((f"{name}\n{counted(one['n'], 'speaker')}", one, BLUE, "o", people))
    everybody = verdict["verdict"]
    rows.append((f"mean over corpora\n{counted(everybody['n'], 'speaker')}", everybody, INK, "D", []))
    for gender, one in verdict["per_gender"].items():
        colour, marker = GENDER_LOOK[gender]
        rows.append((f"{gender}\n{counted(one['n'], 'speaker')}", one, colour, marker, []))
    return rows
