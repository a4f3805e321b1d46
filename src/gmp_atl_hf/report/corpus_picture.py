"""A picture of a corpus: recordings per emotion, their lengths, and who speaks how much; needs the extra `plots`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import counted
from ..evaluation.genders import genders_of_speakers
from ..evaluation.unknown import counted_people
from .drawing import INK, new_figure, save, styled

if TYPE_CHECKING:
    from ..data.table import Corpus

COLOURS = {"female": "#e08e45", "male": "#2f6690", "unknown": "#9a9a9a"}
"""Told apart in black and white and by people who do not see red."""

_MOST_NAMES = 32
_BINS = 40
_SKEWED = 20


def corpus_png(corpus: Corpus) -> bytes:
    """Draw what is in a corpus, as PNG; the same corpus gives the same bytes."""
    with styled():
        return save(_corpus_figure(corpus), "png")


def _corpus_figure(corpus: Corpus) -> Any:
    table = corpus.table
    genders = [("unknown" if one is None else ("female", "male")[one]) for one in table["gender"]]
    names = table.features["emotion"].names
    emotions = [names[number] for number in table["emotion"]]
    speakers = list(table["speaker"])
    seconds = np.asarray(table["num_samples"]) / 16_000
    present = [gender for gender in COLOURS if gender in genders]

    figure = new_figure(7.2, 2.1 + 0.19 * max(len(names), 7))
    halves: Any = figure.subfigures(2, 1, height_ratios=[0.5 + 0.16 * max(len(names), 7), 1.35])
    upper, lower = halves
    left, right = upper.subplots(1, 2, width_ratios=[1.25, 1])
    bottom = lower.subplots()
    _emotions(left, Counter(zip(emotions, genders, strict=True)), names, present)
    _lengths(right, seconds)
    known = (None if gender == "unknown" else gender for gender in genders)
    people = genders_of_speakers(zip(speakers, known, strict=True))
    _speakers(bottom, Counter(speakers), {name: gender or "unknown" for name, gender in people.items()})
    for letter, axes in zip("abc", (left, right, bottom), strict=True):
        axes.set_title(f"({letter}) {axes.get_title(loc='left')}", fontsize=8)
        axes.tick_params(labelsize=8)
    sizes = f"{counted(len(table), 'recording')}, {counted_people(speakers)}"
    title = f"{corpus.info.name}: {sizes}, {seconds.sum() / 3600:.2f} hours"
    figure.suptitle(title, fontsize=9.5, x=0.008, ha="left")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=3, fontsize=8)
    return figure


def _emotions(axes: Any, counts: Counter[tuple[str, str]], names: list[str], present: list[str]) -> None:
    """Bars from the most to the least frequent emotion, one part per gender, the sum behind."""
    totals = {name: sum(counts[name, gender] for gender in present) for name in names}
    order = sorted(names, key=lambda name: (totals[name], name))
    left = np.zeros(len(order))
    for gender in present:
        width = np.array([counts[name, gender] for name in order], dtype=float)
        label = gender if gender != "unknown" else "gender unknown"
        axes.barh(range(len(order)), width, left=left, color=COLOURS[gender], height=0.74, label=label, linewidth=0)
        left += width
    for place, name in enumerate(order):
        axes.text(totals[name] + 0.012 * left.max(), place, f"{totals[name]:,}", va="center", fontsize=7)
    axes.set_yticks(range(len(order)), order)
    axes.set_xlim(0, 1.12 * left.max())
    axes.set_xlabel("recordings")
    axes.tick_params(axis="y", length=0)
    axes.set_title("emotions")


def _lengths(axes: Any, seconds: np.ndarray[Any, np.dtype[np.float64]]) -> None:
    """A histogram up to the 99.5th percentile; longer recordings are counted beside it."""
    end = float(np.quantile(seconds, 0.995))
    end = max(end, float(seconds.min()) + 0.1)
    longer = int((seconds > end).sum())
    axes.hist(seconds[seconds <= end], bins=_BINS, range=(0, end), color="#6c757d", linewidth=0)
    median = float(np.median(seconds))
    axes.axvline(median, color=INK, linewidth=0.9, linestyle=(0, (4, 2)))
    words = f"median {median:.1f} s"
    if longer:
        words += f"\n{longer:,} longer than {end:.1f} s\n(longest {seconds.max():.1f} s)"
    axes.text(0.98, 0.97, words, transform=axes.transAxes, ha="right", va="top", fontsize=7)
    axes.set_xlim(0, end)
    axes.set_xlabel("length in seconds")
    axes.set_ylabel("recordings")
    axes.set_title("lengths")


def _speakers(axes: Any, counts: Counter[str], genders: dict[str, str]) -> None:
    """One bar per speaker, by number of recordings; names where they can be read."""
    order = sorted(counts, key=lambda name: (-counts[name], name))
    colours = [COLOURS[genders[name]] for name in order]
    width = min(0.8, 0.06 * len(order)) if len(order) <= 100 else 1.0
    axes.bar(range(len(order)), [counts[name] for name in order], color=colours, width=width)
    if len(order) <= _MOST_NAMES:
        short = [name.partition("/")[2] for name in order]
        turned = max(map(len, short)) * len(order) > 100
        axes.set_xticks(range(len(order)), short, rotation=45 if turned else 0, fontsize=7)
        if turned:
            for label in axes.get_xticklabels():
                label.set_ha("right")
                label.set_rotation_mode("anchor")
        axes.tick_params(axis="x", length=0)
    else:
        axes.set_xticks([])
        axes.set_xlabel(f"{len(order):,} speakers, from the most to the least talkative")
    spoken = sorted(counts.values())
    if spoken[-1] > _SKEWED * spoken[len(spoken) // 2]:
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.8)
    axes.set_xlim(-0.6, len(order) - 0.4)
    axes.set_ylabel("recordings")
    axes.set_title("speakers")
