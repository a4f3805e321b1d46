"""From predictions to report.json, report.md and the table on the screen."""

from __future__ import annotations

import importlib.util
import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.evaluation.metrics import emotion_metrics
from gmp_atl_hf.evaluation.power import smallest_visible_difference
from gmp_atl_hf.evaluation.statistics import holm, sign_flip_test, speaker_bootstrap
from gmp_atl_hf.files import check_files
from gmp_atl_hf.report.blocks import TIES_REMARK
from gmp_atl_hf.report.build import COMPARISON_REMARK, FoldResult, build_report, is_written, write_report
from gmp_atl_hf.report.figures import can_draw
from gmp_atl_hf.report.markdown import percent, protocol_line, render_console, render_markdown

LABELS = ["anger", "joy", "neutral", "sadness"]
PROTOCOL = {"kind": "leave-one-speaker-out", "sentence": "Leave one speaker out, two development speakers."}
COMMAND = "gmp-atl run recipes/demo.yaml"


def fold_result(seed: int, fold: int, skill: float = 0.7, size: int = 20, without: str | None = None) -> FoldResult:
    """One speaker per fold; the utterances depend on the fold alone, the predictions on seed and skill too."""
    utterances, guesses = random.Random(fold), random.Random(f"{seed} {fold} {skill}")
    rows = []
    for i in range(size):
        emotion = utterances.choice([label for label in LABELS if label != without])
        rows.append(
            {
                "id": f"demo/{fold}-{i}",
                "file": f"{fold}-{i}.wav",
                "speaker": f"demo/s{fold:02d}",
                "gender": "female" if fold % 2 else "male",
                "emotion": emotion,
                "predicted": emotion if guesses.random() < skill else guesses.choice(LABELS),
                "scores": dict.fromkeys(LABELS, 0.25),
            }
        )
    return FoldResult(seed, fold, rows)


def run(seeds: list[int], folds: list[int], **options: Any) -> list[FoldResult]:
    return [fold_result(seed, fold, **options) for seed in seeds for fold in folds]


def report_of(variants: dict[str, list[FoldResult]], **options: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "name": "demo",
        "labels": LABELS,
        "protocol": PROTOCOL,
        "folds_total": 6,
        "seeds": [0, 1],
        "command": COMMAND,
    }
    return build_report(variants=variants, **{**settings, **options})


def arrays(results: list[FoldResult]) -> tuple[list[int], list[int]]:
    rows = [row for result in results for row in result.predictions]
    return [LABELS.index(row["emotion"]) for row in rows], [LABELS.index(row["predicted"]) for row in rows]


def scores(results: list[FoldResult]) -> dict[str, float]:
    return emotion_metrics(*arrays(results), len(LABELS))


def row(identity: str, speaker: str, emotion: str, predicted: str, gender: str | None = None) -> dict[str, Any]:
    return {"id": identity, "speaker": speaker, "gender": gender, "emotion": emotion, "predicted": predicted}


@pytest.fixture
def full() -> dict[str, Any]:
    return report_of({"gmp-atl": run([0, 1], [1, 2, 3, 4, 5, 6]), "direct": run([0, 1], [1, 2, 3, 4, 5, 6], skill=0.4)})


def test_pooled_folds_and_seeds_are_told_apart() -> None:
    # Folds of different sizes, so that pooling differs from the mean of folds.
    results = [fold_result(seed, fold, size=8 * fold) for seed in (0, 1) for fold in (1, 2, 3)]
    summary = report_of({"a": results})["variants"]["a"]
    pooled = [scores([r for r in results if r.seed == seed]) for seed in (0, 1)]
    for metric in ("war", "uar", "macro_f1"):
        of_folds = [
            np.mean([scores([r])[metric] for r in results if r.fold == fold and r.seed in (0, 1)]) for fold in (1, 2, 3)
        ]
        of_seeds = [values[metric] for values in pooled]
        expected = {
            "pooled": np.mean(of_seeds),
            "folds_mean": np.mean(of_folds),
            "folds_std": np.std(of_folds, ddof=1),
            "seeds_mean": np.mean(of_seeds),
            "seeds_std": np.std(of_seeds, ddof=1),
        }
        assert summary[metric] == pytest.approx(expected)
    assert summary["uar"]["pooled"] != pytest.approx(summary["uar"]["folds_mean"], abs=1e-4)
    assert [entry["uar"] for entry in summary["per_seed"]] == pytest.approx([p["uar"] for p in pooled])
    assert [(entry["fold"], entry["utterances"]) for entry in summary["per_fold"]] == [(1, 8), (2, 16), (3, 24)]


def test_the_confusion_matrix_is_summed_over_folds_and_averaged_over_seeds() -> None:
    rows = [row("a", "s", "anger", "anger"), row("b", "s", "anger", "joy"), row("c", "s", "joy", "joy")]
    other = [row("d", "t", "joy", "anger")]
    second = [{**rows[0], "predicted": "sadness"}, *rows[1:]]
    results = [FoldResult(0, 1, rows), FoldResult(0, 2, other), FoldResult(1, 1, second), FoldResult(1, 2, other)]
    summary = report_of({"v": results})["variants"]["v"]
    assert summary["confusion"] == [[0.5, 1, 0, 0.5], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert summary["per_class_recall"] == {"anger": 0.25, "joy": 0.5, "neutral": None, "sadness": None}
    assert summary["absent_labels"] == ["neutral", "sadness"]
    assert summary["chance_uar"] == 0.5
    assert (summary["utterances"], summary["speakers"]) == (4, 2)


def test_seeds_are_aligned_by_id_whatever_the_order_of_rows(full: dict[str, Any]) -> None:
    results = run([0, 1], [1, 2, 3, 4, 5, 6])
    turned = [FoldResult(r.seed, r.fold, r.predictions[::-1] if r.seed else r.predictions) for r in results[::-1]]
    assert report_of({"gmp-atl": turned})["variants"]["gmp-atl"] == full["variants"]["gmp-atl"]


def test_genders_and_speakers_are_scored_with_their_sizes_and_absent_labels() -> None:
    results = [*run([0], [1, 2, 3]), fold_result(0, 4, without="joy")]
    unknown = FoldResult(0, 5, [row("x", "demo/x", "anger", "joy")])
    summary = report_of({"v": [*results, unknown]})["variants"]["v"]
    assert set(summary["per_gender"]) == {"female", "male", "unknown"}
    female = summary["per_gender"]["female"]
    assert (female.pop("utterances"), female.pop("speakers"), female.pop("absent_labels")) == (40, 2, [])
    assert {metric: female[metric] for metric in ("war", "uar", "macro_f1")} == pytest.approx(
        scores([results[0], results[2]])
    )
    assert summary["per_gender"]["unknown"]["absent_labels"] == LABELS[1:]
    assert summary["per_speaker"]["demo/s04"]["absent_labels"] == ["joy"]
    assert summary["per_speaker"]["demo/s04"]["uar"] == pytest.approx(scores(results[3:])["uar"])


def test_the_interval_resamples_speakers_and_needs_five_of_them() -> None:
    results = run([0, 1], [1, 2, 3, 4, 5])
    summary = report_of({"v": results})["variants"]["v"]
    by_seed = [arrays([r for r in results if r.seed == seed]) for seed in (0, 1)]
    speakers = [entry["speaker"] for r in results if r.seed == 0 for entry in r.predictions]
    expected = speaker_bootstrap(by_seed[0][0], [p for _, p in by_seed], speakers, 4)
    assert summary["uar_ci95"] == pytest.approx(expected)
    assert "5 test speakers" in summary["uar_ci95_note"]
    four = report_of({"v": run([0], [1, 2, 3, 4])})
    assert four["variants"]["v"]["uar_ci95"] is None
    assert "4 test speakers" in four["variants"]["v"]["uar_ci95_note"]
    assert any("4 test speakers" in note for note in four["notes"])


def test_a_protocol_with_shared_speakers_is_stamped_everywhere_and_has_no_interval() -> None:
    report = report_of({"v": run([0], range(1, 7))}, protocol={**PROTOCOL, "speaker_independent": False})
    assert report["stamps"] == ["not speaker-independent"]
    assert report["variants"]["v"]["uar_ci95"] is None
    assert "not speaker-independent" in report["variants"]["v"]["uar_ci95_note"]
    assert "not speaker-independent" in render_markdown(report)
    assert "*** not speaker-independent ***" in render_console(report)


def test_a_variant_without_a_finished_fold_shows_dashes() -> None:
    report = report_of({"gmp-atl": run([0], [1, 2]), "direct": []})
    summary = report["variants"]["direct"]
    assert summary["folds_done"] == "0 of 6 folds"
    assert summary["uar"] == dict.fromkeys(("pooled", "folds_mean", "folds_std", "seeds_mean", "seeds_std"))
    assert set(summary) == set(report["variants"]["gmp-atl"])
    line = next(line for line in render_console(report).splitlines() if line.startswith("direct"))
    assert line.split() == ["direct", "–", "–", "–", "–", "0", "of", "6", "0", "of", "2"]
    assert report["comparisons"] == []
    assert any("not compared" in note for note in report["notes"])


def test_a_partial_run_says_how_much_is_done() -> None:
    report = report_of({"v": run([0], [2, 5])}, folds_total=10)
    summary = report["variants"]["v"]
    assert (summary["folds_done"], summary["seeds_done"]) == ("2 of 10 folds", "1 of 2 seeds")
    assert "2 of 10" in render_console(report) and "2 of 10 folds" in render_markdown(report)
    assert summary["uar"]["seeds_std"] is None
    assert report_of({"v": run([0], [2])})["variants"]["v"]["uar"]["folds_std"] is None


def test_numbers_cover_the_folds_of_the_fullest_seed_and_the_rest_is_named() -> None:
    results = run([0], [1, 2, 3]) + run([1], [1, 2, 3, 4]) + run([2], [4, 3, 2, 1])
    report = report_of({"v": results}, seeds=[0, 1, 2])
    summary = report["variants"]["v"]
    assert (summary["seeds"], summary["folds"]) == ([1, 2], [1, 2, 3, 4])
    assert summary["not_counted"] == [{"seed": 0, "fold": fold} for fold in (1, 2, 3)]
    assert summary["uar"]["pooled"] == pytest.approx(np.mean([scores(results[3:7])["uar"], scores(results[7:])["uar"]]))
    assert "seed 0 fold 3" in render_console(report) and "seed 0 fold 3" in render_markdown(report)


def test_a_further_fold_of_a_lesser_seed_is_not_counted() -> None:
    summary = report_of({"v": run([0], [1, 2, 3]) + run([1], [4])})["variants"]["v"]
    assert (summary["seeds"], summary["folds"], summary["not_counted"]) == ([0], [1, 2, 3], [{"seed": 1, "fold": 4}])


def test_the_first_variant_is_compared_with_each_other_over_speakers() -> None:
    first = run([0, 1], [1, 2, 3, 4, 5, 6], size=33)
    second = run([0, 1], [1, 2, 3, 4], skill=0.4, size=33) + run([0], [5], skill=0.4, size=33)
    report = report_of({"gmp-atl": first, "direct": second, "same": first})
    # Seed 1 lacks fold 5 on one side, so it counts on neither, for nobody.
    differences = [
        scores([next(r for r in first if (r.seed, r.fold) == (0, fold))])["uar"]
        - scores([next(r for r in second if (r.seed, r.fold) == (0, fold))])["uar"]
        for fold in range(1, 6)
    ]
    test = sign_flip_test(differences)
    comparison, same = report["comparisons"]
    assert (comparison["first"], comparison["other"], comparison["n"]) == ("gmp-atl", "direct", 5)
    assert comparison["mean_difference"] == pytest.approx(np.mean(differences))
    assert comparison["p"] == pytest.approx(test.p)
    assert (comparison["smallest_attainable_p"], comparison["exact"]) == (2 / 2**5, True)
    assert comparison["pairs"] == [{"seed": 0, "fold": fold} for fold in range(1, 6)]
    assert comparison["remark"] == COMPARISON_REMARK and "share training data" in COMPARISON_REMARK
    assert (same["mean_difference"], same["p"], same["smallest_attainable_p"], same["ties"]) == (0, 1, 1, 6)
    assert COMPARISON_REMARK in render_console(report) and COMPARISON_REMARK in render_markdown(report)


def test_beside_the_p_of_several_comparisons_stands_that_by_holm() -> None:
    folds = [1, 2, 3, 4, 5, 6]
    skills = {"a": 0.9, "b": 0.3, "c": 0.7}
    report = report_of({name: run([0], folds, skill=skill) for name, skill in skills.items()})
    comparisons = report["comparisons"]
    assert [one["p_holm"] for one in comparisons] == pytest.approx(holm([one["p"] for one in comparisons]))
    assert comparisons[0]["p_holm"] == 2 * comparisons[0]["p"]
    table = render_markdown(report).partition("## Comparisons")[2]
    assert "| p | p (Holm) | smallest possible p |" in table
    for one in comparisons:
        assert f"| {one['p']:.3f} | {one['p_holm']:.3f} | {one['smallest_attainable_p']:.3f} |" in table
        assert f"p = {one['p']:.3f}, p (Holm) = {one['p_holm']:.3f} (smallest" in render_console(report)
    assert "corrected by Holm's method for the 2 comparisons of this table" in table
    assert "corrected by Holm's method for the 2 comparisons:" in render_console(report)
    for one in comparisons:
        del one["p_holm"]  # as in reports of earlier versions
    assert "Holm" not in render_markdown(report) + render_console(report)


def test_a_single_comparison_is_not_corrected(full: dict[str, Any]) -> None:
    assert len(full["comparisons"]) == 1 and "p_holm" not in full["comparisons"][0]
    assert "Holm" not in render_markdown(full) + render_console(full)


def test_a_comparison_counts_what_the_tables_count_and_nothing_else() -> None:
    def results(skill: float, lucky: float) -> list[FoldResult]:
        return run([0], [1, 2, 3, 4, 5, 6], skill=skill) + run([1], [1, 2, 3], skill=lucky)

    # On seed 0 the variants are alike; seed 1, which has half the folds, is not counted.
    report = report_of({"a": results(0.6, 1.0), "b": results(0.6, 0.2)})
    assert [pair["seed"] for pair in report["variants"]["a"]["not_counted"]] == [1, 1, 1]
    [comparison] = report["comparisons"]
    assert {pair["seed"] for pair in comparison["pairs"]} == {0}
    assert comparison["mean_difference"] == comparison["pooled_difference"] == 0


def test_of_two_seeds_with_as_many_folds_tables_and_comparison_count_the_same_one() -> None:
    results = run([0], [1, 2, 3]) + run([1], [4, 5, 6])
    report = report_of({"a": results, "b": results}, seeds=[1, 0])
    assert report["variants"]["a"]["seeds"] == [1]
    assert {pair["seed"] for pair in report["comparisons"][0]["pairs"]} == {1}


def test_speakers_who_do_not_count_for_p_since_they_tie_are_counted_beside_it() -> None:
    seen = run([0], [1, 2, 3, 4, 5, 6], size=33)
    partly = seen[:2] + run([0], [3, 4, 5, 6], skill=0.4, size=33)
    some = report_of({"a": seen, "b": partly})
    assert (some["comparisons"][0]["n"], some["comparisons"][0]["smallest_attainable_p"]) == (6, 2 / 2**4)
    assert "(smallest possible 0.125, 6 speakers, 2 without a difference, exact" in render_console(some)
    assert TIES_REMARK in render_markdown(some)
    none = report_of({"a": seen, "b": run([0], [1, 2, 3, 4, 5, 6], skill=0.4, size=33)})
    assert "(smallest possible 0.031, 6 speakers, exact" in render_console(none)
    assert TIES_REMARK not in render_markdown(none)


def test_beside_each_comparison_stands_the_smallest_difference_that_it_could_have_seen() -> None:
    sides = {"gmp-atl": run([0, 1], [1, 2, 3, 4, 5, 6]), "direct": run([0, 1], [1, 2, 3, 4, 5, 6], skill=0.4)}
    report = report_of(sides)
    [comparison] = report["comparisons"]
    differences = np.array([person["difference"] for person in comparison["per_speaker"].values()])
    visible = smallest_visible_difference([differences])
    assert visible is not None and comparison["smallest_visible_difference"] == visible
    assert f"smallest visible difference {percent(visible)})" in render_console(report)
    table = render_markdown(report).partition("## Comparisons")[2]
    assert "| smallest visible difference |" in table and f"| {percent(visible)} |" in table
    assert "a smaller one can be there and not be seen" in table
    del comparison["smallest_visible_difference"]  # as in reports of earlier versions
    assert "smallest visible difference –)" in render_console(report)


def test_five_speakers_could_have_seen_no_difference() -> None:
    report = report_of({"a": run([0], [1, 2, 3, 4, 5]), "b": run([0], [1, 2, 3, 4, 5], skill=0.4)})
    assert report["comparisons"][0]["smallest_visible_difference"] is None
    assert "smallest visible difference –)" in render_console(report)


def test_a_speaker_tested_in_two_folds_is_one_speaker() -> None:
    rows = [row("a", "s", "anger", "anger"), row("b", "s", "joy", "joy")]
    first = [FoldResult(0, 1, rows[:1]), FoldResult(0, 2, rows[1:])]
    second = [FoldResult(0, 1, [{**rows[0], "predicted": "joy"}]), FoldResult(0, 2, rows[1:])]
    comparison = report_of({"a": first, "b": second})["comparisons"][0]
    assert (comparison["n"], comparison["mean_difference"]) == (1, 0.5)


@pytest.mark.parametrize(
    ("results", "message"),
    [
        (run([0], [1]) + run([0], [1]), "given twice"),
        (run([7], [1]), "seed is none of"),
        (run([0], [7]), "not within 1 to 6"),
        ([FoldResult(0, 1, [])], "no predictions"),
        ([FoldResult(0, 1, [row("a", "s", "boredom", "joy")])], "'boredom'"),
        ([FoldResult(0, 1, [row("a", "s", "joy", "boredom")])], "'boredom'"),
        ([FoldResult(0, 1, [row("a", "s", "joy", "joy")] * 2)], "tested twice"),
        ([FoldResult(0, fold, [row("a", "s", "joy", "joy")]) for fold in (1, 2)], "tested twice"),
        ([fold_result(0, 1), fold_result(1, 1, size=19)], "demo/1-19"),
        ([FoldResult(s, 1, [row("a", "s", e, "joy")]) for s, e in ((0, "joy"), (1, "anger"))], "1 utterance differs"),
    ],
)
def test_predictions_that_contradict_each_other_are_refused(results: list[FoldResult], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        report_of({"v": results})


def test_variants_tested_on_different_utterances_are_not_compared_in_silence() -> None:
    with pytest.raises(ValueError, match="1 utterance differs from the same fold"):
        report_of({"a": run([0], [1]), "b": run([0], [1], size=19)})


def test_the_report_is_json_whatever_it_was_given() -> None:
    report = report_of(
        {"gmp-atl": run([0, 1], [1, 2, 3], without="joy"), "direct": []},
        seeds=(np.int64(0), np.int64(1)),
        protocol={"kind": "given", "folds": (1, 2), "path": Path("folds"), "share": np.float32(0.5)},
        environment={"python": "3.11", "gpu": None, "memory": float("nan")},
        corpus={"name": "demo", "counts": {"joy": np.int64(3)}},
        left_out={"shorter than one frame": np.int64(2)},
    )
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["format_version"] == 1
    assert report["environment"]["memory"] is None
    assert set(report) >= {"name", "labels", "seeds", "folds_total", "command", "stamps", "notes", "comparisons"}
    with pytest.raises(TypeError, match=r"report\.environment\.what is a object"):
        report_of({}, environment={"what": object()})


def test_neither_none_nor_nan_is_ever_visible() -> None:
    report = report_of(
        {"gmp-atl": run([0], [1, 2], without="joy"), "direct": [], "third": run([0], [1], without="joy")},
        protocol={"kind": "given", "dev_speakers": None, "nested": {"a": None}},
        environment={"gpu": None, "drivers": [None], "x": {}},
        corpus={"licence": None},
    )
    for text in (render_markdown(report), render_console(report), render_markdown(report_of({}))):
        assert not re.search(r"\b(None|nan|null|NaN)\b|\{|\}", text), text


def test_every_rendering_carries_protocol_command_folds_and_seeds(full: dict[str, Any]) -> None:
    for text in (render_markdown(full), render_console(full)):
        for part in (PROTOCOL["sentence"], COMMAND, "6 of 6", "2 of 2", *LABELS):
            assert part in text
    markdown = render_markdown(full)
    for variant in ("gmp-atl", "direct"):
        section = markdown.split(f"\n## {variant}\n")[1].split("\n## ")[0]
        assert PROTOCOL["sentence"] in section and "6 of 6 folds, 2 of 2 seeds" in section


def test_stamps_notes_and_left_out_recordings_are_shown_to_both_kinds_of_reader() -> None:
    report = report_of(
        {"v": run([0], range(1, 7), without="joy")},
        stamps=["labels were shuffled"],
        left_out={"shorter than one frame": 3},
    )
    for text in (render_markdown(report), render_console(report)):
        assert "labels were shuffled" in text and "shorter than one frame" in text
        assert "no test utterance of joy" in text


def test_the_table_on_the_screen_is_aligned(full: dict[str, Any]) -> None:
    lines = render_console(full).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("variant"))
    header, *rows = lines[start : start + 3]
    assert {len(line) for line in (header, *rows)} == {len(header)}
    uar = full["variants"]["gmp-atl"]["uar"]["pooled"]
    column = slice(header.index("UAR") - 2, header.index("UAR") + 3)
    assert rows[0][column].strip() == percent(uar)


def test_names_with_a_bar_do_not_tear_a_table_apart() -> None:
    table = render_markdown(report_of({"a|b": run([0], [1])})).split("\n\n")[1]
    header, _, body = table.splitlines()
    assert len(re.findall(r"(?<!\\)\|", body)) == len(re.findall(r"(?<!\\)\|", header))


def test_percentages_and_protocols_are_written_for_people() -> None:
    assert (percent(0.75), percent(1), percent(None), percent(float("nan"))) == ("75.0", "100.0", "–", "–")
    line = protocol_line({"protocol": {"kind": "group-k-fold", "dev_speakers": 2, "stratified": True, "seed": None}})
    assert line == "group-k-fold (dev speakers 2; stratified yes)"


def test_the_files_are_written_whole_and_name_their_figures(
    tmp_path: Path, full: dict[str, Any], pictures: None
) -> None:
    paths = [path.relative_to(tmp_path).as_posix() for path in write_report(full, tmp_path)]
    kinds = ("confusion", *(["reliability"] if full["variants"]["direct"]["calibration"] else []), "speakers")
    names = ["variants", *(f"{kind}-{one}" for one in ("1-gmp-atl", "2-direct") for kind in kinds)]
    figures = [f"figures/{name}.png" for name in names]
    drawn = [f"figures/{name}.{kind}" for name in names for kind in ("png", "svg")]
    assert paths == ["report.json", "report.md", "report.html", *drawn]
    written = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file())
    assert written == sorted([*paths, "hashes.json"])
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == full
    assert all(f"({figure})" in (tmp_path / "report.md").read_text(encoding="utf-8") for figure in figures)


def test_pictures_of_the_former_report_go_and_other_files_stay(
    tmp_path: Path, full: dict[str, Any], pictures: None
) -> None:
    write_report(full, tmp_path)
    own = tmp_path / "figures" / "poster.png"
    own.write_bytes(b"mine")
    fewer = {**full, "variants": {"direct": full["variants"]["direct"]}, "comparisons": []}
    written = write_report(fewer, tmp_path)
    assert {*(tmp_path / "figures").iterdir()} == {own, *(path for path in written if path.parent.name == "figures")}
    assert not (tmp_path / "figures" / "confusion-1-gmp-atl.png").exists()
    assert (tmp_path / "figures" / "confusion-1-direct.svg").is_file()
    check_files(tmp_path)  # nothing is missed that went on purpose
    assert is_written(fewer, tmp_path)


def test_a_missing_picture_is_named_with_the_list_that_knows_it(
    tmp_path: Path, full: dict[str, Any], pictures: None
) -> None:
    write_report(full, tmp_path)
    (tmp_path / "figures" / "variants.png").unlink()
    with pytest.raises(RequestError, match=f"delete {re.escape(str(tmp_path / 'hashes.json'))} and"):
        check_files(tmp_path)


def test_a_report_that_is_there_whole_need_not_be_drawn_again(
    tmp_path: Path, full: dict[str, Any], pictures: None
) -> None:
    assert not is_written(full, tmp_path)
    write_report(full, tmp_path)
    assert is_written(full, tmp_path)
    assert not is_written({**full, "command": "another"}, tmp_path)
    picture = tmp_path / "figures/variants.svg"
    picture.write_bytes(picture.read_bytes() + b" ")
    assert not is_written(full, tmp_path)
    write_report(full, tmp_path)
    picture.unlink()
    assert not is_written(full, tmp_path)


def test_a_report_that_cannot_be_rendered_leaves_the_former_one_alone(tmp_path: Path, full: dict[str, Any]) -> None:
    write_report(full, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    broken = {**full, "comparisons": [{"first": "gmp-atl"}]}
    with pytest.raises(KeyError):
        write_report(broken, tmp_path)
    with pytest.raises(ValueError, match="JSON"):
        write_report({**full, "name": float("nan")}, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_the_report_is_written_without_matplotlib_too(
    tmp_path: Path, full: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    monkeypatch.setattr("gmp_atl_hf.report.build.can_draw", can_draw)
    assert [path.name for path in write_report(full, tmp_path)] == ["report.json", "report.md", "report.html"]
    assert "![" not in (tmp_path / "report.md").read_text(encoding="utf-8")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<img" not in page and page.count("matplotlib is not installed") == 1
