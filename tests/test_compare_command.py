"""`gmp-atl compare`: two runs or variants, paired over speakers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gmp_atl_hf.cli.verbs import main
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.evaluation.metrics import emotion_metrics
from gmp_atl_hf.evaluation.statistics import sign_flip_test
from gmp_atl_hf.report.build import NOT_SPEAKER_INDEPENDENT, FoldResult, build_report, write_report
from gmp_atl_hf.report.compare import compare_runs

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
            (place / "metrics.json").write_text("{}", encoding="utf-8")
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
