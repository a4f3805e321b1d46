"""What knowing the speaker is worth: clips drawn from others of the speaker, a table, and plain numbers as ever."""

from __future__ import annotations

import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gmp_atl_hf.card.card import render_card
from gmp_atl_hf.card.facts import read_run
from gmp_atl_hf.checkpoints import load_emotion_model
from gmp_atl_hf.evaluation.adaptation import ADAPTED, CLIPS, DRAWS, MOST_CLIPS, adaptation_summary, draw_clips, name_of
from gmp_atl_hf.evaluation.metrics import confusion_matrix, uar
from gmp_atl_hf.evaluation.results import AlignedPredictions, FoldResult
from gmp_atl_hf.evaluation.summary import _not_adapted, variant_notes
from gmp_atl_hf.inference.speakers import statistics_of
from gmp_atl_hf.report.blocks import adaptation_remark
from gmp_atl_hf.run import adaptation, steps
from gmp_atl_hf.run.adaptation import adapted_rows
from gmp_atl_hf.run.evaluate import evaluate_model
from runs import EMOTIONS, SPEAKER_PATTERN, digests, given_split, read_json, read_lines, run, write_corpus
from tables import LABELS, small_model
from test_run import SPLIT

NAMES = [name_of(clips) for clips in CLIPS]
EMOTIONS_SAID = ["anger"] * 9 + ["neutral"] * 4 + ["sadness"] * 12


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = write_corpus(tmp_path_factory.mktemp("corpus"), split=SPLIT, takes=3)
    model = {"standardize": True, "speaker_normalization": "speaker"}
    return given_split(root, model=model, variants=["direct"])


@pytest.fixture(scope="module")
def finished(recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapted") / "run"
    run(recipe, folder)
    return folder


def drawn(kind: str, draw: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    [(rows, _, chosen)] = draw_clips("corpus/a", EMOTIONS_SAID, kind, draw)
    return rows, chosen


@pytest.mark.parametrize("kind", ["even", "uneven"])
def test_as_many_other_clips_are_drawn_and_the_smaller_draws_are_in_the_larger(kind: str) -> None:
    rows, chosen = drawn(kind)
    assert list(rows) == list(range(len(EMOTIONS_SAID)))
    assert list(chosen) == NAMES == ["1", "3", "5", "10", "20", "all"]
    for clips, which in zip(CLIPS, chosen.values(), strict=True):
        assert not which.diagonal().any()
        if kind == "even":
            assert (which.sum(1) == min(clips or 24, 24)).all()
    for fewer, more in zip(NAMES, NAMES[1:], strict=False):
        assert (chosen[fewer] <= chosen[more]).all()


def test_uneven_clips_are_of_two_emotions_and_draws_differ_but_are_always_the_same() -> None:
    emotions = np.array(EMOTIONS_SAID)
    for draw in range(DRAWS):
        _, chosen = drawn("uneven", draw)
        assert len(set(emotions[chosen["all"].any(0)])) == 2
        np.testing.assert_array_equal(chosen["3"], drawn("uneven", draw)[1]["3"])
    assert (drawn("even", 0)[1]["3"] != drawn("even", 1)[1]["3"]).any()


def test_a_speaker_with_many_clips_is_drawn_for_in_parts() -> None:
    parts = list(draw_clips("corpus/a", ["anger"] * 600, "even", 0))
    assert [len(rows) for rows, _, _ in parts] == [256, 256, 88]
    for rows, others, chosen in parts:
        assert list(others) == list(range(600))
        assert not chosen["all"][np.arange(len(rows)), rows].any()
        assert (chosen["all"].sum(1) == 599).all()


def test_the_draws_of_speakers_with_fewer_clips_than_the_most_are_what_they_always_were() -> None:
    chosen = [parts[2]["3"] for parts in draw_clips("corpus/a", (EMOTIONS_SAID * 80)[:MOST_CLIPS], "uneven", 1)]
    places = np.concatenate([which.nonzero()[1] for which in chosen])
    assert len(places) == 3 * MOST_CLIPS
    assert zlib.crc32(places.astype("<i8").tobytes()) == 3172108367


@pytest.mark.parametrize("kind", ["even", "uneven"])
def test_what_is_computed_for_a_clip_does_not_grow_with_the_clips_of_its_speaker(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gmp_atl_hf.evaluation.adaptation.MOST_CLIPS", 50)
    emotions = np.array(EMOTIONS_SAID * 12)
    before: set[tuple[int, ...]] = set()
    for draw in range(DRAWS):
        for rows, others, chosen in draw_clips("corpus/a", emotions.tolist(), kind, draw):
            assert len(others) == len(set(others.tolist())) == 50
            itself = rows[:, None] == others
            assert {which.shape for which in chosen.values()} == {itself.shape}
            assert (chosen["all"] == ~itself).all() and (chosen["5"].sum(1) == 5).all()
            for fewer, more in zip(NAMES, NAMES[1:], strict=False):
                assert (chosen[fewer] <= chosen[more]).all()
            assert len(set(emotions[others])) == (3 if kind == "even" else 2)
            before.add(tuple(others.tolist()))
    assert len(before) == DRAWS, "the same clips for all of one draw, others in the next"


def test_clips_are_scored_by_what_others_of_their_speaker_say_and_the_unknown_as_ever() -> None:
    model: Any = small_model_that_standardises()
    generator = torch.Generator().manual_seed(1)
    pooled = 3 * torch.randn(9, 32, generator=generator) + torch.randn(32, generator=generator)
    speakers = ["c/a", "c/b", "c/a", "c/unknown", "c/b", "c/a", "c/unknown", "c/a", "c/lonely"]
    rows = [{"id": str(row), "speaker": speaker, "emotion": LABELS[row % 3]} for row, speaker in enumerate(speakers)]
    found = adapted_rows(model, pooled, rows, LABELS)
    with torch.no_grad():
        plain = model.score(pooled)[0]["logits"].argmax(-1)
        for place, row in enumerate(rows):
            others = torch.tensor([[one == row["speaker"] and at != place for at, one in enumerate(speakers)]])
            statistics = statistics_of(model, pooled, others)
            wanted = model.score(pooled[[place]], speaker_statistics=statistics)[0]["logits"].argmax(-1)[0]
            known = row["speaker"] in ("c/a", "c/b")
            expected = LABELS[int(wanted if known else plain[place])]
            assert found[place]["id"] == row["id"]
            assert found[place]["even"]["all"] == [expected] * DRAWS


def test_nothing_is_drawn_for_clips_of_nobody_who_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn_for: list[str] = []

    def draw(speaker: str, *rest: Any) -> Any:
        drawn_for.append(speaker)
        return draw_clips(speaker, *rest)

    monkeypatch.setattr(adaptation, "draw_clips", draw)
    rows = [{"id": str(row), "speaker": ("c/a", "c/unknown")[row % 2], "emotion": LABELS[row % 3]} for row in range(8)]
    adapted_rows(small_model_that_standardises(), torch.randn(8, 32), rows, LABELS)
    assert set(drawn_for) == {"c/a"}


def test_a_model_is_adapted_in_the_folds_of_a_run_and_not_where_a_finished_one_is_evaluated(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the clips pass the encoder again")

    root = write_corpus(tmp_path / "corpus", speakers=("f7", "f8", "f9", "m7", "m8", "m9"), first=6)
    monkeypatch.setattr(steps, "adapted_rows", refuse)
    monkeypatch.setattr(steps, "pool_clips", refuse)
    report = evaluate_model(finished / "model", {"name": "folder", "root": str(root), "speaker": SPEAKER_PATTERN})
    assert "adaptation" not in report["variants"]["model"]


def small_model_that_standardises() -> Any:
    from gmp_atl_hf.modeling.modeling_gmp_atl import HubertForGMPATL

    model: Any = small_model(HubertForGMPATL, standardize=True).eval()
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(30, 32, generator=generator) * 2
    model.standardization.fit(vectors)
    model.standardization.fit_emotions(vectors, torch.arange(30) % 3)
    return model


def test_the_report_and_the_card_have_the_table_with_its_stamp(finished: Path) -> None:
    summary = read_json(finished / "report.json")["variants"]["direct"]
    fold = finished / "direct/seed-0/fold-01"
    rows, plain = read_lines(fold / "adapted.jsonl"), read_lines(fold / "predictions.jsonl")
    assert [row["id"] for row in rows] == [row["id"] for row in plain]
    references = [EMOTIONS.index(row["emotion"]) for row in plain]
    for clips in NAMES:
        for kind in ("even", "uneven"):
            said = [[EMOTIONS.index(row[kind][clips][draw]) for row in rows] for draw in range(DRAWS)]
            wanted = np.mean([uar(confusion_matrix(references, one, 3)) for one in said])
            assert summary["adaptation"]["uar"][clips][kind] == pytest.approx(float(wanted))
    for text in ((finished / "report.md").read_text(), render_card(read_run(finished))):
        assert f"The UARs of this table are {ADAPTED}" in text
        assert "| clips of the speaker | UAR %, drawn evenly | difference | UAR %, of 2 emotions | difference |" in text
        assert len([line for line in text.splitlines() if line.split(" | ")[0].strip("| ") in (*NAMES, "0")]) >= 7
    assert ADAPTED in (finished / "report.html").read_text().replace("&#x27;", "'")


def test_plain_numbers_are_those_of_a_run_without_the_table(
    recipe: dict[str, Any], finished: Path, tmp_path: Path
) -> None:
    """As an earlier version left it: what was tested stays tested, and the table is left out."""
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run/direct/seed-0/fold-01/adapted.jsonl").unlink()
    before = digests(tmp_path / "run/direct", "**/*")
    run(recipe, tmp_path / "run")
    assert digests(tmp_path / "run/direct", "**/*") == before
    old, new = (read_json(folder / "report.json")["variants"]["direct"] for folder in (tmp_path / "run", finished))
    assert new.pop("adaptation") is not None
    assert old == new
    assert ADAPTED not in (tmp_path / "run/report.md").read_text()


def test_a_model_that_cannot_be_adapted_leaves_no_table_of_the_one_before(
    recipe: dict[str, Any], finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("model"))
    shutil.rmtree(tmp_path / "run/direct/seed-0/fold-01/4-finetune")
    other = {**recipe, "model": {"standardize": False}, "final": False}
    report = run(other, tmp_path / "run")
    assert not (tmp_path / "run/direct/seed-0/fold-01/adapted.jsonl").exists()
    assert "adaptation" not in report["variants"]["direct"]


def remark_on(speakers: list[str]) -> str:
    """What is remarked on three test clips of these speakers."""
    ids = np.array(["c/1", "c/2", "c/3"])
    said = {kind: {name: ["anger"] * DRAWS for name in NAMES} for kind in ("even", "uneven")}
    result = FoldResult(0, 1, [], None, [{"id": one, **said} for one in ids.tolist()])
    genders = np.array(["female"] * 3)
    block = AlignedPredictions(
        [0], [1], ids, np.zeros(3, int), np.zeros((1, 3), int), np.array(speakers), genders, np.ones(3, int)
    )
    summary = adaptation_summary([result], block, LABELS)
    assert summary is not None
    return adaptation_remark(summary)


def test_the_remark_says_where_not_all_clips_of_a_speaker_were_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    for most, remark in (
        (2, "all others of the speaker, or"),
        (1, "of the speaker (1 of them where there are more), or"),
    ):
        monkeypatch.setattr("gmp_atl_hf.evaluation.adaptation.MOST_CLIPS", most)
        assert remark in remark_on(["c/a", "c/b", "c/a"])


@pytest.mark.parametrize("speakers", [["c/unknown", "c/a", "c/unknown"], ["c/unknown"] * 3])
def test_clips_of_nobody_who_is_known_do_not_count_as_one_speakers(
    speakers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gmp_atl_hf.evaluation.adaptation.MOST_CLIPS", 1)
    assert "all others of the speaker, or" in remark_on(speakers)


def test_the_report_says_that_a_table_is_missing_where_some_tests_have_one() -> None:
    rows = [{"id": "c/1", "emotion": "anger", "predicted": "anger", "speaker": "c/a", "gender": None, "scores": {}}]
    adapted = [{"id": "c/1", **{kind: {name: ["anger"] for name in NAMES} for kind in ("even", "uneven")}}]
    two = [FoldResult(0, 1, rows, None, adapted), FoldResult(1, 1, rows, None, None)]
    summary = {"absent_labels": [], "utterances": 0, "uar_ci95": None, "not_counted": [], **_not_adapted(two)}
    assert any("1 test ran without it" in note for note in variant_notes("direct", summary))
    assert not _not_adapted(two[:1]) and not _not_adapted(two[1:])


def test_the_shipped_model_knows_what_its_emotions_look_like(finished: Path) -> None:
    model: Any = load_emotion_model(str(finished / "model"))
    assert model.standardization.emotion_means.abs().max() > 0.1
    assert not (model.standardization.spread == 1).any()


def test_a_model_of_an_earlier_version_is_whole(finished: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(finished / "model", tmp_path / "model", ignore=shutil.ignore_patterns("step.json"))
    weights = load_file(tmp_path / "model/model.safetensors")
    older = {name: values for name, values in weights.items() if not name.endswith(("emotion_means", "spread"))}
    assert len(older) == len(weights) - 2
    save_file(older, tmp_path / "model/model.safetensors", {"format": "pt"})
    standardization: Any = load_emotion_model(str(tmp_path / "model")).standardization
    assert not standardization.emotion_means.any() and bool((standardization.spread == 1).all())
    torch.testing.assert_close(standardization.mean, weights["standardization.mean"])
