"""`gmp-atl stress`: a model on clean recordings of a corpus, and on the same ones made worse."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from foreign import make_foreign
from gmp_atl_hf import HubertForGMPATL
from gmp_atl_hf.checkpoints import default_feature_extractor
from gmp_atl_hf.cli.verbs import main
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.evaluation.metrics import emotion_metrics
from gmp_atl_hf.evaluation.results import FoldResult, align
from gmp_atl_hf.evaluation.statistics import difference_bootstrap, speaker_confusions
from gmp_atl_hf.run.evaluate import evaluate_model, prepare_test
from gmp_atl_hf.stress import stress
from gmp_atl_hf.stress.changes import louder
from gmp_atl_hf.stress.conditions import CLEAN, CONDITIONS, Condition, choose_conditions
from gmp_atl_hf.stress.figures import figures_of_conditions, worst_of
from gmp_atl_hf.stress.pages import format_stress
from gmp_atl_hf.stress.stress import SYNTHETIC, score_conditions, stress_model
from models import build
from runs import SPEAKER_PATTERN, digests, read_json, write_corpus

SPEAKERS = ("f7", "f8", "f9", "m7", "m8", "m9")
FEW = ["white-0", "quiet", "silence"]
NOTHING: dict[str, Any] = {"labels": None, "dimensions": None, "unseen_only": False, "split": None}


def make_own(folder: Path, shape: str = "base", **fields: Any) -> Path:
    """A model of this package with weights of chance, and its feature extractor."""
    model = build(HubertForGMPATL, shape, seen_speakers=["others/f1"], **fields)
    model.save_pretrained(folder)
    default_feature_extractor(model.config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model of ours and one of somebody else; must not be changed."""
    root = tmp_path_factory.mktemp("models")
    labels = ("anger", "NEUTRAL", "Sadness")  # in this order the one of HuBERT is often right
    return {
        "ours": make_own(root / "ours"),
        "large": make_own(root / "large", "large"),
        "hubert": make_foreign("hubert", root / "hubert", labels),
        "whisper": make_foreign("whisper", root / "whisper", labels),
    }


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Eighteen recordings of six speakers; must not be changed."""
    root = write_corpus(tmp_path_factory.mktemp("corpus"), SPEAKERS, takes=1)
    return {"name": "folder", "root": str(root), "speaker": SPEAKER_PATTERN}


def words_of(model: Path, corpus: dict[str, Any], *more: str) -> list[str]:
    options = ["--options", f"speaker={json.dumps(SPEAKER_PATTERN)}"]
    return ["stress", str(model), "--corpus", "folder", "--root", corpus["root"], *options, *more]


def figures(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in report["conditions"]}


# ---- the numbers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ours", "large", "hubert", "whisper"])
def test_clean_is_what_evaluate_says(name: str, models: dict[str, Path], corpus: dict[str, Any]) -> None:
    report = stress_model(models[name], corpus, conditions=FEW, batch_size=4)
    expected = evaluate_model(models[name], corpus, batch_size=4)
    summary, clean = expected["variants"]["model"], figures(report)["clean"]
    assert clean["uar"] == summary["uar"]["pooled"] and clean["war"] == summary["war"]["pooled"]
    assert clean["per_class_recall"] == summary["per_class_recall"] and clean["uar_ci95"] == summary["uar_ci95"]
    assert (clean["flip_rate"], clean["score_change"], clean["uar_difference"]) == (0, 0, 0)
    assert [report[key] for key in ("labels", "protocol", "stamps", "name", "corpus")] == [
        expected[key] for key in ("labels", "protocol", "stamps", "name", "corpus")
    ]
    assert [one["name"] for one in report["conditions"]] == ["clean", *FEW]
    assert report["notes"][0] == SYNTHETIC


@pytest.mark.parametrize("name", ["ours", "whisper"])
def test_scores_of_clean_recordings_are_those_of_evaluate_to_the_bit(
    name: str, models: dict[str, Path], corpus: dict[str, Any]
) -> None:
    ready = prepare_test(models[name], corpus, **NOTHING)
    [outputs] = score_conditions(ready.fitted.table, ready.tested.scorer(ready.fitted), [CLEAN], 4, 0)
    assert ready.tested.rows(ready.fitted, outputs) == ready.tested.predict(ready.fitted, 4, ready.held_out)


@pytest.mark.parametrize("name", ["ours", "hubert"])
def test_neither_the_order_of_recordings_nor_the_batches_matter(
    name: str, models: dict[str, Path], corpus: dict[str, Any]
) -> None:
    ready = prepare_test(models[name], corpus, **NOTHING)
    table, scorer = ready.fitted.table, ready.tested.scorer(ready.fitted)
    turned = table.select(range(len(table) - 1, -1, -1))
    forwards = score_conditions(table, scorer, CONDITIONS, 8, 0)
    backwards = score_conditions(turned, scorer, CONDITIONS, 3, 0)
    assert np.std(forwards[0], axis=0).max() > 1e-2
    for one, other in zip(forwards, backwards, strict=True):
        assert one == pytest.approx(other[::-1], abs=1e-4)


def test_the_same_seed_gives_the_same_numbers_and_another_one_others(
    models: dict[str, Path], corpus: dict[str, Any]
) -> None:
    first, again, other = (
        stress_model(models["hubert"], corpus, conditions=["white-0"], seed=seed) for seed in (0, 0, 1)
    )
    assert first == again
    changes = [figures(report)["white-0"]["score_change"] for report in (first, other)]
    assert changes[0] != changes[1] and min(changes) > 0
    assert figures(first)["clean"] == figures(other)["clean"]


def test_each_recording_is_decoded_once(
    models: dict[str, Path], corpus: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ready, read = prepare_test(models["ours"], corpus, **NOTHING), stress.read_audio
    decoded: Counter[str] = Counter()

    def count(cell: Any) -> Any:
        decoded[cell["path"]] += 1
        return read(cell)

    monkeypatch.setattr(stress, "read_audio", count)
    score_conditions(ready.fitted.table, ready.tested.scorer(ready.fitted), choose_conditions(FEW), 4, 0)
    assert len(decoded) == 18 and set(decoded.values()) == {1}


def rows_of(predicted: Sequence[str], scores: Sequence[float] | None = None) -> list[dict[str, Any]]:
    """Recordings of six speakers in two emotions, twice each; `scores` are those of `a`."""
    found = []
    for number, said in enumerate(predicted):
        row = {"id": f"c/{number}", "speaker": f"c/s{number // 4}", "gender": None, "emotion": "ab"[number % 2]}
        more = {} if scores is None else {"scores": {"a": scores[number], "b": 1 - scores[number]}}
        found.append({**row, "predicted": said, **more})
    return found


def test_figures_are_those_of_the_predictions_paired_over_the_same_speakers() -> None:
    rng = np.random.default_rng(0)
    clean = ["ab"[number % 2] for number in range(24)]
    noisy = [str(rng.choice(["a", "b"])) for _ in clean]
    scores = [
        [float(rng.uniform(0.5, 1)) if said == "a" else float(rng.uniform(0, 0.5)) for said in each]
        for each in (clean, noisy)
    ]
    rows = [rows_of(clean, scores[0]), rows_of(noisy, scores[1])]
    first, other = figures_of_conditions(rows, ["a", "b"])
    metrics = emotion_metrics(["ab".index(one) for one in clean], ["ab".index(one) for one in noisy], 2)
    assert first["uar"] == 1 and other["uar"] == metrics["uar"] and other["war"] == metrics["war"]
    assert other["flip_rate"] == np.mean([one != another for one, another in zip(clean, noisy, strict=True)])
    winners = [
        np.array(each) if said == "a" else 1 - np.array(each) for *each, said in zip(*scores, clean, strict=True)
    ]
    assert other["score_change"] == pytest.approx(np.mean([abs(one - before) for before, one in winners]))
    confusions = []
    for each in rows:
        block = align([FoldResult(0, 1, each)], [0], [1], ["a", "b"])
        confusions.append(speaker_confusions(block.references, block.predictions, block.speakers.tolist(), 2))
    assert other["uar_difference_ci95"] == list(difference_bootstrap(confusions[1], confusions[0]) or ())
    assert other["uar_difference"] == metrics["uar"] - 1
    assert other["over_speakers"]["n"] == 6 and other["over_speakers"]["mean_difference"] < 0


def test_p_values_are_corrected_for_the_number_of_conditions() -> None:
    clean = ["ab"[number % 2] for number in range(24)]
    every = [rows_of(clean), rows_of(["a"] * 24), rows_of(["b"] * 24)]
    _, one, other = figures_of_conditions(every, ["a", "b"])
    assert one["over_speakers"]["p_holm"] == other["over_speakers"]["p_holm"] == 2 * one["over_speakers"]["p"]
    assert one["score_change"] is None


def test_speakers_whom_nobody_knows_are_in_the_figures_and_in_no_interval() -> None:
    clean = ["ab"[number % 2] for number in range(24)]
    every = [[{**row, "speaker": "c/unknown"} for row in rows_of(said)] for said in (clean, ["a"] * 24)]
    first, other = figures_of_conditions(every, ["a", "b"])
    assert (other["uar_difference"], other["uar_difference_ci95"], other["over_speakers"]) == (-0.5, None, None)
    assert first["uar_ci95"] is None


def test_the_worst_condition_is_the_one_of_the_lowest_uar_below_clean() -> None:
    assert worst_of([{"uar": 0.5}, {"uar": 0.4}, {"uar": 0.3}, {"uar": 0.3}]) == 2
    assert worst_of([{"uar": 0.5}, {"uar": 0.5}, {"uar": 0.6}]) is None


# ---- level, length, conditions of one's own --------------------------------------------------------------------------


def test_level_matters_where_the_extractor_leaves_it_alone(models: dict[str, Path], corpus: dict[str, Any]) -> None:
    changes, notes = {}, {}
    for name in ("large", "hubert"):
        report = stress_model(models[name], corpus, conditions=["quiet", "clipped"])
        changes[name] = [figures(report)[each]["score_change"] for each in ("quiet", "clipped")]
        notes[name] = any("brings each recording to one level" in note for note in report["notes"])
    assert notes == {"large": True, "hubert": False}
    assert changes["large"][0] < 1e-3 < min(changes["large"][1], *changes["hubert"])


class Scorer:
    """Hears at most a second, and gives the lengths of what it hears."""

    most, normalizes, sampling_rate = 16_000, False, 16_000

    def batches(self, lengths: Sequence[int], batch_size: int) -> list[list[int]]:
        return [[row] for row in range(len(lengths))]

    def prepare(self, waveforms: Sequence[np.ndarray]) -> list[int]:
        assert max(map(len, waveforms)) <= self.most
        return [len(waveform) for waveform in waveforms]

    def outputs(self, batch: list[int], names: Sequence[str]) -> np.ndarray:
        return np.array([[each % 7, each % 5, each % 3, 0.5] for each in batch], dtype=np.float32)


def test_a_condition_that_makes_recordings_too_long_for_a_model_is_skipped_with_a_line(
    models: dict[str, Path], corpus: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gmp_atl_hf.run.own_model.OwnModel.scorer", lambda *_: Scorer())
    report = stress_model(models["ours"], corpus, conditions=["silence", "quiet"])
    [skipped] = report["skipped"]
    assert skipped["name"] == "silence" and [one["name"] for one in report["conditions"]] == ["clean", "quiet"]
    assert skipped["reason"].startswith("it makes folder/") and skipped["reason"].endswith("and the model takes 1 s")
    assert f"Skipped: silence: {skipped['reason']}." in format_stress(report)
    assert main(words_of(models["ours"], corpus, "--conditions", "silence")) == 2
    assert "no condition can be tested (silence: it makes folder/" in capsys.readouterr().err


def test_a_coding_that_cannot_be_written_is_skipped_with_a_line(
    models: dict[str, Path], corpus: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = [
        Condition(one.name, one.what, one.change, one.samples, lambda: "no encoder") if one.name == "mp3" else one
        for one in CONDITIONS
    ]
    monkeypatch.setattr("gmp_atl_hf.stress.conditions.CONDITIONS", tuple(lost))
    assert main(words_of(models["hubert"], corpus, "--conditions", "quiet,mp3")) == 0
    said = capsys.readouterr().out
    assert "Skipped: mp3: no encoder.\n" in said and "\nmp3 " not in said and "\nquiet " in said
    nowhere = {**corpus, "root": "nowhere"}
    assert main(words_of(models["hubert"], nowhere, "--conditions", "mp3")) == 2  # before the corpus is read
    assert "no condition can be tested (mp3: no encoder)" in capsys.readouterr().err


def test_a_condition_of_ones_own_is_tested_like_the_others(models: dict[str, Path], corpus: dict[str, Any]) -> None:
    same = Condition("mine", "20 dB quieter, by me", partial(louder, decibels=-20))
    found = figures(stress_model(models["hubert"], corpus, conditions=["quiet", same]))
    assert {**found["mine"], "name": "quiet", "what": "20 dB quieter"} == found["quiet"]


def test_a_model_of_another_rate_is_said_to_hear_through_16_kilohertz(tmp_path: Path, corpus: dict[str, Any]) -> None:
    model = make_foreign("wav2vec2", tmp_path / "narrow", ("sadness", "anger", "neutral"), rate=8_000)
    notes = stress_model(model, corpus, conditions=["quiet"])["notes"]
    assert any(note.startswith("The model takes 8,000 Hz, and all recordings came to it") for note in notes)


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_table_marks_the_worst_and_the_folder_holds_the_same(
    models: dict[str, Path], corpus: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = words_of(models["hubert"], corpus, "--output-dir", str(out), "--conditions", "white-0,telephone,clipped")
    assert main([*words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["worst"] is not None
    assert report == read_json(out / "stress.json") and report["command"].startswith("gmp-atl stress ")
    before = digests(out)
    assert main([*words, "--json"]) == 0 and digests(out) == before  # the same test again
    capsys.readouterr()
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    marked = [line.split()[0] for line in lines if line.endswith("← worst")]
    worst = min(report["conditions"], key=lambda one: one["uar"])
    assert marked == [worst["name"]] == [report["worst"]]
    assert [line.split()[0] for line in lines if line.startswith(("clean", "white", "tele", "clip"))] == [
        "clean",
        *("white-0", "telephone", "clipped"),
    ]
    page = (out / "stress.md").read_text(encoding="utf-8")
    assert all(stamp in page for stamp in report["stamps"]) and SYNTHETIC in page and "| telephone | " in page
    assert main([*words, "--seed", "1"]) == 2
    assert "seed: 0 → 1" in capsys.readouterr().err and set(digests(out)) == set(before)


def test_a_folder_with_results_of_something_else_is_refused(
    models: dict[str, Path], corpus: dict[str, Any], tmp_path: Path
) -> None:
    evaluate_model(models["hubert"], corpus, output_dir=tmp_path)
    with pytest.raises(RequestError, match="holds a report of something else"):
        stress_model(models["hubert"], corpus, output_dir=tmp_path)
    assert not (tmp_path / "stress.json").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--conditions", "telefone"], "did you mean `telephone`?"),
        (["--conditions", "clean"], "no condition is to be tested but clean"),
        (["--seed", "-1"], "the seed is -1"),
        (["--labels", "angr=anger"], "angr"),
        (["--split", "test"], "no recordings of the split test"),
    ],
)
def test_a_wrong_request_is_refused(
    words: list[str], said: str, models: dict[str, Path], corpus: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words_of(models["hubert"], corpus, *words)) == 2
    assert said in capsys.readouterr().err


def test_speakers_whom_the_model_has_seen_are_refused_and_may_be_left_out(
    corpus: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_foreign("hubert", tmp_path / "a", ("sadness", "anger", "neutral"), seen_speakers=["folder/f7"])
    assert main(words_of(model, corpus, "--conditions", "quiet")) == 2
    assert "has seen the test speaker folder/f7" in capsys.readouterr().err
    assert main(words_of(model, corpus, "--conditions", "quiet", "--unseen-only", "--json")) == 0
    said = capsys.readouterr()
    left_out = json.loads(said.out)["left_out"]
    assert len(left_out) == 3 and {one["reason"] for one in left_out} == {"the model has seen the speaker"}
    assert f"left out: {left_out[0]['file']}: the model has seen the speaker" in said.err


def test_a_model_of_scales_has_labels_and_no_scores(corpus: dict[str, Any], tmp_path: Path) -> None:
    model = make_foreign("wav2vec2", tmp_path / "scales", ("arousal", "valence"), problem_type="regression")
    centres = {"anger": {"arousal": 0.1}, "neutral": {"arousal": 0}, "sadness": {"arousal": -0.1}}
    report = stress_model(model, corpus, conditions=["white-0"], dimensions=centres)
    one = figures(report)["white-0"]
    assert one["score_change"] is None and 0 <= one["flip_rate"] <= 1 and one["uar_difference_ci95"] is not None


def test_the_longest_recording_decides_what_is_too_long() -> None:
    table = Dataset.from_dict({"id": ["a", "b"], "num_samples": [100, 20_000]})
    conditions = choose_conditions(["silence", "quiet", "slower"])
    assert set(stress._too_long(conditions, table, 21_000)) == {"silence", "slower"}
    assert set(stress._too_long(conditions, table, 40_000)) == {"silence"}
    assert not stress._too_long(conditions, table, None)
