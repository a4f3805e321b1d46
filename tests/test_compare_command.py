"""`gmp-atl compare`: two runs or variants, or one verdict over several corpora, paired over speakers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gmp_atl_hf.cli.compare import format_verdict
from gmp_atl_hf.cli.verbs import main
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.evaluation.metrics import emotion_metrics
from gmp_atl_hf.evaluation.statistics import holm, sign_flip_test
from gmp_atl_hf.report.build import NOT_SPEAKER_INDEPENDENT, FoldResult, build_report, write_report
from gmp_atl_hf.report.compare import compare_runs
from gmp_atl_hf.report.verdict import compare_over_corpora

LABELS = ["anger", "joy", "neutral"]
SPEAKERS = [f"demo/s{number}" for number in range(6)]


def predictions(speakers: list[str], skill: float, seed: int, truth: int = 0) -> list[dict[str, Any]]:
    """Twelve utterances of each speaker; what is said depends on `truth` alone, what is predicted on the rest."""
    rows = []
    for speaker in speakers:
        number = SPEAKERS.index(speaker)
        said = np.random.default_rng([truth, number]).integers(3, size=12)
        guess = np.random.default_rng([seed, number, round(100 * skill)])
        for utterance, emotion in enumerate(said):
            right = guess.random() < skill
            rows.append(
                {
                    "id": f"{speaker}-{utterance}",
                    "speaker": speaker,
                    "gender": ("female", "male")[number % 2],
                    "emotion": LABELS[emotion],
                    "predicted": LABELS[emotion if right else (emotion + 1) % 3],
                }
            )
    return rows


def write_run(
    folder: Path,
    variants: dict[str, float],
    seeds: tuple[int, ...] = (0,),
    folds: int = 3,
    truth: int = 0,
    labels: list[str] = LABELS,
    done: int | None = None,
    **protocol: Any,
) -> Path:
    """What a run leaves behind, without training anything."""
    groups = np.array_split(SPEAKERS, folds)[:done]
    results: dict[str, list[FoldResult]] = {
        name: [
            FoldResult(seed, number, predictions(list(group), skill, seed, truth))
            for seed in seeds
            for number, group in enumerate(groups, start=1)
        ]
        for name, skill in variants.items()
    }
    report = build_report(
        name=folder.name, variants=results, labels=labels, folds_total=folds, seeds=seeds, command="gmp-atl run x",
        protocol={"kind": "group-k-fold", "sentence": f"group-k-fold, {folds} folds.", **protocol},
    )  # fmt: skip
    write_report(report, folder)
    for name, own in results.items():
        for one in own:
            place = folder / name / f"seed-{one.seed}" / f"fold-{one.fold:02d}"
            place.mkdir(parents=True)
            text = "".join(json.dumps(row) + "\n" for row in one.predictions)
            (place / "predictions.jsonl").write_text(text, encoding="utf-8")
    return folder


def uar_of(skill: float, seed: int, speaker: str) -> float:
    rows = predictions([speaker], skill, seed)
    true, guess = ([LABELS.index(row[key]) for row in rows] for key in ("emotion", "predicted"))
    return emotion_metrics(true, guess, 3)["uar"]


def test_the_unit_is_the_speaker_after_a_mean_over_seeds_and_numbers_of_seeds_may_differ(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", {"gmp-atl": 0.9}, seeds=(0, 1))
    other = write_run(tmp_path / "other", {"direct": 0.4}, seeds=(5, 6, 7), folds=2)
    found = compare_runs(str(one), f"{other}:direct")
    differences = [
        np.mean([uar_of(0.9, seed, speaker) for seed in (0, 1)])
        - np.mean([uar_of(0.4, seed, speaker) for seed in (5, 6, 7)])
        for speaker in SPEAKERS
    ]
    test = sign_flip_test(differences)
    assert [own["difference"] for own in found["per_speaker"].values()] == pytest.approx(differences)
    assert (found["n"], found["exact"], found["smallest_attainable_p"]) == (6, True, 2 / 2**6)
    assert found["p"] == pytest.approx(test.p)
    assert found["mean_difference"] == pytest.approx(np.mean(differences))
    assert found["ci95"][0] < found["mean_difference"] < found["ci95"][1]
    assert found["pooled_difference"] == pytest.approx(found["first"]["uar"] - found["other"]["uar"])
    assert found["pooled_ci95"][0] < found["pooled_difference"] < found["pooled_ci95"][1]
    assert "share training data" in found["remark"]
    assert "numbers of seeds differ (2 and 3)" in " ".join(found["notes"])


def test_two_variants_of_one_run_have_a_short_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", {"gmp-atl": 0.9, "direct": 0.5, "tapt": 0.6})
    names = []
    for other in (":tapt", f"{run}:tapt", str(run)):
        assert main(["compare", str(run), other, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        names.append((found["first"]["name"], found["other"]["name"]))
    assert names == [(f"{run}:gmp-atl", f"{run}:{other}") for other in ("tapt", "tapt", "direct")]


def test_a_comparison_in_the_report_and_on_the_command_line_are_the_same(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"gmp-atl": 0.9, "direct": 0.5}, seeds=(0, 1))
    (reported,) = json.loads((run / "report.json").read_text(encoding="utf-8"))["comparisons"]
    found = compare_runs(str(run), ":direct")
    assert {key: found[key] for key in ("p", "mean_difference", "ci95", "n", "ties", "per_speaker")} == {
        key: reported[key] for key in ("p", "mean_difference", "ci95", "n", "ties", "per_speaker")
    }


def test_intervals_of_an_older_report_are_computed_anew(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"a": 0.9, "b": 0.5})
    new = compare_runs(str(run), ":b")
    report = json.loads((run / "report.json").read_text())
    report["variants"]["a"]["uar_ci95"] = [0.1, 0.2]
    (run / "report.json").write_text(json.dumps(report))
    (run / "hashes.json").unlink()
    assert compare_runs(str(run), ":b") == new and new["first"]["uar_ci95"][0] > 0.2


def test_the_table_has_both_sides_the_test_and_the_remark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", {"gmp-atl": 0.9, "direct": 0.5})
    assert main(["compare", str(run), ":direct"]) == 0
    said = capsys.readouterr().out
    for words in ("run:gmp-atl", "run:direct", "smallest possible p: 0.031", "exact sign-flip test", "demo/s5",
                  "share training data", "group-k-fold, 3 folds.", "Command: gmp-atl compare"):  # fmt: skip
        assert words in said
    assert said.count("group-k-fold, 3 folds.") == said.count("Protocol: ") == 1
    two = write_run(tmp_path / "two", {"gmp-atl": 0.7}, sentence="another one.")
    assert main(["compare", str(run), str(two)]) == 0
    two_protocols = capsys.readouterr().out
    assert "First: group-k-fold, 3 folds." in two_protocols and "Other: another one." in two_protocols
    assert "None" not in said and "nan" not in said


def test_runs_tested_on_other_utterances_are_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = write_run(tmp_path / "one", {"gmp-atl": 0.9})
    for name, options in (("truth", {"truth": 1}), ("part", {"done": 2})):
        other = write_run(tmp_path / name, {"gmp-atl": 0.9}, **options)
        assert main(["compare", str(one), str(other)]) == 2
        assert "were tested on different utterances" in capsys.readouterr().err
    other = write_run(tmp_path / "labels", {"gmp-atl": 0.9}, labels=[*LABELS, "fear"])
    with pytest.raises(RequestError, match="tells anger, joy, neutral, fear"):
        compare_runs(str(one), str(other))


def test_shared_speakers_stamp_the_comparison_and_leave_no_interval(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", {"gmp-atl": 0.9})
    other = write_run(tmp_path / "other", {"gmp-atl": 0.5}, speaker_independent=False)
    found = compare_runs(str(one), str(other))
    assert found["stamps"] == [NOT_SPEAKER_INDEPENDENT]
    assert found["ci95"] is None and found["pooled_ci95"] is None


@pytest.mark.parametrize(
    ("first", "other", "words"),
    [
        ("nowhere", "run", "there is no report in"),
        ("run:gmp-alt", "run", "has no variant gmp-alt"),
        ("run:gmp-atl", "run:gmp-atl", "on both sides"),
        ("single", "single", "has one variant only"),
        ("empty", "run", "nothing of"),
    ],
)
def test_what_cannot_be_compared_is_said(tmp_path: Path, first: str, other: str, words: str) -> None:
    write_run(tmp_path / "run", {"gmp-atl": 0.9, "direct": 0.5})
    write_run(tmp_path / "single", {"gmp-atl": 0.9})
    write_run(tmp_path / "empty", {"gmp-atl": 0.9}, done=0)
    with pytest.raises(RequestError, match=words):
        compare_runs(str(tmp_path / first), str(tmp_path / other))


# ---- one verdict over several runs -----------------------------------------------------------------------------------


def rename_corpus(run: Path, corpus: str) -> Path:
    """Put another corpus, with speakers of its own, into the predictions of a run."""
    for file in run.rglob("predictions.jsonl"):
        file.write_text(file.read_text(encoding="utf-8").replace('"demo/', f'"{corpus}/'), encoding="utf-8")
    return run


@pytest.fixture
def two_corpora(tmp_path: Path) -> list[str]:
    """Runs with two variants on `demo`, three labels and two seeds, and on `other`, five labels and one seed."""
    variants = {"gmp-atl": 0.9, "direct": 0.5}
    one = write_run(tmp_path / "one", {**variants, "tapt": 0.6}, seeds=(0, 1))
    other = write_run(tmp_path / "two", variants, truth=1, labels=[*LABELS, "fear", "sadness"])
    return [str(one), str(rename_corpus(other, "other"))]


def verdict_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["compare", *words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_verdict_is_the_mean_over_corpora_of_the_mean_over_speakers(
    two_corpora: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    found = verdict_of([*two_corpora, "--variants", "gmp-atl", "direct"], capsys)
    alone = [compare_runs(f"{run}:gmp-atl", ":direct") for run in two_corpora]
    assert [one["mean_difference"] for one in found["corpora"].values()] == [one["mean_difference"] for one in alone]
    assert list(found["corpora"]) == ["demo", "other"]
    assert found["verdict"]["mean_difference"] == pytest.approx(np.mean([one["mean_difference"] for one in alone]))
    assert (
        found["verdict"]["p"]
        == sign_flip_test(
            [person["difference"] for one in alone for person in one["per_speaker"].values()]  # as many in both corpora
        ).p
    )
    assert (found["verdict"]["n"], found["verdict"]["exact"], found["verdict"]["draws"]) == (12, True, None)
    low, high = found["verdict"]["ci95"]
    assert low < found["verdict"]["mean_difference"] < high
    assert 0 < found["verdict"]["smallest_visible_difference"] < 1
    assert {gender: one["n"] for gender, one in found["per_gender"].items()} == {"female": 6, "male": 6}
    assert found["corpora"]["other"]["labels"] == [*LABELS, "fear", "sadness"]
    assert (found["first"], found["other"], found["notes"], found["stamps"]) == ("gmp-atl", "direct", [], [])


def test_the_verdict_on_the_screen_has_every_corpus_the_mean_and_both_genders(
    two_corpora: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *two_corpora, "--variants", "direct", "gmp-atl"]) == 0
    said = capsys.readouterr().out
    starts = [line.split("  ")[0] for line in said.splitlines()]
    for name in ("demo", "other", "mean over corpora", "female", "male"):
        assert name in starts
    for words in ("UAR of direct minus UAR of gmp-atl", "smallest visible", "not of further corpora", "−",
                  "all patterns of signs", f"runs: {two_corpora[0]}", "Command: gmp-atl compare"):  # fmt: skip
        assert words in said
    assert "None" not in said and "nan" not in said


def test_the_lines_beside_the_verdict_are_corrected_for_their_number_and_the_verdict_is_not(
    two_corpora: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    verdict = compare_over_corpora(two_corpora, "gmp-atl", "direct")
    lines = [*verdict["corpora"].values(), *verdict["per_gender"].values()]
    assert [one["p_holm"] for one in lines] == pytest.approx(holm([one["p"] for one in lines]))
    assert len(lines) == 4 and "p_holm" not in verdict["verdict"]
    said = format_verdict({**verdict, "command": "x"}).splitlines()
    cells = {line.split("  ")[0]: re.split(r" {2,}", line) for line in said if line}
    assert cells[""][5:7] == ["p", "p (Holm)"] and cells["mean over corpora"][6] == "–"
    assert f"{lines[2]['p_holm']:.3f}" in cells["female"]
    assert any("for the 4 lines beside the verdict" in line for line in said)
    alone = compare_over_corpora(two_corpora[:1], "gmp-atl", "direct")
    assert "p_holm" not in alone["corpora"]["demo"], "it is the verdict itself"
    assert all("p_holm" in one for one in alone["per_gender"].values())


def test_a_run_with_other_seeds_of_the_same_corpus_counts_as_further_seeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    variants = {"gmp-atl": 0.9, "direct": 0.5}
    together = write_run(tmp_path / "together", variants, seeds=(0, 1, 2))
    apart = [write_run(tmp_path / f"of-{seeds[0]}", variants, seeds=seeds) for seeds in ((0,), (1, 2))]
    whole, parts = (
        verdict_of([*map(str, runs), "--variants", "gmp-atl", "direct"], capsys) for runs in ([together], apart)
    )
    assert parts["verdict"] == whole["verdict"]
    assert parts["corpora"]["demo"]["pooled_difference"] == whole["corpora"]["demo"]["pooled_difference"]
    assert parts["corpora"]["demo"]["seeds"] == {"first": [0, 1, 2], "other": [0, 1, 2]}
    assert "count as seeds of one run" in parts["notes"][0]


def test_a_run_that_tests_several_corpora_counts_for_each_of_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", {"gmp-atl": 0.9, "direct": 0.5})
    for file in run.glob("*/seed-0/fold-03/predictions.jsonl"):
        file.write_text(file.read_text(encoding="utf-8").replace('"demo/', '"cafe/'), encoding="utf-8")
    found = verdict_of([str(run), "--variants", "gmp-atl", "direct"], capsys)
    assert {name: one["n"] for name, one in found["corpora"].items()} == {"demo": 4, "cafe": 2}


def test_one_stamp_stands_above_the_whole_verdict(
    two_corpora: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = write_run(tmp_path / "shared", {"gmp-atl": 0.9, "direct": 0.5}, speaker_independent=False)
    words = [two_corpora[0], str(rename_corpus(shared, "shared")), "--variants", "gmp-atl", "direct"]
    found = verdict_of(words, capsys)
    assert found["stamps"] == [NOT_SPEAKER_INDEPENDENT] and found["verdict"]["ci95"] is None


def test_the_forest_plot_is_a_png_and_always_the_same(
    two_corpora: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    words = [*two_corpora, "--variants", "gmp-atl", "direct", "--picture"]
    for name in ("a.png", "b.png"):
        verdict_of([*words, str(tmp_path / name)], capsys)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_the_forest_plot_has_a_line_for_each_corpus_the_mean_and_each_gender(two_corpora: list[str]) -> None:
    pytest.importorskip("matplotlib")
    from gmp_atl_hf.report.forest import forest_figure

    verdict = compare_over_corpora(two_corpora, "gmp-atl", "direct")
    [axes] = forest_figure(verdict).axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [
        "demo\n6 speakers", "other\n6 speakers", "mean over corpora\n12 speakers", "female\n6 speakers",
        "male\n6 speakers",
    ]  # fmt: skip
    marks = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "D"]
    assert marks == pytest.approx([100 * verdict["verdict"]["mean_difference"]])


def verdict_words(tmp_path: Path, case: str) -> list[str]:
    """The runs and variants of a request for a verdict that cannot be met."""
    variants = {"gmp-atl": 0.9, "direct": 0.5}
    one = str(write_run(tmp_path / "one", {**variants, "tapt": 0.5}))
    both = ["--variants", "gmp-atl", "direct"]
    if case == "no variant":
        return [one, str(write_run(tmp_path / "two", variants)), "--variants", "tapt", "no-gender"]
    if case == "same variant":
        return [one, "--variants", "direct", "direct"]
    if case == "same seeds":
        return [one, str(write_run(tmp_path / "two", variants, seeds=(0, 1))), *both]
    if case == "twice":
        return [one, one, *both]
    if case == "other folds":
        return [one, str(write_run(tmp_path / "two", variants, seeds=(1,), folds=2)), *both]
    if case == "other labels":
        return [one, str(write_run(tmp_path / "two", variants, seeds=(1,), labels=[*LABELS, "fear"])), *both]
    if case in ("other corpus", "other corpus, other seed"):
        two = write_run(tmp_path / "two", variants, seeds=(1,) if "seed" in case else (0,), labels=[*LABELS, "fear"])
        return [one, str(rename_corpus(two, "demo/elsewhere-")), *both]
    if case == "shared speaker":
        two = write_run(tmp_path / "two", variants)
        for file in two.rglob("predictions.jsonl"):
            file.write_text(file.read_text(encoding="utf-8").replace('"id": "demo/', '"id": "copy/'), encoding="utf-8")
        return [one, str(two), *both]
    if case == "names a variant":
        return [f"{one}:tapt", *both]
    if case == "nowhere":
        return [one, str(tmp_path / "nowhere"), *both]
    if case == "nothing tested":
        return [str(write_run(tmp_path / "two", variants, done=0)), *both]
    if case == "three runs":
        return [one, one, one]
    if case == "no picture of two":
        return [one, ":direct", "--picture", "x.png"]
    assert case == "no png"
    return [one, *both, "--picture", "x.svg"]


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("no variant", "one has no variant no-gender"),
        ("no variant", "two has no variant tapt"),
        ("no variant", "fix: --variants gmp-atl direct"),
        ("same variant", "direct on both sides"),
        ("same seeds", "both have the corpus demo with the same seeds: 0"),
        ("twice", "both have the corpus demo with the same seeds: 0"),
        ("other folds", "has tested demo in other folds than"),
        ("other labels", "tells anger, joy, neutral, fear on demo"),
        ("other corpus", "both call their corpus demo, and have none of 72 utterances and 72 in common"),
        ("other corpus", "two one in its recipe, such as `corpus: {name: …, root: …, corpus_name: another}`, and run"),
        ("other corpus, other seed", "both call their corpus demo"),
        ("shared speaker", "the speaker demo/s0 is in demo and in copy"),
        ("names a variant", "names the variant tapt"),
        ("nowhere", "there is no report in"),
        ("nothing tested", "nothing of"),
        ("three runs", "3 runs to compare"),
        ("no picture of two", "--variants: the picture is that of its verdict"),
        ("no png", "a file that ends in .png"),
    ],
)
def test_a_verdict_that_cannot_be_given_is_refused(
    tmp_path: Path, case: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *verdict_words(tmp_path, case)]) == 2
    assert words in capsys.readouterr().err


def test_advice_names_variants_that_the_runs_have(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = str(write_run(tmp_path / "one", {"tapt": 0.9, "direct": 0.5, "mine": 0.5}))
    two = str(write_run(tmp_path / "two", {"mine": 0.9, "direct": 0.5}))
    alone = str(write_run(tmp_path / "alone", {"direct": 0.5}))
    for words, fix in (
        ([one], f"gmp-atl compare {one} :direct"),
        ([f"{one}:mine"], f"gmp-atl compare {one} :direct"),
        ([one, two, f"{one}:mine"], f"gmp-atl compare {one} {two} --variants direct mine"),
        ([one, ":direct", ":mine"], f"gmp-atl compare {one} :direct"),
        ([alone], f"gmp-atl compare {alone} OTHER_RUN"),
        ([one, alone, two], f"gmp-atl compare {one} {alone}"),
        ([one, two, "--picture", "x.png"], f"gmp-atl compare {one} {two} --variants direct mine"),
        ([one, ":mine", "--picture", "x.png"], f"gmp-atl compare {one} --variants tapt direct"),
        ([one, alone, "--picture", "x.png"], "leave out --picture"),
        ([one, two, "--variants", "direct", "direct"], "--variants direct mine"),
        ([alone, alone], "variants: [direct, gmp-atl]"),
    ):
        assert main(["compare", *words]) == 2
        assert f"fix: {fix}\n" in capsys.readouterr().err


def test_variants_of_a_run_tested_on_different_utterances_give_no_verdict(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"gmp-atl": 0.9, "direct": 0.5})
    file = run / "direct" / "seed-0" / "fold-01" / "predictions.jsonl"
    file.write_text("".join(file.read_text(encoding="utf-8").splitlines(keepends=True)[1:]), encoding="utf-8")
    with pytest.raises(RequestError, match="were tested on different utterances"):
        compare_over_corpora([str(run)], "gmp-atl", "direct")


def test_kept_reports_with_their_predictions_give_the_verdict_of_the_readme() -> None:
    results = Path(__file__).parents[1] / "benchmarks" / "results"
    runs = [str(results / name) for name in ("emodb-mini", "ravdess-mini")]
    found = compare_over_corpora(runs, "gmp-atl", "direct")["verdict"]
    low, high = found["ci95"]
    readme = (results.parents[1] / "README.md").read_text(encoding="utf-8")
    assert f"{100 * found['mean_difference']:.1f} ({100 * low:.1f} to {100 * high:.1f})".replace("-", "−") in readme
    small = compare_over_corpora([str(results / "emodb-small")], "gmp-atl", "direct")["corpora"]["emodb"]
    low, high = small["ci95"]
    words = (
        f"on `small` {100 * small['mean_difference']:.1f} ({100 * low:.1f} to {100 * high:.1f}) over the speakers of"
    )
    assert words.replace("-", "−") in readme and f"p = {small['p']:.2f})" in readme
