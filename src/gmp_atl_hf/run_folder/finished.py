"""Reads the test results of a finished run back from its folder, so that runs can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import RequestError
from ..evaluation.results import AlignedPredictions, FoldResult, align, choose_block, is_speaker_independent
from ..files import read_json, read_jsonl
from .layout import REPORT_FILE, RunFolder, refuse_pretraining


@dataclass(frozen=True)
class TestedVariant:
    """One variant of a run as it was tested: its part of the report, and the predictions that its numbers cover.

    `name` is `run:variant`, `labels` are in index order, and `block` holds the results as arrays.
    """

    name: str
    labels: list[str]
    results: list[FoldResult]
    block: AlignedPredictions
    summary: Mapping[str, Any]
    protocol: Mapping[str, Any]
    stamps: list[str]

    @property
    def speaker_independent(self) -> bool:
        """Whether no test speaker was trained on."""
        return is_speaker_independent(self.protocol)


def read_variant(run: str, given: str | None = None) -> TestedVariant:
    """Read a variant of a run.

    Args:
        run: Folder of the run, with `:variant` behind it; without, its first variant is meant.
        given: Variant to take where `run` names none.

    Raises:
        RequestError: There is no such run or variant, or nothing of it has been tested.
    """
    folder, variant = _split(run)
    report = _read_report(folder)
    names = list(report["variants"])
    variant = variant or given or names[0]
    if variant not in names:
        raise RequestError(
            f"the run {folder} has no variant {variant}", f"one of {', '.join(names)}", f"{folder}:{names[0]}"
        )
    summary = report["variants"][variant]
    if not summary["folds"]:
        raise RequestError(
            f"nothing of {folder}:{variant} has been tested", "at least one finished fold", "gmp-atl run it first"
        )
    results = []
    for seed in summary["seeds"]:
        for fold in summary["folds"]:
            place = RunFolder(folder).fold(variant, seed, fold)
            # A comparison needs no temperature, so a report with its predictions is enough.
            results.append(FoldResult(seed, fold, read_jsonl(place.predictions)))
    seeds, folds, _ = choose_block(results, summary["seeds"])
    block = align(results, seeds, folds, report["labels"])
    return TestedVariant(
        f"{folder}:{variant}", report["labels"], results, block, summary, report["protocol"], report["stamps"]
    )


def variants_of(run: str) -> list[str]:
    """Name the variants of a run, tested or not, in the order of the report; `run` may end in `:variant`."""
    return list(_read_report(_split(run)[0])["variants"])


def _split(run: str) -> tuple[Path, str | None]:
    """Take `folder:variant` apart; a folder that exists is one, whatever is in its name."""
    if Path(run).is_dir():
        return Path(run), None
    folder, colon, variant = run.rpartition(":")
    return (Path(folder), variant or None) if colon else (Path(run), None)


def _read_report(folder: Path) -> dict[str, Any]:
    refuse_pretraining(folder)
    file = RunFolder(folder).report
    if not file.is_file():
        raise RequestError(
            f"there is no report in {folder}",
            f"the folder of a run, with {REPORT_FILE}",
            "runs/NAME, or runs/NAME:VARIANT",
        )
    report: dict[str, Any] = read_json(file)
    try:
        report["variants"], report["labels"], report["protocol"]
    except (KeyError, TypeError) as error:
        raise RequestError(
            f"{file} is no report of a run", "what gmp-atl run writes", "gmp-atl run it again"
        ) from error
    return report
