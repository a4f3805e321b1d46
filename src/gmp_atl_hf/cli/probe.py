"""`gmp-atl probe`: how much emotion the layers of a frozen speech encoder carry, before anything is trained."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RequestError
from ..files import write_whole
from .arguments import add_corpus, corpus_of, pairs
from .console import DONE, say

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

    from ..pretraining.teachers import Teacher
    from ..protocols.fold import Fold

C, CHOICES = 0.001, (1e-4, 1e-3, 1e-2)
"""Of the support vector machine. Our choice: with a thousand standardised numbers for an utterance, more overfits."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("model", metavar="MODEL", help="a speech encoder: folder, id on the Hub, mini or small")
    add_corpus(parser, labels_help="merge labels; null drops one")
    parser.add_argument("--layers", metavar="0,1,…", default="all", help="layers, 0 is what enters the first (all)")
    parser.add_argument("--protocol", metavar="KIND", help="who tests whom (default: what suits the corpus)")
    parser.add_argument("--folds", metavar="N", type=int, help="number of folds of group-k-fold")
    parser.add_argument("--c", metavar="C", type=float, default=C, help="C where it is not chosen (%(default)s)")
    parser.add_argument("--picture", metavar="FILE.png", help="draw UAR by layer")
    parser.add_argument("--json", action="store_true", help="print everything as JSON instead of as a table")


def perform(arguments: argparse.Namespace) -> int:
    """Judge an encoder's layers on a corpus."""
    picture = arguments.picture
    if picture is not None:
        from .prepare import check_picture

        check_picture(Path(picture))
    report = probe_model(
        arguments.model,
        corpus_of(arguments),
        labels=pairs(arguments.labels) or None,
        layers=None if arguments.layers == "all" else _parse_layers(arguments.layers),
        protocol=arguments.protocol,
        folds=arguments.folds,
        c=arguments.c,
        command=arguments.command,
        progress=True,
    )
    if picture is not None:
        write_whole(Path(picture), draw_probe(report))
    say(json.dumps(report, indent=2, ensure_ascii=False) if arguments.json else format_probe(report))
    return DONE


def probe_model(
    model: str | Path,
    corpus: Mapping[str, Any],
    *,
    labels: Mapping[str, str | None] | None = None,
    layers: Sequence[int] | None = None,
    protocol: str | None = None,
    folds: int | None = None,
    c: float = C,
    command: str = "probe_model(…)",
    progress: bool = False,
) -> dict[str, Any]:
    """Judge the layers of a frozen speech encoder: mean and deviation over the frames, then a linear classifier.

    Args:
        model: Folder, Hub id or the name of a shipped encoder: a HuBERT, one of our models, Whisper, WavLM, wav2vec 2.0
            or data2vec.
        corpus: As in a recipe: `name`, `root` and the reader's options.
        labels: Emotion in the corpus → emotion, or None to drop it.
        layers: Layers from 1, negative ones from the top, 0 for what enters the first; None for all.
        protocol: Kind of protocol; None for the one that suits the corpus.
        folds: Number of folds of `group-k-fold`.
        c: C of the support vector machine, where it is fixed.
        command: The command behind the numbers.
        progress: Show a bar.

    Returns:
        `layers`: for each `layer`, `uar`, `war` and `uar_ci95` at the fixed C, as fractions; `nested`: the same with
        layer and C chosen within the training speakers of each fold, and `chosen`; the protocol and the rest.

    Raises:
        RequestError: The encoder, the corpus or the protocol is not there, or the encoder has seen a test speaker.
    """
    import numpy as np
    import torch

    from ..data.table import read_corpora
    from ..evaluation.probe import ProbeFold, probe_layers, score
    from ..pretraining.teachers import Teacher, teacher_facts
    from ..protocols.leakage import MAYBE_SEEN_STAMP, HeldOut, maybe_seen
    from ..protocols.protocol import Protocol

    if not c > 0:
        raise RequestError(f"C is {c}", "a number above 0", f"--c {C}")
    facts = teacher_facts(str(model))
    if layers is None:
        wanted = list(range(facts.layers + 1))
    else:
        wanted = [layer if layer == 0 else facts.resolve_layer(layer) for layer in dict.fromkeys(layers)]
    found = read_corpora([dict(corpus)], labels=labels)
    table = found.table
    cut = Protocol(protocol or found.info.protocol or "leave-one-speaker-out", folds)
    parts = cut.folds(table)
    held_out = HeldOut(frozenset(name for fold in parts for name in fold.test if fold.speaker_independent))
    held_out.refuse_speakers(facts.heard, f"the encoder {model} has seen")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    features = utterance_features(table, Teacher(facts, wanted, device), progress)
    answers, speakers = np.asarray(table["emotion"]), list(table["speaker"])
    names = table.features["emotion"].names
    rows = [ProbeFold(*_rows(table, fold)) for fold in parts]
    result = probe_layers(features, answers, speakers, rows, c, CHOICES)
    people = speakers if all(fold.speaker_independent for fold in parts) else None
    return {
        "model": str(model),
        "command": command,
        "corpus": {"name": found.info.name, "recordings": len(table), "labels": names},
        "protocol": cut.describe(table),
        "stamps": [MAYBE_SEEN_STAMP] if maybe_seen(facts.heard, set(speakers)) else [],
        "left_out": len(found.left_out),
        "c": c,
        "layers": [
            {"layer": layer, **score(said, answers, people, len(names))} for layer, said in result.layers.items()
        ],
        "nested": None
        if result.nested is None
        else {
            **score(result.nested, answers, people, len(names)),
            "chosen": [
                {"fold": fold.number, "layer": layer, "c": one}
                for fold, (layer, one) in zip(parts, result.chosen, strict=True)
            ],
        },
    }


def utterance_features(table: Dataset, encoder: Teacher, progress: bool = False) -> dict[int, np.ndarray]:
    """Mean and standard deviation over the frames of each recording: layer → (recordings, 2 · width) float32."""
    import numpy as np
    import torch
    from tqdm.auto import tqdm

    from ..data.audio import read_clip
    from ..threads import prefetch

    clips: Any = table.select_columns(["audio"])

    def work(row: int) -> dict[int, np.ndarray]:
        states = encoder.states(read_clip(clips[row]["audio"]))
        both = {layer: [each.mean(0), each.std(0, correction=0)] for layer, each in states.items()}
        return {layer: torch.cat(parts).cpu().numpy() for layer, parts in both.items()}

    found: dict[int, list[np.ndarray]] = {layer: [] for layer in encoder.layers}
    with closing(prefetch(work, range(len(table)), one_torch_thread=True)) as done:
        for vectors in tqdm(done, total=len(table), desc="hidden states", unit="clip", disable=not progress):
            for layer, vector in vectors.items():
                found[layer].append(vector)
    return {layer: np.stack(vectors) for layer, vectors in found.items()}


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


def _rows(table: Dataset, fold: Fold) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the table that a fold trains on, development speakers included, and that it tests."""
    import numpy as np

    if fold.part_of is not None:
        parts = np.asarray([fold.part_of[name] for name in table["id"]])
    else:
        place = {name: part for part in ("train", "dev", "test") for name in getattr(fold, part)}
        parts = np.asarray([place[name] for name in table["speaker"]])
    return np.flatnonzero(parts != "test"), np.flatnonzero(parts == "test")


def _parse_layers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise RequestError(f"--layers is {text!r}", "all, or whole numbers with commas", "--layers 0,3,-1") from error
