"""`gmp-atl probe`: how much emotion the layers of a frozen speech encoder carry, before anything is trained."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import RequestError, counted
from ..files import write_whole
from .arguments import add_corpus, corpus_of, label_map, picture_of
from .console import DONE, PROGRAM, complain, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("model", metavar="MODEL", help="a speech encoder: folder, id on the Hub, mini or small")
    add_corpus(parser, labels_help="merge labels; null drops one")
    layers = "layers; 0 is what enters the first, -1,-2 are from the top (default: all)"
    parser.add_argument("--layers", metavar="0,1,…", default="all", help=layers)
    parser.add_argument("--protocol", metavar="KIND", help="who tests whom (default: what suits the corpus)")
    parser.add_argument("--folds", metavar="N", type=int, help="number of folds of group-k-fold")
    parser.add_argument("--c", metavar="C", type=float, help="C where it is not chosen (0.001)")
    parser.add_argument("--picture", metavar="FILE.png", help="draw UAR by layer")
    parser.add_argument("--json", action="store_true", help="print everything as JSON instead of as a table")


def perform(arguments: argparse.Namespace) -> int:
    """Judge an encoder's layers on a corpus."""
    picture = picture_of(arguments)
    from ..pretraining.probe import probe_model

    report = probe_model(
        arguments.model,
        corpus_of(arguments),
        labels=label_map(arguments.labels) or None,
        layers=None if arguments.layers == "all" else _parse_layers(arguments.layers),
        protocol=arguments.protocol,
        folds=arguments.folds,
        c=arguments.c,
        command=arguments.command,
        progress=True,
    )
    if picture is not None:
        write_whole(picture, draw_probe(report))
    for one in report["left_out"]:
        complain(f"{PROGRAM}: left out: {one['file']}: {one['reason']}")
    say(json.dumps(report, indent=2, ensure_ascii=False) if arguments.json else format_probe(report))
    return DONE


def format_probe(report: Mapping[str, Any]) -> str:
    """Write what `probe_model` returned for the screen."""
    from ..report.blocks import interval, percent
    from ..report.markdown import aligned

    rows = [["layer", "UAR", "WAR", "95 % interval of UAR"]]
    rows += [
        [str(entry["layer"]), percent(entry["uar"]), percent(entry["war"]), interval(entry["uar_ci95"])]
        for entry in report["layers"]
    ]
    nested = report["nested"]
    lines = [f"*** {stamp} ***" for stamp in report["stamps"]]
    if nested is not None:
        rows.append(["chosen", percent(nested["uar"]), percent(nested["war"]), interval(nested["uar_ci95"])])
    lines += [f"{report['model']}, frozen, on {report['corpus']['name']}", "", *aligned(rows), ""]
    lines.append(f"Linear support vector machine on mean and deviation over frames, C = {report['c']:g}.")
    if nested is not None:
        picked = ", ".join(f"{one['layer']} (C {one['c']:g})" for one in nested["chosen"])
        lines.append(
            "The best row of a layer was found by looking at the test speakers. That of `chosen` was not: layer and C "
            f"were chosen within the training speakers of each fold: {picked}."
        )
    if report["unknown_utterances"]:
        lines.append(f"Intervals leave out {counted(report['unknown_utterances'], 'recording')} of unknown speakers.")
    lines += [f"Protocol: {report['protocol']['sentence']}", f"Command: {report['command']}"]
    return "\n".join(lines)


def draw_probe(report: Mapping[str, Any]) -> bytes:
    """Draw UAR by layer as PNG; needs the extra `plots`."""
    from ..report.drawing import new_figure, save, styled

    entries, nested = report["layers"], report["nested"]
    layers, values = [one["layer"] for one in entries], [100 * one["uar"] for one in entries]
    with styled():
        figure = new_figure(5.6, 3.4)
        axes = figure.subplots()
        if all(one["uar_ci95"] for one in entries):
            low, high = zip(*(one["uar_ci95"] for one in entries), strict=True)
            axes.fill_between(layers, [100 * one for one in low], [100 * one for one in high], alpha=0.15)
        axes.plot(layers, values, marker="o", label="each layer")
        if nested is not None:
            axes.axhline(100 * nested["uar"], linestyle="--", color="#888888", label="layer chosen in the folds")
        axes.set(xlabel="layer", ylabel="UAR (%)", xticks=layers)
        axes.set_title(f"{Path(report['model']).name}, frozen, on {report['corpus']['name']}", loc="left")
        axes.legend(frameon=False)
        return save(figure, "png")


def _parse_layers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise RequestError(f"--layers is {text!r}", "all, or whole numbers with commas", "--layers 0,3,-1") from error
