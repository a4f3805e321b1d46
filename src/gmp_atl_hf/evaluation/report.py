"""From the predictions of a run to `report.json`: every number with its protocol, folds, seeds and command.

The tables people read are made by `report_markdown`, the pictures by `plots`; both start from the report's dictionary.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gmp_atl_hf.evaluation.metrics import (
    FloatArray,
    IntArray,
    absent_labels,
    confusion_matrix,
    macro_f1,
    metrics_of,
    per_class_recall,
    uar,
    war,
)
from gmp_atl_hf.evaluation.statistics import MIN_SPEAKERS, sign_flip_test, speaker_bootstrap, speaker_confusions
from gmp_atl_hf.files import write_whole

FORMAT_VERSION = 1
NOT_SPEAKER_INDEPENDENT = "not speaker-independent"
RESAMPLES = 2000
TIE = 1e-12
"""Differences below this are the same value computed in two orders of additions."""

COMPARISON_REMARK = (
    "Paired over speakers by flipping signs. Folds share training data, so the speakers are not independent and the "
    "p value is a guide, not a proof."
)
_METRICS = {"war": war, "uar": uar, "macro_f1": macro_f1}


@dataclass(frozen=True)
class FoldResult:
    """The test predictions of one fold of one seed.

    Args:
        seed: Seed of the training.
        fold: Number of the fold, from 1.
        predictions: One dictionary per test utterance: `id`, `speaker`, `gender` ("female", "male" or None),
            `emotion`, `predicted`, and anything else.
    """

    seed: int
    fold: int
    predictions: list[dict[str, Any]]


@dataclass(frozen=True)
class _Block:
    """A complete seeds × folds block, one entry per utterance, aligned over seeds.

    `references` (n,) and `predictions` (seeds, n) are label indices; `folds_of` (n,) are fold numbers.
    """

    seeds: list[int]
    folds: list[int]
    references: IntArray
    predictions: IntArray
    speakers: npt.NDArray[Any]
    genders: npt.NDArray[Any]
    folds_of: IntArray


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
    left_out: Mapping[str, int] | None = None,
    corpus: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Turn test predictions into the contents of `report.json`.

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
        left_out: Number of recordings left out, per reason.
        corpus: What is known of the corpus.
        environment: Versions and hardware.

    Returns:
        A dictionary of JSON types only, without NaN.

    Raises:
        ValueError: If predictions contradict each other: an unknown label, seed or fold, an id twice, a fold twice, or
            different utterances of one fold.
        TypeError: If something is no JSON type and has no plain equivalent.
    """
    label_names = [str(label) for label in labels]
    if not label_names or len(set(label_names)) != len(label_names):
        raise ValueError(f"labels must be distinct names, got {label_names}")
    independent = protocol.get("speaker_independent", True) is not False
    all_stamps = list(dict.fromkeys([*stamps, *([] if independent else [NOT_SPEAKER_INDEPENDENT])]))
    for variant, results in variants.items():
        _check_results(variant, results, label_names, folds_total, seeds)

    summaries = {
        variant: _variant_summary(results, label_names, folds_total, seeds, independent)
        for variant, results in variants.items()
    }
    comparisons, comparison_notes = _comparisons(variants, label_names)
    notes = [note for variant, summary in summaries.items() for note in _variant_notes(variant, summary)]
    report = {
        "format_version": FORMAT_VERSION,
        "name": name,
        "protocol": dict(protocol),
        "folds_total": folds_total,
        "labels": label_names,
        "seeds": list(seeds),
        "command": command,
        "stamps": all_stamps,
        "notes": notes + comparison_notes,
        "variants": summaries,
        "comparisons": comparisons,
        "left_out": dict(left_out or {}),
        "corpus": None if corpus is None else dict(corpus),
        "environment": None if environment is None else dict(environment),
    }
    plain: dict[str, Any] = _plain(report, "report")
    return plain


def write_report(report: Mapping[str, Any], folder: str | os.PathLike[str]) -> list[Path]:
    """Write `report.json`, `report.md` and, with matplotlib, one confusion matrix per variant.

    Everything is rendered before the first file is written, and each file appears whole or not at all.

    Args:
        report: What `build_report` returned.
        folder: Where to write; made if missing.

    Returns:
        The files written: report.json, report.md, then the figures.
    """
    from gmp_atl_hf.evaluation.report_markdown import render_markdown

    contents: dict[str, bytes] = {}
    figures: dict[str, str] = {}
    if importlib.util.find_spec("matplotlib") is not None:
        from gmp_atl_hf.evaluation.plots import confusion_png

        for number, (variant, summary) in enumerate(report["variants"].items(), start=1):
            if summary["utterances"]:
                # The number keeps names apart that become the same when made fit for a file.
                figures[variant] = f"figures/confusion-{number}-{re.sub(r'[^A-Za-z0-9._-]+', '-', variant)}.png"
                contents[figures[variant]] = confusion_png(report, variant)
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    contents = {
        "report.json": text.encode(),
        "report.md": render_markdown(report, figures).encode(),
        **contents,
    }
    paths = []
    for relative, content in contents.items():
        path = Path(folder) / relative
        write_whole(path, content)
        paths.append(path)
    return paths


def _check_results(
    variant: str, results: Sequence[FoldResult], labels: list[str], folds_total: int, seeds: Sequence[int]
) -> None:
    """Refuse results that contradict the request or each other."""
    seen_pairs: set[tuple[int, int]] = set()
    seen_ids: dict[tuple[int, str], int] = {}
    content_of_fold: dict[int, dict[str, tuple[Any, ...]]] = {}
    for result in results:
        where = f"{variant}, seed {result.seed}, fold {result.fold}"
        if result.seed not in seeds:
            raise ValueError(f"{where}: the seed is none of {list(seeds)}")
        if not 1 <= result.fold <= folds_total:
            raise ValueError(f"{where}: the fold is not within 1 to {folds_total}")
        if (result.seed, result.fold) in seen_pairs:
            raise ValueError(f"{where}: this fold is given twice")
        seen_pairs.add((result.seed, result.fold))
        if not result.predictions:
            raise ValueError(f"{where}: no predictions")
        ids: set[str] = set()
        for row in result.predictions:
            for key in ("emotion", "predicted"):
                if row[key] not in labels:
                    raise ValueError(f"{where}, {row['id']}: {key} {row[key]!r} is none of {labels}")
            earlier = seen_ids.setdefault((result.seed, row["id"]), result.fold)
            if row["id"] in ids or earlier != result.fold:
                raise ValueError(f"{where}: id {row['id']!r} is tested twice (also in fold {earlier})")
            ids.add(row["id"])
        content = _contents(result)
        _check_same_fold(where, content_of_fold.setdefault(result.fold, content), content)


def _contents(result: FoldResult) -> dict[str, tuple[Any, ...]]:
    """Return what must be the same wherever a fold is tested: who said what, per id."""
    return {row["id"]: (row["speaker"], row.get("gender"), row["emotion"]) for row in result.predictions}


def _check_same_fold(where: str, first: dict[str, tuple[Any, ...]], second: dict[str, tuple[Any, ...]]) -> None:
    """Refuse two versions of one fold whose utterances, speakers, genders or emotions differ."""
    differing = sorted(i for i in first.keys() | second.keys() if first.get(i) != second.get(i))
    if differing:
        shown = ", ".join(differing[:5]) + (", …" if len(differing) > 5 else "")
        raise ValueError(f"{where}: {len(differing)} utterances differ from the same fold elsewhere: {shown}")


def _choose_block(
    results: Sequence[FoldResult], seeds: Sequence[int]
) -> tuple[list[int], list[int], list[dict[str, int]]]:
    """Return the seeds and folds of the block, and the (seed, fold) pairs outside it."""
    folds_of_seed = {seed: {r.fold for r in results if r.seed == seed} for seed in dict.fromkeys(seeds)}

    def rank(seed: int) -> tuple[int, int]:
        mine = folds_of_seed[seed]
        return len(mine), sum(mine <= others for others in folds_of_seed.values())

    # max() keeps the first of equals, so the order of the seeds decides last.
    folds = folds_of_seed[max(folds_of_seed, key=rank)] if folds_of_seed else set()
    chosen = [seed for seed, mine in folds_of_seed.items() if folds and folds <= mine]
    outside = sorted((r.seed, r.fold) for r in results if r.seed not in chosen or r.fold not in folds)
    return chosen, sorted(folds), [{"seed": seed, "fold": fold} for seed, fold in outside]


def _align(results: Sequence[FoldResult], seeds: list[int], folds: list[int], labels: list[str]) -> _Block:
    """Bring the predictions of a block into arrays with the same utterance order for every seed."""
    index = {label: i for i, label in enumerate(labels)}
    rows_of = {(r.seed, r.fold): sorted(r.predictions, key=lambda row: str(row["id"])) for r in results}
    reference_rows = [(fold, row) for fold in folds for row in rows_of[seeds[0], fold]]
    return _Block(
        seeds=seeds,
        folds=folds,
        references=np.array([index[row["emotion"]] for _, row in reference_rows], np.int64),
        predictions=np.array(
            [[index[row["predicted"]] for fold in folds for row in rows_of[seed, fold]] for seed in seeds], np.int64
        ),
        speakers=np.array([str(row["speaker"]) for _, row in reference_rows]),
        genders=np.array([str(row.get("gender") or "unknown") for _, row in reference_rows]),
        folds_of=np.array([fold for fold, _ in reference_rows], np.int64),
    )


def _variant_summary(
    results: Sequence[FoldResult], labels: list[str], folds_total: int, seeds: Sequence[int], independent: bool
) -> dict[str, Any]:
    """Compute everything that stands under `variants.<name>`."""
    chosen, folds, outside = _choose_block(results, seeds)
    head = {
        "folds_done": f"{len(folds)} of {folds_total} folds",
        "seeds_done": f"{len(chosen)} of {len(seeds)} seeds",
        "folds": folds,
        "seeds": chosen,
        "not_counted": outside,
    }
    if not folds:
        return {**head, **_empty_summary(labels)}
    block = _align(results, chosen, folds, labels)
    confusions = np.stack([_confusions(block, block.folds_of == fold, labels) for fold in folds], axis=1)
    pooled = confusions.sum(axis=1)
    absent = absent_labels(block.references, labels)
    interval, note = _interval(block, labels, independent)
    return {
        **head,
        "utterances": int(block.references.size),
        "speakers": len(set(block.speakers.tolist())),
        **{metric: _spreads(function(confusions), function(pooled)) for metric, function in _METRICS.items()},
        "uar_ci95": interval,
        "uar_ci95_note": note,
        "chance_uar": 1 / (len(labels) - len(absent)),
        "per_class_recall": dict(zip(labels, _nan_to_none(per_class_recall(pooled).mean(axis=0)), strict=True)),
        "absent_labels": absent,
        "confusion": pooled.mean(axis=0).tolist(),
        "per_gender": {g: _group(block, block.genders == g, labels) for g in sorted(set(block.genders.tolist()))},
        "per_speaker": {s: _group(block, block.speakers == s, labels) for s in sorted(set(block.speakers.tolist()))},
        "per_fold": [{"fold": fold, **_group(block, block.folds_of == fold, labels)} for fold in folds],
        "per_seed": [{"seed": seed, **metrics_of(pooled[i])} for i, seed in enumerate(chosen)],
    }


def _empty_summary(labels: list[str]) -> dict[str, Any]:
    """Return the numbers of a variant that has not finished a fold: the same keys, nothing known."""
    spreads = dict.fromkeys(("pooled", "folds_mean", "folds_std", "seeds_mean", "seeds_std"))
    return {
        "utterances": 0,
        "speakers": 0,
        **{metric: dict(spreads) for metric in _METRICS},
        "uar_ci95": None,
        "uar_ci95_note": "no interval: no fold is finished",
        "chance_uar": None,
        "per_class_recall": dict.fromkeys(labels),
        "absent_labels": [],
        "confusion": None,
        "per_gender": {},
        "per_speaker": {},
        "per_fold": [],
        "per_seed": [],
    }


def _confusions(block: _Block, rows: npt.NDArray[Any], labels: list[str]) -> IntArray:
    """Count the confusion matrix of some rows for each seed, shape (seeds, C, C)."""
    references = block.references[rows]
    return np.stack([confusion_matrix(references, guess[rows], len(labels)) for guess in block.predictions])


def _spreads(folds: FloatArray, pooled: FloatArray) -> dict[str, float | None]:
    """Summarise a metric: `folds` (seeds, folds) holds one value per fold, `pooled` (seeds,) one per seed."""
    fold_means = folds.mean(axis=0)
    return {
        "pooled": float(pooled.mean()),
        "folds_mean": float(fold_means.mean()),
        "folds_std": float(fold_means.std(ddof=1)) if fold_means.size > 1 else None,
        "seeds_mean": float(pooled.mean()),
        "seeds_std": float(pooled.std(ddof=1)) if pooled.size > 1 else None,
    }


def _group(block: _Block, rows: npt.NDArray[Any], labels: list[str]) -> dict[str, Any]:
    """Score some of the utterances, averaged over seeds."""
    confusions = _confusions(block, rows, labels)
    return {
        **{metric: float(function(confusions).mean()) for metric, function in _METRICS.items()},
        "utterances": int(rows.sum()),
        "speakers": len(set(block.speakers[rows].tolist())),
        "absent_labels": absent_labels(block.references[rows], labels),
    }


def _interval(block: _Block, labels: list[str], independent: bool) -> tuple[list[float] | None, str]:
    """Return the interval of the pooled UAR, if it means anything, and the sentence that explains it."""
    count = len(set(block.speakers.tolist()))
    if not independent:
        return None, f"no interval: {NOT_SPEAKER_INDEPENDENT}"
    interval = speaker_bootstrap(
        block.references, block.predictions, block.speakers.tolist(), len(labels), samples=RESAMPLES
    )
    if interval is None:
        return None, f"no interval: {_counted(count, 'test speaker')}, at least {MIN_SPEAKERS} are needed"
    return list(interval), f"95 % percentile interval from {RESAMPLES} resamples of {count} test speakers"


def _variant_notes(variant: str, summary: Mapping[str, Any]) -> list[str]:
    """Say in words what a reader of one variant's numbers could otherwise miss."""
    notes = []
    if summary["absent_labels"]:
        notes.append(
            f"{variant}: no test utterance of {', '.join(summary['absent_labels'])}; UAR and macro F1 are means over "
            "the other labels."
        )
    if summary["utterances"] and summary["uar_ci95"] is None:
        notes.append(f"{variant}: {summary['uar_ci95_note']}.")
    if summary["not_counted"]:
        pairs = ", ".join(f"seed {pair['seed']} fold {pair['fold']}" for pair in summary["not_counted"])
        notes.append(f"{variant}: finished but not counted, since other seeds or folds are missing: {pairs}.")
    return notes


def _comparisons(
    variants: Mapping[str, Sequence[FoldResult]], labels: list[str]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Compare the first variant with each other one, paired over speakers."""
    names = list(variants)
    comparisons, notes = [], []
    for other in names[1:]:
        first_of = {(r.seed, r.fold): r for r in variants[names[0]]}
        other_of = {(r.seed, r.fold): r for r in variants[other]}
        shared = sorted(first_of.keys() & other_of.keys())
        if not shared:
            notes.append(f"{names[0]} and {other} are not compared: no fold is finished in both.")
            continue
        differences = _speaker_differences(
            [first_of[pair] for pair in shared], [other_of[pair] for pair in shared], labels, f"{names[0]} and {other}"
        )
        test = sign_flip_test(differences)
        comparisons.append(
            {
                "first": names[0],
                "other": other,
                "metric": "uar",
                "mean_difference": float(differences.mean()),
                "p": test.p,
                "smallest_attainable_p": test.smallest_attainable_p,
                "exact": test.exact,
                "n": test.n,
                "ties": int(np.count_nonzero(differences == 0)),
                "pairs": [{"seed": seed, "fold": fold} for seed, fold in shared],
                "remark": COMPARISON_REMARK,
            }
        )
    return comparisons, notes


def _speaker_differences(
    first: Sequence[FoldResult], other: Sequence[FoldResult], labels: list[str], where: str
) -> FloatArray:
    """Return the UAR difference of each speaker, averaged over the seeds in which the speaker was tested."""
    for mine, theirs in zip(first, other, strict=True):
        _check_same_fold(f"{where}, seed {mine.seed}, fold {mine.fold}", _contents(mine), _contents(theirs))
    per_speaker: dict[str, list[float]] = {}
    for seed in sorted({result.seed for result in first}):
        sides = []
        for results in (first, other):
            of_seed = [result for result in results if result.seed == seed]
            sides.append(_align(of_seed, [seed], sorted(result.fold for result in of_seed), labels))
        scores = [
            uar(speaker_confusions(side.references, side.predictions, side.speakers.tolist(), len(labels))[0])
            for side in sides
        ]
        for speaker, difference in zip(np.unique(sides[0].speakers).tolist(), scores[0] - scores[1], strict=True):
            per_speaker.setdefault(speaker, []).append(float(difference))
    means = np.array([np.mean(per_speaker[speaker]) for speaker in sorted(per_speaker)])
    return np.where(np.abs(means) < TIE, 0.0, means)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _nan_to_none(values: FloatArray) -> list[float | None]:
    return [None if math.isnan(value) else float(value) for value in values]


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
