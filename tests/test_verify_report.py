"""`examples/verify_report.py`: the numbers of a report, rebuilt without this package."""

from __future__ import annotations

import json
import runpy
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gmp_atl_hf.report.build import FoldResult, build_report, write_report
from test_report import LABELS, fold_result

EXAMPLE = Path(__file__).parents[1] / "examples" / "verify_report.py"
RESULTS = EXAMPLE.parents[1] / "benchmarks" / "results"
KEPT = {"emodb-mini": 25, "emodb-small": 25, "ravdess-mini": 25}
"""Reports with the predictions that they were made of, and how many numbers each has."""


def write_run(folder: Path, variants: dict[str, list[FoldResult]], **protocol: Any) -> Path:
    """What a run of three seeds and some speakers, each a fold, leaves behind, without training anything."""
    folds = max(result.fold for results in variants.values() for result in results)
    told = {"kind": "leave-one-speaker-out", "sentence": "Leave one speaker out.", **protocol}
    report = build_report(
        name="x", variants=variants, labels=LABELS, protocol=told, folds_total=folds, seeds=[0, 1, 2], command="x"
    )
    write_report(report, folder)
    for name, results in variants.items():
        for result in results:
            place = folder / name / f"seed-{result.seed}" / f"fold-{result.fold:02d}"
            place.mkdir(parents=True)
            lines = [json.dumps(row) + "\n" for row in result.predictions]
            (place / "predictions.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def results(seeds: int, folds: int, skill: float, **options: Any) -> list[FoldResult]:
    return [
        fold_result(seed, fold, skill, size=8 + fold, **options)
        for seed in range(seeds)
        for fold in range(1, folds + 1)
    ]


def nameless(results: list[FoldResult]) -> list[FoldResult]:
    """The same with one more fold, of speakers whom nobody has named."""
    rows = fold_result(0, 9, 0.9, size=90).predictions
    unknown = [{**row, "speaker": "demo/unknown"} for row in rows]
    last = 1 + max(result.fold for result in results)
    return [*results, *(FoldResult(seed, last, unknown) for seed in sorted({result.seed for result in results}))]


def verify(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str | int:
    """The exit status, or what is printed beside a status of 1."""
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), str(folder)])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert end.value.code is not None
    return end.value.code


def test_the_example_has_at_most_sixty_lines_and_needs_numpy_alone() -> None:
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 60
    assert {line.split()[1] for line in lines if line.startswith(("import", "from"))} == {
        "json",
        "numpy",
        "pathlib",
        "sys",
    }


@pytest.mark.parametrize(
    ("variants", "protocol"),
    [
        ({"gmp-atl": results(3, 24, 0.6), "direct": results(3, 24, 0.55)}, {}),  # signs are drawn
        ({"gmp-atl": results(2, 7, 0.6), "direct": results(2, 7, 0.5)}, {}),  # all signs
        ({"gmp-atl": results(2, 7, 0.6, without="joy"), "same": results(2, 7, 0.6, without="joy")}, {}),
        ({"gmp-atl": results(2, 7, 0.6), "direct": results(1, 3, 0.5), "tapt": []}, {}),  # partly done
        ({"gmp-atl": [*results(1, 6, 0.6), *results(2, 4, 0.6)[4:]], "direct": results(2, 6, 0.5)}, {}),
        ({"gmp-atl": results(1, 1, 0.6)}, {}),
        ({"gmp-atl": nameless(results(2, 7, 0.6)), "direct": nameless(results(2, 7, 0.5))}, {}),
        ({"gmp-atl": results(1, 6, 0.6), "direct": results(1, 6, 0.5)}, {"speaker_independent": False}),
    ],
)
def test_it_agrees_with_the_report(
    variants: dict[str, list[FoldResult]],
    protocol: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert verify(write_run(tmp_path / "run", variants, **protocol), monkeypatch) == 0
    numbers = sum(11 for results in variants.values() if results) + 3 * sum(map(bool, list(variants.values())[1:]))
    assert capsys.readouterr().out == f"{numbers} numbers compared, 0 of them wrong\n"


@pytest.mark.parametrize(
    ("name", "place"),
    [
        *((f"direct war {key}", ("variants", "direct", "war", key)) for key in ("pooled", "folds_mean", "folds_std")),
        *((f"gmp-atl uar {key}", ("variants", "gmp-atl", "uar", key)) for key in ("pooled", "seeds_mean", "seeds_std")),
        ("gmp-atl uar_ci95", ("variants", "gmp-atl", "uar_ci95", 1)),
        ("gmp-atl - direct mean_difference", ("comparisons", 0, "mean_difference")),
        ("gmp-atl - direct ci95", ("comparisons", 0, "ci95", 0)),
        ("gmp-atl - direct p", ("comparisons", 0, "p")),
    ],
)
@pytest.mark.parametrize("change", [lambda number: number + 2e-9, lambda number: None])
def test_a_wrong_number_is_found(
    name: str,
    place: tuple[Any, ...],
    change: Callable[[float], float | None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = write_run(tmp_path / "run", {"gmp-atl": results(2, 6, 0.6), "direct": results(2, 6, 0.5)})
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    *way, last = place
    part = report
    for key in way:
        part = part[key]
    part[last] = change(part[last])
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")
    found = verify(folder, monkeypatch)
    assert isinstance(found, str)
    assert [line.partition(":")[0] for line in found.splitlines()] == [name]


@pytest.mark.parametrize("name", KEPT)
def test_kept_results_are_those_of_their_predictions(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(RESULTS / name, monkeypatch) == 0
    assert capsys.readouterr().out == f"{KEPT[name]} numbers compared, 0 of them wrong\n"


@pytest.mark.parametrize("name", KEPT)
def test_kept_results_name_no_place_of_a_machine(name: str) -> None:
    words = shlex.split(json.loads((RESULTS / name / "report.json").read_text(encoding="utf-8"))["command"])
    assert [word for word in words if Path(word.rpartition("=")[2]).is_absolute()] == []
