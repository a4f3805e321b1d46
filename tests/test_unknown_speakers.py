"""Speakers whom nobody has named: in WAR and UAR, and nowhere where speakers are counted, drawn or compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gmp_atl_hf.cli.compare import format_comparison
from gmp_atl_hf.cli.probe import format_probe
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.evaluation.probe import score
from gmp_atl_hf.evaluation.results import FoldResult
from gmp_atl_hf.evaluation.statistics import gender_gap
from gmp_atl_hf.report.compare import compare_runs
from gmp_atl_hf.report.markdown import render_console, render_markdown
from gmp_atl_hf.report.verdict import compare_over_corpora
from test_report import fold_result, report_of, scores
from test_verify_report import write_run

NAMED, UNKNOWN = range(1, 7), 9


def unknown_fold(skill: float, fold: int = 7, size: int = 400) -> FoldResult:
    rows = fold_result(0, UNKNOWN, skill, size=size).predictions
    return FoldResult(0, fold, [{**row, "speaker": "demo/unknown", "gender": None} for row in rows])


def named_folds(skill: float) -> list[FoldResult]:
    return [fold_result(0, fold, skill) for fold in NAMED]


def sides(first: float = 0.7, other: float = 0.5) -> dict[str, list[FoldResult]]:
    """Six speakers of twenty clips, and 400 clips of whomever, on which the variants are alike."""
    return {name: [*named_folds(skill), unknown_fold(0.9)] for name, skill in (("a", first), ("b", other))}


def report_with_unknown(**options: Any) -> dict[str, Any]:
    return report_of(sides(**options), folds_total=7, seeds=[0])


def test_they_count_in_uar_and_not_in_the_number_of_speakers_nor_in_the_interval() -> None:
    with_them = report_with_unknown()["variants"]["a"]
    without = report_of({"a": named_folds(0.7)}, seeds=[0])["variants"]["a"]
    assert with_them["uar"]["pooled"] == pytest.approx(scores([*named_folds(0.7), unknown_fold(0.9)])["uar"])
    assert (with_them["speakers"], with_them["utterances"], with_them["unknown_utterances"]) == (6, 520, 400)
    assert with_them["uar_ci95"] == without["uar_ci95"]
    assert (without["speakers"], without["unknown_utterances"]) == (6, 0)


def test_beside_the_interval_stands_how_many_utterances_it_leaves_out_and_the_uar_of_the_others() -> None:
    note = report_with_unknown()["variants"]["a"]["uar_ci95_note"]
    of_the_named = scores(named_folds(0.7))["uar"]
    assert note.endswith(
        f"of 6 test speakers (without 400 utterances of unknown speakers), whose UAR is {100 * of_the_named:.1f} %"
    )
    few = report_of({"a": [*named_folds(0.7)[:4], unknown_fold(0.9)]}, folds_total=7, seeds=[0])["variants"]["a"]
    assert few["uar_ci95"] is None
    assert "4 test speakers (without 400 utterances of unknown speakers), at least 5" in few["uar_ci95_note"]


def test_nobody_flips_the_sign_of_all_unknown_speakers_at_once() -> None:
    with_them = report_with_unknown()["comparisons"][0]
    without = report_of({"a": named_folds(0.7), "b": named_folds(0.5)}, seeds=[0])["comparisons"][0]
    same = ("n", "p", "mean_difference", "ci95", "pooled_ci95", "per_speaker", "smallest_visible_difference")
    assert {key: with_them[key] for key in same} == {key: without[key] for key in same}
    assert (with_them["unknown_utterances"], without["unknown_utterances"]) == (400, 0)
    uar = [scores([*named_folds(skill), unknown_fold(0.9)])["uar"] for skill in (0.7, 0.5)]
    assert with_them["pooled_difference"] == pytest.approx(uar[0] - uar[1])


def test_the_report_says_so_on_every_page() -> None:
    report = report_with_unknown()
    for text in (render_markdown(report), render_console(report)):
        assert "a: 400 utterances of unknown speakers: in WAR, UAR and macro F1, but not where speakers are" in text
    assert "Tested:   6 speakers and of unknown ones, 520 utterances" in render_console(report)


def test_where_nobody_is_known_there_is_a_report_without_interval_and_comparison() -> None:
    report = report_of({"a": [unknown_fold(0.9, 1)], "b": [unknown_fold(0.5, 1)]}, seeds=[0])
    assert (report["variants"]["a"]["speakers"], report["variants"]["a"]["uar_ci95"]) == (0, None)
    assert report["comparisons"] == []
    assert "a and b are not compared: no test speaker is known." in report["notes"]
    assert "400 utterances of unknown test speakers." in render_markdown(report)


def test_the_gap_between_genders_has_them_in_the_difference_alone() -> None:
    references = np.zeros(80, int)
    predictions = np.array([[int(row % 4 == 0) for row in range(40)] + [int(row % 2 == 0) for row in range(40)]])
    speakers = [f"c/{gender}{row // 10}" for gender in "fm" for row in range(40)]
    genders = ["female"] * 40 + ["male"] * 40
    plain = gender_gap(references, predictions, speakers, genders, 2)
    more = gender_gap(
        [*references, *[0] * 50], np.c_[predictions, np.ones((1, 50), int)], [*speakers, *["c/unknown"] * 50],
        [*genders, *["female"] * 50], 2,
    )  # fmt: skip
    assert plain is not None and more is not None
    assert (more.speakers, plain.speakers) == ((4, 4), (4, 4))
    assert plain.interval is not None and more.interval is None  # it would be that of another difference
    assert plain.difference == pytest.approx(0.25) and more.difference == pytest.approx(30 / 90 - 0.5)


def test_a_probe_draws_no_unknown_speaker() -> None:
    labels = np.array([0, 1] * 60)
    right = np.random.default_rng(0).random(120) < np.repeat([0.9, 0.5, 0.7, 0.6, 0.8, 0.2], 20)
    guesses = np.where(right, labels, 1 - labels)
    speakers = [f"c/{row // 20}" for row in range(100)] + ["c/unknown"] * 20
    everybody = score(guesses, labels, speakers, 2)
    known = score(guesses[:100], labels[:100], speakers[:100], 2)
    assert everybody["uar_ci95"] == known["uar_ci95"] is not None
    assert everybody["uar"] != known["uar"]
    report = {"model": "m", "corpus": {"name": "c"}, "layers": [{"layer": 1, **everybody}], "nested": None, "c": 0.001,
              "stamps": [], "protocol": {"sentence": "One."}, "command": "x", "unknown_utterances": 20}  # fmt: skip
    assert "Intervals leave out 20 recordings of unknown speakers." in format_probe(report)
    assert "Intervals leave out" not in format_probe({**report, "unknown_utterances": 0})


def stored(folder: Path, variants: dict[str, list[FoldResult]]) -> str:
    write_run(folder, variants)
    for file in folder.glob("*/seed-*/fold-*"):
        (file / "metrics.json").write_text("{}", encoding="utf-8")
    return str(folder)


def test_compare_leaves_them_out_and_says_how_many_utterances_that_are(tmp_path: Path) -> None:
    run = stored(tmp_path / "run", sides())
    found = compare_runs(run, run)
    assert found["n"] == 6 and "demo/unknown" not in found["per_speaker"]
    said = format_comparison({**found, "command": "gmp-atl compare"})
    assert "Difference in UAR, paired over the same 120 utterances of 6 speakers:" in said
    assert "Note: 400 utterances of unknown speakers: in the pooled difference alone." in said
    verdict = compare_over_corpora([run], "a", "b")
    assert verdict["verdict"]["n"] == 6 and verdict["unknown_gender"] == 0
    assert verdict["notes"] == ["demo: 400 utterances of unknown speakers: in the pooled difference alone."]


def test_compare_refuses_runs_of_unknown_speakers_alone(tmp_path: Path) -> None:
    run = stored(tmp_path / "run", {name: [unknown_fold(skill, 1)] for name, skill in (("a", 0.9), ("b", 0.5))})
    with pytest.raises(RequestError, match="nobody knows who speaks in"):
        compare_runs(run, run)
    with pytest.raises(RequestError, match="nobody knows who speaks in demo"):
        compare_over_corpora([run], "a", "b")
