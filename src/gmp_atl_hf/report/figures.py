"""All pictures of a report; needs the extra `plots`."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping
from typing import Any

from .blocks import FigureSlot
from .details import TrainingDiagnostics
from .drawing import Picture, save, styled

NO_MATPLOTLIB = "There are no pictures: matplotlib is not installed (pip install 'gmp-atl-hf[plots]')."


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def draw_pictures(report: Mapping[str, Any], details: TrainingDiagnostics) -> list[Picture]:
    """Draw everything that the report has the numbers for, in its order."""
    pictures = []
    with styled():
        for place, name, title, figure in _figures(report, details):
            pictures.append(Picture(place, name, title, save(figure, "png"), save(figure, "svg")))
    return pictures


def _figures(report: Mapping[str, Any], details: TrainingDiagnostics) -> Iterator[tuple[FigureSlot, str, str, Any]]:
    from . import plots, plots_training

    done = [name for name, summary in report["variants"].items() if summary["utterances"]]
    if len(done) > 1:
        yield FigureSlot("variants"), "variants", "Variants side by side", plots.variants_figure(report)
    for number, (variant, summary) in enumerate(report["variants"].items(), start=1):
        # The number keeps names apart that become the same when made fit for a file.
        suffix = f"{number}-{re.sub(r'[^A-Za-z0-9._-]+', '-', variant)}"
        if summary["utterances"]:
            for kind, title, draw in (
                ("confusion", "Confusion matrix", plots.confusion_figure),
                ("reliability", "Reliability diagram", plots.reliability_figure),
                ("speakers", "UAR of each test speaker", plots.speakers_figure),
            ):
                if kind != "reliability" or summary["calibration"] is not None:
                    yield FigureSlot(kind, variant), f"{kind}-{suffix}", f"{title} of {variant}", draw(report, variant)
        if details.logs.get(variant):
            figure = plots_training.learning_figure(report, variant, details.logs[variant])
            yield FigureSlot("learning", variant), f"learning-{suffix}", f"Learning curves of {variant}", figure
        if details.usage.get(variant):
            figure = plots_training.clusters_figure(report, variant, details.usage[variant])
            yield FigureSlot("clusters", variant), f"clusters-{suffix}", f"Clusters and emotions of {variant}", figure
