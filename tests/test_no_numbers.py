"""Scores that are no numbers are an error in every way out, never a label; and JSON is always JSON."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import pipeline

from audio_files import tone, write_audio
from gmp_atl_hf import HubertForGMPATL, SpeechEmotionClassifier
from gmp_atl_hf.checkpoints import default_feature_extractor
from gmp_atl_hf.cli.verbs import main
from gmp_atl_hf.errors import RequestError
from gmp_atl_hf.inference.pipeline_task import TASK
from models import EMOTIONS, build


@pytest.fixture(scope="module")
def overflowing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose weights are finite, and whose logits are not."""
    folder = tmp_path_factory.mktemp("overflowing") / "model"
    model: Any = build(HubertForGMPATL, emotion_loss="cross-entropy")
    with torch.no_grad():
        model.classifier.weight.fill_(3e38)
    model.save_pretrained(folder)
    default_feature_extractor(model.config).save_pretrained(folder)
    return folder


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    for emotion in EMOTIONS[:2]:
        write_audio(tmp_path / "in" / emotion / "ann" / f"{emotion}.wav", tone(16_000))
    return tmp_path / "in"


@pytest.mark.parametrize("window", [[], ["--window", "0.5"]])
@pytest.mark.parametrize("format", ["table", "jsonl", "csv"])
def test_predict_says_what_it_could_not_score(
    format: str, window: list[str], overflowing: Path, recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(overflowing), str(recordings), "--format", format, *window]) == 1
    said = capsys.readouterr()
    assert "2 of 2 recordings could not be scored" in said.err
    assert "scores are no finite numbers" in said.err
    assert "nan" not in said.out.lower().replace("finite numbers", "")
    if format == "jsonl":
        rows = [json.loads(line, parse_constant=pytest.fail) for line in said.out.splitlines()]
        assert [(row["label"], row["scores"]) for row in rows] == [(None, {}), (None, {})]
    if format == "csv":
        assert all("no finite numbers" in row["error"] for row in csv.DictReader(said.out.splitlines()))


def test_a_recording_that_cannot_be_scored_keeps_the_others_from_nothing(recordings: Path) -> None:
    model: Any = build(HubertForGMPATL)
    classifier = SpeechEmotionClassifier(model, default_feature_extractor(model.config), batch_seconds=0.1)
    score, calls = classifier._scorer.score, iter(range(9))
    classifier._scorer.score = lambda batch: score(batch) / (0 if next(calls) == 0 else 1)  # type: ignore[method-assign]
    errors = [one.error is not None for one in classifier(recordings)]  # type: ignore[union-attr]
    assert sorted(errors) == [False, True]


def test_the_pipeline_refuses_to_name_an_emotion(overflowing: Path, recordings: Path) -> None:
    classify = pipeline(TASK, model=str(overflowing), device="cpu")
    with pytest.raises(RequestError, match="no finite numbers"):
        classify(str(recordings / EMOTIONS[0] / "ann" / f"{EMOTIONS[0]}.wav"))


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_evaluate_says_how_many_recordings_have_no_scores(
    words: list[str], overflowing: Path, recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reader = ["--corpus", "folder", "--root", str(recordings), "--options", "speaker=parent"]
    out = tmp_path / "out"
    assert main(["evaluate", str(overflowing), *reader, "--output-dir", str(out), *words]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert f"{overflowing}: scores or losses of 2 of 2 clips are no finite numbers" in said.err
    assert not out.exists()


def test_export_writes_no_model_that_does_not_score(
    overflowing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    assert main(["export", str(overflowing), str(tmp_path / "model.onnx")]) == 2
    assert "no finite numbers" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
