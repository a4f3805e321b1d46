"""How much emotion the layers of a frozen speech encoder carry, before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from tqdm.auto import tqdm

from ..checkpoints import maybe_seen_stamp
from ..data.audio import read_clip
from ..data.columns import replace_column, split_word
from ..data.table import read_corpora
from ..errors import RequestError
from ..evaluation.probe import CHOICES, C, ProbeFold, probe_layers, score
from ..evaluation.unknown import is_unknown
from ..inference.devices import resolve_device
from ..protocols.fold import rows_of_parts
from ..protocols.leakage import HeldOut, maybe_seen
from ..protocols.protocol import Protocol
from ..run.same_recordings import refuse_encoder
from ..threads import prefetch
from .teachers import Teacher, mean_and_deviation, teacher_facts


def probe_model(
    model: str | Path,
    corpus: Mapping[str, Any],
    *,
    labels: Mapping[str, str | None] | None = None,
    layers: Sequence[int] | None = None,
    protocol: str | None = None,
    folds: int | None = None,
    c: float | None = None,
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
        c: C of the support vector machine, where it is fixed; None for 0.001.
        command: The command behind the numbers.
        progress: Show a bar.

    Returns:
        `layers`: for each `layer`, `uar`, `war` and `uar_ci95` at the fixed C, as fractions; `nested`: the same with
        layer and C chosen within the training speakers of each fold, and `chosen`; `left_out`, the `file` and `reason`
        of each recording that is in none of them; `unknown_utterances`, which the intervals leave out; the protocol
        and the rest.

    Raises:
        RequestError: The encoder, the corpus or the protocol is not there, or the encoder has seen a test speaker.
    """
    c = C if c is None else c
    if not (math.isfinite(c) and c > 0):
        raise RequestError(f"C is {c}", "a finite number above 0", f"--c {C}")
    facts = teacher_facts(str(model), "encoder")
    if layers is None:
        wanted = list(range(facts.layers + 1))
    else:
        wanted = [facts.resolve_layer(layer) for layer in dict.fromkeys(layers)]
    found = read_corpora([dict(corpus)], labels=labels)
    table = _without_development(found.table)
    cut = Protocol(protocol or found.info.protocol or "leave-one-speaker-out", folds, dev_speakers=0)
    parts = cut.folds(table)
    held_out = HeldOut(frozenset(name for fold in parts for name in fold.test if fold.speaker_independent))
    held_out.refuse_speakers(facts.seen_speakers, f"the encoder {model} has seen")
    refuse_encoder("encoder", model, found, held_out.speakers)
    features = utterance_features(table, Teacher(facts, wanted, resolve_device(None)), progress)
    answers, speakers = np.asarray(table["emotion"]), list(table["speaker"])
    names = table.features["emotion"].names
    rows = []
    for fold in parts:
        part = {name: np.asarray(each, dtype=int) for name, each in rows_of_parts(table, fold).items()}
        rows.append(ProbeFold(part["train"], part["test"]))
    result = probe_layers(features, answers, speakers, rows, c, CHOICES)
    people = speakers if all(fold.speaker_independent for fold in parts) else None
    return {
        "model": str(model),
        "command": command,
        "corpus": {"name": found.info.name, "recordings": len(table), "labels": names},
        "protocol": cut.describe(table, epochs=False),
        "stamps": [maybe_seen_stamp(str(model))] if maybe_seen(facts.seen_speakers, set(speakers)) else [],
        "left_out": [{"file": one.file, "reason": one.reason} for one in found.left_out],
        "unknown_utterances": sum(map(is_unknown, speakers)),
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


def _without_development(table: Dataset) -> Dataset:
    """A table whose split, where it has one, trains on the development recordings: a probe has no epochs to choose."""
    parts = [None if part is None else split_word(part) for part in table["split"]]
    if "dev" not in parts:
        return table
    return replace_column(table, "split", ["train" if part == "dev" else part for part in parts])


def utterance_features(table: Dataset, encoder: Teacher, progress: bool = False) -> dict[int, np.ndarray]:
    """Mean and standard deviation over the frames of each recording: layer → (recordings, 2 · width) float32."""
    clips: Any = table.select_columns(["audio"])

    def work(row: int) -> dict[int, np.ndarray]:
        states = encoder.states(read_clip(clips[row]["audio"]))
        return {layer: mean_and_deviation(each).cpu().numpy() for layer, each in states.items()}

    found: dict[int, list[np.ndarray]] = {layer: [] for layer in encoder.layers}
    with closing(prefetch(work, range(len(table)), one_torch_thread=True)) as done:
        for vectors in tqdm(done, total=len(table), desc="hidden states", unit="clip", disable=not progress):
            for layer, vector in vectors.items():
                found[layer].append(vector)
    return {layer: np.stack(vectors) for layer, vectors in found.items()}
