"""What a linear classifier makes of a frozen encoder's layers, on plain arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .metrics import FloatArray, IntArray, confusion_matrix, metrics_of
from .statistics import speaker_bootstrap

C, CHOICES = 0.001, (1e-4, 1e-3, 1e-2)
"""Of the support vector machine. Our choice: with a thousand standardised numbers for an utterance, more overfits."""

INNER_GROUPS = 3
"""Groups that the training speakers of a fold are dealt into, to choose layer and C among themselves."""


class ProbeFold(NamedTuple):
    """Rows of one fold: (n,) int64 each."""

    train: IntArray
    test: IntArray


class Probe(NamedTuple):
    """Predictions of the probe.

    Args:
        layers: Layer → (n,) label indices at the fixed C, -1 for rows that no fold tests.
        nested: The same with layer and C chosen within the training speakers of each fold; None where they are too few.
        chosen: Layer and C of each fold.
    """

    layers: dict[int, IntArray]
    nested: IntArray | None
    chosen: list[tuple[int, float]]


def probe_layers(
    features: Mapping[int, FloatArray],
    labels: IntArray,
    speakers: Sequence[str],
    folds: Sequence[ProbeFold],
    c: float,
    choices: Sequence[float],
) -> Probe:
    """Classify every test row of every fold by a linear support vector machine on each layer.

    Features are standardised by the training rows; classes are weighted so that each counts alike.

    Args:
        features: Layer → (n, channels).
        labels: (n,) label indices.
        speakers: Speaker of each row.
        folds: Training and test rows.
        c: The machine's C where it is fixed.
        choices: The values of C to choose from.
    """
    names = np.asarray(speakers, dtype=str)
    fixed = {layer: np.full(len(labels), -1) for layer in features}
    nested, chosen = np.full(len(labels), -1), []
    for fold in folds:
        best = _choose(features, labels, names, fold.train, choices)
        for layer, values in features.items():
            wanted = sorted({c} | ({best[1]} if best is not None and best[0] == layer else set()))
            guesses = _fit_and_predict(values, labels, fold, wanted)
            fixed[layer][fold.test] = guesses[c]
            if best is not None and best[0] == layer:
                nested[fold.test] = guesses[best[1]]
        if best is not None:
            chosen.append(best)
    return Probe(fixed, nested if len(chosen) == len(folds) else None, chosen)


def score(guesses: IntArray, labels: IntArray, speakers: Sequence[str] | None, num_labels: int) -> dict[str, Any]:
    """WAR, UAR and its interval (none without speakers), over the rows that were tested.

    `guesses` and `labels` are (n,) label indices; guesses are -1 where a row was not tested.
    """
    tested = guesses >= 0
    true, said = labels[tested], guesses[tested]
    metrics = metrics_of(confusion_matrix(true, said, num_labels))
    people = None if speakers is None else np.asarray(speakers, dtype=str)[tested].tolist()
    interval = None if people is None else speaker_bootstrap(true, [said], people, num_labels)
    return {"uar": metrics["uar"], "war": metrics["war"], "uar_ci95": None if interval is None else list(interval)}


def _choose(
    features: Mapping[int, FloatArray],
    labels: IntArray,
    speakers: npt.NDArray[np.str_],
    rows: IntArray,
    choices: Sequence[float],
) -> tuple[int, float] | None:
    """Layer and C with the best UAR when the training speakers test each other; None for a single one of them."""
    people = np.unique(speakers[rows])
    if len(people) < 2:
        return None
    group = np.searchsorted(people, speakers[rows]) % min(INNER_GROUPS, len(people))
    folds = [ProbeFold(rows[group != number], rows[group == number]) for number in np.unique(group)]
    best: tuple[float, tuple[int, float]] | None = None
    for layer, values in features.items():
        guesses = {c: np.full(len(labels), -1) for c in choices}
        for fold in folds:
            for c, said in _fit_and_predict(values, labels, fold, choices).items():
                guesses[c][fold.test] = said
        for c, said in guesses.items():
            uar = score(said, labels, None, int(labels.max()) + 1)["uar"]
            if best is None or uar > best[0]:
                best = uar, (layer, c)
    return None if best is None else best[1]


def _fit_and_predict(
    values: FloatArray, labels: IntArray, fold: ProbeFold, choices: Sequence[float]
) -> dict[float, IntArray]:
    """C → (test rows,) label indices: one classifier against the rest for each label."""
    from sklearn.svm import LinearSVC

    train = values[fold.train].astype(np.float64)
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    deviation[deviation == 0] = 1
    train = (train - mean) / deviation
    test = (values[fold.test] - mean) / deviation
    known = labels[fold.train]
    if len(np.unique(known)) == 1:
        return {c: np.full(len(fold.test), known[0]) for c in choices}
    return {
        c: LinearSVC(C=c, class_weight="balanced", max_iter=10_000, random_state=0).fit(train, known).predict(test)
        for c in choices
    }
